//! CL: the `leasehold` program on this backend.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use lockcore::LockManager;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use url::Url;

use super::common::{gets, is_free_within, is_released, refused};
use crate::backend::Ability;
use crate::context::Context;
use crate::failure::{Checked, Failure, ensure, ensure_eq};
use crate::proxy::Proxy;
use crate::scenario::{Need, Scenario};

const PROGRAM: &[Need] = &[Need::Can(Ability::Program)];

/// How long the program may take for what it does at once, on a machine that is busy with other tests.
const PROMPT: Duration = Duration::from_secs(10);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("CL1", "the_childs_code_is_passed", |cx| Box::pin(cl1(cx))).needs(PROGRAM),
    Scenario::new("CL2", "busy_has_its_code", |cx| Box::pin(cl2(cx))).needs(PROGRAM),
    Scenario::new("CL3", "the_child_knows_its_lock", |cx| Box::pin(cl3(cx))).needs(PROGRAM),
    Scenario::new("CL4", "a_lost_lock_ends_the_child", |cx| Box::pin(cl4(cx)))
        .needs(&[Need::Can(Ability::Program), Need::ForceRelease]),
    Scenario::new("CL5", "signals_are_passed_and_the_lock_freed", |cx| {
        Box::pin(cl5(cx))
    })
    .needs(PROGRAM),
    Scenario::new("CL6", "hiccups_kill_nobody", |cx| Box::pin(cl6(cx)))
        .needs(&[Need::Can(Ability::Program), Need::Can(Ability::Pause)]),
    Scenario::new("CL7", "errors_have_codes", |cx| Box::pin(cl7(cx))).needs(PROGRAM),
    CL8,
    Scenario::new("CL9", "silence_ends_the_child_before_the_next_holder", |cx| {
        Box::pin(cl9(cx))
    })
    .needs(&[Need::Can(Ability::Program), Need::Can(Ability::Network)]),
    Scenario::new("CL10", "a_child_that_hears_no_term_is_killed", |cx| {
        Box::pin(cl10(cx))
    })
    .needs(&[Need::Can(Ability::Program), Need::ForceRelease]),
];

const CL8: Scenario = {
    let (id, title) = ("CL8", "a_killed_program_takes_its_child_along");
    if cfg!(target_os = "linux") {
        Scenario::new(id, title, |cx| Box::pin(cl8(cx))).needs(PROGRAM)
    } else {
        Scenario::left_out(
            id,
            title,
            "only Linux tells the child: elsewhere the lock is free after its TTL",
        )
    }
};

/// Exit codes of the program, as it documents them.
const USAGE: i32 = 64;
const UNREACHABLE: i32 = 69;
const BUSY: i32 = 75;
const LOST: i32 = 79;

/// Where the scenario's locks are.
fn place(cx: &Context, url: &str) -> String {
    let joint = if url.contains('?') { '&' } else { '?' };
    let namespace = cx.settings().namespace;
    format!("{url}{joint}namespace={}", namespace.as_str())
}

/// The program, on the scenario's backend and namespace.
fn leasehold(cx: &Context, arguments: &[&str]) -> Checked<Command> {
    let backend = cx.backend();
    let (Some(program), Some(url)) = (backend.program(), backend.url()) else {
        return Err(Failure::new("the backend gives no program or no URL"));
    };
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LEASEHOLD_URL", place(cx, &url))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Ok(command)
}

/// What `leasehold run OPTIONS NAME -- sh -c SCRIPT` ended with, and wrote.
async fn run(cx: &Context, options: &[&str], name: &str, script: &str) -> Checked<(Option<i32>, String)> {
    let arguments = [&["run"], options, &[name, "--", "sh", "-c", script]].concat();
    let running = leasehold(cx, &arguments)?.output();
    let output = cx.within("the program ends", PROMPT, running).await??;
    let written = [output.stdout, output.stderr].concat();
    Ok((
        output.status.code(),
        String::from_utf8_lossy(&written).into_owned(),
    ))
}

/// A program under way, whose child has said a first line.
struct Running {
    program: Child,
    lines: Lines<BufReader<ChildStdout>>,
    first: String,
}

impl Running {
    async fn start(cx: &Context, options: &[&str], name: &str, script: &str) -> Checked<Self> {
        let arguments = [&["run"], options, &[name, "--", "sh", "-c", script]].concat();
        let mut program = leasehold(cx, &arguments)?.spawn()?;
        let stdout = program.stdout.take();
        let stdout = stdout.ok_or_else(|| Failure::new("the program has no output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let first = cx.within("the child starts", PROMPT, lines.next_line()).await??;
        let first = first.ok_or_else(|| Failure::new("the child said nothing"))?;
        Ok(Self {
            program,
            lines,
            first,
        })
    }

    fn signal(&self, signal: rustix::process::Signal) -> Checked {
        let pid = self.program.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.and_then(rustix::process::Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new("the program has ended too soon"))?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// The program's end, and what its child wrote after its first line. The output ends when everybody who could
    /// write to it is gone, so the child is.
    async fn end(mut self, cx: &Context, limit: Duration) -> Checked<(ExitStatus, String)> {
        let status = cx
            .within("the program ends", limit, self.program.wait())
            .await??;
        let mut rest = String::new();
        let mut output = self.lines.into_inner();
        cx.within("the child is gone", PROMPT, output.read_to_string(&mut rest))
            .await??;
        Ok((status, rest))
    }
}

async fn cl1(cx: Context) -> Checked {
    let name = cx.name();
    ensure_eq!(run(&cx, &[], &name, "exit 0").await?.0, Some(0));
    ensure_eq!(run(&cx, &[], &name, "exit 7").await?.0, Some(7));
    ensure_eq!(run(&cx, &[], &name, "kill -TERM $$").await?.0, Some(128 + 15));
    Ok(())
}

async fn cl2(cx: Context) -> Checked {
    let (client, name) = (cx.client().await?, cx.name());
    let held = client.lock(&name).acquire().await?;
    for wait in ["0", "300ms"] {
        let (code, said) = run(&cx, &["--wait", wait], &name, "echo it ran").await?;
        ensure_eq!(code, Some(BUSY));
        ensure!(!said.contains("it ran"), "the child ran without the lock");
    }
    ensure!(held.is_held());
    Ok(())
}

async fn cl3(cx: Context) -> Checked {
    let (client, name) = (cx.client().await?, cx.name());
    let held = client.lock(&name).acquire().await?;
    let before = held.token().get();
    is_released(held).await?;
    let script = "echo \"$LEASEHOLD_TOKEN|$LEASEHOLD_NAME|$LEASEHOLD_OWNER\"";
    let (code, said) = run(&cx, &["--label", "suite"], &name, script).await?;
    ensure_eq!(code, Some(0));
    let mut parts = said.trim().splitn(3, '|');
    let token: u64 = parts.next().unwrap_or_default().parse()?;
    ensure!(token > before, "token {token} after {before}");
    ensure_eq!(parts.next(), Some(name.as_str()));
    ensure!(parts.next().unwrap_or_default().contains("suite"), "{said}");
    Ok(())
}

async fn cl4(cx: Context) -> Checked {
    cx.disturbed();
    let (client, name) = (cx.client().await?, cx.name());
    let running = Running::start(&cx, &["--ttl", "2s"], &name, "echo up; exec sleep 600").await?;
    ensure!(client.manager().force_release(&name).await?);
    let (status, _) = running.end(&cx, PROMPT).await?;
    ensure_eq!(status.code(), Some(LOST));
    Ok(())
}

async fn cl5(cx: Context) -> Checked {
    let (client, name) = (cx.client().await?, cx.name());
    let script = "trap 'echo told; exit 3' TERM; echo up; while :; do sleep 0.05; done";
    let running = Running::start(&cx, &[], &name, script).await?;
    running.signal(rustix::process::Signal::TERM)?;
    let (status, said) = running.end(&cx, PROMPT).await?;
    ensure_eq!(status.code(), Some(3));
    ensure!(said.contains("told"), "the child was not told");
    // The program has ended: the lock is free, not only soon.
    let free = client.lock(&name).try_acquire().await?;
    is_released(free.ok_or_else(|| Failure::new("the lock is still held"))?).await?;

    // One that waits leaves the queue.
    let held = client.lock(&name).acquire().await?;
    let waiting = ["run", &name, "--", "true"];
    let mut waiter = leasehold(&cx, &waiting)?.spawn()?;
    if cx.capabilities().inspect {
        cx.eventually("the program waits", PROMPT, || async {
            let status = client.manager().lock(&name).inspect().await?;
            Ok(status.waiters == 1)
        })
        .await?;
    }
    let pid = waiter
        .id()
        .and_then(|pid| rustix::process::Pid::from_raw(pid.try_into().ok()?));
    let pid = pid.ok_or_else(|| Failure::new("the waiter has ended too soon"))?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    let status = cx.within("the waiter ends", PROMPT, waiter.wait()).await??;
    ensure_eq!(status.code(), Some(128 + 2));
    if cx.capabilities().inspect {
        ensure_eq!(client.manager().lock(&name).inspect().await?.waiters, 0);
    }
    is_released(held).await?;
    Ok(())
}

/// A server that does not answer for less than the lease.
async fn cl6(cx: Context) -> Checked {
    cx.disturbed();
    cx.expect_slow_hand_off();
    let name = cx.name();
    let running = Running::start(&cx, &["--ttl", "12s"], &name, "echo up; sleep 6; echo done").await?;
    cx.at_home(|backend| async move { backend.pause().await }).await?;
    cx.sleep(Duration::from_secs(4)).await;
    cx.at_home(|backend| async move { backend.resume().await })
        .await?;
    let (status, said) = running.end(&cx, PROMPT * 2).await?;
    ensure_eq!(status.code(), Some(0));
    ensure!(said.contains("done"));
    Ok(())
}

async fn cl7(cx: Context) -> Checked {
    let (name, long) = (cx.name(), "x".repeat(2048));
    for arguments in [
        &["run", "--ttl", "0", &name, "--", "true"][..],
        &["run", "--ttl", "never", &name, "--", "true"],
        &["run", "", "--", "true"],
        &["run", &long, "--", "true"],
        &["run", &name],
        &["run", "--url", "nonsense://x", &name, "--", "true"],
        &["release", &name],
        &["--no-such-option"],
    ] {
        let running = leasehold(&cx, arguments)?.output();
        let output = cx.within("the program refuses", PROMPT, running).await??;
        ensure!(
            output.status.code() == Some(USAGE),
            "{:?} instead of {USAGE} for {arguments:.80?}",
            output.status
        );
        ensure!(
            !output.stderr.is_empty(),
            "{arguments:.80?} is refused without a word"
        );
    }
    if cx.backend().abilities().contains(&Ability::Network) {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        drop(listener);
        // All else of the URL is as it should be.
        let mut dead = Url::parse(&cx.backend().url().unwrap_or_default())?;
        let moved = dead.set_port(Some(port));
        ensure!(moved.is_ok(), "the backend's URL has no host and port");
        let running = leasehold(&cx, &["run", "--url", dead.as_str(), &name, "--", "true"])?.output();
        let output = cx.within("the program gives up", PROMPT, running).await??;
        ensure_eq!(output.status.code(), Some(UNREACHABLE));
    }
    Ok(())
}

async fn cl8(cx: Context) -> Checked {
    cx.expect_residue();
    cx.expect_slow_hand_off();
    let (client, name, ttl) = (cx.client().await?, cx.name(), cx.renewed_ttl());
    let seconds = format!("{}ms", ttl.as_millis());
    let running = Running::start(
        &cx,
        &["--ttl", &seconds],
        &name,
        "echo $LEASEHOLD_TOKEN; exec sleep 600",
    )
    .await?;
    let token: u64 = running.first.trim().parse()?;
    running.signal(rustix::process::Signal::KILL)?;
    running.end(&cx, PROMPT).await?;
    is_free_within(&client, &name, ttl + cx.late()).await?;
    let held = gets(client.lock(&name), PROMPT).await?;
    ensure!(
        held.token().get() > token,
        "a smaller token than that of the dead holder"
    );
    Ok(())
}

/// A child that goes on whatever it is told, and writes into `file` as long as it lives.
fn stubborn(file: &Path) -> String {
    let file = file.display();
    format!("trap '' TERM; echo up; while :; do echo x >> '{file}'; sleep 0.02; done")
}

/// Nobody writes into `file` any more.
async fn is_quiet(cx: &Context, file: &Path) -> Checked {
    let before = tokio::fs::metadata(file).await?.len();
    cx.sleep(Duration::from_millis(300)).await;
    ensure_eq!(tokio::fs::metadata(file).await?.len(), before);
    ensure!(before > 0, "nothing was ever written");
    Ok(())
}

/// Nothing gets through to the server any more, and nobody says so: the child is gone before somebody else has the lock.
async fn cl9(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let (client, name, folder) = (cx.client().await?, cx.name(), tempfile::tempdir()?);
    let file = folder.path().join("written");
    let url = cx.backend().url().unwrap_or_default();
    let no_server = || Failure::new("the backend's URL has no host and port");
    let server = Url::parse(&url)?;
    let (host, port) = server.host().zip(server.port()).ok_or_else(no_server)?;
    let proxy = Proxy::start(format!("{host}:{port}")).await?;
    let through = place(&cx, &proxy.url(&url).ok_or_else(no_server)?);
    let ttl = Duration::from_secs(3);
    let options = ["--url", &through, "--ttl", "3s", "--grace", "500ms"];
    let running = Running::start(&cx, &options, &name, &stubborn(&file)).await?;
    cx.sleep(Duration::from_secs(1)).await;
    refused(client.lock(&name)).await?;
    proxy.stall(true);
    // A renewal may just have been heard.
    let next = gets(client.lock(&name), ttl + cx.late()).await?;
    is_quiet(&cx, &file).await?;
    let (status, _) = running.end(&cx, PROMPT).await?;
    ensure_eq!(status.code(), Some(LOST));
    is_released(next).await
}

/// The lock is taken away by force, and TERM changes nothing: KILL does, after the grace period.
async fn cl10(cx: Context) -> Checked {
    cx.disturbed();
    let (client, name, folder) = (cx.client().await?, cx.name(), tempfile::tempdir()?);
    let file = folder.path().join("written");
    let options = ["--ttl", "3s", "--grace", "300ms"];
    let running = Running::start(&cx, &options, &name, &stubborn(&file)).await?;
    cx.sleep(Duration::from_millis(200)).await;
    ensure!(client.manager().force_release(&name).await?);
    let (status, _) = running.end(&cx, PROMPT).await?;
    ensure_eq!(status.code(), Some(LOST));
    is_quiet(&cx, &file).await
}
