//! The engine under random use and random faults, on virtual time: thousands of runs in seconds.
//!
//! A run follows from its seed alone. A failing one says how to repeat it:
//!
//! ```text
//! LEASEHOLD_SIMULATION_SEED=17 cargo test -p lockcore --test simulation storms -- --nocapture
//! ```
//!
//! prints what happened in it. `LEASEHOLD_SIMULATION_SEEDS=100000` runs that many instead of the default.
#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn on the runtime that they made"
)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure is a failed test")]
#![expect(clippy::print_stdout, reason = "a run tells what happened in it")]

mod actor;
mod faults;
mod link;
mod queue;
mod table;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use link::Bug;
use world::{Outcome, Weather, World};

const SEEDS: u64 = 2000;

/// How many seeds it may take to find a bug that is there.
const SEEDS_TO_FIND_A_BUG: u64 = 60;

fn run(seed: u64, weather: Weather, bug: Option<Bug>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(World::run(seed, weather, bug))
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .unwrap_or_else(|_| panic!("{variable} is {value:?}, not a number")),
    )
}

/// Runs the seeds on all cores, and fails with the smallest that went wrong.
fn run_seeds(weather: Weather) {
    if let Some(seed) = number("LEASEHOLD_SIMULATION_SEED") {
        let outcome = run(seed, weather, None);
        print!("{}", outcome.trace);
        assert!(outcome.violations.is_empty(), "{:#?}", outcome.violations);
        return;
    }
    let seeds = number("LEASEHOLD_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed = Mutex::new(None::<(u64, Outcome)>);
    let totals = Mutex::new((0, 0));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let outcome = run(seed, weather, None);
                    let mut totals = totals.lock().unwrap();
                    *totals = (totals.0 + outcome.grants, totals.1 + outcome.losses);
                    let mut failed = failed.lock().unwrap();
                    if !outcome.violations.is_empty()
                        && failed.as_ref().is_none_or(|(other, _)| seed < *other)
                    {
                        *failed = Some((seed, outcome));
                    }
                }
            });
        }
    });
    if let Some((seed, outcome)) = failed.into_inner().unwrap() {
        let test = weather.as_str();
        panic!(
            "seed {seed}: {:#?}\nLEASEHOLD_SIMULATION_SEED={seed} cargo test -p lockcore --test simulation {test} -- --nocapture",
            outcome.violations
        );
    }
    let (grants, losses) = totals.into_inner().unwrap();
    println!("{seeds} seeds, {grants} grants, {losses} losses");
    // A run in which nothing happens proves nothing.
    assert!(grants > seeds * 10);
    assert_eq!(losses > seeds, weather == Weather::Storm, "{losses} losses");
}

#[test]
fn calm() {
    run_seeds(Weather::Calm);
}

#[test]
fn storms() {
    run_seeds(Weather::Storm);
}

#[test]
fn a_seed_decides_everything() {
    for weather in [Weather::Calm, Weather::Storm] {
        for seed in 0..60 {
            let (first, second) = (run(seed, weather, None), run(seed, weather, None));
            let differing = first
                .trace
                .lines()
                .zip(second.trace.lines())
                .find(|(a, b)| a != b);
            assert_eq!(differing, None, "seed {seed} in {weather:?}");
            assert_eq!(
                first.trace.len(),
                second.trace.len(),
                "seed {seed} in {weather:?}"
            );
        }
    }
}

/// The simulation is able to find something.
#[test]
fn bugs_are_found() {
    for bug in Bug::ALL {
        let found = (0..SEEDS_TO_FIND_A_BUG).find_map(|seed| {
            let weathers = [Weather::Calm, Weather::Storm];
            let mut outcomes = weathers.map(|weather| run(seed, weather, Some(bug))).into_iter();
            outcomes.find_map(|outcome| outcome.violations.into_iter().next())
        });
        let Some(violation) = found else {
            panic!("{bug:?} was not found")
        };
        println!("{bug:?}: {violation}");
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Shared by the tasks of one run.
type Shared<T> = Arc<Mutex<T>>;
