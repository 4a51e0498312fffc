//! What operations cost at the server.

use std::ops::Sub;

/// What a server has done since it was started, as it counts itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests that drivers sent: round trips, of which each may carry several commands.
    pub requests: u64,
    /// Durable changes: revisions, transactions, commands that write.
    pub writes: u64,
}

impl Counters {
    /// This many of each.
    #[must_use]
    pub const fn new(requests: u64, writes: u64) -> Self {
        Self { requests, writes }
    }
}

impl Sub for Counters {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            writes: self.writes.saturating_sub(before.writes),
        }
    }
}

/// What operations may cost at most, declared per driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// A try of a free lock.
    pub acquire: Counters,
    /// A release that nobody waits for.
    pub release: Counters,
    /// One acquisition of a lock that many want, its queueing, its wake-up and its release included. It is the same
    /// for any number of waiters.
    pub contended: Counters,
    /// Keeping a thousand locks for one TTL.
    pub keep_thousand: Counters,
}

impl Budget {
    /// One round trip with one write for an acquire and for a release; queueing, a claim after the wake-up and a release
    /// for a contended one, with a little for timers; twenty batches to keep a thousand locks, each lock a write.
    pub const LEASES: Self = Self {
        acquire: Counters::new(1, 1),
        release: Counters::new(1, 1),
        contended: Counters::new(4, 4),
        keep_thousand: Counters::new(120, 6000),
    };

    /// As [`LEASES`](Self::LEASES), with locks that live by a session: one message keeps them all, and writes nothing.
    pub const SESSIONS: Self = Self {
        keep_thousand: Counters::new(12, 0),
        ..Self::LEASES
    };

    /// With this much for a try of a free lock.
    #[must_use]
    pub const fn with_acquire(mut self, requests: u64, writes: u64) -> Self {
        self.acquire = Counters::new(requests, writes);
        self
    }

    /// With this much for a release.
    #[must_use]
    pub const fn with_release(mut self, requests: u64, writes: u64) -> Self {
        self.release = Counters::new(requests, writes);
        self
    }

    /// With this much for one contended acquisition.
    #[must_use]
    pub const fn with_contended(mut self, requests: u64, writes: u64) -> Self {
        self.contended = Counters::new(requests, writes);
        self
    }

    /// With this much to keep a thousand locks for one TTL.
    #[must_use]
    pub const fn with_keep_thousand(mut self, requests: u64, writes: u64) -> Self {
        self.keep_thousand = Counters::new(requests, writes);
        self
    }
}
