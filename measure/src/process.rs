//! Clients in processes of their own: to be killed, and to have memory that nobody else uses.

use std::fmt;
use std::io::{BufRead, Write};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio_util::sync::CancellationToken;

use crate::contender::{Contender, Failure};
use crate::load::Holding;

/// How this program is started again as a client of a contender, in which it calls [`serve`].
///
/// Arguments can be seen by everybody on the machine: a URL with a password belongs into the environment.
pub trait Launch: fmt::Debug + Send + Sync {
    /// A command that calls [`serve`] for the same contender. `None` where there can be none, as for locks in memory.
    fn command(&self, contender: &dyn Contender) -> Option<std::process::Command>;
}

/// What a client in a process of its own is told to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    /// What the names start with.
    pub(crate) prefix: String,
    /// How many locks it takes.
    pub(crate) locks: usize,
    pub(crate) ttl_us: u64,
    /// How often the TTL passes until it tells what became of them. It holds them until it is told to end.
    pub(crate) ttls: u32,
}

/// What it answers, one line each.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// It has all of them.
    Taken(Taken),
    /// The time is over.
    Kept(Kept),
    /// All are free.
    Free {
        /// Those of which the release said that they were lost.
        losses: u64,
    },
    Failed(String),
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Taken {
    /// The TTL that was given, and how long it took to get all of them.
    pub(crate) ttl_us: u64,
    pub(crate) took_us: u64,
    /// Its own memory before the first and after the last, in bytes.
    pub(crate) memory: Option<(u64, u64)>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) losses: u64,
    /// Processor time of the client's process meanwhile.
    pub(crate) cpu_us: Option<u64>,
}

/// Plays a client of `contender` in a process of its own, as the one that started this says on stdin. Ends when stdin
/// does.
///
/// # Errors
/// When stdin or stdout is broken. What goes wrong with the contender is told on stdout.
pub async fn serve(contender: &dyn Contender) -> Result<(), Failure> {
    let over = CancellationToken::new();
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let ending = over.clone().drop_guard();
    // A thread: a runtime would wait for the end of a read from stdin.
    std::thread::Builder::new().name("stdin".into()).spawn(move || {
        let mut lines = std::io::stdin().lock().lines();
        sender.send(lines.next()).ok();
        // Nothing else is said: this waits for the end.
        lines.next();
        drop(ending);
    })?;
    let line = receiver.await?.ok_or("nothing was asked for")??;
    let job: Job = serde_json::from_str(&line)?;
    if let Err(failure) = work(contender, &job, &over).await {
        say(&Answer::Failed(failure.to_string()))?;
    }
    Ok(())
}

async fn work(contender: &dyn Contender, job: &Job, over: &CancellationToken) -> Result<(), Failure> {
    let mut holding = tokio::select! {
        holding = Holding::take(contender, job) => holding?,
        () = over.cancelled() => return Ok(()),
    };
    say(&Answer::Taken(holding.taken))?;
    if job.ttls > 0 {
        say(&Answer::Kept(holding.keep(job.ttls, over).await))?;
    }
    over.cancelled().await;
    let losses = holding.let_go().await?;
    say(&Answer::Free { losses })
}

fn say(answer: &Answer) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The other end. The process is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts `command` and gives it `job`.
    pub(crate) async fn start(command: std::process::Command, job: &Job) -> Result<Self, Failure> {
        let mut command = Command::from(command);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("cannot start a client in a process of its own: {error}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let stdout = stdout.ok_or("no stdout")?;
        let mut started = Self {
            child,
            stdin,
            answers: BufReader::new(stdout).lines(),
        };
        let mut line = serde_json::to_string(job)?;
        line.push('\n');
        let stdin = started.stdin.as_mut().ok_or("no stdin")?;
        stdin.write_all(line.as_bytes()).await?;
        stdin.flush().await?;
        Ok(started)
    }

    pub(crate) async fn taken(&mut self) -> Result<Taken, Failure> {
        match self.answer().await? {
            Answer::Taken(taken) => Ok(taken),
            other => Err(unexpected(&other)),
        }
    }

    pub(crate) async fn kept(&mut self) -> Result<Kept, Failure> {
        match self.answer().await? {
            Answer::Kept(kept) => Ok(kept),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets it free what it holds and end.
    pub(crate) async fn free(mut self) -> Result<u64, Failure> {
        self.stdin = None;
        let losses = loop {
            match self.answer().await? {
                Answer::Free { losses } => break losses,
                // It was ended before its time.
                Answer::Kept(_) => {}
                other => return Err(unexpected(&other)),
            }
        };
        self.child.wait().await?;
        Ok(losses)
    }

    /// Tells it to end, and hears the answers that are still to come.
    pub(crate) fn end_soon(&mut self) {
        self.stdin = None;
    }

    /// Kills it without a word, and waits until it is dead.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        Ok(self.child.kill().await?)
    }

    async fn answer(&mut self) -> Result<Answer, Failure> {
        let line = self.answers.next_line().await?;
        let line = line.ok_or("the client in a process of its own has ended")?;
        match serde_json::from_str(&line)? {
            Answer::Failed(failure) => Err(failure.into()),
            answer => Ok(answer),
        }
    }
}

fn unexpected(answer: &Answer) -> Failure {
    format!("the client in a process of its own said {answer:?} out of turn").into()
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
