//! What is done to a contender, one file for each kind of load.

mod contended;
mod held;
mod latency;
mod local;
mod popular;
mod recovery;
mod throughput;

use std::sync::Arc;

use tokio::task::JoinSet;

use crate::case::Scenario;
use crate::contender::Failure;
use crate::trial::{Found, Limits, Trial};

pub(crate) use held::Holding;

/// Does what the trial's case says.
pub(crate) async fn run(trial: Arc<Trial>) -> Result<Found, Failure> {
    match trial.case.scenario {
        Scenario::Latency => latency::run(trial).await,
        Scenario::Throughput => throughput::run(trial).await,
        Scenario::Contended | Scenario::Growth => contended::run(trial).await,
        Scenario::Held => held::run(&trial).await,
        Scenario::Recovery => recovery::run(&trial).await,
        Scenario::Local => local::run(trial).await,
        Scenario::Popular => popular::run(trial).await,
    }
}

/// What all tasks found. The first failure ends all of them.
async fn join<T: 'static>(
    mut tasks: JoinSet<Result<T, Failure>>,
    limits: &Limits,
) -> Result<Vec<T>, Failure> {
    let (mut found, mut failure) = (Vec::with_capacity(tasks.len()), None);
    while let Some(done) = tasks.join_next().await {
        match done.unwrap_or_else(|panic| Err(panic.into())) {
            Ok(one) => found.push(one),
            Err(error) => {
                failure.get_or_insert(error);
                limits.failed.cancel();
            }
        }
    }
    failure.map_or(Ok(found), Err)
}
