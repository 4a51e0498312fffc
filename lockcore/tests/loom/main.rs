//! Every interleaving of those who end and extend a lease, by loom: the code of the library, with atomics that loom
//! watches.

#[path = "../../src/lease_word.rs"]
#[expect(dead_code, reason = "not all of it takes part")]
mod lease_word;

mod atomic {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
}
mod env {
    pub(crate) use lockcore::Instant;
}
mod loss {
    pub(crate) use lockcore::LossReason;
}

use loom::sync::Arc;
use loom::thread;

use crate::env::Instant;
use crate::lease_word::{LeaseState, LeaseWord};
use crate::loss::LossReason;

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
