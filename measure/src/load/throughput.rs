//! S2: tasks of one client on names of their own.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::task::JoinSet;

use super::join;
use crate::contender::{Client, Failure};
use crate::figure::{Curve, Figure};
use crate::stats::{Pairs, PairsOfTask, count};
use crate::trial::{Found, Limits, Meter, Trial};

pub(super) async fn run(trial: Arc<Trial>) -> Result<Found, Failure> {
    let clients = trial.clients(1).await?;
    let all = Arc::new(Mutex::<Pairs>::default());
    let names: Vec<_> = (0..trial.case.tasks).map(|task| names(&trial, task)).collect();
    let meter = Meter::start(&*trial.contender).await;
    let limits = Arc::new(Limits::of(&trial));
    let mut tasks = JoinSet::new();
    for names in names {
        let (trial, client) = (Arc::clone(&trial), clients.get(0));
        let (limits, all) = (Arc::clone(&limits), Arc::clone(&all));
        tasks.spawn(async move { pairs(&trial, &**client, &names, &limits, &all).await });
    }
    let done: u64 = join(tasks, &limits).await?.iter().sum();
    let mut found = Found::default();
    found.set(
        Figure::PerSecond,
        count(done) / limits.begin.elapsed().as_secs_f64(),
    );
    meter.per_acquisition(&*trial.contender, done, &mut found).await;
    clients.close().await?;
    let all = all.lock().unwrap_or_else(PoisonError::into_inner);
    found.times(&all.pair, Figure::PairP50, Figure::PairP99);
    found.curve(Curve::Pair, &all.pair);
    Ok(found)
}

/// The names of one task.
pub(super) fn names(trial: &Trial, task: usize) -> Vec<String> {
    (0..trial.case.names)
        .map(|name| trial.name(format_args!("{task}-{name}")))
        .collect()
}

/// Takes and frees one name after the other.
pub(super) async fn pairs(
    trial: &Trial,
    client: &dyn Client,
    names: &[String],
    limits: &Limits,
    all: &Mutex<Pairs>,
) -> Result<u64, Failure> {
    let (mut times, mut done) = (PairsOfTask::new(all), 0);
    for name in names.iter().cycle() {
        if !limits.go_on() {
            break;
        }
        let begun = Instant::now();
        let hold = client.acquire(name, trial.case.ttl).await?;
        let held = Instant::now();
        hold.release().await?;
        times.record(held - begun, held.elapsed());
        done += 1;
    }
    Ok(done)
}
