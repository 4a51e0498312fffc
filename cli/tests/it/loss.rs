//! A lock that is lost: CMD is gone before, or as soon as it is known.

use std::fs::{self, File};
use std::process::Command;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Backend, PATIENCE, Running, done, lines, on_all, on_all_own_servers, text};

/// Hears TERM and says so, and goes on.
const STUBBORN: &str = "trap 'echo TERM' TERM; echo ready; while :; do sleep 0.02; done";
/// Ends on TERM, with what it started.
const OBEDIENT: &str = "trap 'echo TERM; exit 3' TERM; echo ready; while :; do sleep 0.02; done";

#[test]
fn a_stopped_holder_is_replaced_and_its_cmd_is_gone_before() {
    on_all(stopped_holder);
}

fn stopped_holder(backend: &Backend) {
    const TTL: Duration = Duration::from_secs(2);
    let log = backend.file("log");
    let script = format!(
        "echo $LEASEHOLD_TOKEN; while :; do echo first >> '{}'; sleep 0.01; done",
        log.display()
    );
    let mut holder = Running::start(backend.run(&["--ttl", "2s"], "x", &script));
    let first: u64 = holder.line().unwrap().parse().unwrap();
    let start = Instant::now();
    holder.signal(Signal::STOP);
    let script = format!("echo second >> '{}'; echo $LEASEHOLD_TOKEN", log.display());
    let next = done(backend.run(&[], "x", &script));
    let within = backend.outlives(TTL) + Duration::from_secs(1);
    assert!(start.elapsed() < within, "{:?}", start.elapsed());
    assert!(text(&next.stdout).parse::<u64>().unwrap() > first);
    // CMD was not stopped. It was killed all the same before the lock was somebody else's.
    let log = || fs::read_to_string(&log).unwrap();
    assert!(log().ends_with("first\nsecond\n"), "{}", log());
    thread::sleep((3 * TTL).saturating_sub(start.elapsed()));
    let resumed = Instant::now();
    holder.signal(Signal::CONT);
    let (code, stderr) = holder.end();
    assert_eq!(code, 79, "{stderr}");
    assert!(stderr.contains("the lock") && stderr.contains("lost"), "{stderr}");
    assert!(
        resumed.elapsed() < Duration::from_secs(2),
        "{:?}",
        resumed.elapsed()
    );
    // Everybody who could write there is gone.
    assert_eq!(holder.line(), None);
    assert!(log().ends_with("first\nsecond\n"), "{}", log());
    backend.assert_free("x");
}

#[test]
fn a_lock_taken_by_force_costs_cmd_term_and_then_kill() {
    on_all(|backend| {
        for (script, options, said) in [
            (OBEDIENT, &["--grace", "30s"][..], Some("TERM")),
            (STUBBORN, &["--grace", "300ms"][..], Some("TERM")),
            (STUBBORN, &["--on-lost", "kill"][..], None),
        ] {
            let mut options = options.to_vec();
            options.extend(["--ttl", "3s"]);
            let mut holder = Running::start(backend.run(&options, "x", script));
            holder.expect("ready");
            let released = done(backend.cli(["release", "--force", "--json", &backend.name("x")]));
            assert!(
                text(&released.stdout).contains("\"released\": true"),
                "{released:?}"
            );
            let start = Instant::now();
            let (code, stderr) = holder.end();
            assert_eq!(code, 79, "{stderr}");
            assert!(stderr.contains("lost the lock"), "{stderr}");
            assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
            assert_eq!(holder.line().as_deref(), said);
            assert_eq!(holder.line(), None);
            backend.assert_free("x");
        }
    });
}

#[test]
fn with_ignore_cmd_ends_by_itself() {
    let backend = Backend::sqlite();
    let script = "echo ready; read line; exit 5";
    let mut command = backend.run(&["--on-lost", "ignore", "--ttl", "1s"], "x", script);
    let (reader, writer) = std::io::pipe().unwrap();
    command.stdin(reader);
    let mut holder = Running::start(command);
    holder.expect("ready");
    done(backend.cli(["release", "--force", &backend.name("x")]));
    // Somebody else has it, and gives it back.
    assert!(done(backend.run(&[], "x", "true")).status.success());
    drop(writer);
    let (code, stderr) = holder.end();
    assert_eq!(code, 5, "{stderr}");
    assert!(stderr.contains("lost"), "{stderr}");
}

/// A holder and what its CMD says, which ends when the last of CMD has ended.
fn watched(backend: &Backend, name: &str, options: &[&str], script: &str) -> (Running, Receiver<String>) {
    let path = backend.file(name);
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let script = format!("exec >'{}'; {script}", path.display());
    let holder = Running::start(backend.run(options, name, &script));
    let said = lines(File::open(path).unwrap());
    assert_eq!(said.recv_timeout(PATIENCE).as_deref(), Ok("ready"));
    (holder, said)
}

#[test]
fn a_silent_backend_costs_cmd_term_and_kill_before_the_deadline() {
    on_all_own_servers(silent_backend);
}

fn silent_backend(backend: &Backend) {
    let options = ["--ttl", "3s"];
    let ttl = backend.capabilities.effective_ttl(Duration::from_secs(3));
    let also = |more: &[&'static str]| [&options, more].concat();
    let mut holders = [
        (watched(backend, "a", &options, OBEDIENT), Some("TERM")),
        (
            watched(backend, "b", &also(&["--grace", "800ms"]), STUBBORN),
            Some("TERM"),
        ),
        (
            watched(backend, "c", &also(&["--on-lost", "kill"]), STUBBORN),
            None,
        ),
    ];
    let start = Instant::now();
    backend.stop_server();
    for ((_, lines), said) in &holders {
        let lines: Vec<_> = lines.iter().collect();
        assert_eq!(lines.first().map(String::as_str), *said);
        // CMD is gone, and the lease is not over yet: it began before the server was stopped.
        assert!(start.elapsed() < ttl, "{:?}", start.elapsed());
    }
    for ((holder, _), _) in &mut holders {
        let (code, stderr) = holder.end();
        assert_eq!(code, 79, "{stderr}");
        assert!(stderr.contains("the backend does not answer"), "{stderr}");
        assert!(
            start.elapsed() < ttl + Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn a_backend_that_comes_back_in_time_costs_nothing() {
    on_all_own_servers(backend_that_comes_back);
}

fn backend_that_comes_back(backend: &Backend) {
    let script = "echo $LEASEHOLD_TOKEN; read line; exit 4";
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = backend.run(&["--ttl", "30s"], "x", script);
    command.stdin(reader);
    let mut holder = Running::start(command);
    let first: u64 = holder.line().unwrap().parse().unwrap();
    let mut waiter = Running::start(backend.run(&[], "x", "echo $LEASEHOLD_TOKEN"));
    backend.wait_for_waiters("x", 1);
    // It rides out an outage from when it was told that it waits, which the server knows a little earlier.
    thread::sleep(Duration::from_secs(1));
    backend.stop_server();
    backend.start_server_again();
    // The waiter is back in the queue.
    backend.wait_for_waiters("x", 1);
    drop(writer);
    let (code, stderr) = holder.end();
    assert_eq!(code, 4, "{stderr}");
    let Some(second) = waiter.line() else {
        panic!("the waiter got nothing: {:?}", waiter.end())
    };
    assert!(second.parse::<u64>().unwrap() > first);
}
