//! Exit codes, the environment of CMD, and what is said about bad input.

use std::time::{Duration, Instant};

use crate::support::{Backend, Running, done, leasehold, on_all, text};

/// "Within seconds": the longest is a connect time-out.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn each_run_gets_a_larger_token_and_its_name_and_owner() {
    on_all(|backend| {
        let mut last = 0;
        for _ in 0..3 {
            let script = "echo $LEASEHOLD_TOKEN; echo \"$LEASEHOLD_NAME\"; echo \"$LEASEHOLD_OWNER\"; env";
            let output = done(backend.run(&["--label", "a job"], "a name", script));
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            let stdout = text(&output.stdout);
            let mut lines = stdout.lines();
            let token: u64 = lines.next().unwrap().parse().unwrap();
            assert!(token > last, "{token} after {last}");
            last = token;
            assert_eq!(lines.next(), Some(&*backend.name("a name")));
            assert!(lines.next().unwrap().ends_with(" (a job)"), "{stdout}");
            // Nothing of how it was started. What tells tests about their servers was there before.
            let ours: Vec<_> = lines
                .filter_map(|line| line.split_once('='))
                .filter(|(name, _)| name.starts_with("LEASEHOLD_") && !name.starts_with("LEASEHOLD_TEST_"))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(ours.len(), 4, "{ours:?}");
        }
        backend.assert_free("a name");
    });
}

#[test]
fn the_exit_code_of_cmd_is_passed_on_and_the_lock_is_free_at_once() {
    let backend = Backend::sqlite();
    for (script, code) in [
        ("true", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -SEGV $$", 139),
    ] {
        let output = done(backend.run(&["--wait", "0"], "x", script));
        assert_eq!(output.status.code(), Some(code), "{script}: {output:?}");
        backend.assert_free("x");
    }
    let folder = backend.folder.path().to_str().unwrap();
    for (command, code) in [
        ("no-such-command", 127),
        ("/no/such/path", 127),
        (folder, 126),
        ("", 127),
    ] {
        let output = done(backend.cli(["run", "--wait", "0", &backend.name("x"), "--", command]));
        assert_eq!(output.status.code(), Some(code), "{command}: {output:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.starts_with("leasehold: cannot run"), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
        backend.assert_free("x");
    }
}

#[test]
fn a_busy_lock_is_75_with_its_holder() {
    on_all(|backend| {
        let holder = Running::start(backend.run(&["--label", "nightly"], "x", "echo ready; exec sleep 600"));
        holder.expect("ready");
        for wait in ["0", "300ms"] {
            let output = done(backend.run(&["--wait", wait], "x", "echo no"));
            assert_eq!(output.status.code(), Some(75), "{output:?}");
            assert!(output.stdout.is_empty());
            let stderr = text(&output.stderr);
            assert!(
                stderr.starts_with("leasehold: ") && stderr.lines().count() == 1,
                "{stderr}"
            );
            assert!(
                stderr.contains("(nightly)") || !backend.capabilities.inspect,
                "{stderr}"
            );
        }
        if backend.capabilities.inspect {
            assert_eq!(backend.status("x")["waiters"], 0);
            assert_eq!(backend.status("x")["holders"][0]["owner"]["label"], "nightly");
        }
    });
}

#[test]
fn bad_input_is_told_in_one_line() {
    let long = "x".repeat(2048);
    let dead = "redis://127.0.0.1:1";
    let table: &[(&[&str], i32, &str)] = &[
        (&["run", "", "--", "true"], 64, "the lock name is empty"),
        (&["run", &long, "--", "true"], 64, "2048 bytes, the limit is 1024"),
        (
            &["run", "--ttl", "0", "x", "--", "true"],
            64,
            "over 0 and at most 24h",
        ),
        (
            &["run", "--ttl", "25h", "x", "--", "true"],
            64,
            "over 0 and at most 24h",
        ),
        (&["run", "--ttl", "10", "x", "--", "true"], 64, "lacks a unit"),
        (&["run", "--ttl=-5s", "x", "--", "true"], 64, "--ttl"),
        (&["run", "--wait", "soon", "x", "--", "true"], 64, "--wait"),
        (&["run", "--on-lost", "cry", "x", "--", "true"], 64, "--on-lost"),
        (
            &["run", "--label", "", "x", "--", "true"],
            64,
            "a label has 1 to 128 bytes",
        ),
        (&["run", "x"], 64, "<CMD>"),
        (&["run", "x", "true"], 64, "unexpected argument 'true'"),
        (&["run"], 64, "<NAME>"),
        (&["jog"], 64, "jog"),
        (&[], 64, "Usage"),
        (&["status", ""], 64, "the lock name is empty"),
        (&["release", "x"], 64, "--force"),
        (&["release", "--force", ""], 64, "the lock name is empty"),
        (&["man", "jog"], 64, "no command \"jog\""),
        (
            &["--url", "foo://u:secret@h", "run", "x", "--", "true"],
            64,
            "unknown scheme foo:",
        ),
        (&["--url", "foo", "run", "x", "--", "true"], 64, "scheme"),
        (
            &["--url", "memory:?colour=red", "list"],
            64,
            "unknown option \"colour\"",
        ),
        (&["--url", "memory:?ttl=0s", "list"], 64, "over 0"),
        (&["--url", dead, "run", "x", "--", "true"], 69, "127.0.0.1:1"),
        (&["--url", dead, "status", "x"], 69, "127.0.0.1:1"),
        (&["--url", dead, "list"], 69, "127.0.0.1:1"),
        (&["--url", dead, "release", "--force", "x"], 69, "127.0.0.1:1"),
    ];
    for (args, code, part) in table {
        let start = Instant::now();
        let mut command = leasehold(*args);
        command.env("LEASEHOLD_URL", "memory:");
        let output = done(command);
        let stderr = text(&output.stderr);
        assert!(start.elapsed() < SOON, "{args:?}");
        assert_eq!(output.status.code(), Some(*code), "{args:?}: {stderr}");
        assert!(stderr.contains(part), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(!stderr.contains("secret"), "{stderr}");
        assert!(!stderr.contains('\u{1b}'), "colours in a pipe: {stderr:?}");
        if !stderr.contains("Usage") {
            assert!(stderr.starts_with("leasehold: "), "{args:?}: {stderr}");
        }
    }
}

#[test]
fn a_wrong_password_is_77_and_leaves_nothing() {
    let Some(backend) = Backend::redis(|request| request.password("s3cret")) else {
        return;
    };
    let wrong = backend.url.replace("s3cret", "gues5");
    let without = backend.url.replace(":s3cret@", "");
    for url in [&wrong, &without] {
        let start = Instant::now();
        let output = done(leasehold(["--url", url, "run", "x", "--", "true"]));
        let stderr = text(&output.stderr);
        assert!(start.elapsed() < SOON);
        assert_eq!(output.status.code(), Some(77), "{stderr}");
        assert!(
            stderr.starts_with("leasehold: ") && stderr.lines().count() == 1,
            "{stderr}"
        );
        assert!(
            !stderr.contains("gues5") && stderr.contains("password"),
            "{stderr}"
        );
    }
    let listed = done(backend.cli(["list", "--json"]));
    assert_eq!(text(&listed.stdout), "[]");
}

#[test]
fn the_default_is_a_file_of_the_user() {
    let backend = Backend::sqlite();
    let state = backend.file("state home?#%");
    let run = |command: &mut std::process::Command| {
        command.args(["run", "demo", "--", "sh", "-c", "echo $LEASEHOLD_TOKEN"]);
        text(&command.output().unwrap().stdout).parse::<u64>().unwrap()
    };
    let first = run(leasehold([""; 0]).env("XDG_STATE_HOME", &state));
    // An empty variable is an unset one.
    let second = run(leasehold([""; 0])
        .env("XDG_STATE_HOME", &state)
        .env("LEASEHOLD_URL", ""));
    assert!(second > first);
    assert!(state.join("leasehold/locks.db").is_file());
    run(leasehold([""; 0])
        .env_remove("XDG_STATE_HOME")
        .env("HOME", backend.folder.path()));
    assert!(backend.file(".local/state/leasehold/locks.db").is_file());

    let mut nowhere = leasehold(["run", "demo", "--", "true"]);
    nowhere
        .env_remove("XDG_STATE_HOME")
        .env("HOME", "/dev/null/nobody");
    let output = done(nowhere);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(
        stderr.contains("LEASEHOLD_URL") && stderr.lines().count() == 1,
        "{stderr}"
    );
}
