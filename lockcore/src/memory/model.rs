//! The reference model: what every backend has to behave like, as a state machine without I/O, tasks or clocks.
//!
//! A resource has holders, a queue in order of tickets, and reservations: a waiter that was woken keeps its share
//! until its claim window ends. The weighted claim covers every kind of lock.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::claim::{AttemptId, Claim, Token};
use crate::driver::{Acquired, Busy, Grant, Inspection, Intent, Listed, Occupant, Released, Renewal};
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

#[derive(Debug)]
struct Holding {
    claim: Claim,
    client: ClientId,
    token: Token,
    until: Instant,
    since: SystemTime,
}

#[derive(Debug)]
struct Waiting {
    claim: Claim,
    client: ClientId,
    ticket: u64,
    /// Its last sign of life counts up to here.
    until: Instant,
    /// Its share is kept for it up to here.
    reserved: Option<Instant>,
}

#[derive(Debug, Default)]
struct Queue {
    capacity: u32,
    holders: Vec<Holding>,
    /// By ticket.
    waiters: Vec<Waiting>,
    last_ticket: u64,
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
            return Ok(Acquired::Granted(Grant::lease(
                holding.token,
                holding.until.since(now.at),
            )));
        }
        if queue.is_idle() {
            queue.capacity = claim.capacity;
        } else if queue.capacity != claim.capacity {
            return Err(Error::new(ErrorKind::Invalid, SIZE_DIFFERS));
        }
        if queue.may_take(claim) {
            let token = Token::next(self.last_token, now.unix_micros);
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
            return Ok(Acquired::Granted(Grant::lease(token, claim.ttl)));
        }
        if let Intent::Wait { ticket } = intent {
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

impl Queue {
    /// Leases and places that have ended, and reservations that nobody claimed.
    fn forget(&mut self, now: Instant) {
        self.holders.retain(|holding| holding.until > now);
        self.waiters
            .retain(|waiter| waiter.until > now && waiter.reserved.is_none_or(|until| until > now));
    }

    fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }

    /// What is held or kept for somebody other than `attempt`.
    fn taken(&self, attempt: AttemptId) -> u64 {
        let held = self.holders.iter().map(|holding| &holding.claim);
        let reserved = self
            .waiters
            .iter()
            .filter(|waiter| waiter.reserved.is_some())
            .map(|waiter| &waiter.claim);
        let others = held.chain(reserved).filter(|claim| claim.attempt != attempt);
        others.map(|claim| u64::from(claim.weight)).sum()
    }

    /// It fits, and nobody comes first: of the waiters ahead each has its share reserved already.
    fn may_take(&self, claim: &Claim) -> bool {
        let mut ahead = self
            .waiters
            .iter()
            .take_while(|waiter| waiter.claim.attempt != claim.attempt);
        ahead.all(|waiter| waiter.reserved.is_some())
            && self.taken(claim.attempt) + u64::from(claim.weight) <= u64::from(self.capacity)
    }

    fn enqueue(&mut self, now: Instant, client: ClientId, claim: &Claim, ticket: Option<u64>) {
        let until = now.after(claim.waiter_ttl);
        if let Some(waiter) = self
            .waiters
            .iter_mut()
            .find(|waiter| waiter.claim.attempt == claim.attempt)
        {
            waiter.until = until;
            return;
        }
        let ticket = ticket.unwrap_or(self.last_ticket + 1);
        self.last_ticket = self.last_ticket.max(ticket);
        let place = self.waiters.partition_point(|waiter| waiter.ticket <= ticket);
        self.waiters.insert(
            place,
            Waiting {
                claim: claim.clone(),
                client,
                ticket,
                until,
                reserved: None,
            },
        );
    }

    /// Reserves for and wakes the waiters at the head for whom there is room, and tells the one after them to look
    /// again when their window is over.
    fn wake_next(&mut self, now: Instant, wakes: &mut Vec<WakeUp>) {
        let mut free = u64::from(self.capacity).saturating_sub(self.taken(AttemptId::from_bits(0)));
        let mut window = None;
        for waiter in &mut self.waiters {
            if waiter.reserved.is_some() {
                continue;
            }
            let (client, attempt) = (waiter.client, waiter.claim.attempt);
            let weight = u64::from(waiter.claim.weight);
            if weight > free {
                let after = window.map(|window: Duration| window + Duration::from_millis(1));
                wakes.extend(after.map(|after| WakeUp {
                    client,
                    attempt,
                    after: Some(after),
                }));
                return;
            }
            free -= weight;
            window = Some(waiter.claim.claim_window);
            waiter.reserved = Some(now.after(waiter.claim.claim_window));
            wakes.push(WakeUp {
                client,
                attempt,
                after: None,
            });
        }
    }

    fn busy(&self, now: Instant, attempt: AttemptId) -> Busy {
        let reservations = self
            .waiters
            .iter()
            .filter_map(|waiter| Some((waiter.reserved?, waiter.claim.ttl)));
        let reserved = reservations.clone().map(|(until, _)| until).min();
        let held = self.holders.iter().map(|holding| holding.until);
        let free = held
            .chain(reservations.map(|(until, ttl)| until.after(ttl)))
            .min();
        let busy = Busy::default()
            .free_in(free.map(|until| until.since(now)))
            .reserved(reserved.map(|until| until.since(now)))
            .held_by(self.holders.first().map(|holding| holding.occupant(now)));
        match self
            .waiters
            .iter()
            .position(|waiter| waiter.claim.attempt == attempt)
        {
            Some(ahead) => busy.queued(
                ahead.try_into().unwrap_or(u64::MAX),
                Some(self.waiters[ahead].ticket),
            ),
            None => busy,
        }
    }
}

impl Holding {
    fn occupant(&self, now: Instant) -> Occupant {
        Occupant::new(Arc::clone(&self.claim.details), self.token)
            .remaining(Some(self.until.since(now)))
            .since(Some(self.since))
            .weight(self.claim.weight)
    }
}
