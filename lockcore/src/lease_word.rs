//! The state of a held lease in one atomic word, so that loss is final whatever races with it.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering};

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

fn encode(state: LeaseState) -> u64 {
    match state {
        LeaseState::Held(deadline) => deadline.as_nanos().max(LAST_CODE + 1),
        LeaseState::Released => RELEASED,
        LeaseState::Lost(reason) => reason.code(),
    }
}

fn decode(word: u64) -> LeaseState {
    match word {
        RELEASED => LeaseState::Released,
        1..=LAST_CODE => LeaseState::Lost(LossReason::from_code(word)),
        _ => LeaseState::Held(Instant::from_nanos(word)),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    #[test]
    fn every_state_survives_the_word() {
        for reason in LossReason::ALL {
            assert_eq!(decode(encode(LeaseState::Lost(reason))), LeaseState::Lost(reason));
        }
        for state in [
            LeaseState::Released,
            LeaseState::Held(at(100)),
            LeaseState::Held(Instant::FAR_FUTURE),
        ] {
            assert_eq!(decode(encode(state)), state);
        }
    }

    #[test]
    fn a_late_answer_brings_nothing_back() {
        let word = LeaseWord::new(at(100));
        assert!(word.extend(at(200), at(99)));
        assert!(!word.extend(at(300), at(200)));
        assert_eq!(
            word.state_at(at(1), LossReason::Expired),
            LeaseState::Lost(LossReason::Unreachable)
        );
        assert_eq!(
            word.release(at(1), LossReason::Expired),
            LeaseState::Lost(LossReason::Unreachable)
        );
    }

    #[test]
    fn release_ends_it_once() {
        let word = LeaseWord::new(at(100));
        assert_eq!(
            word.release(at(50), LossReason::Expired),
            LeaseState::Held(at(100))
        );
        assert_eq!(word.release(at(50), LossReason::Expired), LeaseState::Released);
        assert!(!word.lose(LossReason::Revoked));
        assert!(!word.extend(at(900), at(50)));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    /// The holder looks after the deadline while the answer to a renewal comes in: once lost, never held again.
    #[test]
    fn loom_loss_is_final() {
        loom::model(|| {
            let word = Arc::new(LeaseWord::new(at(100)));
            let renewal = {
                let word = Arc::clone(&word);
                thread::spawn(move || word.extend(at(200), at(99)))
            };
            let first = word.state_at(at(150), LossReason::Expired);
            let second = word.state_at(at(150), LossReason::Expired);
            let renewed = renewal.join().unwrap();
            if matches!(first, LeaseState::Lost(_)) {
                assert!(matches!(second, LeaseState::Lost(_)));
                assert!(!renewed || matches!(word.state_at(at(0), LossReason::Expired), LeaseState::Lost(_)));
            }
        });
    }

    /// Release, loss and expiry race: exactly one of them ends the lease.
    #[test]
    fn loom_one_end() {
        loom::model(|| {
            let word = Arc::new(LeaseWord::new(at(100)));
            let loser = {
                let word = Arc::clone(&word);
                thread::spawn(move || word.lose(LossReason::Revoked))
            };
            let renewal = {
                let word = Arc::clone(&word);
                thread::spawn(move || word.extend(at(200), at(50)))
            };
            let released = matches!(word.release(at(60), LossReason::Expired), LeaseState::Held(_));
            let lost = loser.join().unwrap();
            renewal.join().unwrap();
            assert!(released != lost);
            let end = word.state_at(at(60), LossReason::Expired);
            assert_eq!(end == LeaseState::Released, released);
        });
    }
}
