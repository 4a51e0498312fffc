//! When to do what: pure arithmetic over a clock reading.

use std::time::Duration;

use crate::claim::Claim;
use crate::driver::Busy;
use crate::env::{Env, Instant, saturating_nanos};

/// A lease is renewed when at most this share of its TTL has passed.
const RENEW_DIVISOR: u32 = 3;
/// Renewals that fail are tried again after a twentieth of the TTL at first, a sixth at most.
const RETRY_DIVISORS: (u32, u32) = (20, 6);
/// The least pause between two tries of a renewal.
const SHORTEST_RETRY: Duration = Duration::from_millis(1);

/// Aligns renewals so that leases share batches: due times are rounded down to a power of two of nanoseconds, at
/// most a sixth of the TTL. Leases of one TTL fall into a few slots, those of different TTLs share slots too. The
/// phase is random, so that processes of one machine do not renew at one instant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RenewalGrid {
    phase: u64,
}

impl RenewalGrid {
    pub(crate) fn new(env: &Env) -> Self {
        Self {
            phase: saturating_nanos(env.jitter(Duration::ZERO, Duration::from_secs(3600))),
        }
    }

    /// When a lease that was confirmed by a request sent at `sent` is renewed: after a sixth to a third of its TTL.
    pub(crate) fn due(self, sent: Instant, ttl: Duration) -> Instant {
        let latest = sent.after(ttl / RENEW_DIVISOR).as_nanos();
        let sixth = saturating_nanos(ttl / (2 * RENEW_DIVISOR)).max(1);
        let slot = 1_u64 << sixth.ilog2();
        let phased = latest.wrapping_add(self.phase % slot);
        Instant::from_nanos(latest - phased % slot)
    }
}

/// When a renewal that failed `failures` times in a row is tried again. The lease's deadline is watched besides.
pub(crate) fn next_retry(env: &Env, ttl: Duration, failures: u32) -> Instant {
    let (first, longest) = (ttl / RETRY_DIVISORS.0, ttl / RETRY_DIVISORS.1);
    let pause = first
        .saturating_mul(1 << failures.saturating_sub(1).min(8))
        .min(longest)
        .max(SHORTEST_RETRY);
    env.now().after(env.jitter(pause / 2, pause))
}

/// How much later than the first waiter the ones behind it look at a lock that may have expired: one after the
/// other, so that they do not all ask at once, and bounded, so that a queue of dead waiters delays nobody for long.
const STAGGER: Duration = Duration::from_millis(20);
const LONGEST_STAGGER: Duration = Duration::from_millis(500);
/// The answer to "when can it be free" is rounded down by backends that count in milliseconds.
const ROUNDING: Duration = Duration::from_millis(1);

/// How long a waiter that was told `busy` sleeps if nothing wakes it: up to a third of its place's life, and no
/// longer than until the lock can have expired, which no backend announces. Its own TTL stands in for that of a waiter
/// that has not claimed its turn yet, where the backend does not tell it.
pub(crate) fn recheck(busy: &Busy, claim: &Claim, polls: Option<Duration>) -> Duration {
    let heartbeat = claim.waiter_ttl / 3;
    let ahead = busy.ahead.unwrap_or(0);
    let free_in = match busy.reserved {
        // Next in line behind the reservation, or behind one who may be as dead.
        Some(reserved) if ahead <= 2 => Some(reserved),
        Some(reserved) => busy.free_in.or(Some(reserved.saturating_add(claim.ttl))),
        None => busy.free_in,
    };
    let expiry = free_in.map_or(heartbeat, |free_in| {
        let place = u32::try_from(ahead).unwrap_or(u32::MAX);
        free_in
            .saturating_add(ROUNDING)
            .saturating_add(STAGGER.saturating_mul(place).min(LONGEST_STAGGER))
    });
    heartbeat.min(expiry).min(polls.unwrap_or(heartbeat))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::claim::AttemptId;
    use crate::name::{Kind, LockName, Namespace, Resource};

    proptest! {
        #[test]
        fn renewal_is_due_in_time(phase: u64, sent in 0u64..1 << 62, ttl_ns in 1_000u64..86_400_000_000_000) {
            let ttl = Duration::from_nanos(ttl_ns);
            let due = RenewalGrid { phase }.due(Instant::from_nanos(sent), ttl).as_nanos();
            prop_assert!(due <= sent + ttl_ns / 3);
            prop_assert!(due >= sent + ttl_ns / 3 - ttl_ns / 6);
        }

        /// Whenever they were granted, leases of one TTL share at most five slots in a renewal period.
        #[test]
        fn leases_share_slots(phase: u64, start in 0u64..1 << 60, ttl_ms in 100u64..100_000, grants in prop::collection::vec(0.0..1.0f64, 1..300)) {
            let ttl = Duration::from_millis(ttl_ms);
            let slots: std::collections::BTreeSet<_> = grants
                .iter()
                .map(|share| Instant::from_nanos(start).after((ttl / 3).mul_f64(*share)))
                .map(|sent| RenewalGrid { phase }.due(sent, ttl))
                .collect();
            prop_assert!(slots.len() <= 5, "{} slots", slots.len());
        }

        #[test]
        fn a_waiter_looks_soon_after_an_expiry(ahead in 0u64..10_000, free_ms in 0u64..100_000) {
            let name = LockName::new("a").unwrap();
            let resource = Resource::new(Namespace::default(), Kind::Mutex, name);
            let claim = Claim::new(resource, AttemptId::from_bits(1), Duration::from_secs(30));
            let (heartbeat, free_in) = (claim.waiter_ttl / 3, Duration::from_millis(free_ms));
            let busy = Busy::default().queued(ahead, None);
            let pause = recheck(&busy.free_in(Some(free_in)), &claim, None);
            prop_assert!(pause <= heartbeat);
            prop_assert!(pause <= free_in + LONGEST_STAGGER + ROUNDING);
            prop_assert!(pause > free_in.min(heartbeat) || pause == heartbeat);

            let reserved = Busy::default().queued(ahead, None).reserved(Some(free_in));
            let pause = recheck(&reserved, &claim, None);
            let next = ahead <= 1 && pause <= free_in + STAGGER + ROUNDING;
            prop_assert!(next || pause == heartbeat || pause >= free_in + claim.ttl);
        }
    }
}
