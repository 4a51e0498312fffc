//! Bugs in fencing tokens.

use std::collections::HashMap;
use std::sync::Mutex;

use async_trait::async_trait;
use lockcore::driver::{Acquired, Inspection, Intent, Lease, Occupant, Released, Renewal};
use lockcore::{AttemptId, Claim, Driver, Resource, Result, Token};

use crate::mutation::{Connection, Mutation, lock};

/// When a counter of its own forgets where it was.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forgets {
    AtRelease,
    WhenTakenByForce,
    AtCleanUp,
}

/// Counts tokens by itself, for each name from one.
pub(crate) struct OwnTokens {
    forgets: Forgets,
    last: Mutex<HashMap<Resource, u64>>,
    /// The tokens of attempts that were granted: theirs and ours.
    given: Mutex<HashMap<AttemptId, (Token, Token)>>,
}

impl OwnTokens {
    pub(crate) fn new(forgets: Forgets) -> Self {
        Self {
            forgets,
            last: Mutex::default(),
            given: Mutex::default(),
        }
    }

    fn forget(&self, resource: &Resource) {
        lock(&self.last).remove(resource);
    }

    fn ours(&self, theirs: Token) -> Token {
        let given = lock(&self.given);
        let known = given.values().find(|(token, _)| *token == theirs);
        known.map_or(theirs, |(_, ours)| *ours)
    }
}

#[async_trait]
impl Mutation for OwnTokens {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let mut answer = to.driver.acquire(claim, intent).await;
        if let Ok(Acquired::Granted(grant)) = &mut answer {
            let mut given = lock(&self.given);
            let (_, token) = given.entry(claim.attempt).or_insert_with(|| {
                let mut last = lock(&self.last);
                let last = last.entry(claim.resource.clone()).or_default();
                *last += 1;
                (grant.token, Token::new(*last))
            });
            grant.token = *token;
        }
        answer
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        let released = to.driver.release(claim).await?;
        if released == Released::Released && self.forgets == Forgets::AtRelease {
            self.forget(&claim.resource);
        }
        Ok(released)
    }

    fn clean_up(&self) {
        if self.forgets == Forgets::AtCleanUp {
            lock(&self.last).clear();
        }
    }

    async fn inspect(&self, to: &Connection, resource: &Resource) -> Result<Inspection> {
        let mut inspection = to.driver.inspect(resource).await?;
        for holder in &mut inspection.holders {
            holder.token = self.ours(holder.token);
        }
        Ok(inspection)
    }

    async fn force_release(&self, to: &Connection, resource: &Resource) -> Result<bool> {
        let held = to.driver.force_release(resource).await?;
        if self.forgets == Forgets::WhenTakenByForce {
            self.forget(resource);
        }
        Ok(held)
    }
}

/// A clock reading in seconds for a token.
pub(crate) struct ClockForToken;

#[async_trait]
impl Mutation for ClockForToken {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let mut answer = to.driver.acquire(claim, intent).await;
        if let Ok(Acquired::Granted(grant)) = &mut answer {
            grant.token = Token::new(grant.token.get() / 1_000_000);
        }
        answer
    }
}

/// The stored token grows with every renewal.
#[derive(Default)]
pub(crate) struct RenewalsCount(Mutex<HashMap<Resource, u64>>);

#[async_trait]
impl Mutation for RenewalsCount {
    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        for lease in leases {
            let mut renewals = lock(&self.0);
            *renewals.entry(lease.claim.resource.clone()).or_default() += 1;
        }
        to.driver.renew(leases).await
    }

    async fn inspect(&self, to: &Connection, resource: &Resource) -> Result<Inspection> {
        let mut inspection = to.driver.inspect(resource).await?;
        let renewals = lock(&self.0).get(resource).copied().unwrap_or(0);
        for holder in &mut inspection.holders {
            holder.token = Token::new(holder.token.get() + renewals);
        }
        Ok(inspection)
    }
}

/// Every answer to a repeated request has a fresh token.
#[derive(Default)]
pub(crate) struct FreshTokenForReplay(Mutex<HashMap<AttemptId, u64>>);

#[async_trait]
impl Mutation for FreshTokenForReplay {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let mut answer = to.driver.acquire(claim, intent).await;
        if let Ok(Acquired::Granted(grant)) = &mut answer {
            let mut answers = lock(&self.0);
            let answers = answers.entry(claim.attempt).or_default();
            grant.token = Token::new(grant.token.get() + *answers);
            *answers += 1;
        }
        answer
    }
}

/// Shows who had it last as if they had it still.
#[derive(Default)]
pub(crate) struct ShowsTheDead(Mutex<HashMap<Resource, Vec<Occupant>>>);

#[async_trait]
impl Mutation for ShowsTheDead {
    async fn inspect(&self, to: &Connection, resource: &Resource) -> Result<Inspection> {
        let mut inspection = to.driver.inspect(resource).await?;
        let mut last = lock(&self.0);
        let last = last.entry(resource.clone()).or_default();
        if inspection.holders.is_empty() {
            inspection.holders.clone_from(last);
        } else {
            last.clone_from(&inspection.holders);
        }
        Ok(inspection)
    }
}
