//! What a run comes to: for people, and for programs that add up several runs.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::runner::{Outcome, Verdict};
use crate::suite;

/// The variable with a file to which each backend's result is appended, one JSON object on a line.
const FILE: &str = "LEASEHOLD_TEST_SUMMARY";

/// The variable that says how many of the slowest scenarios are told: 5 unless it is set.
const TIMES: &str = "LEASEHOLD_TEST_TIMES";

/// What became of the scenarios, by backend.
#[derive(Default)]
pub(super) struct Tally {
    backends: BTreeMap<String, Backend>,
    times: Vec<(Duration, String)>,
}

/// One line of the file.
#[derive(Default, Serialize)]
struct Backend {
    backend: String,
    passed: usize,
    left_out: Vec<LeftOut>,
    failed: Vec<String>,
    measured: Vec<Measured>,
}

#[derive(Serialize)]
struct LeftOut {
    id: &'static str,
    reason: String,
}

#[derive(Serialize)]
struct Measured {
    id: &'static str,
    what: String,
}

impl Tally {
    /// A backend of which something may be told.
    pub(super) fn expect(&mut self, backend: &str) {
        self.of(backend);
    }

    pub(super) fn add(&mut self, backend: &str, outcome: Outcome) {
        let id = outcome.scenario.id;
        self.times.push((outcome.took, format!("{backend}/{id}")));
        let told = self.of(backend);
        let measured = outcome.measured.into_iter();
        told.measured.extend(measured.map(|what| Measured { id, what }));
        match outcome.verdict {
            Verdict::Passed => told.passed += 1,
            Verdict::LeftOut(reason) => told.left_out.push(LeftOut { id, reason }),
            Verdict::Failed(_) => told.failed.push(id.to_owned()),
        }
    }

    fn of(&mut self, backend: &str) -> &mut Backend {
        self.backends
            .entry(backend.to_owned())
            .or_insert_with(|| Backend {
                backend: backend.to_owned(),
                ..Backend::default()
            })
    }

    /// Appends to the file that the environment names, if it does.
    pub(super) fn append(&mut self) -> io::Result<()> {
        let Some(path) = std::env::var_os(FILE) else {
            return Ok(());
        };
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        for told in self.backends.values() {
            let mut line = serde_json::to_vec(told)?;
            line.push(b'\n');
            // Whole lines: suites may run side by side.
            file.write_all(&line)?;
        }
        Ok(())
    }

    /// The summary, for people; `used` says on what it ran in detail.
    pub(super) fn lines(&mut self, used: &[String]) -> Vec<String> {
        let mut lines: Vec<_> = used.iter().map(|used| format!("ran on {used}")).collect();
        self.times.sort_unstable();
        let most = std::env::var(TIMES).ok().and_then(|times| times.parse().ok());
        let slowest = self.times.iter().rev().take(most.unwrap_or(5));
        let slowest: Vec<_> = slowest.map(|(took, id)| format!("{id} {took:.1?}")).collect();
        lines.push(format!("slowest: {}", slowest.join(", ")));
        for told in self.backends.values() {
            for Measured { id, what } in &told.measured {
                lines.push(format!("measured {}/{id}: {what}", told.backend));
            }
        }
        for ((reason, backends), ids) in self.grouped() {
            let on = if backends.len() < self.backends.len() {
                format!(" on {}", backends.join(", "))
            } else {
                String::new()
            };
            lines.push(format!("left out{on}, {reason}: {}", ids.join(" ")));
        }
        for told in self.backends.values() {
            lines.extend(
                told.failed
                    .iter()
                    .map(|id| format!("FAILED {}/{id}", told.backend)),
            );
        }
        let width = self.backends.keys().map(String::len).max().unwrap_or(0);
        let width = width.max("conformance".len());
        lines.push(format!(
            "{:width$}  {:>6}  {:>8}  {:>6}",
            "conformance", "passed", "left out", "failed"
        ));
        for told in self.backends.values() {
            lines.push(format!(
                "{:width$}  {:>6}  {:>8}  {:>6}",
                told.backend,
                told.passed,
                told.left_out.len(),
                told.failed.len()
            ));
        }
        lines
    }

    /// The ids that were left out for one reason on the same backends.
    fn grouped(&self) -> BTreeMap<(&str, Vec<&str>), Vec<&'static str>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for scenario in suite::all() {
            let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
            for told in self.backends.values() {
                let here = told.left_out.iter().filter(|left_out| left_out.id == scenario.id);
                for left_out in here {
                    let backends = reasons.entry(left_out.reason.as_str()).or_default();
                    backends.push(told.backend.as_str());
                }
            }
            for group in reasons {
                groups.entry(group).or_default().push(scenario.id);
            }
        }
        groups
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(id: &str, verdict: Verdict, measured: &[&str]) -> Outcome {
        Outcome {
            scenario: suite::all().find(|scenario| scenario.id == id).unwrap(),
            verdict,
            measured: measured.iter().map(|what| (*what).to_owned()).collect(),
            took: Duration::ZERO,
        }
    }

    fn left_out(id: &str) -> Outcome {
        outcome(id, Verdict::LeftOut("no".to_owned()), &[])
    }

    #[test]
    fn what_is_left_out_is_told_once() {
        let mut tally = Tally::default();
        for (backend, id) in [
            ("b", "ME1"),
            ("a", "ME1"),
            ("a", "ME2"),
            ("b", "ME2"),
            ("a", "ME3"),
        ] {
            tally.add(backend, left_out(id));
        }
        let groups: Vec<_> = tally.grouped().into_iter().collect();
        assert_eq!(
            groups,
            [
                (("no", vec!["a"]), vec!["ME3"]),
                (("no", vec!["a", "b"]), vec!["ME1", "ME2"])
            ]
        );
    }

    #[test]
    fn the_table_has_every_backend() {
        let mut tally = Tally::default();
        tally.expect("unused");
        tally.add("redis-8", outcome("ME1", Verdict::Passed, &[]));
        let failed = Verdict::Failed("why".to_owned());
        tally.add("redis-8", outcome("EX6", failed, &["slow"]));
        tally.add("redis-8", left_out("EX7"));
        let lines = tally.lines(&["a server".to_owned()]);
        for line in [
            "ran on a server",
            "measured redis-8/EX6: slow",
            "left out on redis-8, no: EX7",
            "FAILED redis-8/EX6",
            "conformance  passed  left out  failed",
            "redis-8           1         1       1",
            "unused            0         0       0",
        ] {
            assert!(lines.iter().any(|told| told == line), "{line}: {lines:#?}");
        }
    }

    #[test]
    fn a_line_is_one_object() {
        let mut tally = Tally::default();
        tally.add("a", left_out("ME1"));
        let line = serde_json::to_string(&tally.backends["a"]).unwrap();
        assert_eq!(
            line,
            r#"{"backend":"a","passed":0,"left_out":[{"id":"ME1","reason":"no"}],"failed":[],"measured":[]}"#
        );
    }
}
