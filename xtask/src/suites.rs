//! The conformance suites: one test program for each driver. Where there are the cores for it
//! several run side by side.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::{process::Command, task::JoinSet};

use crate::{
    count::Count,
    failures::Failures,
    run::{self, End, From, Limits},
    servers::Servers,
    workspace::{Workspace, cargo},
};

/// The name that a test target has to have to be run as a conformance suite.
pub(crate) const SUITE: &str = "conformance";

/// To the file in this variable a suite appends a line of JSON for each backend.
const SUMMARY: &str = "LEASEHOLD_TEST_SUMMARY";

/// A suite that says nothing for so long hangs: its own watchdogs are quicker.
const LIMITS: Limits = Limits {
    total: Duration::from_secs(45 * 60),
    silence: Duration::from_secs(10 * 60),
};

/// A test program that was built.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suite {
    package: String,
    program: PathBuf,
    folder: PathBuf,
}

/// What became of a suite.
struct Done {
    package: String,
    end: Result<End>,
    count: Count,
    /// What it printed.
    lines: Vec<String>,
    backends: Vec<Backend>,
}

/// What the suites came to.
pub(crate) struct Results {
    pub(crate) count: Count,
    /// A line for each backend.
    pub(crate) table: Vec<String>,
    pub(crate) failures: Failures,
}

/// A line of the summary.
#[derive(Debug, Default, PartialEq, Eq)]
struct Backend {
    name: String,
    passed: usize,
    /// Scenarios by id, and why.
    left_out: Vec<(String, String)>,
    failed: Vec<String>,
}

/// Builds all suites, then runs them.
pub(crate) async fn run(workspace: &Workspace, servers: &Servers) -> Result<Results> {
    if !workspace.named("test").contains(&SUITE) {
        bail!("no package has a test target `{SUITE}`");
    }
    let suites = longest_first(build().await?).await;
    let summaries = tempfile::Builder::new().prefix("leasehold-summary-").tempdir()?;
    let mut done = Vec::new();
    let (light, heavy) = suites.into_iter().partition(Suite::is_light);
    for (mut waiting, at_once) in [(heavy, at_once()), (light, 2 * at_once())] {
        let mut running = JoinSet::new();
        loop {
            while running.len() < at_once
                && let Some(suite) = VecDeque::pop_front(&mut waiting)
            {
                println!("{}: started, {at_once} at a time", suite.package);
                let file = summaries.path().join(&suite.package);
                let mut command = suite.command(&file);
                servers.tell(&mut command);
                running.spawn(suite.run(command, file));
            }
            let Some(ended) = running.join_next().await else {
                break;
            };
            done.push(ended?);
            if run::is_interrupted() {
                bail!("interrupted");
            }
        }
    }
    done.sort_by(|one, other| one.package.cmp(&other.package));
    let (mut count, mut failures) = (Count::default(), Failures::default());
    for done in &done {
        count.add(done.count);
        done.lines.iter().for_each(|line| failures.read(line));
    }
    Ok(Results {
        count,
        table: table(&done),
        failures,
    })
}

/// The suites that leave two cores time for something else.
const LIGHT: [&str; 4] = ["cli", "conformance", "driver-redis", "driver-sqlite"];

/// Any other suite with its servers keeps two cores busy. More at a time would be slow, which tests of timing feel.
fn at_once() -> usize {
    (cores() / 2).clamp(1, 3)
}

/// Scenarios mostly wait for time to pass. With more of them, those of the SQL servers wait for the machine, and miss their
/// times for that reason alone.
fn threads() -> usize {
    6 * cores() / at_once()
}

pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

async fn build() -> Result<Vec<Suite>> {
    let command = cargo([
        "test",
        "--workspace",
        "--all-features",
        "--no-run",
        "--test",
        SUITE,
        "--message-format=json-render-diagnostics",
    ]);
    let mut suites = Vec::new();
    let end = run::follow(command, Limits::minutes(30), |from, line| match from {
        From::Out => suites.extend(built(line)),
        From::Err => anstream::println!("{line}"),
    });
    let end = end.await?;
    if !end.is_success() {
        bail!("the suites do not build ({end})");
    }
    if suites.is_empty() {
        bail!("cargo names no program of the suites");
    }
    suites.sort_by(|one, other| one.package.cmp(&other.package));
    Ok(suites)
}

/// The suite that this message of cargo's is about, if it is.
fn built(message: &str) -> Option<Suite> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message.pointer("/target/name")?.as_str()? != SUITE
        || message.pointer("/target/kind/0")?.as_str()? != "test"
    {
        return None;
    }
    let program = message.get("executable")?.as_str()?.into();
    let folder = Path::new(message.get("manifest_path")?.as_str()?).parent()?;
    Some(Suite {
        package: folder.file_name()?.to_str()?.to_owned(),
        program,
        folder: folder.to_owned(),
    })
}

/// By the number of their scenarios on all their backends: what comes last runs alone.
async fn longest_first(suites: Vec<Suite>) -> VecDeque<Suite> {
    let mut counted = Vec::new();
    for suite in suites {
        let mut list = Command::new(&suite.program);
        list.arg("--list").current_dir(&suite.folder);
        let listed = run::output(list, Duration::from_secs(30))
            .await
            .unwrap_or_default();
        counted.push((listed.lines().count(), suite));
    }
    counted.sort_by(|(one, _), (other, _)| other.cmp(one));
    counted.into_iter().map(|(_, suite)| suite).collect()
}

impl Suite {
    fn is_light(&self) -> bool {
        LIGHT.contains(&self.package.as_str())
    }

    /// As cargo would run it.
    fn command(&self, summary: &Path) -> Command {
        let mut command = Command::new(&self.program);
        let threads = if self.is_light() { 2 * threads() } else { threads() };
        command
            .arg(format!("--test-threads={threads}"))
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .env(SUMMARY, summary);
        command
    }

    async fn run(self, command: Command, summary: PathBuf) -> Done {
        let mut count = Count::default();
        let (end, lines) = match run::collect(command, LIMITS).await {
            Ok((end, lines)) => (Ok(end), lines),
            Err(error) => (Err(error), Vec::new()),
        };
        lines.iter().for_each(|line| count.libtest(line));
        if !end.as_ref().is_ok_and(End::is_success) {
            count.failed = count.failed.max(1);
        }
        // One that could not start its server writes none.
        let summary = fs::read_to_string(summary).unwrap_or_default();
        let backends = summary.lines().filter_map(|line| backend(line).ok()).collect();
        Done {
            package: self.package,
            end,
            count,
            lines,
            backends,
        }
    }
}

fn backend(line: &str) -> Result<Backend> {
    let line: Value = serde_json::from_str(line)?;
    let list = |name: &str| {
        line.get(name)
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let failed = list("failed");
    let passed = line
        .get("passed")
        .and_then(Value::as_u64)
        .context("no `passed`")?;
    Ok(Backend {
        name: line
            .get("backend")
            .and_then(Value::as_str)
            .context("no `backend`")?
            .into(),
        passed: passed.try_into()?,
        left_out: list("left_out")
            .iter()
            .filter_map(|left_out| {
                let word = |name: &str| left_out.get(name)?.as_str().map(ToOwned::to_owned);
                Some((word("id")?, word("reason")?))
            })
            .collect(),
        failed: failed
            .iter()
            .filter_map(|id| Some(id.as_str()?.to_owned()))
            .collect(),
    })
}

fn table(done: &[Done]) -> Vec<String> {
    let mut rows = vec![["suite", "backend", "passed", "left out", "failed"].map(String::from)];
    let mut notes = Vec::new();
    for Done {
        package,
        end,
        backends,
        ..
    } in done
    {
        for backend in backends {
            let numbers = [backend.passed, backend.left_out.len(), backend.failed.len()]
                .map(|number| number.to_string());
            let [passed, left_out, failed] = numbers;
            rows.push([package.clone(), backend.name.clone(), passed, left_out, failed]);
            if !backend.failed.is_empty() {
                notes.push(format!(
                    "{package}, {}: FAILED {}",
                    backend.name,
                    backend.failed.join(" ")
                ));
            }
        }
        match end {
            Ok(end) if end.is_success() => {}
            Ok(end) => notes.push(format!("{package}: FAILED ({end})")),
            Err(error) => notes.push(format!("{package}: FAILED ({error:#})")),
        }
    }
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(String::len)
            .max()
    };
    let (suite, backend) = (width(0).unwrap_or_default(), width(1).unwrap_or_default());
    let mut lines =
        vec!["\nConformance, by backend (left out: declared by the driver or the machine):".to_owned()];
    for [package, name, passed, left_out, failed] in &rows {
        lines.push(format!(
            "  {package:suite$}  {name:backend$}  {passed:>6}  {left_out:>8}  {failed:>6}"
        ));
    }
    lines.push("Left out, and why:".to_owned());
    lines.extend(reasons(done.iter().flat_map(|done| &done.backends)));
    lines.extend(notes);
    lines
}

/// Each reason for leaving something out, with the scenarios and the backends.
fn reasons<'a>(backends: impl Iterator<Item = &'a Backend>) -> Vec<String> {
    let mut by_reason = BTreeMap::<&str, (BTreeSet<&str>, BTreeSet<&str>)>::new();
    for backend in backends {
        for (id, reason) in &backend.left_out {
            let (ids, names) = by_reason.entry(reason).or_default();
            ids.insert(id);
            names.insert(&backend.name);
        }
    }
    let told = by_reason.into_iter().map(|(reason, (ids, names))| {
        let [ids, names] = [ids, names].map(|set| set.into_iter().collect::<Vec<_>>().join(" "));
        format!("  {reason}: {ids} ({names})")
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_messages_name_the_suites() {
        let message = r#"{"reason":"compiler-artifact","manifest_path":"/w/driver-x/Cargo.toml",
            "target":{"kind":["test"],"name":"conformance"},"executable":"/w/target/debug/deps/conformance-1"}"#;
        let suite = built(&message.replace('\n', "")).unwrap();
        assert_eq!(suite.package, "driver-x");
        assert_eq!(suite.folder, Path::new("/w/driver-x"));
        assert_eq!(built(&message.replace("\"test\"", "\"lib\"")), None);
        assert_eq!(built(r#"{"reason":"build-finished","success":true}"#), None);
        assert_eq!(built("no JSON"), None);
    }

    #[test]
    fn the_table_has_every_backend() {
        let line = r#"{"backend":"x-container","passed":7,"left_out":[{"id":"A1","reason":"no"}],"failed":["B1"],"measured":[]}"#;
        let done = Done {
            package: "driver-x".into(),
            end: Ok(End::Exit(101)),
            count: Count::default(),
            lines: Vec::new(),
            backends: vec![backend(line).unwrap()],
        };
        let lines = table(&[done]);
        for wanted in [
            "  suite     backend      passed  left out  failed",
            "  driver-x  x-container       7         1       1",
            "  no: A1 (x-container)",
            "driver-x, x-container: FAILED B1",
            "driver-x: FAILED (exit code 101)",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted}: {lines:#?}");
        }
    }
}
