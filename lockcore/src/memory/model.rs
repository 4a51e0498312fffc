//! The reference model: what every backend has to behave like, as a state machine without I/O, tasks or clocks.
//!
//! A resource has holders, a queue in order of tickets, and reservations: a waiter that was woken keeps its share
//! until its claim window ends. The weighted claim covers every kind of lock.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use super::queue::{Holding, Queue};
use crate::claim::{AttemptId, Claim, Token};
use crate::driver::{Acquired, Grant, Inspection, Intent, Listed, Released, Renewal};
use crate::env::Instant;
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Namespace, Resource};

/// Which driver a claim came through: the address for its wake-ups.
pub(super) type ClientId = u64;

/// Why a claim with another size is refused.
const SIZE_DIFFERS: &str =
    "the semaphore is in use with another size: all its users have to give the same one";

/// Somebody who has to be told something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WakeUp {
    pub(super) client: ClientId,
    pub(super) attempt: AttemptId,
    /// `None` for "now", else "unless something happens within".
    pub(super) after: Option<Duration>,
}

/// A clock reading of the model's world.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) at: Instant,
    pub(super) wall: SystemTime,
    pub(super) unix_micros: u64,
}

/// All resources of one store. Every method first forgets what has ended by `now`.
#[derive(Debug, Default)]
pub(super) struct Model {
    queues: HashMap<Resource, Queue>,
    /// One for all names, so that idle names need no memory.
    last_token: Option<Token>,
}

impl Model {
    pub(super) fn acquire(
        &mut self,
        now: Now,
        (client, claim, intent): (ClientId, &Claim, Intent),
        wakes: &mut Vec<WakeUp>,
    ) -> Result<Acquired> {
        let queue = self.queues.entry(claim.resource.clone()).or_default();
        queue.forget(now.at);
        if let Some(holding) = queue
            .holders
            .iter()
            .find(|holding| holding.claim.attempt == claim.attempt)
        {
            let grant = Grant::lease(holding.token, holding.until.since(now.at));
            return Ok(Acquired::Granted(grant));
        }
        if queue.is_idle() {
            queue.capacity = claim.capacity;
        } else if queue.capacity != claim.capacity {
            return Err(Error::new(ErrorKind::Invalid, SIZE_DIFFERS));
        }
        let (waits, ticket) = match intent {
            Intent::Wait { ticket } => (true, ticket),
            Intent::Try => (false, None),
        };
        // Who comes back to a place that it lost may be the first.
        if ticket.is_some() {
            queue.enqueue(now.at, client, claim, ticket);
        }
        if queue.may_take(claim) {
            let spare = claim.spare_tokens;
            let first = Token::next(self.last_token, now.unix_micros);
            let token = Token::new(first.get().saturating_add(spare.into()));
            self.last_token = Some(token);
            queue
                .waiters
                .retain(|waiter| waiter.claim.attempt != claim.attempt);
            queue.holders.push(Holding {
                claim: claim.clone(),
                client,
                token,
                until: now.at.after(claim.ttl),
                since: now.wall,
            });
            // A run of readers goes in together.
            queue.wake_next(now.at, wakes);
            let spare = if queue.waiters.is_empty() { spare } else { 0 };
            return Ok(Acquired::Granted(
                Grant::lease(token, claim.ttl).with_spare(spare),
            ));
        }
        if waits {
            queue.enqueue(now.at, client, claim, ticket);
        }
        queue.wake_next(now.at, wakes);
        let busy = queue.busy(now.at, claim.attempt);
        self.drop_if_idle(&claim.resource);
        Ok(Acquired::Busy(busy))
    }

    pub(super) fn release(&mut self, now: Now, claim: &Claim, wakes: &mut Vec<WakeUp>) -> Released {
        let Some(queue) = self.queues.get_mut(&claim.resource) else {
            return Released::NotHeld;
        };
        queue.forget(now.at);
        let held = queue.holders.len();
        queue
            .holders
            .retain(|holding| holding.claim.attempt != claim.attempt);
        queue
            .waiters
            .retain(|waiter| waiter.claim.attempt != claim.attempt);
        let released = queue.holders.len() < held;
        queue.wake_next(now.at, wakes);
        self.drop_if_idle(&claim.resource);
        if released {
            Released::Released
        } else {
            Released::NotHeld
        }
    }

    pub(super) fn renew(&mut self, now: Now, claim: &Claim, ttl: Duration) -> Renewal {
        let Some(queue) = self.queues.get_mut(&claim.resource) else {
            return Renewal::NotHeld;
        };
        queue.forget(now.at);
        match queue
            .holders
            .iter_mut()
            .find(|holding| holding.claim.attempt == claim.attempt)
        {
            Some(holding) => {
                holding.until = now.at.after(ttl);
                Renewal::Renewed
            }
            None => Renewal::NotHeld,
        }
    }

    pub(super) fn inspect(&mut self, now: Now, resource: &Resource) -> Inspection {
        let Some(queue) = self.queues.get_mut(resource) else {
            return Inspection::default();
        };
        queue.forget(now.at);
        let waiters = queue.waiters.len().try_into().unwrap_or(u64::MAX);
        Inspection::new(
            queue
                .holders
                .iter()
                .map(|holding| holding.occupant(now.at))
                .collect(),
            waiters,
        )
    }

    pub(super) fn list(&mut self, now: Now, namespace: &Namespace, prefix: &str) -> Vec<Listed> {
        let wanted = |resource: &&Resource| {
            resource.namespace() == namespace && resource.name().as_str().starts_with(prefix)
        };
        let resources: Vec<_> = self.queues.keys().filter(wanted).cloned().collect();
        let listed = resources.iter().map(|resource| {
            Listed::new(
                resource.kind(),
                resource.key().to_owned(),
                self.inspect(now, resource),
            )
        });
        listed
            .filter(|listed| !listed.inspection.holders.is_empty())
            .collect()
    }

    /// Takes the resource from its holders and tells them.
    pub(super) fn force_release(&mut self, now: Now, resource: &Resource, wakes: &mut Vec<WakeUp>) -> bool {
        let Some(queue) = self.queues.get_mut(resource) else {
            return false;
        };
        queue.forget(now.at);
        let told = queue.holders.drain(..);
        let before = wakes.len();
        wakes.extend(told.map(|holding| WakeUp {
            client: holding.client,
            attempt: holding.claim.attempt,
            after: None,
        }));
        let held = wakes.len() > before;
        queue.wake_next(now.at, wakes);
        self.drop_if_idle(resource);
        held
    }

    /// Gives the resource to `claim`, whoever holds it or comes first, and tells the holders.
    pub(super) fn seize(&mut self, now: Now, claim: &Claim, wakes: &mut Vec<WakeUp>) {
        let queue = self.queues.entry(claim.resource.clone()).or_default();
        queue.capacity = claim.capacity;
        let told = queue.holders.drain(..);
        wakes.extend(told.map(|holding| WakeUp {
            client: holding.client,
            attempt: holding.claim.attempt,
            after: None,
        }));
        let token = Token::next(self.last_token, now.unix_micros);
        self.last_token = Some(token);
        let (claim, until) = (claim.clone(), now.at.after(claim.ttl));
        queue.holders.push(Holding {
            claim,
            client: 0,
            token,
            until,
            since: now.wall,
        });
    }

    /// The waiter does not answer at all: forgets it and turns to the next.
    pub(super) fn drop_waiter(&mut self, now: Now, attempt: AttemptId, wakes: &mut Vec<WakeUp>) {
        for queue in self.queues.values_mut() {
            let before = queue.waiters.len();
            queue.waiters.retain(|waiter| waiter.claim.attempt != attempt);
            if queue.waiters.len() < before {
                queue.wake_next(now.at, wakes);
            }
        }
    }

    /// Every lease on the resource ends now, and nobody is told.
    pub(super) fn expire(&mut self, resource: &Resource) {
        if let Some(queue) = self.queues.get_mut(resource) {
            queue.holders.clear();
        }
    }

    /// Forgets everything but the clock.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// How many resources are held or waited for.
    pub(super) fn len(&self) -> usize {
        self.queues.len()
    }

    fn drop_if_idle(&mut self, resource: &Resource) {
        if self.queues.get(resource).is_some_and(Queue::is_idle) {
            self.queues.remove(resource);
        }
    }
}
