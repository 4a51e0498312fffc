//! S3 and S4: clients with connections of their own on one name.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::join;
use crate::contender::{Client, Failure};
use crate::figure::{Curve, Figure};
use crate::referee::Referee;
use crate::stats::{count, median};
use crate::trial::{Found, Limits, Meter, Trial};

pub(super) async fn run(trial: Arc<Trial>) -> Result<Found, Failure> {
    let clients = trial.clients(trial.case.tasks).await?;
    let referee = Arc::new(Referee::default());
    let meter = Meter::start(&*trial.contender).await;
    let limits = Arc::new(Limits::of(&trial));
    let mut tasks = JoinSet::new();
    for who in 0..trial.case.tasks {
        let (trial, client) = (Arc::clone(&trial), clients.get(who));
        let (limits, referee) = (Arc::clone(&limits), Arc::clone(&referee));
        tasks.spawn(async move { contend(&trial, &**client, who, &limits, &referee).await });
    }
    let shares = join(tasks, &limits).await?;
    let window = limits.window();
    let mut found = Found::default();
    meter
        .per_acquisition(&*trial.contender, referee.grants(), &mut found)
        .await;
    clients.close().await?;
    spread(&shares, window, &mut found);
    verdict(&referee, &trial, &mut found);
    let hand_offs = referee.hand_offs();
    found.times(&hand_offs, Figure::HandOffP50, Figure::HandOffP99);
    found.curve(Curve::HandOff, &hand_offs);
    found.set(
        Figure::HandOffsPerSecond,
        count(hand_offs.number()) / window.as_secs_f64(),
    );
    Ok(found)
}

/// What one task had of a lock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    pub(super) grants: u64,
    pub(super) longest: Duration,
}

impl Share {
    pub(super) fn wait(&mut self, wait: Duration) {
        self.longest = self.longest.max(wait);
    }
}

/// Takes and frees the one name until the time is over.
pub(super) async fn contend(
    trial: &Trial,
    client: &dyn Client,
    who: usize,
    limits: &Limits,
    referee: &Referee,
) -> Result<Share, Failure> {
    let (case, name) = (&trial.case, trial.name("one"));
    let mut share = Share::default();
    let mut cut_off = pin!(limits.cut_off());
    while limits.go_on() {
        let begun = Instant::now();
        let hold = tokio::select! {
            biased;
            hold = client.acquire(&name, case.ttl) => hold?,
            () = &mut cut_off => {
                // Who gets nothing waits the longest.
                share.wait(limits.end.saturating_duration_since(begun));
                break;
            }
        };
        let now = Instant::now();
        let counts = !limits.over(now);
        share.wait(now.min(limits.end).saturating_duration_since(begun));
        let grant = referee.enters(who, &*hold, now, counts);
        if counts {
            share.grants += 1;
        }
        if counts && !case.hold.is_zero() {
            tokio::time::sleep(case.hold).await;
        } else {
            referee.linger(grant).await;
        }
        referee.leaves(who);
        hold.release().await?;
        if !case.hold.is_zero() && case.tasks > 1 {
            // A hand-off is from one to another: whoever had it lets somebody else go first.
            tokio::select! {
                () = referee.after(grant) => {}
                () = limits.ended() => {}
            }
        }
    }
    Ok(share)
}

/// How the acquisitions are spread over the tasks.
pub(super) fn spread(shares: &[Share], window: Duration, found: &mut Found) {
    let grants = shares.iter().map(|share| share.grants);
    found.set(
        Figure::PerSecond,
        count(grants.clone().sum()) / window.as_secs_f64(),
    );
    found.count(Figure::ShareLeast, grants.clone().min().unwrap_or(0));
    found.count(Figure::ShareMost, grants.clone().max().unwrap_or(0));
    found.set(
        Figure::ShareMedian,
        median(grants.map(count).collect()).unwrap_or(0.0),
    );
    let longest = shares.iter().map(|share| share.longest).max().unwrap_or_default();
    found.set(Figure::LongestWait, longest.as_secs_f64() * 1e3);
}

/// Whether it was a lock at all.
pub(super) fn verdict(referee: &Referee, trial: &Trial, found: &mut Found) {
    found.count(Figure::Violations, referee.violations());
    if trial.contender.offers().tokens {
        found.count(Figure::StaleTokens, referee.stale_tokens());
    }
}
