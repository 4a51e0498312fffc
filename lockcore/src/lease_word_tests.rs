use crate::env::Instant;
use crate::lease_word::{LeaseState, LeaseWord, decode, encode};
use crate::loss::LossReason;

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
