//! Child processes: shown as they run, with an end in any case.

use std::{
    fmt,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, Command},
    time::{sleep_until, timeout},
};

/// How long a child may run, and how long it may say nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) total: Duration,
    pub(crate) silence: Duration,
}

impl Limits {
    pub(crate) const fn minutes(total: u64) -> Self {
        let total = Duration::from_secs(total * 60);
        Self {
            total,
            silence: total,
        }
    }

    pub(crate) const fn silent_for(self, seconds: u64) -> Self {
        Self {
            silence: Duration::from_secs(seconds),
            ..self
        }
    }
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    Exit(i32),
    Signal,
    TimeUp(&'static str),
}

impl End {
    pub(crate) fn is_success(&self) -> bool {
        *self == Self::Exit(0)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal => f.write_str("ended by a signal"),
            Self::TimeUp(what) => write!(f, "stopped: {what}"),
        }
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether somebody wants all of this to end.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Out,
    Err,
}

/// Runs it to its end, prints its output as it comes, and hands each line, without colours, to `each`.
pub(crate) async fn stream(command: Command, limits: Limits, mut each: impl FnMut(&str)) -> Result<End> {
    let follow = follow(command, limits, |_, line| {
        anstream::println!("{line}");
        each(&plain(line));
    });
    follow.await
}

/// Runs it to its end, next to others: its output is printed whole when it has ended.
pub(crate) async fn collect(command: Command, limits: Limits) -> Result<(End, Vec<String>)> {
    let shown = show(&command);
    let start = tokio::time::Instant::now();
    let mut lines = Vec::new();
    let end = follow(command, limits, |_, line| lines.push(line.to_owned())).await;
    let seconds = start.elapsed().as_secs_f64();
    // One piece, so that nobody else's lines come between.
    let text = lines.join("\n");
    anstream::println!("\n+ {shown}\n{text}\n+ {shown}: {seconds:.1} s");
    let lines = lines.iter().map(|line| plain(line)).collect();
    Ok((end?, lines))
}

fn plain(line: &str) -> String {
    anstream::adapter::strip_str(line).to_string()
}

/// Runs it to its end, and hands each line to `each`.
pub(crate) async fn follow(
    mut command: Command,
    limits: Limits,
    mut each: impl FnMut(From, &str),
) -> Result<End> {
    if is_interrupted() {
        bail!("interrupted");
    }
    let shown = show(&command);
    println!("+ {shown}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut group = Group::spawn(command).with_context(|| format!("cannot run {shown}"))?;
    let mut out = lines(group.child.stdout.take())?;
    let mut err = lines(group.child.stderr.take())?;
    let end = tokio::time::Instant::now() + limits.total;
    let mut quiet = tokio::time::Instant::now() + limits.silence;
    let (mut more_out, mut more_err) = (true, true);
    let mut interrupted = std::pin::pin!(interrupt());
    while more_out || more_err {
        let (from, line) = tokio::select! {
            line = out.next_line(), if more_out => {
                (From::Out, line.unwrap_or_default().or_else(|| { more_out = false; None }))
            }
            line = err.next_line(), if more_err => {
                (From::Err, line.unwrap_or_default().or_else(|| { more_err = false; None }))
            }
            () = sleep_until(end) => return Ok(End::TimeUp("out of time")),
            () = sleep_until(quiet) => return Ok(End::TimeUp("no output for too long")),
            end = &mut interrupted => {
                INTERRUPTED.store(true, Ordering::Relaxed);
                end?;
                bail!("interrupted");
            }
        };
        if let Some(line) = line {
            each(from, &line);
            quiet = tokio::time::Instant::now() + limits.silence;
        }
    }
    group.end(end).await
}

/// Ctrl-C, or SIGTERM: the child's group has to go with us.
async fn interrupt() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            interrupted = tokio::signal::ctrl_c() => interrupted,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

/// Its output, when it ends well within `limit`; `None` when it cannot be run, fails or does not end.
pub(crate) async fn output(mut command: Command, limit: Duration) -> Option<String> {
    command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = timeout(limit, command.output()).await.ok()?.ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as one would type it.
fn show(command: &Command) -> String {
    let command = command.as_std();
    let words = command.get_envs().filter_map(|(name, value)| {
        Some(format!(
            "{}={}",
            name.to_string_lossy(),
            quoted(&value?.to_string_lossy())
        ))
    });
    let words = words.chain([command.get_program().to_string_lossy().into_owned()]);
    let words = words.chain(command.get_args().map(|word| quoted(&word.to_string_lossy())));
    words.collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_=./:,+@%".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        return word.into();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn lines<R: AsyncRead + Unpin>(pipe: Option<R>) -> Result<Lines<BufReader<R>>> {
    Ok(BufReader::new(pipe.context("a child without output")?).lines())
}

/// A child with all that it starts: cargo's tests must not outlive cargo.
struct Group {
    child: Child,
}

impl Group {
    fn spawn(mut command: Command) -> Result<Self> {
        #[cfg(unix)]
        command.process_group(0);
        Ok(Self {
            child: command.kill_on_drop(true).spawn()?,
        })
    }

    async fn end(&mut self, limit: tokio::time::Instant) -> Result<End> {
        match tokio::time::timeout_at(limit, self.child.wait()).await {
            Ok(status) => Ok(status?.code().map_or(End::Signal, End::Exit)),
            Err(_) => Ok(End::TimeUp("out of time")),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = self
            .child
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id.try_into().ok()?))
        {
            // Still running, so this is the end of its time. It fails only when the group is gone.
            rustix::process::kill_process_group(pid, rustix::process::Signal::KILL).ok();
        }
    }
}
