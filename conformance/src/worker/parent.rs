//! The side of the scenario.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use lockcore::{Env, Instant};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command as Process};
use tokio::sync::oneshot;

use super::{ASSIGNMENT, Answer, Assignment, Command, Line, Order};
use crate::context::Context;
use crate::failure::{Checked, Failure, fail};
use crate::history::{Event, History};

/// How long a worker may take to start and connect.
const START: Duration = Duration::from_secs(30);

/// A lock that a worker holds, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grip {
    number: u64,
    token: u64,
}

impl Grip {
    /// The fencing token.
    #[must_use]
    pub fn token(self) -> u64 {
        self.token
    }
}

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Answer>>>>;

/// A worker process. Dropped, it is killed.
#[derive(Debug)]
pub struct Worker {
    process: tokio::sync::Mutex<Child>,
    pid: u32,
    input: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    last: AtomicU64,
    history: PathBuf,
    /// When it was killed.
    killed: OnceLock<Instant>,
    _folder: TempDir,
    env: Env,
}

impl Context {
    /// Starts a worker process on this scenario's backend and namespace. Needs
    /// [`Ability::Processes`](crate::Ability::Processes).
    ///
    /// # Errors
    /// When it does not start.
    pub async fn worker(&self) -> Checked<Worker> {
        let url = self.backend().url();
        let url = url.ok_or_else(|| Failure::new("the backend has no URL for other processes"))?;
        self.worker_at(&url).await
    }

    /// The same with another URL: a proxy's.
    ///
    /// # Errors
    /// As [`Context::worker`].
    pub async fn worker_at(&self, url: &str) -> Checked<Worker> {
        let folder = tempfile::tempdir()?;
        let settings = self.settings();
        let assignment = Assignment {
            backend: self.backend().name(),
            url: url.to_owned(),
            namespace: settings.namespace.as_str().to_owned(),
            claim_window_ms: super::millis(settings.claim_window),
            history: folder.path().join("history.jsonl"),
        };
        let mut process = Process::new(std::env::current_exe()?)
            .env(ASSIGNMENT, serde_json::to_string(&assignment)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(input), Some(output), Some(pid)) =
            (process.stdin.take(), process.stdout.take(), process.id())
        else {
            fail!("the worker has no pipes");
        };
        let waiting = Waiting::default();
        let (sender, ready) = oneshot::channel();
        lock(&waiting).insert(0, sender);
        drop(self.env().spawn(listen(output, Arc::clone(&waiting))));
        let worker = Worker {
            process: process.into(),
            pid,
            input: input.into(),
            waiting,
            last: AtomicU64::new(0),
            history: assignment.history,
            killed: OnceLock::new(),
            _folder: folder,
            env: self.env().clone(),
        };
        match worker.env.timeout(START, ready).await {
            Some(Ok(Answer::Ready)) => Ok(worker),
            other => fail!("the worker did not start: {other:?}"),
        }
    }
}

/// Hands answers to those who wait for them. At the end of the process nobody is left waiting.
async fn listen(output: ChildStdout, waiting: Waiting) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(Line { id, body }) = serde_json::from_str(&line)
            && let Some(sender) = lock(&waiting).remove(&id)
        {
            // Who asked may have gone.
            sender.send(body).ok();
        }
    }
    lock(&waiting).clear();
}

impl Worker {
    /// Sends `command`; the answer comes with the returned future.
    async fn send(&self, command: Command) -> Checked<oneshot::Receiver<Answer>> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = oneshot::channel();
        lock(&self.waiting).insert(id, sender);
        let mut line = serde_json::to_vec(&Line { id, body: command })?;
        line.push(b'\n');
        let mut input = self.input.lock().await;
        input.write_all(&line).await?;
        input.flush().await?;
        Ok(receiver)
    }

    async fn ask(&self, command: Command) -> Checked<Answer> {
        match self.send(command).await?.await {
            Ok(Answer::Failed { message }) => fail!("the worker says: {message}"),
            Ok(answer) => Ok(answer),
            Err(_) => fail!("the worker ended before it answered"),
        }
    }

    /// Acquires a lock there; `None` when the wait was over.
    ///
    /// # Errors
    /// When the worker fails, or ends first.
    pub async fn acquire(&self, order: Order) -> Checked<Option<Grip>> {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        match self.ask(Command::Acquire { grip: number, order }).await? {
            Answer::Held { token } => Ok(Some(Grip { number, token })),
            Answer::Busy => Ok(None),
            other => fail!("unexpected answer {other:?}"),
        }
    }

    /// Releases it; false when it had been lost.
    ///
    /// # Errors
    /// As [`Worker::acquire`].
    pub async fn release(&self, grip: Grip) -> Checked<bool> {
        match self.ask(Command::Release { grip: grip.number }).await? {
            Answer::Released { held } => Ok(held),
            other => fail!("unexpected answer {other:?}"),
        }
    }

    /// Whether the worker's guard says that it holds, and for how long.
    ///
    /// # Errors
    /// As [`Worker::acquire`].
    pub async fn check(&self, grip: Grip) -> Checked<Option<Duration>> {
        match self.ask(Command::Check { grip: grip.number }).await? {
            Answer::State { held, remaining_ms } => Ok(held.then(|| Duration::from_millis(remaining_ms))),
            other => fail!("unexpected answer {other:?}"),
        }
    }

    /// Waits until the worker hears of the loss, and says why it was lost.
    ///
    /// # Errors
    /// As [`Worker::acquire`].
    pub async fn lost(&self, grip: Grip) -> Checked<String> {
        match self.ask(Command::AwaitLoss { grip: grip.number }).await? {
            Answer::Lost { reason } => Ok(reason),
            other => fail!("unexpected answer {other:?}"),
        }
    }

    /// Under the lock, `rounds` times, adds one to the number in `file`, with a pause between reading and writing.
    ///
    /// # Errors
    /// As [`Worker::acquire`].
    pub async fn count(&self, order: Order, file: &Path, rounds: u32, pause: Duration) -> Checked {
        let command = Command::Count {
            order,
            file: file.to_owned(),
            rounds,
            pause_ms: super::millis(pause),
        };
        match self.ask(command).await? {
            Answer::Done => Ok(()),
            other => fail!("unexpected answer {other:?}"),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&self) -> Checked {
        let mut process = self.process.lock().await;
        // It can do nothing more from here on, and what it held is nobody's.
        self.killed.set(self.env.now()).ok();
        Ok(process.kill().await?)
    }

    /// Lets it end at once, in the middle of whatever it does, and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be told.
    pub async fn exit(&self) -> Checked {
        drop(self.send(Command::Exit).await?);
        self.process.lock().await.wait().await?;
        Ok(())
    }

    /// Stops it in its tracks (SIGSTOP), and waits until it stands.
    ///
    /// # Errors
    /// When it is gone.
    #[cfg(unix)]
    pub fn stop(&self) -> Checked {
        self.signal(rustix::process::Signal::STOP)?;
        crate::servers::stopped(self.pid);
        Ok(())
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it is gone.
    #[cfg(unix)]
    pub fn resume(&self) -> Checked {
        self.signal(rustix::process::Signal::CONT)
    }

    #[cfg(unix)]
    fn signal(&self, signal: rustix::process::Signal) -> Checked {
        let pid = i32::try_from(self.pid)
            .ok()
            .and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new("no such process"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Adds what it did to `history`. Once, when it has ended or does nothing more.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn report_to(&self, history: &History) -> Checked {
        let own = History::new();
        own.read(&self.history)?;
        let events = own.events();
        if let Some(killed) = self.killed.get() {
            for event in &events {
                if let Event::Held { key, token, .. } = event {
                    history.record(Event::Ended {
                        key: key.clone(),
                        token: *token,
                        at: killed.as_nanos(),
                    });
                }
            }
        }
        events.into_iter().for_each(|event| history.record(event));
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
