//! Judges a history.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::Event;

/// What a history has to keep besides what always holds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Waiters are granted in the order in which the backend took them into its queue, and nobody overtakes them.
    pub fifo: bool,
    /// After a release somebody who waits is granted within this. For locks with one holder.
    pub hand_off: Option<Duration>,
}

/// What must not happen, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Two users held what only one may hold, or more than there is.
    Overlap {
        /// Which lock.
        key: String,
        /// Whose.
        tokens: Vec<u64>,
        /// From when to when, in nanoseconds.
        during: (u64, u64),
    },
    /// Two grants of one lock with one token.
    SameToken {
        /// Which lock.
        key: String,
        /// Which token.
        token: u64,
    },
    /// A grant that began after another had ended has the smaller token.
    TokenFell {
        /// Which lock.
        key: String,
        /// The tokens, in the order of their grants.
        tokens: (u64, u64),
    },
    /// Somebody was granted who came after somebody in the queue.
    Overtaken {
        /// Which lock.
        key: String,
        /// Who was first.
        first: String,
        /// Who overtook.
        second: String,
    },
    /// A free lock was not handed to somebody who waited for it.
    SlowHandOff {
        /// Which lock.
        key: String,
        /// How long it took, or lasted at least.
        took: Duration,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap {
                key,
                tokens,
                during: (from, to),
            } => {
                let lasted = Duration::from_nanos(to - from);
                write!(f, "{key}: held by too many for {lasted:?}, tokens {tokens:?}")
            }
            Self::SameToken { key, token } => write!(f, "{key}: token {token} was given twice"),
            Self::TokenFell {
                key,
                tokens: (one, two),
            } => write!(f, "{key}: token {two} was given after {one}"),
            Self::Overtaken { key, first, second } => {
                write!(
                    f,
                    "{key}: {second} was granted before {first}, who had queued earlier"
                )
            }
            Self::SlowHandOff { key, took } => {
                write!(
                    f,
                    "{key}: free for {took:?} while somebody waited for it in the queue"
                )
            }
        }
    }
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
struct Waiter<'a> {
    attempt: &'a str,
    acked: u64,
    /// When it was granted or left.
    gone: Option<u64>,
    granted: bool,
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
    grants: Vec<Grant<'a>>,
    waiters: Vec<Waiter<'a>>,
    holds: BTreeMap<u64, Hold>,
    /// Ends of holds, by token.
    ends: Vec<(u64, u64)>,
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
        match event {
            Event::Queued {
                key, attempt, acked, ..
            } => {
                let lock = locks.entry(key).or_default();
                lock.waiters.push(Waiter {
                    attempt,
                    acked: *acked,
                    gone: None,
                    granted: false,
                });
            }
            Event::Granted {
                key,
                attempt,
                token,
                weight,
                capacity,
                first_sent,
                sent,
                received,
            } => locks.entry(key).or_default().grants.push(Grant {
                attempt,
                token: *token,
                weight: *weight,
                capacity: *capacity,
                first_sent: *first_sent,
                sent: *sent,
                received: *received,
            }),
            Event::Held {
                key,
                token,
                at,
                until,
            } => {
                let hold = locks.entry(key).or_default().holds.entry(*token).or_insert(Hold {
                    from: *at,
                    until: *until,
                    last_told: *at,
                });
                if *at >= hold.last_told {
                    (hold.last_told, hold.until) = (*at, *until);
                }
                hold.from = hold.from.min(*at);
            }
            Event::Ended { key, token, at } => locks.entry(key).or_default().ends.push((*token, *at)),
            Event::Released {
                key,
                sent,
                received: Some(received),
                held: true,
                ..
            } => {
                locks.entry(key).or_default().releases.push((*sent, *received));
            }
            Event::Released { .. } | Event::Disturbed { .. } => {}
        }
    }
    // Second pass: what ends things may stand before what it ends, when processes wrote the history.
    for event in events {
        match event {
            Event::Granted {
                key,
                attempt,
                received,
                ..
            } => {
                if let Some(waiter) = waiter_of(&mut locks, key, attempt) {
                    // Granted by an answer is granted, even if a release was sent meanwhile.
                    (waiter.gone, waiter.granted) = (Some(*received), true);
                }
            }
            Event::Released {
                key, attempt, sent, ..
            } => {
                if let Some(waiter) = waiter_of(&mut locks, key, attempt) {
                    waiter.gone.get_or_insert(*sent);
                }
            }
            Event::Disturbed { key, at } => {
                for (name, lock) in &mut locks {
                    if key.as_ref().is_none_or(|key| key == name) {
                        lock.disturbances.push(*at);
                    }
                }
            }
            _ => {}
        }
    }
    locks
}

fn waiter_of<'a, 'b>(
    locks: &'b mut BTreeMap<&str, Lock<'a>>,
    key: &str,
    attempt: &str,
) -> Option<&'b mut Waiter<'a>> {
    let lock = locks.get_mut(key)?;
    lock.waiters.iter_mut().find(|waiter| waiter.attempt == attempt)
}

impl Lock<'_> {
    fn disturbed_between(&self, from: u64, to: u64) -> bool {
        self.disturbances.iter().any(|at| (from..=to).contains(at))
    }

    /// At no instant do valid holders weigh more than there is.
    fn overlaps(&self, key: &str, found: &mut Vec<Violation>) {
        let mut changes = Vec::new();
        let mut capacity = 1;
        for (token, hold) in &self.holds {
            let ends = self.ends.iter().filter(|(of, _)| of == token).map(|(_, at)| *at);
            let forced = self.disturbances.iter().copied().filter(|at| *at >= hold.from);
            let until = ends.chain(forced).fold(hold.until, u64::min);
            let grant = self.grants.iter().find(|grant| grant.token == *token);
            let weight = grant.map_or(1, |grant| grant.weight);
            capacity = grant.map_or(capacity, |grant| grant.capacity);
            if until > hold.from {
                // An end comes before a start of the same time.
                changes.push((hold.from, true, *token, weight));
                changes.push((until, false, *token, weight));
            }
        }
        changes.sort_unstable();
        let mut held: BTreeMap<u64, u32> = BTreeMap::new();
        for (index, (at, begins, token, weight)) in changes.iter().enumerate() {
            if !begins {
                held.remove(token);
                continue;
            }
            held.insert(*token, *weight);
            let sum: u64 = held.values().map(|weight| u64::from(*weight)).sum();
            if sum > u64::from(capacity) {
                let end = changes[index + 1..]
                    .iter()
                    .find(|(_, begins, ..)| !begins)
                    .map_or(*at, |next| next.0);
                found.push(Violation::Overlap {
                    key: key.to_owned(),
                    tokens: held.keys().copied().collect(),
                    during: (*at, end),
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
        let mut by_answer: Vec<_> = self.grants.iter().collect();
        by_answer.sort_unstable_by_key(|grant| grant.received);
        let mut by_start = by_answer.clone();
        by_start.sort_unstable_by_key(|grant| grant.start());
        let mut answered = by_answer.into_iter().peekable();
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
        for waiter in &self.waiters {
            let Some(gone) = waiter.gone else { continue };
            let overtook = self.grants.iter().find(|grant| {
                grant.attempt != waiter.attempt
                    && waiter.acked < grant.first_sent
                    && grant.received < gone
                    && !self.disturbed_between(waiter.acked, gone)
                    && !(waiter.granted && self.token_of(waiter.attempt) < Some(grant.token))
            });
            if let Some(grant) = overtook {
                found.push(Violation::Overtaken {
                    key: key.to_owned(),
                    first: waiter.attempt.to_owned(),
                    second: grant.attempt.to_owned(),
                });
            }
        }
    }

    fn token_of(&self, attempt: &str) -> Option<u64> {
        self.grants
            .iter()
            .find(|grant| grant.attempt == attempt)
            .map(|grant| grant.token)
    }

    /// What is released is granted soon to somebody, if somebody waits.
    fn hand_offs(&self, key: &str, bound: Duration, found: &mut Vec<Violation>) {
        let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        if self.grants.iter().any(|grant| grant.capacity > 1) {
            return;
        }
        for &(sent, received) in &self.releases {
            let next = self.grants.iter().map(|grant| grant.received);
            let next = next.filter(|at| *at > sent).min().unwrap_or(u64::MAX);
            // The longest that a waiter who was there all along had to wait.
            let waits = self.waiters.iter().filter(|waiter| waiter.acked < sent);
            let waited = waits
                .filter_map(|waiter| waiter.gone)
                .map(|gone| gone.min(next))
                .max();
            let Some(end) = waited else { continue };
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
