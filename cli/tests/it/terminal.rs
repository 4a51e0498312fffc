//! On a terminal, in its foreground.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::support::{Backend, PATIENCE, Running, lines, until};

/// A program with a terminal of its own, in whose foreground it is.
struct Session {
    child: Child,
    terminal: File,
    output: Receiver<Vec<u8>>,
    seen: String,
}

impl Session {
    fn start(program: &Command) -> Self {
        let terminal: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let path = ptsname(&terminal, Vec::new()).unwrap();
        let ours = || {
            File::options()
                .read(true)
                .write(true)
                .open(path.to_str().unwrap())
                .unwrap()
        };
        // Makes its stdin the terminal of a new session.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(program.get_program())
            .args(program.get_args());
        for (name, value) in program.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let child = command
            .stdin(Stdio::from(ours()))
            .stdout(Stdio::from(ours()))
            .stderr(Stdio::from(ours()))
            .spawn()
            .unwrap();
        let terminal = File::from(terminal);
        let (mut reader, (sender, output)) = (terminal.try_clone().unwrap(), channel());
        std::thread::spawn(move || {
            let mut buffer = [0; 1024];
            // An error is the end: everybody has closed it.
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..read].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            terminal,
            output,
            seen: String::new(),
        }
    }

    fn expect(&mut self, wanted: &str) {
        let end = Instant::now() + PATIENCE;
        while !self.seen.contains(wanted) {
            let left = end.saturating_duration_since(Instant::now());
            let more = self.output.recv_timeout(left);
            let more = more.unwrap_or_else(|_| panic!("{wanted:?} is not in {:?}", self.seen));
            self.seen.push_str(&String::from_utf8_lossy(&more));
        }
    }

    fn type_in(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    fn end(&mut self) -> i32 {
        let mut status = None;
        until("the end of the session", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        while let Ok(more) = self.output.recv_timeout(std::time::Duration::from_millis(200)) {
            self.seen.push_str(&String::from_utf8_lossy(&more));
        }
        status.unwrap().code().unwrap()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn cmd_reads_the_terminal_and_hears_ctrl_c_once() {
    let backend = Backend::sqlite();
    let script = "read line; echo \"<$line>\"; trap 'echo [INT]' INT; echo ready; \
                  while ! read line; do :; done; echo \"<$line>\"; exit 8";
    let mut session = Session::start(&backend.run(&[], "x", script));
    session.type_in("hello\n");
    session.expect("<hello>");
    session.expect("ready");
    session.type_in("\u{3}");
    session.expect("[INT]");
    // Still there, and the lock as well.
    assert_eq!(backend.status("x")["holders"].as_array().unwrap().len(), 1);
    session.type_in("bye\n");
    session.expect("<bye>");
    assert_eq!(session.end(), 8);
    assert_eq!(session.seen.matches("[INT]").count(), 1, "{:?}", session.seen);
    backend.assert_free("x");
}

#[test]
fn ctrl_c_ends_cmd_by_default() {
    let backend = Backend::sqlite();
    let mut session = Session::start(&backend.cli(["run", &backend.name("x"), "--", "sleep", "600"]));
    // CMD may not be there yet.
    backend.wait_for_holder("x");
    session.type_in("\u{3}");
    assert_eq!(session.end(), 130);
    backend.assert_free("x");
}

#[test]
fn a_long_wait_is_explained_and_ctrl_c_ends_it() {
    let backend = Backend::sqlite();
    let holder =
        Running::start(backend.run(&["--label", "the other one"], "x", "echo ready; exec sleep 600"));
    holder.expect("ready");
    let mut session = Session::start(&backend.run(&[], "x", "echo never"));
    session.expect("waiting for");
    session.expect("(the other one) since");
    session.type_in("\u{3}");
    assert_eq!(session.end(), 130);
    assert_eq!(backend.status("x")["waiters"], 0);
    // In colour, since it is a terminal.
    assert!(session.seen.contains("\u{1b}["), "{:?}", session.seen);

    let mut plain = backend.run(&["--wait", "0"], "x", "true");
    plain.env("NO_COLOR", "1").env("TERM", "xterm");
    let mut session = Session::start(&plain);
    session.expect("leasehold: ");
    assert_eq!(session.end(), 75);
    assert!(!session.seen.contains('\u{1b}'), "{:?}", session.seen);
}

#[test]
fn cmd_dies_with_the_program_in_the_foreground_too() {
    let backend = Backend::sqlite();
    let path = backend.file("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    // The end of the session is told with HUP.
    let script = format!(
        "trap '' HUP; exec 3>'{}'; echo ready >&3; while :; do sleep 0.02; done",
        path.display()
    );
    let mut session = Session::start(&backend.run(&[], "x", &script));
    let said = lines(File::open(path).unwrap());
    assert_eq!(said.recv_timeout(PATIENCE).as_deref(), Ok("ready"));
    // `setsid` has become the program.
    session.child.kill().unwrap();
    assert_eq!(said.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
}
