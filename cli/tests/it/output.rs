//! What is printed: help, pages, tables, JSON.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Backend, Running, done, leasehold, on_all, text};

#[test]
fn help_and_version_are_no_errors() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["run", "--help"],
        &["doctor", "--help"],
        &["help", "release"],
    ] {
        let output = done(leasehold(args));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(!output.stdout.is_empty() && !output.stdout.contains(&0x1b));
    }
    let help = text(&done(leasehold(["--help"])).stdout);
    for code in [1, 64, 69, 70, 71, 74, 75, 77, 78, 79, 126, 127] {
        assert!(help.contains(&format!("{code}  ")), "{code} is not in the help");
    }
    // The URL of the environment may hold a password.
    let mut command = leasehold(["run", "--help"]);
    command.env("LEASEHOLD_URL", "redis://:secret@h");
    assert!(!text(&done(command).stdout).contains("secret"));
}

#[test]
fn completions_and_pages_render() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = text(&done(leasehold(["completions", shell])).stdout);
        assert!(
            script.contains("leasehold") && script.contains("nightly") | script.contains("run"),
            "{shell}"
        );
        assert!(!script.contains("__exec"));
    }
    for (args, part) in [
        (&["man"][..], ".TH leasehold 1"),
        (&["man", "run"], ".TH leasehold-run 1"),
        (&["man", "status"], "leasehold status"),
    ] {
        let page = text(&done(leasehold(args)).stdout);
        assert!(page.contains(part), "{args:?}: {page}");
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
}

/// A backend that cannot list says so.
fn refuses_to_list(backend: &Backend) -> bool {
    if backend.capabilities.list {
        return false;
    }
    for args in [["list", "x"], ["status", "x"]] {
        let output = done(backend.cli(args));
        assert_eq!(output.status.code(), Some(64), "{output:?}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.starts_with("leasehold: ") && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    true
}

#[test]
fn held_locks_are_listed() {
    on_all(|backend| {
        if refuses_to_list(backend) {
            return;
        }
        // As long as the server is shared, others have locks too.
        let prefix = backend.name("");
        let names = ["a/1", "a/2", "b \u{1b}[31m\"ü\u{7f}"];
        let holders: Vec<_> = names
            .iter()
            .map(|name| {
                Running::start(backend.run(&["--label", "l\u{7}"], name, "echo ready; exec sleep 600"))
            })
            .collect();
        holders.iter().for_each(|holder| holder.expect("ready"));

        let listed = done(backend.cli(["list", "--json", &prefix]));
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let found: Vec<_> = listed.as_array().unwrap().iter().collect();
        assert_eq!(found.len(), 3);
        for (found, name) in found.iter().zip(names) {
            assert_eq!(found["name"], backend.name(name));
            assert_eq!(found["kind"], "mutex");
            assert_eq!(found["waiters"], 0);
            let holder = &found["holders"][0];
            assert_eq!(holder["owner"]["label"], "l\u{7}");
            assert!(holder["token"].as_u64().unwrap() > 0);
            // Of a session nobody knows how long it will last.
            let by_session = backend.capabilities.sessions;
            let remaining = holder["remaining_ms"].as_u64();
            assert!(remaining.map_or(by_session, |left| left <= 30_000), "{holder}");
        }
        let table = text(&done(backend.cli(["list", &format!("{prefix}a/")])).stdout);
        assert_eq!(table.lines().count(), 3, "{table}");
        assert!(table.starts_with("NAME"), "{table}");

        // Nobody writes to our terminal through a name.
        for args in [
            vec!["list".to_owned(), prefix.clone()],
            vec!["status".into(), backend.name(names[2])],
        ] {
            let output = done(backend.cli(args));
            assert!(
                !output.stdout.contains(&0x1b) && !output.stdout.contains(&7),
                "{output:?}"
            );
        }

        let held = text(&done(backend.cli(["status", &backend.name("a/1")])).stdout);
        assert!(
            held.contains("held") && held.contains("token") && held.contains("waiters"),
            "{held}"
        );
        drop(holders);
    });
}

#[test]
fn nothing_held_is_an_empty_list() {
    on_all(|backend| {
        if refuses_to_list(backend) {
            return;
        }
        let prefix = backend.name("");
        let output = done(backend.cli(["list", &prefix]));
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert_eq!(text(&done(backend.cli(["list", "--json", &prefix])).stdout), "[]");
        let free = done(backend.cli(["status", &backend.name("x")]));
        assert!(
            free.status.success() && text(&free.stdout).contains("free"),
            "{free:?}"
        );
        let released = done(backend.cli(["release", "--force", &backend.name("x")]));
        assert!(
            released.status.success() && text(&released.stdout).contains("nobody"),
            "{released:?}"
        );
    });
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let backend = Backend::sqlite();
    let mut child = backend
        .cli(["--help"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut String::new()).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");

    // A pipe that is closed before the first byte.
    for args in [
        &["list", "--json"][..],
        &["list"],
        &["status", "x"],
        &["man"],
        &["completions", "bash"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = backend
            .cli(args)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        assert!(!text(&output.stderr).contains("panicked"), "{output:?}");
    }

    // A full disk is one.
    #[cfg(target_os = "linux")]
    for args in [&["status", "x"][..], &["man"], &["completions", "bash"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = backend
            .cli(args)
            .stdout(full)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(74), "{args:?}: {output:?}");
    }
}

#[test]
fn a_closed_stderr_is_survived() {
    let backend = Backend::sqlite();
    let script = format!(
        "exec \"{}\" run x -- no-such-command 2>&-",
        env!("CARGO_BIN_EXE_leasehold")
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]).env("LEASEHOLD_URL", &backend.url);
    assert_eq!(done(command).status.code(), Some(127));
}
