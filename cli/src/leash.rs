//! When CMD is stopped: pure arithmetic over what is left of the lease.

use std::time::Duration;

use leasehold::{Instant, LossReason};

use crate::args::OnLost;

/// CMD is killed this share of the TTL before the lease is over here, and at most [`LONGEST_MARGIN`]: a signal takes
/// its time, and so does a process that has to be woken to see the deadline.
const MARGIN_DIVISOR: u32 = 20;
const LONGEST_MARGIN: Duration = Duration::from_millis(250);

/// What CMD gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pull {
    /// TERM; KILL follows when it has not ended within this time.
    Term(Duration),
    Kill,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// It got TERM.
    Ending {
        kill_at: Instant,
    },
    Killed,
}

/// Decides when CMD is stopped. A decision is final: CMD may have undone half of its work already when the backend
/// answers again.
#[derive(Debug)]
pub(crate) struct Leash {
    on_lost: OnLost,
    grace: Duration,
    margin: Duration,
    stage: Stage,
}

impl Leash {
    /// For a lease of `ttl`. Renewals start when two thirds of it are left at least, so a grace period of a third
    /// leaves as much time for the backend to answer again.
    pub(crate) fn new(on_lost: OnLost, grace: Duration, ttl: Duration) -> Self {
        Self {
            on_lost,
            grace: grace.min(ttl / 3),
            margin: (ttl / MARGIN_DIVISOR).min(LONGEST_MARGIN),
            stage: Stage::Running,
        }
    }

    /// When CMD is killed if nothing is heard of this program until then.
    pub(crate) fn end(&self, now: Instant, remaining: Duration) -> Instant {
        now.after(remaining.saturating_sub(self.margin))
    }

    /// Was CMD stopped?
    pub(crate) fn is_pulled(&self) -> bool {
        self.stage != Stage::Running
    }

    /// What CMD gets now, and when to look again. `remaining` is left of the lease if no renewal succeeds.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        remaining: Duration,
        lost: Option<LossReason>,
    ) -> (Option<Pull>, Instant) {
        let pull = match (self.on_lost, self.stage) {
            (OnLost::Ignore, _) | (_, Stage::Killed) => return (None, Instant::FAR_FUTURE),
            (OnLost::Kill, _) => self.kill_when_over(remaining, lost),
            (OnLost::Term, Stage::Running) => self.start_to_end(remaining, lost),
            (OnLost::Term, Stage::Ending { kill_at }) => {
                (now >= kill_at || lost.is_some_and(is_over)).then_some(Pull::Kill)
            }
        };
        match pull {
            Some(Pull::Term(grace)) => {
                self.stage = Stage::Ending {
                    kill_at: now.after(grace),
                };
            }
            Some(Pull::Kill) => self.stage = Stage::Killed,
            None => {}
        }
        let next = match (self.on_lost, self.stage) {
            (_, Stage::Killed) | (OnLost::Ignore, _) => Instant::FAR_FUTURE,
            (_, Stage::Ending { kill_at }) => kill_at,
            (OnLost::Kill, Stage::Running) => now.after(remaining.saturating_sub(self.margin)),
            (OnLost::Term, Stage::Running) => {
                now.after(remaining.saturating_sub(self.grace.max(self.margin)))
            }
        };
        (pull, next)
    }

    fn kill_when_over(&self, remaining: Duration, lost: Option<LossReason>) -> Option<Pull> {
        (lost.is_some() || remaining <= self.margin).then_some(Pull::Kill)
    }

    fn start_to_end(&self, remaining: Duration, lost: Option<LossReason>) -> Option<Pull> {
        match lost {
            Some(reason) if is_over(reason) || self.grace.is_zero() => Some(Pull::Kill),
            // Somebody else may have it by now, but did so by force, or by a fault of the backend's.
            Some(_) => Some(Pull::Term(self.grace)),
            None if remaining <= self.margin => Some(Pull::Kill),
            None if remaining <= self.grace => Some(Pull::Term(remaining - self.margin)),
            None => None,
        }
    }
}

/// Is all the time over that there was?
fn is_over(reason: LossReason) -> bool {
    matches!(
        reason,
        LossReason::Expired | LossReason::Unreachable | LossReason::MaxHold
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);
    const GRACE: Duration = Duration::from_secs(5);
    const MARGIN: Duration = Duration::from_millis(250);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn left(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_silent_backend_costs_term_then_kill_before_the_deadline() {
        let mut leash = Leash::new(OnLost::Term, GRACE, TTL);
        assert_eq!(leash.look(at(0), left(20_000), None), (None, at(15_000)));
        let (pull, next) = leash.look(at(15_000), left(5_000), None);
        assert_eq!(pull, Some(Pull::Term(GRACE - MARGIN)));
        assert_eq!(next, at(19_750));
        assert!(leash.is_pulled());
        // Renewed or not: it has been told to stop.
        assert_eq!(leash.look(at(16_000), left(29_000), None), (None, at(19_750)));
        assert_eq!(
            leash.look(at(19_750), left(250), None),
            (Some(Pull::Kill), Instant::FAR_FUTURE)
        );
        assert_eq!(
            leash.look(at(20_000), left(0), Some(LossReason::Unreachable)),
            (None, Instant::FAR_FUTURE)
        );
    }

    #[test]
    fn a_renewed_lease_costs_nothing() {
        let mut leash = Leash::new(OnLost::Term, Duration::from_secs(3600), TTL);
        for second in 0..100 {
            let (pull, next) = leash.look(at(second * 1000), left(20_000), None);
            // The grace period is cut to a third of the TTL.
            assert_eq!((pull, next), (None, at(second * 1000 + 10_000)));
        }
        assert!(!leash.is_pulled());
    }

    #[test]
    fn a_lock_that_was_taken_costs_term_at_once_then_kill() {
        let mut leash = Leash::new(OnLost::Term, GRACE, TTL);
        let (pull, next) = leash.look(at(1_000), left(0), Some(LossReason::Revoked));
        assert_eq!((pull, next), (Some(Pull::Term(GRACE)), at(6_000)));
        assert_eq!(
            leash.look(at(2_000), left(0), Some(LossReason::Revoked)),
            (None, at(6_000))
        );
        assert_eq!(
            leash.look(at(6_000), left(0), Some(LossReason::Revoked)).0,
            Some(Pull::Kill)
        );
    }

    #[test]
    fn after_a_stop_there_is_no_grace() {
        for reason in [LossReason::Expired, LossReason::Unreachable] {
            let mut leash = Leash::new(OnLost::Term, GRACE, TTL);
            assert_eq!(leash.look(at(90_000), left(0), Some(reason)).0, Some(Pull::Kill));
        }
        // Stopped after TERM.
        let mut leash = Leash::new(OnLost::Term, GRACE, TTL);
        leash.look(at(0), left(4_000), None);
        assert_eq!(
            leash.look(at(90_000), left(0), Some(LossReason::Expired)).0,
            Some(Pull::Kill)
        );
    }

    #[test]
    fn the_other_ways() {
        let mut leash = Leash::new(OnLost::Kill, GRACE, TTL);
        assert_eq!(leash.look(at(0), left(5_000), None), (None, at(4_750)));
        assert_eq!(leash.look(at(4_750), left(250), None).0, Some(Pull::Kill));
        let mut leash = Leash::new(OnLost::Kill, GRACE, TTL);
        assert_eq!(
            leash.look(at(0), left(0), Some(LossReason::Revoked)).0,
            Some(Pull::Kill)
        );
        let mut leash = Leash::new(OnLost::Ignore, GRACE, TTL);
        assert_eq!(
            leash.look(at(0), left(0), Some(LossReason::Revoked)),
            (None, Instant::FAR_FUTURE)
        );
        let mut leash = Leash::new(OnLost::Term, Duration::ZERO, TTL);
        assert_eq!(leash.look(at(0), left(251), None), (None, at(1)));
        assert_eq!(leash.look(at(1), left(250), None).0, Some(Pull::Kill));
    }
}
