//! The suite proves itself: drivers with one bug each, and which scenarios reject them.
//!
//! Every mutant is the memory driver with one thing changed. The whole suite runs on each of them, on virtual time, and
//! the scenarios that the table names have to fail; without a change everything has to pass. A mutant that nothing
//! rejects is a scenario that is missing.
//!
//! ```text
//! cargo test -p leasehold-conformance --test mutants -- --nocapture
//! LEASEHOLD_MUTANT=blind_release cargo test -p leasehold-conformance --test mutants -- --nocapture
//! ```
//! prints the table, and why one of them was rejected.

mod leases;
mod mutation;
mod names;
mod queues;
mod sessions;
mod table;
mod tokens;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use leasehold_conformance::{Verdict, run};
use mutation::{Mutant, backend};

/// Why scenarios failed, by id.
type Rejections = BTreeMap<&'static str, String>;

fn rejections(mutant: &Mutant) -> Rejections {
    let endless = table::endless(mutant.name);
    // Ten thousand grants are as much as all the others together: only for those that it is to reject.
    let long = |id| id == "FE3" && !mutant.by.contains(&id) && !mutant.what.is_empty();
    let outcomes = run(backend(mutant), |scenario| {
        !endless.contains(&scenario.id) && !long(scenario.id)
    });
    let failed = outcomes.into_iter().filter_map(|outcome| match outcome.verdict {
        Verdict::Failed(message) => Some((outcome.scenario.id, message)),
        _ => None,
    });
    failed.collect()
}

#[test]
fn the_unchanged_driver_passes() {
    for unchanged in &table::UNCHANGED {
        let rejected = rejections(unchanged);
        assert!(rejected.is_empty(), "{}: {rejected:#?}", unchanged.name);
    }
}

#[test]
fn every_mutant_is_rejected() {
    let wanted = std::env::var("LEASEHOLD_MUTANT").ok();
    let mutants: Vec<_> = table::MUTANTS
        .iter()
        .chain(table::ON_SESSIONS)
        .filter(|mutant| wanted.as_ref().is_none_or(|wanted| wanted == mutant.name))
        .collect();
    assert!(!mutants.is_empty(), "no mutant has this name: {wanted:?}");
    let rejected: Vec<_> = mutants.iter().map(|_| Mutex::<Rejections>::default()).collect();
    let next = AtomicUsize::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(index) else { return };
                    *rejected[index].lock().unwrap() = rejections(mutant);
                }
            });
        }
    });
    let mut survivors = Vec::new();
    for (mutant, rejected) in mutants.iter().zip(rejected) {
        let rejected = rejected.into_inner().unwrap();
        let others = rejected.len().saturating_sub(mutant.by.len());
        println!(
            "{:24} {:10} and {others:2} more: {}",
            mutant.name,
            mutant.by.join(" "),
            mutant.what
        );
        if wanted.is_some() {
            for (id, why) in &rejected {
                println!("\n{id}: {why}");
            }
        }
        let missing: Vec<_> = mutant
            .by
            .iter()
            .filter(|id| !rejected.contains_key(*id))
            .collect();
        if mutant.by.is_empty() || !missing.is_empty() {
            survivors.push(format!("{} was not rejected by {missing:?}", mutant.name));
        }
    }
    assert!(survivors.is_empty(), "{survivors:#?}");
}
