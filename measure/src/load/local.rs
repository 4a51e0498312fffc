//! S7: tasks of one client on one name, and a client elsewhere.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::contended::{Share, contend, verdict};
use super::join;
use crate::contender::{Client, Failure};
use crate::figure::Figure;
use crate::referee::Referee;
use crate::stats::{Times, count};
use crate::trial::{Found, Limits, Meter, Trial};

/// How long the client elsewhere is busy with other things: it asks so seldom that it hardly takes part.
const ELSEWHERE: Duration = Duration::from_millis(20);

enum Part {
    Local(Share),
    Remote(Times),
}

pub(super) async fn run(trial: Arc<Trial>) -> Result<Found, Failure> {
    let clients = trial.clients(2).await?;
    let referee = Arc::new(Referee::default());
    let meter = Meter::start(&*trial.contender).await;
    let limits = Arc::new(Limits::of(&trial));
    let mut tasks = JoinSet::new();
    let tasks_of_one = trial.case.tasks;
    for who in 0..=tasks_of_one {
        let local = who < tasks_of_one;
        let (trial, client) = (Arc::clone(&trial), clients.get(usize::from(!local)));
        let (limits, referee) = (Arc::clone(&limits), Arc::clone(&referee));
        tasks.spawn(async move {
            if local {
                let share = contend(&trial, &**client, who, &limits, &referee).await?;
                return Ok(Part::Local(share));
            }
            remote(&trial, &**client, who, &limits, &referee)
                .await
                .map(Part::Remote)
        });
    }
    let parts = join(tasks, &limits).await?;
    let window = limits.window();
    let mut found = Found::default();
    meter
        .per_acquisition(&*trial.contender, referee.grants(), &mut found)
        .await;
    clients.close().await?;
    let mut grants = 0;
    for part in parts {
        match part {
            Part::Local(share) => grants += share.grants,
            Part::Remote(waits) if waits.is_empty() => {}
            Part::Remote(waits) => {
                found.set(Figure::RemoteWaitP50, waits.percentile(50.0));
                found.set(Figure::RemoteWaitLongest, waits.longest() / 1e3);
            }
        }
    }
    found.set(Figure::PerSecond, count(grants) / window.as_secs_f64());
    verdict(&referee, &trial, &mut found);
    Ok(found)
}

/// Asks now and then, and notes how long it takes.
async fn remote(
    trial: &Trial,
    client: &dyn Client,
    who: usize,
    limits: &Limits,
    referee: &Referee,
) -> Result<Times, Failure> {
    let (name, mut waits) = (trial.name("one"), Times::default());
    let mut cut_off = pin!(limits.cut_off());
    loop {
        let begun = Instant::now();
        let hold = tokio::select! {
            hold = client.acquire(&name, trial.case.ttl) => hold?,
            () = &mut cut_off => {
                waits.record(limits.end.saturating_duration_since(begun));
                return Ok(waits);
            }
        };
        let now = Instant::now();
        waits.record(now.min(limits.end).saturating_duration_since(begun));
        referee.enters(who, &*hold, now, false);
        referee.leaves(who);
        hold.release().await?;
        tokio::select! {
            () = limits.ended() => return Ok(waits),
            () = tokio::time::sleep(ELSEWHERE) => {}
        }
    }
}
