//! The suite as a test program: one trial for each scenario, and a summary that says what was left out.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::backend::{Backend, Clock};
use crate::limits;
use crate::runner::{Stage, Verdict, seed};
use crate::scenario::{Group, Scenario};
use crate::suite;
use crate::worker;

/// The whole of a `harness = false` test: runs the suite on each of `backends`.
///
/// It understands the arguments of Rust's own test programs, and besides any number of ids (`ME1`) and of groups by
/// their letters (`FQ`). With several backends the trials' names begin with the backend's. `LEASEHOLD_SEED` seeds
/// virtual time.
///
/// Scenarios with other processes start this program again, so nothing may happen in `main` before this call that
/// a second time would harm.
///
/// ```no_run
/// use std::{process::ExitCode, sync::Arc};
///
/// use leasehold_conformance::{Clock, MemoryBackend};
///
/// fn main() -> ExitCode {
///     leasehold_conformance::main([Arc::new(MemoryBackend::new(Clock::Virtual)) as _])
/// }
/// ```
pub fn main(backends: impl IntoIterator<Item = Arc<dyn Backend>>) -> ExitCode {
    main_of(&Group::ALL, backends)
}

/// [`main`] with the scenarios of some groups only: of the program, say, whose tests need a backend and not the other
/// way round.
pub fn main_of(groups: &[Group], backends: impl IntoIterator<Item = Arc<dyn Backend>>) -> ExitCode {
    let backends: Vec<_> = backends.into_iter().collect();
    if let Some(code) = worker::run_if_asked(&backends) {
        return code;
    }
    let (picked, arguments) = take_ids(std::env::args());
    let mut arguments = Arguments::from_iter(arguments);
    let real = backends.iter().filter(|backend| backend.clock() == Clock::Real);
    let threads = real.count() * limits::PARALLEL;
    if threads > 0 && arguments.test_threads.is_none() {
        arguments.test_threads = Some(threads);
    }
    let of = backends.len();
    let several = of > 1;
    let stages: Vec<_> = backends
        .into_iter()
        .map(|backend| Arc::new(Stage::new(backend)))
        .collect();
    let tally = Arc::<Mutex<Tally>>::default();
    let mut trials = Vec::new();
    let of_groups = suite::all().filter(|scenario| groups.contains(&scenario.group()));
    let wanted = of_groups.filter(|scenario| picks(&picked, scenario));
    // Those that need a server for themselves come last: each would keep the others waiting.
    let (alone, shared): (Vec<_>, Vec<_>) = wanted.partition(|scenario| scenario.is_exclusive());
    for scenario in shared.into_iter().chain(alone) {
        for stage in &stages {
            trials.push(trial(stage, scenario, several, &tally));
        }
    }
    let listing = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut used = Vec::new();
    for stage in stages {
        if stage.is_ready() {
            used.push(stage.backend().describe());
        }
        if let Some(stage) = Arc::into_inner(stage) {
            stage.finish();
        }
    }
    if !listing {
        let tally = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
        print(&tally, &used, of);
    }
    conclusion.exit_code()
}

/// What the summary is made of.
#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<String>,
    /// How long each took.
    times: Vec<(Duration, String)>,
    /// Backends by the reason why a scenario was left out, and the scenario.
    left_out: BTreeMap<(String, usize), Vec<String>>,
}

fn trial(stage: &Arc<Stage>, scenario: &'static Scenario, several: bool, tally: &Arc<Mutex<Tally>>) -> Trial {
    let (stage, tally) = (Arc::clone(stage), Arc::clone(tally));
    let backend = stage.backend().name();
    let prefix = if several {
        format!("{backend}/")
    } else {
        String::new()
    };
    let name = format!("{prefix}{}", scenario.trial());
    Trial::ignorable_test(name, move || {
        let (seed, start) = (seed(), now());
        let verdict = stage.run(scenario, seed);
        let took = start.elapsed();
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let id = format!("{prefix}{}", scenario.id);
        tally.times.push((took, id.clone()));
        match verdict {
            Verdict::Passed => {
                tally.passed += 1;
                Ok(Completion::Completed)
            }
            Verdict::LeftOut(reason) => {
                let place = suite::all().position(|other| other.id == scenario.id);
                let key = (reason.clone(), place.unwrap_or_default());
                tally.left_out.entry(key).or_default().push(backend);
                Ok(Completion::ignored_with(reason))
            }
            Verdict::Failed(message) => {
                tally.failed.push(id);
                Err(Failed::from(match stage.backend().clock() {
                    Clock::Virtual => format!("{message}\nagain with LEASEHOLD_SEED={seed}"),
                    Clock::Real => message,
                }))
            }
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "how long the test itself takes")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "the summary of a test program")]
fn print(tally: &Tally, used: &[String], of: usize) {
    for backend in used {
        println!("ran on {backend}");
    }
    let mut times = tally.times.clone();
    times.sort_unstable();
    let slowest = times.iter().rev().take(5);
    let slowest: Vec<_> = slowest.map(|(took, id)| format!("{id} {took:.1?}")).collect();
    println!("slowest: {}", slowest.join(", "));
    for ((reason, backends), ids) in grouped(&tally.left_out) {
        let on = if backends.len() < of {
            format!(" on {}", backends.join(", "))
        } else {
            String::new()
        };
        println!("left out{on}, {reason}: {}", ids.join(" "));
    }
    for id in &tally.failed {
        println!("FAILED {id}");
    }
    let left_out: usize = tally.left_out.values().map(Vec::len).sum();
    println!(
        "conformance: {} passed, {left_out} left out, {} failed",
        tally.passed,
        tally.failed.len()
    );
}

/// The ids that were left out for one reason on the same backends.
fn grouped(
    left_out: &BTreeMap<(String, usize), Vec<String>>,
) -> BTreeMap<(&str, Vec<&str>), Vec<&'static str>> {
    let ids: Vec<_> = suite::all().map(|scenario| scenario.id).collect();
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ((reason, place), backends) in left_out {
        let mut backends: Vec<_> = backends.iter().map(String::as_str).collect();
        backends.sort_unstable();
        let group = groups.entry((reason.as_str(), backends)).or_default();
        group.extend(ids.get(*place));
    }
    groups
}

/// Takes ids and groups out of the arguments.
fn take_ids(arguments: impl IntoIterator<Item = String>) -> (Vec<String>, Vec<String>) {
    let is_id = |argument: &String| {
        Group::ALL.iter().any(|group| group.code() == argument)
            || suite::all().any(|scenario| scenario.id == argument)
    };
    arguments.into_iter().partition(is_id)
}

fn picks(picked: &[String], scenario: &Scenario) -> bool {
    picked.is_empty()
        || picked
            .iter()
            .any(|pick| pick == scenario.id || pick == scenario.group().code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_once() {
        let mut left_out = BTreeMap::new();
        for (place, backends) in [(0, vec!["b", "a"]), (1, vec!["a", "b"]), (2, vec!["a"])] {
            let backends = backends.into_iter().map(String::from).collect();
            left_out.insert(("no".to_owned(), place), backends);
        }
        let ids: Vec<_> = suite::all().map(|scenario| scenario.id).collect();
        let groups: Vec<_> = grouped(&left_out).into_iter().collect();
        assert_eq!(
            groups,
            [
                (("no", vec!["a"]), vec![ids[2]]),
                (("no", vec!["a", "b"]), vec![ids[0], ids[1]])
            ]
        );
    }

    #[test]
    fn ids_and_groups_pick() {
        let arguments = ["program", "--list", "ME1", "FQ", "exclusion"].map(String::from);
        let (picked, rest) = take_ids(arguments);
        assert_eq!(rest, ["program", "--list", "exclusion"]);
        let ids: Vec<_> = suite::all()
            .filter(|scenario| picks(&picked, scenario))
            .map(|scenario| scenario.id)
            .collect();
        assert!(ids.contains(&"ME1") && ids.contains(&"FQ8") && !ids.contains(&"ME10"));
    }
}
