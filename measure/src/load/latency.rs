//! S1: one task, nobody else.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::sync::oneshot;

use super::throughput::{names, pairs};
use crate::contender::{Client, Failure};
use crate::figure::{Curve, Figure};
use crate::stats::{Pairs, Times, count};
use crate::trial::{Found, Limits, Meter, Trial};
use crate::usage;

/// Pings for the round trip, back to back.
const PINGS: usize = 200;
/// Pings for the round trip of those who were idle before, and for how long. As the holders of S3 hold.
const RESTED_PINGS: usize = 40;
const REST: Duration = Duration::from_millis(10);

/// On one thread, and one processor: where there are more, the wake-ups among them take longer than what is measured, for
/// some clients and not for others.
pub(super) async fn run(trial: Arc<Trial>) -> Result<Found, Failure> {
    let (sender, receiver) = oneshot::channel();
    thread::Builder::new().name("latency".into()).spawn(move || {
        usage::keep_to_one_processor();
        let runtime = Builder::new_current_thread().enable_all().build();
        let found = match runtime {
            Ok(runtime) => {
                let found = runtime.block_on(alone(&trial));
                runtime.shutdown_background();
                found
            }
            Err(error) => Err(error.into()),
        };
        // Nobody listens when the run was given up.
        sender.send(found).ok();
    })?;
    receiver.await?
}

async fn alone(trial: &Trial) -> Result<Found, Failure> {
    let clients = trial.clients(1).await?;
    let client = clients.get(0);
    let mut found = Found::default();
    for (figure, pings, rest) in [
        (Figure::RoundTripP50, PINGS, Duration::ZERO),
        (Figure::RestedRoundTripP50, RESTED_PINGS, REST),
    ] {
        if let Some(round_trip) = round_trip(trial, &**client, pings, rest).await? {
            found.set(figure, round_trip);
        }
    }
    let (names, all) = (names(trial, 0), Mutex::<Pairs>::default());
    let meter = Meter::start(&*trial.contender).await;
    let limits = Limits::of(trial);
    let done = pairs(trial, &**client, &names, &limits, &all).await?;
    found.set(
        Figure::PerSecond,
        count(done) / limits.begin.elapsed().as_secs_f64(),
    );
    meter.per_acquisition(&*trial.contender, done, &mut found).await;
    drop(client);
    clients.close().await?;
    let all = all.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.times(&all.acquire, Figure::AcquireP50, Figure::AcquireP99);
    found.times(&all.release, Figure::ReleaseP50, Figure::ReleaseP99);
    found.times(&all.pair, Figure::PairP50, Figure::PairP99);
    found.curve(Curve::Pair, &all.pair);
    Ok(found)
}

/// The median in microseconds, of fewer when the user has had enough.
async fn round_trip(
    trial: &Trial,
    client: &dyn Client,
    pings: usize,
    rest: Duration,
) -> Result<Option<f64>, Failure> {
    let mut times = Times::default();
    for _ in 0..pings {
        if trial.stop.is_cancelled() {
            break;
        }
        if !rest.is_zero() {
            tokio::time::sleep(rest).await;
        }
        let Some(time) = client.ping().await? else {
            return Ok(None);
        };
        times.record(time);
    }
    Ok((!times.is_empty()).then(|| times.percentile(50.0)))
}
