//! Bugs in sessions, and in what operations cost.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::driver::{Acquired, Bound, Intent, Lease, Released, Renewal};
use lockcore::{AttemptId, Claim, Driver, DynDriver, Error, ErrorKind, Resource, Result, Session};

use crate::mutation::{Connection, Mutation, lock};

/// Keeps sessions alive when their client is gone.
#[derive(Default)]
pub(crate) struct OutlivesItsClient(Mutex<Vec<DynDriver>>);

impl Mutation for OutlivesItsClient {
    fn connected(&self, to: &Connection) {
        lock(&self.0).push(to.driver.clone());
    }
}

/// Keeps the session, and tells nobody that it was kept.
#[derive(Default)]
pub(crate) struct NeverExtends(Mutex<HashMap<(u64, Duration), Session>>);

#[async_trait]
impl Mutation for NeverExtends {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let sent = to.env.now();
        let mut answer = to.driver.acquire(claim, intent).await;
        if let Ok(Acquired::Granted(grant)) = &mut answer {
            let mut sessions = lock(&self.0);
            let session = sessions
                .entry((to.id, claim.ttl))
                .or_insert_with(|| Session::new(&to.signals, sent, claim.ttl));
            if session.deadline() <= sent {
                *session = Session::new(&to.signals, sent, claim.ttl);
            }
            grant.bound = Bound::Session(session.clone());
        }
        answer
    }
}

/// Whoever finds that a place in the queue is gone says so, and gives up.
#[derive(Default)]
pub(crate) struct GonePlaceIsAnError(Mutex<HashMap<Resource, HashSet<AttemptId>>>);

#[async_trait]
impl Mutation for GonePlaceIsAnError {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let known = lock(&self.0).get(&claim.resource).cloned().unwrap_or_default();
        if known.contains(&claim.attempt) {
            let found = to.driver.inspect(&claim.resource).await?.waiters;
            if found < known.len() as u64 {
                return Err(Error::new(ErrorKind::Internal, "a place in the queue is gone"));
            }
        }
        let answer = to.driver.acquire(claim, intent).await?;
        let mut all = lock(&self.0);
        let waiting = all.entry(claim.resource.clone()).or_default();
        match answer {
            Acquired::Busy(_) if intent != Intent::Try => waiting.insert(claim.attempt),
            _ => waiting.remove(&claim.attempt),
        };
        Ok(answer)
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        if let Some(waiting) = lock(&self.0).get_mut(&claim.resource) {
            waiting.remove(&claim.attempt);
        }
        to.driver.release(claim).await
    }
}

/// Two batches that are under way at one time are in each other's way, and one of them is told so.
#[derive(Default)]
pub(crate) struct BatchesLockUp(AtomicU32);

#[async_trait]
impl Mutation for BatchesLockUp {
    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let others = self.0.fetch_add(1, Ordering::SeqCst);
        to.env.sleep(Duration::from_millis(1)).await;
        let renewed = to.driver.renew(leases).await;
        self.0.fetch_sub(1, Ordering::SeqCst);
        if others > 0 {
            return Err(Error::new(ErrorKind::Unavailable, "deadlock found"));
        }
        renewed
    }
}

/// A waiter that gives up while the lock is given back gets it all the same, and nobody knows.
#[derive(Default)]
pub(crate) struct GrantsAfterTheGoodbye(Mutex<HashSet<AttemptId>>);

#[async_trait]
impl Mutation for GrantsAfterTheGoodbye {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let answer = to.driver.acquire(claim, intent).await;
        match &answer {
            Ok(Acquired::Busy(_)) if intent != Intent::Try => lock(&self.0).insert(claim.attempt),
            _ => lock(&self.0).remove(&claim.attempt),
        };
        answer
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        let waits = lock(&self.0).contains(&claim.attempt);
        if waits {
            // For as long as a server may take to hear of it.
            to.env.sleep(Duration::from_millis(3)).await;
            let late = to.driver.acquire(claim, Intent::Wait { ticket: None }).await?;
            if matches!(late, Acquired::Granted(_)) {
                return Ok(Released::NotHeld);
            }
        }
        to.driver.release(claim).await
    }
}

/// Asks whether the server is there before it asks for the lock.
pub(crate) struct AsksTwice;

#[async_trait]
impl Mutation for AsksTwice {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        to.driver.ping().await?;
        to.driver.acquire(claim, intent).await
    }
}

/// Renews each lease with a request of its own.
pub(crate) struct RenewsOneByOne;

#[async_trait]
impl Mutation for RenewsOneByOne {
    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let mut answers = Vec::new();
        for lease in leases {
            answers.extend(to.driver.renew(std::slice::from_ref(lease)).await?);
        }
        Ok(answers)
    }
}
