//! `doctor`: what it finds on sound and on risky backends, and how it ends.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

use leasehold_conformance::servers::ServerRequest;
use serde_json::Value;

use crate::support::{Backend, done, leasehold, on_all, text};

fn parse(stdout: &[u8]) -> Value {
    serde_json::from_slice(stdout).unwrap_or_else(|error| panic!("{error}: {}", text(stdout)))
}

/// What is true of every report, sound or not.
fn check_form(report: &Value) {
    let mut keys: Vec<_> = report.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "backend",
            "capabilities",
            "clock_ahead_us",
            "findings",
            "round_trip_us",
            "server",
            "timings_us",
            "verdict",
            "version"
        ]
    );
    let rank = |severity: &Value| {
        let known = ["ok", "note", "warning", "error"];
        known.iter().position(|known| severity == known).unwrap()
    };
    let mut worst = 0;
    for finding in report["findings"].as_array().unwrap() {
        let severity = rank(&finding["severity"]);
        assert_eq!(finding["remedy"].is_string(), severity >= 2, "{finding}");
        assert!(
            !finding["subject"].as_str().unwrap().is_empty()
                && !finding["found"].as_str().unwrap().is_empty()
        );
        worst = worst.max(severity);
    }
    assert_eq!(rank(&report["verdict"]), worst, "{report}");
}

#[test]
fn a_backend_is_tried_out_and_left_as_it_was() {
    on_all(|backend| {
        let output = done(backend.cli(["doctor", "--json"]));
        let report = parse(&output.stdout);
        check_form(&report);
        let risky = ["warning", "error"].iter().any(|bad| report["verdict"] == *bad);
        assert_eq!(output.status.code(), Some(i32::from(risky)), "{output:?}");
        assert_ne!(report["verdict"], "error", "{report}");
        assert!(
            report["version"].is_string() && report["round_trip_us"].is_u64(),
            "{report}"
        );
        for step in ["connect", "acquire", "renew", "hand_off", "release"] {
            assert!(report["timings_us"][step].is_u64(), "{step}: {report}");
        }
        if backend.capabilities.list {
            assert!(report["timings_us"]["inspect"].is_u64(), "{report}");
            assert!(report["timings_us"]["list"].is_u64(), "{report}");
            let left = done(backend.cli(["list", "--json", "leasehold-doctor/"]));
            assert_eq!(text(&left.stdout), "[]");
        }
    });
}

#[test]
fn a_sound_backend_is_0_and_people_can_read_why() {
    let backend = Backend::sqlite();
    let output = done(backend.cli(["doctor"]));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report = text(&output.stdout);
    for part in [
        "sqlite: SQLite 3.",
        "\n  round trip ",
        "\n  hand-off ",
        "\ncapabilities\n",
        "\nfindings\n  ok  ",
        "\nNothing is wrong here.",
    ] {
        assert!(report.contains(part), "{part:?}: {report}");
    }
    assert!(!report.contains('\u{1b}'), "{report}");
    // The argument goes before the environment's URL.
    let output = done(backend.cli(["doctor", "memory:", "--json"]));
    assert!(output.status.success(), "{output:?}");
    let report = parse(&output.stdout);
    check_form(&report);
    assert_eq!(
        (&report["backend"], &report["verdict"]),
        (&"memory".into(), &"note".into())
    );
    assert_eq!(report["clock_ahead_us"], Value::Null);
}

#[test]
fn a_backend_that_does_not_let_us_in_is_told_with_a_remedy() {
    let locked = Backend::redis(|request| request.password("s3cret"));
    let wrong = locked
        .as_ref()
        .map(|locked| locked.url.replace("s3cret", "wr0ng"));
    let table = [
        (
            Some("redis://127.0.0.1:1".to_owned()),
            69,
            "see whether the server runs",
        ),
        (wrong, 77, "see the URL's user and password"),
        (Some("etc://u:wr0ng@h".to_owned()), 64, "known are memory:"),
        (
            Some("redis://h/0?colour=red".to_owned()),
            64,
            "unknown option \"colour\"",
        ),
    ];
    for (url, code, part) in table {
        let Some(url) = url else { continue };
        for json in [false, true] {
            let mut args = vec!["doctor", "--url", &url];
            args.extend(json.then_some("--json"));
            let output = done(leasehold(args));
            assert_eq!(output.status.code(), Some(code), "{url}: {output:?}");
            let stderr = text(&output.stderr);
            assert!(
                stderr.starts_with("leasehold: ") && stderr.contains(part),
                "{stderr}"
            );
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(!format!("{output:?}").contains("wr0ng"), "{output:?}");
            if !json {
                assert!(output.stdout.is_empty(), "{output:?}");
                continue;
            }
            let report = parse(&output.stdout);
            check_form(&report);
            assert_eq!(report["verdict"], "error");
            assert_eq!(report["findings"][0]["subject"], "connect");
            assert_eq!(report["backend"], Value::Null);
        }
    }
}

#[test]
fn a_right_that_is_missing_is_found_by_trying() {
    let Some(backend) = Backend::redis(ServerRequest::own) else {
        return;
    };
    let address = backend.url.trim_start_matches("redis://").trim_end_matches('/');
    let mut server = BufReader::new(TcpStream::connect(address).unwrap());
    let mut admin = |command: &str| {
        server
            .get_mut()
            .write_all(format!("{command}\r\n").as_bytes())
            .unwrap();
        let mut reply = String::new();
        server.read_line(&mut reply).unwrap();
        assert_eq!(reply.trim(), "+OK", "{command}");
    };
    let rights = "~leasehold:* &leasehold:* +@all -config -info";
    admin(&format!("ACL SETUSER some on >password {rights} -scan"));
    let url = format!("redis://some:password@{address}");
    let output = done(leasehold(["doctor", &url, "--json"]));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let report = parse(&output.stdout);
    check_form(&report);
    let notes: Vec<_> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|found| found["severity"] == "note")
        .collect();
    let about = |subject: &str| notes.iter().any(|note| note["subject"] == subject);
    assert!(about("list") && about("INFO"), "{report}");

    // Everything up to the first lock works.
    admin("ACL SETUSER some -set");
    let output = done(leasehold(["doctor", &url]));
    assert_eq!(output.status.code(), Some(77), "{output:?}");
    let report = text(&output.stdout);
    assert!(report.contains("\n  error    acquire "), "{report}");
    assert!(report.ends_with("see the errors."), "{report}");
    assert!(text(&output.stderr).contains("rights"), "{output:?}");
}
