//! Bugs in leases: who holds, for how long, and how it ends.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::driver::{Acquired, Bound, Busy, Grant, Intent, Lease, Released, Renewal};
use lockcore::{AttemptId, Claim, Driver, Error, ErrorKind, Kind, Resource, Result, Session};

use crate::mutation::{Connection, Mutation, lock};

/// Deletes the lock, whoever has it.
pub(crate) struct BlindRelease;

#[async_trait]
impl Mutation for BlindRelease {
    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        to.driver.release(claim).await?;
        to.driver.force_release(&claim.resource).await?;
        Ok(Released::Released)
    }
}

/// Says that it released what it did not hold.
pub(crate) struct AlwaysReleased;

#[async_trait]
impl Mutation for AlwaysReleased {
    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        to.driver.release(claim).await.map(|_| Released::Released)
    }
}

/// The owner is the connection, not the attempt.
pub(crate) struct OwnerPerConnection;

impl OwnerPerConnection {
    fn owner(to: &Connection, claim: &Claim) -> Claim {
        let mut claim = claim.clone();
        claim.attempt = AttemptId::from_bits(u128::from(to.id) + 1);
        claim
    }
}

#[async_trait]
impl Mutation for OwnerPerConnection {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        to.driver.acquire(&Self::owner(to, claim), intent).await
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        to.driver.release(&Self::owner(to, claim)).await
    }

    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let owned = |lease: &Lease| Lease::new(Self::owner(to, &lease.claim).into(), lease.token, lease.ttl);
        to.driver
            .renew(&leases.iter().map(owned).collect::<Vec<_>>())
            .await
    }
}

/// A fresh id for every request: a request that is sent again is another one.
#[derive(Default)]
pub(crate) struct IdPerRequest(Mutex<HashMap<AttemptId, AttemptId>>);

impl IdPerRequest {
    fn last(&self, claim: &Claim) -> Claim {
        let mut claim = claim.clone();
        let known = lock(&self.0).get(&claim.attempt).copied();
        claim.attempt = known.unwrap_or(claim.attempt);
        claim
    }
}

#[async_trait]
impl Mutation for IdPerRequest {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let fresh = AttemptId::from_bits(to.env.random_u128()?);
        lock(&self.0).insert(claim.attempt, fresh);
        to.driver.acquire(&self.last(claim), intent).await
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        to.driver.release(&self.last(claim)).await
    }

    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let last = |lease: &Lease| Lease::new(self.last(&lease.claim).into(), lease.token, lease.ttl);
        to.driver
            .renew(&leases.iter().map(last).collect::<Vec<_>>())
            .await
    }
}

/// The first answer of a connection takes a while, and the lease is counted from the answer.
#[derive(Default)]
pub(crate) struct CountsFromTheAnswer(Mutex<HashSet<u64>>);

#[async_trait]
impl Mutation for CountsFromTheAnswer {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let sent = to.env.now();
        let mut answer = to.driver.acquire(claim, intent).await;
        let first = lock(&self.0).insert(to.id);
        if first {
            to.env.sleep(Duration::from_millis(300)).await;
        }
        if let Ok(Acquired::Granted(grant)) = &mut answer
            && let Bound::Lease(ttl) = &mut grant.bound
        {
            *ttl += to.env.now().since(sent);
        }
        answer
    }
}

/// The store is asked for another TTL than is promised.
pub(crate) struct StoresAnotherTtl(pub(crate) fn(Duration) -> Duration);

#[async_trait]
impl Mutation for StoresAnotherTtl {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let mut stored = claim.clone();
        stored.ttl = (self.0)(claim.ttl);
        let mut answer = to.driver.acquire(&stored, intent).await;
        if let Ok(Acquired::Granted(grant)) = &mut answer {
            grant.bound = Bound::Lease(claim.ttl);
        }
        answer
    }

    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let stored = |lease: &Lease| Lease::new(lease.claim.clone(), lease.token, (self.0)(lease.ttl));
        to.driver
            .renew(&leases.iter().map(stored).collect::<Vec<_>>())
            .await
    }
}

/// A request that is repeated after its grant starts the lease anew.
#[derive(Default)]
pub(crate) struct ReplayExtends(Mutex<HashSet<AttemptId>>);

#[async_trait]
impl Mutation for ReplayExtends {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let answer = to.driver.acquire(claim, intent).await?;
        let Acquired::Granted(grant) = &answer else {
            return Ok(answer);
        };
        if lock(&self.0).insert(claim.attempt) {
            return Ok(answer);
        }
        let lease = Lease::new(claim.clone().into(), grant.token, claim.ttl);
        to.driver.renew(&[lease]).await?;
        Ok(Acquired::Granted(Grant::lease(grant.token, claim.ttl)))
    }
}

/// What a renewal does when the lease is gone.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gone {
    /// Says that all is well.
    Denies,
    /// Takes the lock again if it is free.
    Resurrects,
    /// Takes the lock again from whoever has it.
    Steals,
}

pub(crate) struct RenewsTheGone(pub(crate) Gone);

#[async_trait]
impl Mutation for RenewsTheGone {
    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let mut answers = to.driver.renew(leases).await?;
        for (lease, answer) in leases.iter().zip(&mut answers) {
            if *answer != Renewal::NotHeld {
                continue;
            }
            if self.0 == Gone::Steals {
                to.driver.force_release(&lease.claim.resource).await?;
            }
            let denies = self.0 == Gone::Denies;
            if denies
                || matches!(
                    to.driver.acquire(&lease.claim, Intent::Try).await?,
                    Acquired::Granted(_)
                )
            {
                *answer = Renewal::Renewed;
            }
        }
        Ok(answers)
    }
}

/// Renews the lock by its name: whoever has it now has it longer.
#[derive(Default)]
pub(crate) struct RenewsByName(Mutex<HashMap<Resource, Claim>>);

#[async_trait]
impl Mutation for RenewsByName {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let answer = to.driver.acquire(claim, intent).await;
        if let Ok(Acquired::Granted(_)) = answer {
            lock(&self.0).insert(claim.resource.clone(), claim.clone());
        }
        answer
    }

    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let by_name = |lease: &Lease| {
            let holder = lock(&self.0).get(&lease.claim.resource).cloned();
            let holder = holder.map_or_else(|| lease.claim.clone(), Into::into);
            Lease::new(holder, lease.token, lease.ttl)
        };
        to.driver
            .renew(&leases.iter().map(by_name).collect::<Vec<_>>())
            .await
    }
}

/// Of a batch only the first lease is renewed; the others are said to be.
pub(crate) struct RenewsTheFirst;

#[async_trait]
impl Mutation for RenewsTheFirst {
    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let mut answers = to.driver.renew(&leases[..leases.len().min(1)]).await?;
        answers.resize(leases.len(), Renewal::Renewed);
        Ok(answers)
    }
}

/// The answers of a batch are in another order than its leases.
pub(crate) struct AnswersBackwards;

#[async_trait]
impl Mutation for AnswersBackwards {
    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let mut answers = to.driver.renew(leases).await?;
        answers.reverse();
        Ok(answers)
    }
}

/// A session that lasts, whatever the server says.
pub(crate) struct ImmortalSession;

#[async_trait]
impl Mutation for ImmortalSession {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let mut answer = to.driver.acquire(claim, intent).await;
        if let Ok(Acquired::Granted(grant)) = &mut answer {
            let day = Duration::from_secs(24 * 3600);
            grant.bound = Bound::Session(Session::new(&to.signals, to.env.now(), day));
        }
        answer
    }
}

/// Every third answer of a connection is lost, and the driver forgets that it ever asked.
#[derive(Default)]
pub(crate) struct ForgetsLostAnswers {
    requests: Mutex<HashMap<u64, u32>>,
    lost: Mutex<HashSet<AttemptId>>,
}

#[async_trait]
impl Mutation for ForgetsLostAnswers {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let answer = to.driver.acquire(claim, intent).await;
        let mut requests = lock(&self.requests);
        let requests = requests.entry(to.id).or_default();
        *requests += 1;
        if requests.is_multiple_of(3) {
            lock(&self.lost).insert(claim.attempt);
            return Err(Error::new(ErrorKind::Unavailable, "the answer was lost"));
        }
        answer
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        if lock(&self.lost).contains(&claim.attempt) {
            return Ok(Released::NotHeld);
        }
        to.driver.release(claim).await
    }
}

/// Whatever goes wrong, the lock is said to be busy.
pub(crate) struct ErrorsAreBusy;

#[async_trait]
impl Mutation for ErrorsAreBusy {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let answer = to.driver.acquire(claim, intent).await;
        Ok(answer.unwrap_or_else(|_| Acquired::Busy(Busy::default())))
    }
}

/// One permit more than there are.
pub(crate) struct OnePermitTooMany;

#[async_trait]
impl Mutation for OnePermitTooMany {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let mut claim = claim.clone();
        if claim.resource.kind() == Kind::Semaphore {
            claim.capacity += 1;
        }
        to.driver.acquire(&claim, intent).await
    }
}
