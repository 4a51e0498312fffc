//! `bench`: what it measures, what it leaves behind, and how it ends.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Backend, Running, done, leasehold, shown, text, until};

fn parse(stdout: &[u8]) -> Value {
    serde_json::from_slice(stdout).unwrap_or_else(|error| panic!("{error}: {}", text(stdout)))
}

/// The medians of the first entrant in each section, by the section's id.
fn medians(report: &Value) -> Vec<(&str, &Value)> {
    let sections = report["sections"].as_array().unwrap().iter();
    let medians = sections.map(|section| {
        let result = &section["results"][0];
        assert_eq!(result["failure"], Value::Null, "{section}");
        (section["id"].as_str().unwrap(), &result["median"]["figures"])
    });
    medians.collect()
}

fn assert_nothing_left(backend: &Backend) {
    let left = done(backend.cli(["list", "--json", "leasehold-bench/"]));
    assert_eq!(text(&left.stdout), "[]");
}

#[test]
fn each_scenario_is_measured_and_nothing_is_left() {
    let backend = Backend::sqlite();
    let page = backend.file("report.html");
    let scenarios = "latency,throughput,contended,growth,local,popular";
    let mut args = vec!["bench", "--json", "--seconds", "0.3", "--rounds", "1"];
    let page_shown = shown(&page);
    args.extend(["--scenario", scenarios, "--html", &page_shown]);
    let output = done(backend.cli(args));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let report = parse(&output.stdout);
    assert_eq!(report["alarms"], Value::Array(vec![]));
    assert_eq!(report["interrupted"], false);
    assert_eq!(report["entrants"].as_array().unwrap().len(), 1);
    assert!(report["machine"]["cores"].as_u64().unwrap() > 0);
    assert!(report["versions"].to_string().contains("SQLite 3."), "{report}");
    let medians = medians(&report);
    for scenario in scenarios.split(',') {
        assert!(
            medians.iter().any(|(id, _)| id.starts_with(scenario)),
            "{scenario}: {medians:?}"
        );
    }
    for (id, figures) in medians {
        assert!(figures["per_second"].as_f64().unwrap() > 0.0, "{id}: {figures}");
        assert_eq!(figures["violations"].as_f64().unwrap_or(0.0), 0.0, "{id}");
    }
    let page = fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    for heading in [
        "distribution; S1",
        "throughput against tasks",
        "hand-off against clients",
        "fairness; S3",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
    assert_nothing_left(&backend);
}

#[test]
fn holders_are_processes_of_their_own_and_can_be_killed() {
    let backend = Backend::sqlite();
    let output = done(backend.cli(["bench", "--json", "--rounds", "1", "--scenario", "held,S6"]));
    let report = parse(&output.stdout);
    assert!(output.stderr.is_empty(), "{output:?}");
    let [(held, kept), (recovery, recovered)] = medians(&report)[..] else {
        panic!("{report}")
    };
    assert!(held.starts_with("held-") && recovery.starts_with("recovery-"));
    // The holder was killed and had asked for two seconds.
    let waited = recovered["recovery"].as_f64().unwrap();
    assert!((0.0..30_000.0).contains(&waited), "{waited}");
    assert!(kept["losses"].is_f64(), "{kept}");
    if cfg!(target_os = "linux") {
        assert!(
            kept["memory_per_lock"].as_f64().unwrap() > 0.0 && kept["client_load"].is_f64(),
            "{kept}"
        );
    }
    assert!(!report.to_string().contains("other things in it"), "{report}");
    assert_nothing_left(&backend);
}

#[test]
fn several_backends_are_compared_in_a_table() {
    let backend = Backend::sqlite();
    let args = [
        "bench",
        "--seconds",
        "0.05",
        "--rounds",
        "1",
        "--scenario",
        "latency",
        &backend.url,
        "memory:",
    ];
    let output = done(leasehold(args));
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    let table = text(&output.stdout);
    for part in [
        "S1: latency without contention",
        "p50 us",
        &backend.url,
        "memory:",
        "x ",
        "No lock was granted twice",
    ] {
        assert!(table.contains(part), "{part:?}: {table}");
    }
    assert!(!table.contains('\u{1b}'), "{table}");
}

#[test]
fn a_password_is_shown_nowhere() {
    let Some(backend) = Backend::redis(|request| request.password("s3cret")) else {
        return;
    };
    let page = backend.file("report.html");
    let page_shown = shown(&page);
    let options = [
        "--seconds",
        "0.05",
        "--rounds",
        "1",
        "--scenario",
        "latency",
        "--html",
        &page_shown,
    ];
    for json in [None, Some("--json")] {
        let mut args = vec!["bench"];
        args.extend(options.iter().copied().chain(json));
        let output = done(backend.cli(args));
        assert!(output.status.success(), "{output:?}");
        assert!(!format!("{output:?}").contains("s3cret"));
        assert!(!fs::read_to_string(&page).unwrap().contains("s3cret"));
    }
}

#[test]
fn what_is_wrong_has_its_exit_code() {
    let locked = Backend::redis(|request| request.password("s3cret"));
    let wrong = locked
        .as_ref()
        .map(|locked| locked.url.replace("s3cret", "wr0ng"));
    let no_file = ["memory:", "--html", "/no/such/folder/report.html"];
    let table: [(&[&str], i32, &str); 7] = [
        (&["redis://127.0.0.1:1"], 69, "Redis at"),
        (&["memory:", "redis://u:wr0ng@127.0.0.1:1"], 69, "Redis at"),
        (&["etc://u:wr0ng@h"], 64, "known are memory:"),
        (&["memory:", "--scenario", "speed"], 64, "popular"),
        (&["memory:", "--seconds", "0"], 64, "0.02 to 300"),
        (&no_file, 74, "/no/such/folder"),
        (
            &[wrong.as_deref().unwrap_or("etc:")],
            if wrong.is_some() { 77 } else { 64 },
            "",
        ),
    ];
    for (arguments, code, part) in table {
        let mut args = vec!["bench"];
        args.extend(arguments);
        let output = done(leasehold(args));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        let stderr = text(&output.stderr);
        assert!(
            stderr.starts_with("leasehold: ") && stderr.contains(part),
            "{stderr}"
        );
        assert!(output.stdout.is_empty(), "{output:?}");
        assert!(!format!("{output:?}").contains("wr0ng"), "{output:?}");
    }
}

#[test]
fn ctrl_c_ends_it_with_what_was_measured() {
    let backend = Backend::sqlite();
    let command = backend.cli(["bench", "--seconds", "300", "--scenario", "growth"]);
    let mut bench = Running::start(command);
    until("a lock of the bench", || {
        text(&done(backend.cli(["list", "--json", "leasehold-bench/"])).stdout) != "[]"
    });
    bench.signal(Signal::INT);
    let mut told = Vec::new();
    while let Some(line) = bench.line() {
        told.push(line);
    }
    let (code, stderr) = bench.end();
    let told = told.join("\n");
    assert_eq!(code, 130, "{told} {stderr}");
    assert!(
        told.contains("Ended before its time") && told.contains("S4: 2 clients"),
        "{told}"
    );
    assert!(stderr.contains("once more"), "{stderr}");
    assert_nothing_left(&backend);
}
