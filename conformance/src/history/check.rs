//! Judges a history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::{Event, Violation};

/// What a history has to keep besides what always holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Waiters are granted in the order in which the backend took them into its queue, and nobody overtakes them.
    pub fifo: bool,
    /// After a release somebody who waits is granted within this. For locks with one holder.
    pub hand_off: Option<Duration>,
}

#[derive(Clone, Copy)]
struct Grant<'a> {
    attempt: &'a str,
    token: u64,
    weight: u32,
    capacity: u32,
    first_sent: u64,
    sent: u64,
    received: u64,
}

#[derive(Clone, Copy)]
struct Waiter {
    weight: u32,
    acked: u64,
    /// When it was granted or left.
    gone: Option<u64>,
    /// Of its grant.
    token: Option<u64>,
}

/// How long a user was told to hold.
#[derive(Clone, Copy)]
struct Hold {
    from: u64,
    until: u64,
    last_told: u64,
}

/// What happened to one lock.
#[derive(Default)]
struct Lock<'a> {
    /// In the order of their answers.
    grants: Vec<Grant<'a>>,
    waiters: HashMap<&'a str, Waiter>,
    holds: BTreeMap<u64, Hold>,
    /// The first end of each hold, by token.
    ends: HashMap<u64, u64>,
    /// When each attempt was first released, held or not.
    left: HashMap<&'a str, u64>,
    /// Clean releases: sent and answered.
    releases: Vec<(u64, u64)>,
    disturbances: Vec<u64>,
}

/// Everything in `events` that must not happen.
#[must_use]
pub fn check(events: &[Event], bounds: Bounds) -> Vec<Violation> {
    let mut found = Vec::new();
    for (name, lock) in locks(events) {
        lock.overlaps(name, &mut found);
        lock.tokens(name, &mut found);
        if bounds.fifo {
            lock.order(name, &mut found);
        }
        if let Some(bound) = bounds.hand_off {
            lock.hand_offs(name, bound, &mut found);
        }
    }
    found
}

fn locks(events: &[Event]) -> BTreeMap<&str, Lock<'_>> {
    let mut locks: BTreeMap<&str, Lock<'_>> = BTreeMap::new();
    for event in events {
        if let Some(key) = event.key() {
            locks.entry(key).or_default().begin(event);
        }
    }
    // What ends things may stand before what it ends, when several processes wrote the history.
    for event in events {
        match event.key() {
            Some(key) => locks.entry(key).or_default().end(event),
            None => locks.values_mut().for_each(|lock| lock.end(event)),
        }
    }
    for lock in locks.values_mut() {
        lock.grants.sort_unstable_by_key(|grant| grant.received);
    }
    locks
}

impl<'a> Lock<'a> {
    fn begin(&mut self, event: &'a Event) {
        match event {
            Event::Queued {
                attempt,
                weight,
                acked,
                ..
            } => {
                self.waiters.entry(attempt).or_insert(Waiter {
                    weight: *weight,
                    acked: *acked,
                    gone: None,
                    token: None,
                });
            }
            Event::Granted {
                attempt,
                token,
                weight,
                capacity,
                first_sent,
                sent,
                received,
                ..
            } => self.grants.push(Grant {
                attempt,
                token: *token,
                weight: *weight,
                capacity: *capacity,
                first_sent: *first_sent,
                sent: *sent,
                received: *received,
            }),
            Event::Held { token, at, until, .. } => {
                let hold = self.holds.entry(*token).or_insert(Hold {
                    from: *at,
                    until: *until,
                    last_told: *at,
                });
                if *at >= hold.last_told {
                    (hold.last_told, hold.until) = (*at, *until);
                }
                hold.from = hold.from.min(*at);
            }
            _ => {}
        }
    }

    fn end(&mut self, event: &'a Event) {
        match event {
            Event::Granted {
                attempt,
                token,
                received,
                ..
            } => {
                // Granted by an answer is granted, even if a release was sent meanwhile.
                if let Some(waiter) = self.waiters.get_mut(attempt.as_str())
                    && waiter.token.is_none()
                {
                    (waiter.gone, waiter.token) = (Some(*received), Some(*token));
                }
            }
            Event::Released {
                attempt,
                sent,
                received,
                held,
                ..
            } => {
                if let Some(waiter) = self.waiters.get_mut(attempt.as_str()) {
                    waiter.gone.get_or_insert(*sent);
                }
                let left = self.left.entry(attempt).or_insert(*sent);
                *left = (*left).min(*sent);
                self.releases
                    .extend(received.filter(|_| *held).map(|received| (*sent, received)));
            }
            Event::Ended { token, at, .. } => {
                let end = self.ends.entry(*token).or_insert(*at);
                *end = (*end).min(*at);
            }
            Event::Disturbed { at, .. } => self.disturbances.push(*at),
            _ => {}
        }
    }

    fn disturbed_between(&self, from: u64, to: u64) -> bool {
        self.disturbances.iter().any(|at| (from..=to).contains(at))
    }

    /// At no instant do valid holders weigh more than there is.
    fn overlaps(&self, key: &str, found: &mut Vec<Violation>) {
        let grants: HashMap<u64, &Grant<'_>> = self.grants.iter().map(|grant| (grant.token, grant)).collect();
        let mut changes = Vec::new();
        for (token, hold) in &self.holds {
            // The server may have granted it at any time since it was asked.
            let asked = grants
                .get(token)
                .map_or(hold.from, |grant| grant.sent.min(hold.from));
            let forced = self.disturbances.iter().filter(|at| **at >= asked);
            let until = self.ends.get(token).into_iter().chain(forced).copied();
            let until = until.fold(hold.until, u64::min);
            if until > hold.from {
                // An end comes before a start of the same time.
                changes.push((hold.from, true, *token));
                changes.push((until, false, *token));
            }
        }
        changes.sort_unstable();
        let size = |token: &u64| {
            grants
                .get(token)
                .map_or((1, 1), |grant| (grant.weight, grant.capacity))
        };
        let mut held: BTreeSet<u64> = BTreeSet::new();
        for (index, (at, begins, token)) in changes.iter().enumerate() {
            if !begins {
                held.remove(token);
                continue;
            }
            held.insert(*token);
            let sum: u64 = held.iter().map(|token| u64::from(size(token).0)).sum();
            if sum > u64::from(size(token).1) {
                let mut later = changes[index + 1..].iter().filter(|(_, begins, _)| !begins);
                found.push(Violation::Overlap {
                    key: key.to_owned(),
                    tokens: held.iter().copied().collect(),
                    during: (*at, later.next().map_or(*at, |next| next.0)),
                });
            }
        }
    }

    /// Tokens are unique, and grow in real time.
    fn tokens(&self, key: &str, found: &mut Vec<Violation>) {
        let key = || key.to_owned();
        let mut by_token: Vec<_> = self
            .grants
            .iter()
            .map(|grant| (grant.token, grant.attempt))
            .collect();
        by_token.sort_unstable();
        by_token.dedup();
        for pair in by_token.windows(2) {
            if pair[0].0 == pair[1].0 {
                let token = pair[0].0;
                found.push(Violation::SameToken { key: key(), token });
            }
        }
        let mut by_start = self.grants.clone();
        by_start.sort_unstable_by_key(Grant::start);
        let mut answered = self.grants.iter().peekable();
        let mut greatest = 0;
        for grant in by_start {
            while let Some(earlier) = answered.next_if(|earlier| earlier.received < grant.start()) {
                greatest = greatest.max(earlier.token);
            }
            if grant.token < greatest {
                found.push(Violation::TokenFell {
                    key: key(),
                    tokens: (greatest, grant.token),
                });
            }
        }
    }

    /// Nobody is granted before somebody who was in the queue before they asked for the first time.
    fn order(&self, key: &str, found: &mut Vec<Violation>) {
        for (attempt, waiter) in &self.waiters {
            let Some(gone) = waiter.gone else { continue };
            let meanwhile = self.grants.iter();
            let meanwhile = meanwhile.skip(
                self.grants
                    .partition_point(|grant| grant.received <= waiter.acked),
            );
            let overtook = meanwhile.take_while(|grant| grant.received < gone).find(|grant| {
                grant.attempt != *attempt
                    && waiter.acked < grant.first_sent
                    && waiter.token.is_none_or(|token| token > grant.token)
                    && !self.leaves_room(grant, waiter)
            });
            if let Some(grant) = overtook
                && !self.disturbed_between(waiter.acked, gone)
            {
                found.push(Violation::Overtaken {
                    key: key.to_owned(),
                    first: (*attempt).to_owned(),
                    second: grant.attempt.to_owned(),
                });
            }
        }
    }

    /// Is there room for `waiter` beside `grant` and those who held then? Of what can be shared, the backend keeps for
    /// each waiter at the head what it needs, and they take it in any order.
    fn leaves_room(&self, grant: &Grant<'_>, waiter: &Waiter) -> bool {
        let until_then = &self.grants[..self
            .grants
            .partition_point(|other| other.received <= grant.received)];
        let held = until_then.iter().filter(|other| {
            let left = self.left.get(other.attempt);
            left.is_none_or(|left| *left > grant.received)
        });
        let weight: u64 = held.map(|other| u64::from(other.weight)).sum();
        grant.capacity > 1 && weight + u64::from(waiter.weight) <= u64::from(grant.capacity)
    }

    /// What is released is granted soon to somebody, if somebody waits.
    fn hand_offs(&self, key: &str, bound: Duration, found: &mut Vec<Violation>) {
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        if self.grants.iter().any(|grant| grant.capacity > 1) {
            return;
        }
        for &(sent, received) in &self.releases {
            let next = self.grants.partition_point(|grant| grant.received <= sent);
            let next = self.grants.get(next).map_or(u64::MAX, |grant| grant.received);
            if next.saturating_sub(received) <= bound {
                continue;
            }
            // The longest that somebody who was there all along had to wait.
            let waits = self.waiters.values().filter(|waiter| waiter.acked < sent);
            let waited = waits.filter_map(|waiter| waiter.gone).max();
            let end = waited.unwrap_or(0).min(next);
            let took = end.saturating_sub(received);
            if took > bound && !self.disturbed_between(sent, end) {
                found.push(Violation::SlowHandOff {
                    key: key.to_owned(),
                    took: Duration::from_nanos(took),
                });
            }
        }
    }
}

impl Grant<'_> {
    /// From when on the token may have been drawn. With one holder at a time that is after the request which was
    /// answered; with several, the answer may repeat a grant whose first answer was lost.
    fn start(&self) -> u64 {
        if self.capacity == 1 {
            self.sent
        } else {
            self.first_sent
        }
    }
}

#[cfg(test)]
mod tests;
