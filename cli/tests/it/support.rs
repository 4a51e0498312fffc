//! Backends to run on, and processes that do not outlive their test.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use leasehold::Capabilities;
use leasehold_conformance::servers::{Origin, Server, ServerKind, ServerRequest, Target};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// Longer than anything takes here, also on a machine with other things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// Somewhere to keep locks.
pub(crate) struct Backend {
    pub(crate) url: String,
    pub(crate) folder: TempDir,
    pub(crate) capabilities: Capabilities,
    server: Option<Arc<(tokio::runtime::Runtime, Server)>>,
}

/// Runs `check` on every backend and mode that there is, side by side. What was left out on purpose is printed.
pub(crate) fn on_all(check: impl Fn(&Backend) + Sync) {
    let check = &check;
    thread::scope(|scope| {
        spawn(scope, "sqlite", move || check(&Backend::sqlite()));
        for kind in ServerKind::ALL {
            spawn(scope, kind.name(), move || {
                let Some(backend) = Backend::server(&[kind], |request| request) else {
                    return;
                };
                thread::scope(|scope| {
                    if let Some(session) = backend.mode_session() {
                        let name = format!("{kind}, mode=session");
                        spawn(scope, &name, move || check(&session));
                    }
                    check(&backend);
                });
            });
        }
    });
}

/// The same for a check that keeps the machine busy by itself: on as many as there are cores at a time.
pub(crate) fn on_all_by_turns(check: impl Fn(&Backend) + Sync) {
    let free = Mutex::new(thread::available_parallelism().map_or(1, usize::from));
    let freed = Condvar::new();
    on_all(|backend| {
        *freed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap() -= 1;
        let checked = catch_unwind(AssertUnwindSafe(|| check(backend)));
        *free.lock().unwrap() += 1;
        freed.notify_one();
        checked.unwrap_or_else(|panic| resume_unwind(panic));
    });
}

/// Runs `check` on every server that there is, each one of the test's own, so that it can be stopped.
pub(crate) fn on_all_own_servers(check: impl Fn(&Backend) + Sync) {
    let check = &check;
    thread::scope(|scope| {
        for kind in ServerKind::ALL {
            spawn(scope, kind.name(), move || {
                if let Some(backend) = Backend::server(&[kind], ServerRequest::own) {
                    check(&backend);
                }
            });
        }
    });
}

/// A failure names its thread.
fn spawn<'scope>(scope: &'scope thread::Scope<'scope, '_>, name: &str, run: impl FnOnce() + Send + 'scope) {
    let named = thread::Builder::new().name(name.to_owned());
    named.spawn_scoped(scope, run).unwrap();
}

impl Backend {
    pub(crate) fn sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        Self {
            url: format!("sqlite:{}", folder.path().join("locks.db").display()),
            folder,
            capabilities: leasehold::sqlite::CAPABILITIES,
            server: None,
        }
    }

    pub(crate) fn redis(change: impl FnOnce(ServerRequest) -> ServerRequest) -> Option<Self> {
        Self::server(&[ServerKind::Redis, ServerKind::Valkey], change)
    }

    /// A server of one of these kinds, that `change` may make special. None when all were left out on purpose, which is
    /// printed.
    fn server(kinds: &[ServerKind], change: impl FnOnce(ServerRequest) -> ServerRequest) -> Option<Self> {
        let targets: Vec<_> = Target::all()
            .into_iter()
            .filter(|target| kinds.contains(&target.kind))
            .collect();
        let plan = Target::plan(&targets).unwrap();
        let from = |origin| plan.run.iter().find(|target| target.origin == origin);
        // The quickest to start.
        let Some(target) = from(Origin::Url)
            .or_else(|| from(Origin::LocalProcess))
            .or_else(|| from(Origin::Container))
        else {
            println!("left out, as asked: {kinds:?}");
            return None;
        };
        let plain = target.request();
        let mut request = change(plain.clone());
        if target.origin == Origin::Url && format!("{request:?}") != format!("{plain:?}") {
            // A server that somebody has given cannot be made special.
            request = request.origin(Origin::Any);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let server = runtime.block_on(request.start()).unwrap();
        println!("{}", server.describe());
        Some(Self {
            url: server.url().to_owned(),
            folder: TempDir::new().unwrap(),
            capabilities: match target.kind {
                ServerKind::Redis | ServerKind::Valkey => leasehold::redis::CAPABILITIES,
                ServerKind::Etcd => leasehold::etcd::CAPABILITIES,
                ServerKind::ZooKeeper => leasehold::zk::CAPABILITIES,
                ServerKind::MySql | ServerKind::MariaDb => leasehold::mysql::CAPABILITIES,
                ServerKind::Postgres => leasehold::postgres::CAPABILITIES,
                kind => panic!("what can {kind} do?"),
            },
            server: Some(Arc::new((runtime, server))),
        })
    }

    /// The same server in its second mode, if it has one.
    fn mode_session(&self) -> Option<Self> {
        let capabilities = match self.server.as_ref()?.1.kind() {
            ServerKind::MySql | ServerKind::MariaDb => leasehold::mysql::SESSION_CAPABILITIES,
            ServerKind::Postgres => leasehold::postgres::SESSION_CAPABILITIES,
            _ => return None,
        };
        let joint = if self.url.contains('?') { '&' } else { '?' };
        Some(Self {
            url: format!("{}{joint}mode=session", self.url),
            folder: TempDir::new().unwrap(),
            capabilities,
            server: self.server.clone(),
        })
    }

    /// How long a lock with this TTL can outlive a holder that died: what the backend declares, and a second for a busy
    /// machine.
    pub(crate) fn outlives(&self, ttl: Duration) -> Duration {
        self.capabilities.effective_ttl(ttl) + self.capabilities.expiry_epsilon + Duration::from_secs(1)
    }

    pub(crate) fn stop_server(&self) {
        let (runtime, server) = &**self.server.as_ref().unwrap();
        runtime.block_on(server.stop()).unwrap();
    }

    pub(crate) fn start_server_again(&self) {
        let (runtime, server) = &**self.server.as_ref().unwrap();
        runtime.block_on(server.start_again()).unwrap();
    }

    pub(crate) fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The program with these arguments on this backend. Names are made of the folder's, so that a server can be shared.
    pub(crate) fn cli<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = leasehold(args);
        command.env("LEASEHOLD_URL", &self.url);
        command
    }

    /// `leasehold run OPTIONS NAME -- sh -c SCRIPT`.
    pub(crate) fn run(&self, options: &[&str], name: &str, script: &str) -> Command {
        let mut command = self.cli(["run"]);
        command
            .args(options)
            .args([&self.name(name), "--", "sh", "-c", script]);
        command
    }

    /// A name of this test's own.
    pub(crate) fn name(&self, name: &str) -> String {
        let folder = self.folder.path().file_name().unwrap().to_string_lossy();
        format!("{folder}/{name}")
    }

    pub(crate) fn status(&self, name: &str) -> Value {
        let output = done(self.cli(["status", "--json", &self.name(name)]));
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].clone()
    }

    pub(crate) fn wait_for_waiters(&self, name: &str, waiters: u64) {
        self.wait_for(name, &format!("{waiters} waiters"), |status| {
            status["waiters"] == waiters
        });
    }

    pub(crate) fn wait_for_holder(&self, name: &str) {
        self.wait_for(name, "a holder", |status| {
            status["holders"] != Value::Array(vec![])
        });
    }

    fn wait_for(&self, name: &str, what: &str, condition: impl Fn(&Value) -> bool) {
        if self.capabilities.inspect {
            until(what, || condition(&self.status(name)));
        } else {
            // Nobody can tell: time for a program to start and to ask.
            thread::sleep(Duration::from_secs(1));
        }
    }

    /// Nobody holds the lock and nobody waits, as far as the backend tells.
    pub(crate) fn assert_free(&self, name: &str) {
        let output = done(self.run(&["--wait", "0"], name, "true"));
        assert!(output.status.success(), "{output:?}");
        if self.capabilities.inspect {
            let status = self.status(name);
            assert_eq!(status["holders"], Value::Array(vec![]), "{status}");
            assert_eq!(status["waiters"], 0, "{status}");
        }
    }
}

/// The program with these arguments and nothing from our environment that it would heed.
pub(crate) fn leasehold<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leasehold"));
    command.args(args).stdin(Stdio::null());
    for variable in ["LEASEHOLD_URL", "LEASEHOLD_LOG", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
}

/// Its output when it has ended, which has to be soon.
pub(crate) fn done(mut command: Command) -> Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (pid, (sender, receiver)) = (Pid::from_child(&child), channel());
    thread::spawn(move || sender.send(child.wait_with_output()));
    let output = receiver.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        // Not reaped yet, so still ours.
        kill_process(pid, Signal::KILL).ok();
        panic!("{command:?} did not end");
    });
    let output = output.unwrap();
    assert!(!text(&output.stderr).contains("panicked"), "{output:?}");
    output
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: did not happen");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A running program whose lines on stdout are events. It is killed when dropped, and CMD with it.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    errors: Receiver<String>,
    status: Option<ExitStatus>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            lines: lines(child.stdout.take().unwrap()),
            errors: lines(child.stderr.take().unwrap()),
            child,
            status: None,
        }
    }

    /// Waits for this line on stdout.
    pub(crate) fn expect(&self, wanted: &str) {
        let line = self.line();
        assert_eq!(line.as_deref(), Some(wanted));
    }

    /// The next line; `None` when everybody who had stdout has closed it.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line on stdout"),
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        assert!(self.status.is_none(), "it has ended");
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its exit status as a shell has it, and what it and CMD said on stderr, which nobody has any more then.
    pub(crate) fn end(&mut self) -> (i32, String) {
        use std::os::unix::process::ExitStatusExt;

        until("the end of the program", || {
            self.status = self.child.try_wait().unwrap();
            self.status.is_some()
        });
        let status = self.status.unwrap();
        let code = status.code().or_else(|| Some(128 + status.signal()?)).unwrap();
        let mut errors = Vec::new();
        let stderr = loop {
            match self.errors.recv_timeout(PATIENCE) {
                Ok(line) => errors.push(line),
                Err(RecvTimeoutError::Disconnected) => break errors.join("\n"),
                Err(RecvTimeoutError::Timeout) => panic!("somebody has outlived the program: {errors:?}"),
            }
        };
        assert!(!stderr.contains("panicked"), "{stderr}");
        (code, stderr)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Each line as an event; the end of the stream as the end of the channel.
pub(crate) fn lines(stdout: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

pub(crate) fn shown(path: &Path) -> String {
    path.display().to_string()
}
