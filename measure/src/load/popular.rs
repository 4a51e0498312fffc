//! S8: tasks of several clients on names by Zipf's law.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::task::JoinSet;

use super::contended::Share;
use super::join;
use crate::contender::{Client, Failure};
use crate::figure::{Curve, Figure};
use crate::referee::Referee;
use crate::stats::{Pairs, PairsOfTask, count};
use crate::trial::{Found, Limits, Meter, Trial};

/// Clients that the tasks belong to.
const CLIENTS: usize = 4;

struct Market {
    trial: Arc<Trial>,
    limits: Limits,
    /// A name, its referee, and how often it or one before it is asked for.
    names: Vec<(String, Referee, f64)>,
    all: Mutex<Pairs>,
}

pub(super) async fn run(trial: Arc<Trial>) -> Result<Found, Failure> {
    let clients = trial.clients(CLIENTS).await?;
    let names = names(&trial);
    let meter = Meter::start(&*trial.contender).await;
    let market = Arc::new(Market {
        limits: Limits::of(&trial),
        names,
        trial: Arc::clone(&trial),
        all: Mutex::default(),
    });
    let mut tasks = JoinSet::new();
    for who in 0..trial.case.tasks {
        let (market, client) = (Arc::clone(&market), clients.get(who % CLIENTS));
        tasks.spawn(async move { market.visit(&**client, who).await });
    }
    let shares = join(tasks, &market.limits).await?;
    let window = market.limits.window();
    let sum = |figure: fn(&Referee) -> u64| market.names.iter().map(|(_, referee, _)| figure(referee)).sum();
    let mut found = Found::default();
    meter
        .per_acquisition(&*trial.contender, sum(Referee::grants), &mut found)
        .await;
    clients.close().await?;
    let grants = shares.iter().map(|share| share.grants).sum();
    found.set(Figure::PerSecond, count(grants) / window.as_secs_f64());
    let longest = shares.iter().map(|share| share.longest).max().unwrap_or_default();
    found.set(Figure::LongestWait, longest.as_secs_f64() * 1e3);
    found.count(Figure::Violations, sum(Referee::violations));
    if trial.contender.offers().tokens {
        found.count(Figure::StaleTokens, sum(Referee::stale_tokens));
    }
    let all = market.all.lock().unwrap_or_else(PoisonError::into_inner);
    found.times(&all.acquire, Figure::AcquireP50, Figure::AcquireP99);
    found.curve(Curve::Acquire, &all.acquire);
    Ok(found)
}

fn names(trial: &Trial) -> Vec<(String, Referee, f64)> {
    let mut up_to = 0.0;
    (1_u32..)
        .take(trial.case.names)
        .map(|rank| {
            up_to += f64::from(rank).recip();
            (trial.name(rank), Referee::default(), up_to)
        })
        .collect()
}

impl Market {
    async fn visit(&self, client: &dyn Client, who: usize) -> Result<Share, Failure> {
        let (limits, mut share) = (&self.limits, Share::default());
        let mut times = PairsOfTask::new(&self.all);
        let mut cut_off = pin!(limits.cut_off());
        // The same names for every contender.
        let mut random = fastrand::Rng::with_seed(u64::try_from(who).unwrap_or(0));
        let total = self.names.last().map_or(0.0, |(.., up_to)| *up_to);
        while limits.go_on() {
            let drawn = random.f64() * total;
            let rank = self.names.partition_point(|(.., up_to)| *up_to < drawn);
            let Some((name, referee, _)) = self.names.get(rank) else {
                continue;
            };
            let begun = Instant::now();
            let hold = tokio::select! {
                biased;
                hold = client.acquire(name, self.trial.case.ttl) => hold?,
                () = &mut cut_off => {
                    share.wait(limits.end.saturating_duration_since(begun));
                    break;
                }
            };
            let now = Instant::now();
            share.wait(now.min(limits.end).saturating_duration_since(begun));
            let counts = !limits.over(now);
            let grant = referee.enters(who, &*hold, now, counts);
            referee.linger(grant).await;
            let leaving = referee.leaves(who);
            hold.release().await?;
            if counts {
                share.grants += 1;
                times.record(now - begun, leaving.elapsed());
            }
        }
        Ok(share)
    }
}
