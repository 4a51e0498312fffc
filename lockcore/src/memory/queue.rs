//! One resource of the reference model: its holders, and its queue in order of tickets.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::model::{ClientId, WakeUp};
use crate::claim::{AttemptId, Claim, Token};
use crate::driver::{Busy, Occupant};
use crate::env::Instant;

#[derive(Debug)]
pub(super) struct Holding {
    pub(super) claim: Claim,
    pub(super) client: ClientId,
    pub(super) token: Token,
    pub(super) until: Instant,
    pub(super) since: SystemTime,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) claim: Claim,
    pub(super) client: ClientId,
    pub(super) ticket: u64,
    /// Its last sign of life counts up to here.
    pub(super) until: Instant,
    /// Its share is kept for it up to here.
    pub(super) reserved: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) capacity: u32,
    pub(super) holders: Vec<Holding>,
    /// By ticket.
    pub(super) waiters: Vec<Waiting>,
    pub(super) last_ticket: u64,
}

impl Queue {
    /// Leases and places that have ended, and reservations that nobody claimed.
    pub(super) fn forget(&mut self, now: Instant) {
        self.holders.retain(|holding| holding.until > now);
        self.waiters
            .retain(|waiter| waiter.until > now && waiter.reserved.is_none_or(|until| until > now));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }

    /// What is held or kept for somebody other than `attempt`.
    pub(super) fn taken(&self, attempt: AttemptId) -> u64 {
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
    pub(super) fn may_take(&self, claim: &Claim) -> bool {
        let mut ahead = self
            .waiters
            .iter()
            .take_while(|waiter| waiter.claim.attempt != claim.attempt);
        ahead.all(|waiter| waiter.reserved.is_some())
            && self.taken(claim.attempt) + u64::from(claim.weight) <= u64::from(self.capacity)
    }

    pub(super) fn enqueue(&mut self, now: Instant, client: ClientId, claim: &Claim, ticket: Option<u64>) {
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
    pub(super) fn wake_next(&mut self, now: Instant, wakes: &mut Vec<WakeUp>) {
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

    pub(super) fn busy(&self, now: Instant, attempt: AttemptId) -> Busy {
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
    pub(super) fn occupant(&self, now: Instant) -> Occupant {
        Occupant::new(Arc::clone(&self.claim.details), self.token)
            .remaining(Some(self.until.since(now)))
            .since(Some(self.since))
            .weight(self.claim.weight)
    }
}
