//! The state of a held lease in one atomic word, so that loss is final whatever races with it.
//! `tests/loom` has this file with other atomics: its unit tests are beside it.

use crate::atomic::{AtomicU64, Ordering};
use crate::env::Instant;
use crate::loss::LossReason;

const RELEASED: u64 = 0;
/// Words up to here are not deadlines.
const LAST_CODE: u64 = 15;

/// Where a lease stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeaseState {
    /// Valid before this point.
    Held(Instant),
    Released,
    Lost(LossReason),
}

/// `Held -> Released | Lost`, never back. Whoever sees a deadline that has passed makes the loss final before telling
/// anybody, so no late answer to a renewal can bring back a lease that somebody saw as lost.
#[derive(Debug)]
pub(crate) struct LeaseWord(AtomicU64);

impl LeaseWord {
    pub(crate) fn new(deadline: Instant) -> Self {
        Self(AtomicU64::new(encode(LeaseState::Held(deadline))))
    }

    /// Of a lease that is over.
    pub(crate) fn released() -> Self {
        Self(AtomicU64::new(RELEASED))
    }

    /// The state at `now`; a deadline that has passed becomes a loss for `reason`.
    pub(crate) fn state_at(&self, now: Instant, reason: LossReason) -> LeaseState {
        self.update(|state| match state {
            LeaseState::Held(deadline) if now >= deadline => Some(LeaseState::Lost(reason)),
            _ => None,
        })
        .1
    }

    /// Moves the deadline forward if the lease is still held at `now`; true if it is.
    pub(crate) fn extend(&self, deadline: Instant, now: Instant) -> bool {
        let (_, after) = self.update(|state| match state {
            LeaseState::Held(old) if now >= old => Some(LeaseState::Lost(LossReason::Unreachable)),
            LeaseState::Held(old) if deadline > old => Some(LeaseState::Held(deadline)),
            _ => None,
        });
        matches!(after, LeaseState::Held(_))
    }

    /// Moves the deadline back, before a renewal that asks for less is sent; true if it did.
    pub(crate) fn shorten(&self, deadline: Instant) -> bool {
        let (before, after) = self.update(|state| match state {
            LeaseState::Held(old) if deadline < old => Some(LeaseState::Held(deadline)),
            _ => None,
        });
        before != after
    }

    /// Held to lost; true for the one call that did it.
    pub(crate) fn lose(&self, reason: LossReason) -> bool {
        let (before, _) = self.update(|state| match state {
            LeaseState::Held(_) => Some(LeaseState::Lost(reason)),
            _ => None,
        });
        matches!(before, LeaseState::Held(_))
    }

    /// Held to released; the state that it had at `now`. Past its deadline it is lost instead.
    pub(crate) fn release(&self, now: Instant, reason: LossReason) -> LeaseState {
        let (before, after) = self.update(|state| match state {
            LeaseState::Held(deadline) if now >= deadline => Some(LeaseState::Lost(reason)),
            LeaseState::Held(_) => Some(LeaseState::Released),
            _ => None,
        });
        if after == LeaseState::Released {
            before
        } else {
            after
        }
    }

    /// The state before and after; `change` may be asked several times.
    fn update(&self, change: impl Fn(LeaseState) -> Option<LeaseState>) -> (LeaseState, LeaseState) {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            let before = decode(word);
            let Some(after) = change(before) else {
                return (before, before);
            };
            match self
                .0
                .compare_exchange(word, encode(after), Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return (before, after),
                Err(actual) => word = actual,
            }
        }
    }
}

pub(crate) fn encode(state: LeaseState) -> u64 {
    match state {
        LeaseState::Held(deadline) => deadline.as_nanos().max(LAST_CODE + 1),
        LeaseState::Released => RELEASED,
        LeaseState::Lost(reason) => reason_code(reason),
    }
}

pub(crate) fn decode(word: u64) -> LeaseState {
    match word {
        RELEASED => LeaseState::Released,
        1..=LAST_CODE => LeaseState::Lost(reason_of(word)),
        _ => LeaseState::Held(Instant::from_nanos(word)),
    }
}

/// 1 and up.
const fn reason_code(reason: LossReason) -> u64 {
    reason as u64 + 1
}

fn reason_of(code: u64) -> LossReason {
    LossReason::ALL
        .into_iter()
        .find(|reason| reason_code(*reason) == code)
        .unwrap_or(LossReason::Expired)
}
