//! The suite as a test program: one trial for each scenario, and a summary that says what was left out.

mod order;
mod summary;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::backend::{Backend, Clock};
use crate::limits;
use crate::runner::{Stage, Verdict, seed};
use crate::scenario::{Group, Scenario};
use crate::suite;
use crate::worker;
use order::in_order;
use summary::Tally;

/// The whole of a `harness = false` test: runs the suite on each of `backends`.
///
/// It understands the arguments of Rust's own test programs, and besides any number of ids (`ME1`) and of groups by
/// their letters (`FQ`). With several backends the trials' names begin with the backend's. `LEASEHOLD_SEED` seeds
/// virtual time, `LEASEHOLD_TEST_TIMES` is how many of the slowest scenarios are told, and to the file
/// `LEASEHOLD_TEST_SUMMARY` one line of JSON for each backend is appended.
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
    let several = backends.len() > 1;
    let stages: Vec<_> = backends.into_iter().map(Stages::new).collect();
    let tally = Arc::<Mutex<Tally>>::default();
    for stages in &stages {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tally.expect(&stages.name());
    }
    let of_groups = suite::all().filter(|scenario| groups.contains(&scenario.group()));
    let wanted: Vec<_> = of_groups.filter(|scenario| picks(&picked, scenario)).collect();
    let trials = in_order(&stages, &wanted)
        .into_iter()
        .map(|(stage, scenario)| trial(stage, scenario, several, &tally))
        .collect();
    let listing = arguments.list;
    let conclusion = libtest_mimic::run(&arguments, trials);
    let mut used = Vec::new();
    for Stages { shared, alone } in stages {
        let both: Vec<_> = [Some(shared), alone].into_iter().flatten().collect();
        // They differ in their address alone.
        let ready = both.iter().find(|stage| stage.is_ready());
        used.extend(ready.map(|stage| stage.backend().describe()));
        both.into_iter()
            .filter_map(Arc::into_inner)
            .for_each(Stage::finish);
    }
    if !listing {
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&mut tally, &used);
    }
    conclusion.exit_code()
}

/// Where a backend's scenarios run.
struct Stages {
    shared: Arc<Stage>,
    /// For those that need a server for themselves, where a second one can be had.
    alone: Option<Arc<Stage>>,
}

impl Stages {
    fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            alone: backend.another().map(|another| Arc::new(Stage::new(another))),
            shared: Arc::new(Stage::new(backend)),
        }
    }

    fn name(&self) -> String {
        self.shared.backend().name()
    }
}

#[expect(clippy::print_stdout, reason = "the summary of a test program")]
fn tell(tally: &mut Tally, used: &[String]) {
    for line in tally.lines(used) {
        println!("{line}");
    }
    if let Err(error) = tally.append() {
        println!("the summary could not be written: {error}");
    }
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
        let seed = seed();
        let outcome = stage.run(scenario, seed);
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = outcome.verdict.clone();
        tally.add(&backend, outcome);
        match verdict {
            Verdict::Passed => Ok(Completion::Completed),
            Verdict::LeftOut(reason) => Ok(Completion::ignored_with(reason)),
            Verdict::Failed(message) => Err(Failed::from(match stage.backend().clock() {
                Clock::Virtual => format!("{message}\nagain with LEASEHOLD_SEED={seed}"),
                Clock::Real => message,
            })),
        }
    })
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
