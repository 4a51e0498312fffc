//! A job runner with several replicas: each job is run by one of them at a time, whichever holds its lock. One replica
//! is killed in the middle of a job, and one is paused for longer than its lease; others take over, and the ledger to
//! which results go refuses what the paused one writes too late. The same program runs on every backend.
//!
//! `cargo run --example job_runner --features redis -- redis://localhost`; without a URL, in memory.
//!
//! Replicas are processes of this program; in memory, where no other process can take part, they are tasks.
#![expect(clippy::print_stdout, reason = "it shows what it does")]
#![expect(clippy::disallowed_methods, reason = "it lives in real time")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leasehold::{ErrorKind, Guard, LockManager, Token, Wait};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const JOBS: usize = 8;
/// Of a job, each with a result for the ledger.
const STEPS: usize = 3;
const STEP: Duration = Duration::from_millis(30);
/// How long a job is nobody else's when its replica dies: longer where the backend cannot do it.
const TTL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(60);
const REPLICAS: usize = 4;
/// This one is killed in its first job,
const KILLED: usize = 1;
/// and this one is paused in its first job, and goes on as if nothing had happened.
const PAUSED: usize = 2;

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let url = args.next().unwrap_or_else(|| "memory:".into());
    if let (Some(folder), Some(number)) = (args.next(), args.next()) {
        let locks = leasehold::connect(&url).await?;
        replica(&*locks, &Ledger::new(folder), number.parse()?).await?;
        return Ok(locks.close().await?);
    }
    let started = Instant::now();
    let folder = std::env::temp_dir().join(format!("leasehold-jobs-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let ledger = Ledger::new(&folder);
    let run = async {
        match url.starts_with("memory:") {
            true => in_tasks(&url, &ledger).await,
            false => in_processes(&url, &ledger).await,
        }
    };
    let ran = tokio::time::timeout(PATIENCE, run).await;
    let entries = ledger.read();
    fs::remove_dir_all(&folder)?;
    ran??;
    report(&entries?)?;
    println!("all of it took {:.1?}", started.elapsed());
    Ok(())
}

async fn in_processes(url: &str, ledger: &Ledger) -> Result<()> {
    let ourselves = std::env::current_exe()?;
    let start = |number: usize| {
        tokio::process::Command::new(&ourselves)
            .arg(url)
            .arg(&ledger.folder)
            .arg(number.to_string())
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
    };
    // The two that fail first, so that each has a job to fail in.
    let (mut killed, mut paused) = (start(KILLED)?, start(PAUSED)?);
    tokio::select! {
        begun = until(|| Ok(ledger.has_begun(KILLED)? && ledger.has_begun(PAUSED)?)) => begun?,
        _ = killed.wait() => return Err("a replica failed".into()),
        _ = paused.wait() => return Err("a replica failed".into()),
    }
    killed.kill().await?;
    let mut others = vec![paused];
    for number in 0..REPLICAS {
        if number != KILLED && number != PAUSED {
            others.push(start(number)?);
        }
    }
    for mut replica in others {
        if !replica.wait().await?.success() {
            return Err("a replica failed".into());
        }
    }
    Ok(())
}

async fn in_tasks(url: &str, ledger: &Ledger) -> Result<()> {
    let locks = leasehold::connect(url).await?;
    let start = |number: usize| {
        let (locks, ledger) = (Arc::clone(&locks), ledger.clone());
        tokio::spawn(async move { replica(&*locks, &ledger, number).await })
    };
    // It is never heard of again, and its lease not renewed.
    let _killed = start(KILLED);
    let mut others = vec![start(PAUSED)];
    until(|| Ok(ledger.has_begun(KILLED)? && ledger.has_begun(PAUSED)?)).await?;
    others.extend(
        (0..REPLICAS)
            .filter(|number| *number != KILLED && *number != PAUSED)
            .map(start),
    );
    for replica in others {
        replica.await??;
    }
    Ok(())
}

/// Runs jobs until all are done.
async fn replica(locks: &dyn LockManager, ledger: &Ledger, number: usize) -> Result<()> {
    let mut fails = number == KILLED || number == PAUSED;
    loop {
        let open = ledger.open_jobs()?;
        let Some(first) = open.first() else {
            return Ok(());
        };
        let mut ran = false;
        for job in &open {
            ran |= take(locks, ledger, (number, *job), Wait::No, &mut fails).await?;
        }
        if !ran {
            // Somebody else runs each of them. If that one dies we are the next.
            take(locks, ledger, (number, *first), Wait::For(TTL), &mut fails).await?;
        }
    }
}

/// Runs `job` if nobody else does to the end of `wait`, and it is not done; true if we did.
async fn take(
    locks: &dyn LockManager,
    ledger: &Ledger,
    (number, job): (usize, usize),
    wait: Wait,
    fails: &mut bool,
) -> Result<bool> {
    // A process that stands still does not renew; a task cannot stand still, so it is told not to.
    let lock = locks.lock(&ledger.name(job)).ttl(TTL).auto_renew(!*fails);
    let guard = match lock.wait(wait).acquire().await {
        Ok(guard) => guard,
        Err(error) if error.kind() == ErrorKind::Timeout => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    // The one before us may have done it.
    let ran = ledger.open_jobs()?.contains(&job) && run(&guard, ledger, (number, job), fails).await?;
    // Where it was lost in the meantime, the ledger has refused us.
    guard.release().await?;
    Ok(ran)
}

/// Does the steps of `job`, as long as the ledger takes the results.
async fn run(
    guard: &Guard,
    ledger: &Ledger,
    (number, job): (usize, usize),
    fails: &mut bool,
) -> Result<bool> {
    let token = guard.token();
    ledger.write(token, (job, number, "begin"))?;
    for step in 1..=STEPS {
        if std::mem::take(fails) {
            if number == KILLED {
                return std::future::pending().await;
            }
            // Somebody else has begun with the job when this is over.
            guard.lost().await;
            until(|| Ok(ledger.last_token(job)? > Some(token))).await?;
        }
        tokio::time::sleep(STEP).await;
        if !ledger.write(token, (job, number, &format!("step-{step}")))? {
            return Ok(true);
        }
    }
    ledger.write(token, (job, number, "done"))?;
    Ok(true)
}

/// Waits until `condition` is true.
async fn until(condition: impl Fn() -> Result<bool>) -> Result<()> {
    while !condition()? {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Where results go: a file that all replicas share, which refuses a token that is smaller than one it has seen for the
/// job. A database does the same with `UPDATE .. WHERE token <= ..`.
#[derive(Clone)]
struct Ledger {
    folder: PathBuf,
}

/// A line of the ledger.
#[derive(Clone, Debug)]
struct Entry {
    micros: u128,
    job: usize,
    token: Token,
    replica: usize,
    what: String,
}

impl Ledger {
    fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The name of a job's lock, of this run alone.
    fn name(&self, job: usize) -> String {
        let run = self.folder.file_name().unwrap_or_default().to_string_lossy();
        format!("examples/{run}/job-{job}")
    }

    /// Writes `what` for a job by a replica; false when the token is stale, of which a note is made.
    fn write(&self, token: Token, (job, replica, what): (usize, usize, &str)) -> Result<bool> {
        // One writer at a time, also between processes, as every database sees to.
        let path = self.folder.join("ledger");
        let mut file = File::options().read(true).append(true).create(true).open(path)?;
        file.lock()?;
        let mut text = String::new();
        file.rewind()?;
        file.read_to_string(&mut text)?;
        let seen = last_token(&parse(&text)?, job);
        let fresh = seen.is_none_or(|seen| token >= seen);
        let what = if fresh { what } else { "refused" };
        let micros = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        file.write_all(format!("{micros} {job} {token} {replica} {what}\n").as_bytes())?;
        Ok(fresh)
    }

    fn read(&self) -> Result<Vec<Entry>> {
        match fs::read_to_string(self.folder.join("ledger")) {
            Ok(text) => parse(&text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    fn open_jobs(&self) -> Result<Vec<usize>> {
        let entries = self.read()?;
        let done = |job: &usize| {
            entries
                .iter()
                .any(|entry| entry.job == *job && entry.what == "done")
        };
        Ok((0..JOBS).filter(|job| !done(job)).collect())
    }

    fn has_begun(&self, replica: usize) -> Result<bool> {
        Ok(self.read()?.iter().any(|entry| entry.replica == replica))
    }

    fn last_token(&self, job: usize) -> Result<Option<Token>> {
        Ok(last_token(&self.read()?, job))
    }
}

fn last_token(entries: &[Entry], job: usize) -> Option<Token> {
    let tokens = entries
        .iter()
        .filter(|entry| entry.job == job)
        .map(|entry| entry.token);
    tokens.max()
}

fn parse(text: &str) -> Result<Vec<Entry>> {
    // A line that is just being written has no end yet.
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let parse = |line: &str| -> Result<Entry> {
        let mut words = line.split(' ');
        let mut word = || words.next().ok_or("the ledger has a line that is too short");
        Ok(Entry {
            micros: word()?.parse()?,
            job: word()?.parse()?,
            token: Token::new(word()?.parse()?),
            replica: word()?.parse()?,
            what: word()?.to_owned(),
        })
    };
    whole.lines().map(parse).collect()
}

/// Says what happened, and fails if it should not have.
fn report(entries: &[Entry]) -> Result<()> {
    let mut jobs: BTreeMap<usize, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        jobs.entry(entry.job).or_default().push(entry);
    }
    println!("{REPLICAS} replicas had {JOBS} jobs of {STEPS} steps");
    let (mut taken_over, mut refused) = (Vec::new(), 0);
    for (job, entries) in &jobs {
        let accepted: Vec<_> = entries.iter().filter(|entry| entry.what != "refused").collect();
        refused += entries.len() - accepted.len();
        // One at a time: what a holder wrote stands together, in the order of the tokens.
        if !accepted.is_sorted_by_key(|entry| entry.token) {
            return Err(format!("job {job}: two replicas at a time: {entries:?}").into());
        }
        let Some(last) = accepted.last() else {
            return Err(format!("job {job}: nothing was written").into());
        };
        let by_last: Vec<_> = accepted
            .iter()
            .filter(|entry| entry.token == last.token)
            .collect();
        let dones = accepted.iter().filter(|entry| entry.what == "done").count();
        if dones != 1 || last.what != "done" || by_last.len() != STEPS + 2 {
            return Err(format!("job {job} was not done once and as a whole: {entries:?}").into());
        }
        for pair in accepted.windows(2).filter(|pair| pair[0].token != pair[1].token) {
            let after = Duration::from_micros(u64::try_from(pair[1].micros.saturating_sub(pair[0].micros))?);
            let how = if pair[0].replica == KILLED {
                "killed"
            } else {
                "paused"
            };
            println!(
                "job {job}: replica {} was {how} in the middle; replica {} took over after {after:.1?}, token {} > {}",
                pair[0].replica, pair[1].replica, pair[1].token, pair[0].token
            );
            taken_over.push(pair[0].replica);
        }
        println!("job {job}: done once, by replica {}", last.replica);
    }
    taken_over.sort_unstable();
    if jobs.len() != JOBS || taken_over != [KILLED, PAUSED] || refused != 1 {
        return Err(format!(
            "{} jobs, {taken_over:?} taken over, {refused} refused",
            jobs.len()
        )
        .into());
    }
    println!("the ledger refused what replica {PAUSED} wrote after its lock had gone to somebody else");
    Ok(())
}
