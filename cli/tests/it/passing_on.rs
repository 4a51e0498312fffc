//! Signals to the program, and its violent end.

use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Backend, Running, done, on_all, text};

const ALL: [(Signal, &str); 6] = [
    (Signal::INT, "INT"),
    (Signal::TERM, "TERM"),
    (Signal::HUP, "HUP"),
    (Signal::QUIT, "QUIT"),
    (Signal::USR1, "USR1"),
    (Signal::USR2, "USR2"),
];

#[test]
fn a_signal_ends_a_wait_and_leaves_no_place_in_the_queue() {
    on_all(|backend| {
        let holder = Running::start(backend.run(&[], "x", "echo ready; exec sleep 600"));
        holder.expect("ready");
        for (signal, name) in ALL {
            let mut waiter = Running::start(backend.run(&[], "x", "echo never"));
            backend.wait_for_waiters("x", 1);
            waiter.signal(signal);
            let (code, stderr) = waiter.end();
            assert_eq!(code, 128 + signal.as_raw(), "{name}: {stderr}");
            assert_eq!(waiter.line(), None);
            if backend.capabilities.inspect {
                assert_eq!(backend.status("x")["waiters"], 0, "{name}");
            }
        }
    });
}

#[test]
fn a_signal_to_a_holder_reaches_cmd_and_the_lock_is_free_at_once() {
    on_all(|backend| {
        for (signal, name) in ALL {
            let script =
                format!("trap 'echo {name}; exit 9' {name}; echo ready; while :; do sleep 0.02; done");
            let mut holder = Running::start(backend.run(&[], "x", &script));
            holder.expect("ready");
            holder.signal(signal);
            assert_eq!(holder.end().0, 9);
            assert_eq!(holder.line().as_deref(), Some(name));
            assert_eq!(holder.line(), None);
            assert!(done(backend.run(&["--wait", "0"], "x", "true")).status.success());
        }
        // By default they end CMD, and what it has started.
        let mut holder = Running::start(backend.run(&[], "x", "echo ready; sleep 600; echo never"));
        holder.expect("ready");
        holder.signal(Signal::TERM);
        assert_eq!(holder.end().0, 143);
        assert_eq!(holder.line(), None);
        // No shell: they have ways of their own with INT.
        let mut holder = Running::start(backend.cli(["run", &backend.name("x"), "--", "sleep", "600"]));
        backend.wait_for_holder("x");
        holder.signal(Signal::INT);
        assert_eq!(holder.end().0, 130);
        backend.assert_free("x");
    });
}

#[test]
fn the_lock_is_held_until_cmd_has_ended() {
    let backend = Backend::sqlite();
    let script = "trap 'echo TERM' TERM; echo ready; read line; read line; exit 0";
    let mut command = backend.run(&[], "x", script);
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdin(reader);
    let mut holder = Running::start(command);
    holder.expect("ready");
    holder.signal(Signal::TERM);
    holder.expect("TERM");
    assert_eq!(
        done(backend.run(&["--wait", "0"], "x", "true")).status.code(),
        Some(75)
    );
    drop(writer);
    assert_eq!(holder.end().0, 0);
    backend.assert_free("x");
}

#[test]
fn under_nohup_hup_is_ignored() {
    let backend = Backend::sqlite();
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = Command::new("nohup");
    command
        .args([
            env!("CARGO_BIN_EXE_leasehold"),
            "run",
            "x",
            "--",
            "sh",
            "-c",
            "echo ready; read line; exit 3",
        ])
        .env("LEASEHOLD_URL", &backend.url)
        .stdin(reader);
    let mut holder = Running::start(command);
    holder.expect("ready");
    holder.signal(Signal::HUP);
    assert_eq!(
        done(backend.run(&["--wait", "0"], "y", "true")).status.code(),
        Some(0)
    );
    drop(writer);
    assert_eq!(holder.end().0, 3);
}

#[test]
fn cmd_and_what_it_started_die_with_the_program() {
    on_all(|backend| {
        let script = "sleep 600 & echo $!; sleep 600; echo never";
        let mut holder = Running::start(backend.run(&["--ttl", "1s"], "x", script));
        let _started = holder.line().unwrap();
        holder.signal(Signal::KILL);
        assert_eq!(holder.end().0, 137);
        // The end of stdout: the shell and both sleeps had it.
        assert_eq!(holder.line(), None);
        let start = Instant::now();
        assert!(done(backend.run(&[], "x", "true")).status.success());
        let within = backend.outlives(Duration::from_secs(1)) + Duration::from_secs(1);
        assert!(start.elapsed() < within, "{:?}", start.elapsed());
    });
}

/// The program may be killed as soon as CMD runs, before it has said anything to the guard.
#[test]
#[cfg(target_os = "linux")]
fn the_guard_knows_of_cmd_before_cmd_starts_anything() {
    let leasehold = || Command::new(env!("CARGO_BIN_EXE_leasehold"));
    let mut guard = leasehold().arg("__guard").stdin(Stdio::piped()).spawn().unwrap();
    let pipe = guard.stdin.take().unwrap();
    let (us, fd) = (std::process::id().to_string(), pipe.as_raw_fd().to_string());
    let mut command = leasehold();
    let script = "sleep 600 & echo ready; exec sleep 600";
    command
        .args(["__exec", &us, &fd, "--", "sh", "-c", script])
        .process_group(0);
    let mut cmd = Running::start(command);
    cmd.expect("ready");
    drop(pipe);
    assert_eq!(cmd.end().0, 137);
    assert_eq!(cmd.line(), None);
    assert!(guard.wait().unwrap().success());
}

#[test]
fn program_and_cmd_stop_together() {
    let backend = Backend::sqlite();
    let script = "echo ready; while :; do echo tick; sleep 0.01; done";
    let mut holder = Running::start(backend.run(&["--ttl", "1s"], "x", script));
    holder.expect("ready");
    holder.signal(Signal::TSTP);
    // Both stop, so somebody else gets the lock, and nothing is done meanwhile.
    let next = done(backend.run(&[], "x", "echo mine"));
    assert_eq!(text(&next.stdout), "mine");
    holder.signal(Signal::CONT);
    let (code, stderr) = holder.end();
    assert_eq!(code, 79, "{stderr}");
    while let Some(line) = holder.line() {
        assert_eq!(line, "tick");
    }

    let mut holder = Running::start(backend.run(&["--ttl", "60s"], "x", "echo ready; sleep 0.3; exit 6"));
    holder.expect("ready");
    holder.signal(Signal::TSTP);
    assert_eq!(
        done(backend.run(&["--wait", "50ms"], "x", "true")).status.code(),
        Some(75)
    );
    holder.signal(Signal::CONT);
    assert_eq!(holder.end().0, 6);
}

#[test]
fn streams_are_inherited() {
    let backend = Backend::sqlite();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = backend.run(&[], "x", "cat; echo error >&2");
    let child = command
        .stdin(reader)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Ours is the last end but for this one.
    drop(command);
    std::io::Write::write_all(&mut writer, b"some text").unwrap();
    drop(writer);
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (text(&output.stdout), text(&output.stderr)),
        ("some text".into(), "error".into())
    );
}
