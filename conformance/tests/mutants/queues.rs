//! Bugs in queues and wake-ups.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::driver::{Acquired, Grant, Intent, Released};
use lockcore::{AttemptId, Claim, Driver, Kind, Resource, Result, Signals, Token};

use crate::mutation::{Connection, Mutation, lock};

/// Nobody hears a wake-up: timers alone go on.
pub(crate) struct Deaf;

impl Mutation for Deaf {
    fn hears(&self) -> bool {
        false
    }
}

/// A waiter that gives up stays in the queue: only what was granted is released.
#[derive(Default)]
pub(crate) struct AbandonsItsPlace(Mutex<HashSet<AttemptId>>);

#[async_trait]
impl Mutation for AbandonsItsPlace {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let answer = to.driver.acquire(claim, intent).await;
        if let Ok(Acquired::Granted(_)) = answer {
            lock(&self.0).insert(claim.attempt);
        }
        answer
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        if lock(&self.0).contains(&claim.attempt) {
            return to.driver.release(claim).await;
        }
        Ok(Released::NotHeld)
    }
}

/// A try takes a place in the queue, and keeps it.
pub(crate) struct TryQueues;

#[async_trait]
impl Mutation for TryQueues {
    async fn acquire(&self, to: &Connection, claim: &Claim, _: Intent) -> Result<Acquired> {
        to.driver.acquire(claim, Intent::Wait { ticket: None }).await
    }
}

/// A try takes a free lock, whoever's turn it is.
#[derive(Default)]
pub(crate) struct TryOvertakes(Mutex<HashMap<Resource, Vec<Claim>>>);

#[async_trait]
impl Mutation for TryOvertakes {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let answer = to.driver.acquire(claim, intent).await?;
        let waiting = match &answer {
            Acquired::Busy(busy) if intent == Intent::Try && busy.holder.is_none() => {
                lock(&self.0).remove(&claim.resource).unwrap_or_default()
            }
            Acquired::Busy(_) if intent != Intent::Try => {
                let mut all = lock(&self.0);
                all.entry(claim.resource.clone()).or_default().push(claim.clone());
                return Ok(answer);
            }
            _ => return Ok(answer),
        };
        // They come back with their tickets.
        for waiter in &waiting {
            to.driver.release(waiter).await?;
        }
        to.driver.acquire(claim, intent).await
    }
}

/// The last one who came is served first.
pub(crate) struct LastInFirstOut;

#[async_trait]
impl Mutation for LastInFirstOut {
    async fn acquire(&self, to: &Connection, claim: &Claim, mut intent: Intent) -> Result<Acquired> {
        if let Intent::Wait { ticket: None } = intent {
            let ticket = Some((1 << 62) - to.env.now().as_nanos());
            intent = Intent::Wait { ticket };
        }
        to.driver.acquire(claim, intent).await
    }
}

/// A release wakes everybody.
#[derive(Default)]
pub(crate) struct Herd(Mutex<Vec<Signals>>);

#[async_trait]
impl Mutation for Herd {
    fn connected(&self, to: &Connection) {
        lock(&self.0).push(to.signals.clone());
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        let released = to.driver.release(claim).await;
        lock(&self.0).iter().for_each(Signals::wake_all);
        released
    }
}

/// Whoever was at the head of the queue once is granted when it asks again, without a look at the lock.
#[derive(Default)]
pub(crate) struct WokenIsGranted(Mutex<HashSet<AttemptId>>);

#[async_trait]
impl Mutation for WokenIsGranted {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let answer = to.driver.acquire(claim, intent).await?;
        let Acquired::Busy(busy) = &answer else {
            return Ok(answer);
        };
        if busy.ahead != Some(0) || lock(&self.0).insert(claim.attempt) {
            return Ok(answer);
        }
        let holder = busy.holder.as_ref().map_or(0, |holder| holder.token.get());
        Ok(Acquired::Granted(Grant::lease(Token::new(holder + 1), claim.ttl)))
    }
}

/// Says nothing of when the lock can be free.
pub(crate) struct TellsNoExpiry;

#[async_trait]
impl Mutation for TellsNoExpiry {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        Ok(match to.driver.acquire(claim, intent).await? {
            Acquired::Busy(busy) => Acquired::Busy(busy.free_in(None)),
            answer => answer,
        })
    }
}

/// The turn of a waiter that does not come is kept for ever.
pub(crate) struct EndlessTurn;

#[async_trait]
impl Mutation for EndlessTurn {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let mut claim = claim.clone();
        claim.claim_window = Duration::from_secs(24 * 3600);
        to.driver.acquire(&claim, intent).await
    }
}

/// Readers go in past a writer who waits.
pub(crate) struct ReadersPassWriters;

#[async_trait]
impl Mutation for ReadersPassWriters {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        if claim.resource.kind() != Kind::ReadWrite || claim.weight > 1 {
            return to.driver.acquire(claim, intent).await;
        }
        // To the head of the queue, and from there in.
        let first = Intent::Wait { ticket: Some(0) };
        to.driver.acquire(claim, first).await?;
        let answer = to.driver.acquire(claim, first).await?;
        if intent == Intent::Try && matches!(answer, Acquired::Busy(_)) {
            to.driver.release(claim).await?;
        }
        Ok(answer)
    }
}
