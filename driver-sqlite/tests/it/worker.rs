//! Workers: this test program again, as processes of their own that can be stopped and killed.

use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use leasehold_driver_sqlite::{SqliteConfig, SqliteLockManager};
use lockcore::{LockManager as _, Settings};

use crate::support::{driver, open};

const ORDER: &str = "LEASEHOLD_SQLITE_WORKER";

/// A worker process. It is killed when the value is dropped.
pub(crate) struct Worker {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Worker {
    /// Starts a worker that does `job` on the database at `path`.
    pub(crate) fn start(job: &str, path: &Path) -> Self {
        Self::start_with(Command::new(std::env::current_exe().unwrap()), job, path)
    }

    /// The same as `program`, which runs this test program in the end.
    pub(crate) fn start_with(mut program: Command, job: &str, path: &Path) -> Self {
        let mut child = program
            .args(["--exact", "worker::worker", "--nocapture", "--quiet"])
            .env(ORDER, format!("{job}|{}", path.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Reads lines up to one that starts with `word`, and gives what follows it.
    pub(crate) fn expect(&mut self, word: &str) -> String {
        let mut seen = String::new();
        loop {
            let start = seen.len();
            let read = self.output.read_line(&mut seen).unwrap();
            assert!(read > 0, "the worker ended without {word:?}: {seen}");
            if let Some(rest) = seen[start..].strip_prefix(word) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn succeed(&mut self) {
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // One that has ended already cannot be killed.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Not a test: what a worker does.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn worker() {
    let Ok(order) = std::env::var(ORDER) else {
        return;
    };
    let (job, path) = order.split_once('|').unwrap();
    let path = PathBuf::from(path);
    match job {
        "wait" => wait(&path).await,
        "hold" => hold(&path).await,
        "count" => count(&path).await,
        "contend" => contend(&path).await,
        "open" => open_many(&path).await,
        "fill" => fill(&path).await,
        "try-open" => try_open(&path).await,
        other => panic!("{other}"),
    }
}

fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    // A line of its own, whatever the test harness wrote before.
    writeln!(stdout, "\n{line}").unwrap();
    stdout.flush().unwrap();
}

async fn patient(path: &Path) -> SqliteLockManager {
    let mut settings = Settings::default();
    settings.claim_window = Duration::from_secs(8);
    let config = SqliteConfig::new(path).unwrap();
    SqliteLockManager::from_config(config, settings).await.unwrap()
}

/// Waits for the lock "q", says when it has it, and keeps it.
async fn wait(path: &Path) {
    let locks = patient(path).await;
    say("waiting");
    let guard = locks
        .lock("q")
        .wait(Duration::from_secs(60))
        .acquire()
        .await
        .unwrap();
    say("got it");
    guard.lost().await;
}

/// Takes the lock "held" for half a second of life, and does nothing more.
async fn hold(path: &Path) {
    let locks = patient(path).await;
    let ttl = Duration::from_millis(500);
    let guard = locks.lock("held").ttl(ttl).acquire().await.unwrap();
    say(&format!("token {}", guard.token()));
    std::future::pending::<()>().await;
}

/// Adds to the number in the file `count` beside the database, 50 times, each time under the lock.
async fn count(path: &Path) {
    let locks = SqliteLockManager::open(path).await.unwrap();
    let counter = path.with_file_name("count");
    for _ in 0..50 {
        let guard = locks
            .lock("count")
            .wait(Duration::from_secs(60))
            .acquire()
            .await
            .unwrap();
        let number: u64 = std::fs::read_to_string(&counter).unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_micros(500)).await;
        assert!(guard.is_held());
        std::fs::write(&counter, (number + 1).to_string()).unwrap();
        guard.release().await.unwrap();
        // A name of its own, which contends for nothing but the file.
        let own = format!("own/{}", std::process::id());
        let guard = locks.lock(&own).try_acquire().await.unwrap().unwrap();
        guard.release().await.unwrap();
    }
    locks.close().await.unwrap();
    say("done");
}

/// Takes a lock of a second 30 times, and writes each token to the file `tokens` beside the database.
async fn contend(path: &Path) {
    let locks = SqliteLockManager::open(path).await.unwrap();
    let mut tokens = std::fs::File::options()
        .append(true)
        .open(path.with_file_name("tokens"))
        .unwrap();
    say("ready");
    for _ in 0..30 {
        let lock = locks.lock("contended").ttl(Duration::from_secs(1));
        let guard = lock.wait(Duration::from_secs(60)).acquire().await.unwrap();
        let line = format!("{}\n", guard.token());
        // Late on a machine that is busy: then it is no longer our turn to write.
        if guard.is_held() {
            tokens.write_all(line.as_bytes()).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        // Lost is as good, on a machine that is busy.
        guard.release().await.ok();
    }
    locks.close().await.unwrap();
    say("done");
}

/// Opens one new database after the other, in step with other workers.
async fn open_many(path: &Path) {
    say("ready");
    let mut slowest = Duration::ZERO;
    for number in 0..20 {
        let step = path.join(format!("go{number}"));
        while !step.exists() {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        let driver = driver(&path.join(format!("new/{number}.db"))).await;
        let claim = crate::support::claim("first");
        lockcore::driver::Driver::acquire(&driver, &claim, lockcore::driver::Intent::Try)
            .await
            .unwrap();
        slowest = slowest.max(start.elapsed());
        say("opened");
    }
    say(&format!("slowest {}", slowest.as_millis()));
}

/// Takes locks with long details until there is an error, then lets them go again.
async fn fill(path: &Path) {
    let driver = driver(path).await;
    let mut held = Vec::new();
    let error = loop {
        let mut claim = crate::support::claim(&format!("n{}", held.len()));
        claim.details = "x".repeat(1000).into();
        let outcome = lockcore::driver::Driver::acquire(&driver, &claim, lockcore::driver::Intent::Try).await;
        held.push(claim);
        if let Err(error) = outcome {
            break error;
        }
        assert!(held.len() < 100_000, "the disk is too large");
    };
    let ping = lockcore::driver::Driver::ping(&driver).await;
    say(&format!("full {} {} {}", error.kind(), ping.is_ok(), error));
}

async fn try_open(path: &Path) {
    let outcome = open(SqliteConfig::new(path).unwrap()).await;
    match outcome {
        Ok(_) => say("opened"),
        Err(error) => say(&format!("refused {} {error}", error.kind())),
    }
}
