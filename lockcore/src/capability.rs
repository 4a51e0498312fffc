//! What a backend can do, declared once per driver.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};

/// What ends a lease that nobody renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ExpiryClock {
    /// The server's wall clock: a step of it shortens or lengthens every lease.
    ServerWall,
    /// A clock of the server that nobody can step.
    ServerMonotonic,
    /// This machine's clock since boot, shared by all its processes; a reboot ends every lease.
    Boot,
    /// A clock of this process.
    Process,
}

/// Where fencing tokens come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FencingSource {
    /// A number that the store itself raises with every write, kept as safely as the data.
    StoreRevision,
    /// A stored counter that is never behind the server's clock in microseconds: it grows even when the counter is
    /// lost, as long as the clock was not set back by more than the outage.
    CounterAndClock,
    /// A counter in this process.
    Process,
}

/// How a waiter learns that its turn has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WakeUp {
    /// The backend tells it.
    Push,
    /// It asks again after a while.
    Poll {
        /// The longest pause between two questions.
        interval: Duration,
    },
}

/// What happens to acknowledged locks when a server dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Failover {
    /// Locks live in this process and die with it.
    Process,
    /// One server or file: while it is down there are no locks; what it forgets at a crash depends on its settings.
    SingleNode,
    /// A replica may take over without the newest locks.
    Asynchronous,
    /// A majority agreed on every lock: none is lost.
    Consensus,
}

impl fmt::Display for ExpiryClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ServerWall => "the server's wall clock",
            Self::ServerMonotonic => "a clock of the server that nobody can step",
            Self::Boot => "this machine's clock since boot",
            Self::Process => "this process's clock",
        })
    }
}

impl fmt::Display for FencingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StoreRevision => "the store's revision",
            Self::CounterAndClock => "a counter, never behind the clock",
            Self::Process => "a counter of this process",
        })
    }
}

impl fmt::Display for WakeUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Push => f.write_str("pushed"),
            Self::Poll { interval } => {
                write!(f, "asked for every {}", humantime::format_duration(*interval))
            }
        }
    }
}

impl fmt::Display for Failover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "locks end with the process",
            Self::SingleNode => "one server or file: no locks while it is down",
            Self::Asynchronous => "a replica may take over without the newest locks",
            Self::Consensus => "a majority knows every lock: none is lost",
        })
    }
}

/// What a driver declares about its backend. The conformance suite runs what is declared and prints what is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The shortest lease.
    pub min_ttl: Duration,
    /// The longest lease that the backend keeps without renewal.
    pub max_ttl: Duration,
    /// Leases are whole multiples of this.
    pub ttl_grain: Duration,
    /// How much later than its TTL an abandoned lease may end.
    pub expiry_epsilon: Duration,
    /// The clock that ends a lease.
    pub expiry_clock: ExpiryClock,
    /// Where tokens come from.
    pub fencing: FencingSource,
    /// Are waiters served in the order of their arrival at the server?
    pub fifo: bool,
    /// How waiters are woken.
    pub wake_up: WakeUp,
    /// What a server's death does.
    pub failover: Failover,
    /// Can it lock more than a mutex: readers and writers, semaphores?
    pub weighted: bool,
    /// Can it say who holds and who waits?
    pub inspect: bool,
    /// Can it list the held locks?
    pub list: bool,
    /// Can it free a lock that somebody else holds?
    pub force_release: bool,
    /// Do locks of other processes (not only other managers) exclude these?
    pub cross_process: bool,
    /// Do locks live by a session that they share? Then the TTL of a lock cannot be changed while it is held, except
    /// with `auto_renew(false)`, and all of them are lost together.
    pub sessions: bool,
    /// How many leases one call of `renew` may carry.
    pub renew_batch: usize,
}

impl Capabilities {
    /// A backend with 1 ms to 24 h leases, fencing by counter and clock, FIFO, push and everything else that a
    /// mutex needs; not weighted. Change what differs with the `with_` methods.
    pub const MUTEX: Self = Self {
        min_ttl: Duration::from_millis(1),
        max_ttl: crate::settings::MAX_TTL,
        ttl_grain: Duration::from_millis(1),
        expiry_epsilon: Duration::from_millis(100),
        expiry_clock: ExpiryClock::ServerWall,
        fencing: FencingSource::CounterAndClock,
        fifo: true,
        wake_up: WakeUp::Push,
        failover: Failover::SingleNode,
        weighted: false,
        inspect: true,
        list: true,
        force_release: true,
        cross_process: true,
        sessions: false,
        renew_batch: 500,
    };

    /// With leases from `min` to `max`, in whole multiples of `grain`.
    #[must_use]
    pub const fn with_ttl(mut self, min: Duration, max: Duration, grain: Duration) -> Self {
        self.min_ttl = min;
        self.max_ttl = max;
        self.ttl_grain = grain;
        self
    }

    /// With leases that end by `clock`, at most `epsilon` late.
    #[must_use]
    pub const fn with_expiry(mut self, clock: ExpiryClock, epsilon: Duration) -> Self {
        self.expiry_clock = clock;
        self.expiry_epsilon = epsilon;
        self
    }

    /// With tokens from `source`.
    #[must_use]
    pub const fn with_fencing(mut self, source: FencingSource) -> Self {
        self.fencing = source;
        self
    }

    /// With or without a queue in order of arrival.
    #[must_use]
    pub const fn with_fifo(mut self, fifo: bool) -> Self {
        self.fifo = fifo;
        self
    }

    /// With waiters woken by `wake_up`.
    #[must_use]
    pub const fn with_wake_up(mut self, wake_up: WakeUp) -> Self {
        self.wake_up = wake_up;
        self
    }

    /// With this behaviour when a server dies.
    #[must_use]
    pub const fn with_failover(mut self, failover: Failover) -> Self {
        self.failover = failover;
        self
    }

    /// With or without readers, writers and semaphores.
    #[must_use]
    pub const fn with_weighted(mut self, weighted: bool) -> Self {
        self.weighted = weighted;
        self
    }

    /// With or without `inspect`, `list` and `force_release`.
    #[must_use]
    pub const fn with_administration(mut self, inspect: bool, list: bool, force_release: bool) -> Self {
        self.inspect = inspect;
        self.list = list;
        self.force_release = force_release;
        self
    }

    /// Whether other processes take part.
    #[must_use]
    pub const fn with_cross_process(mut self, cross_process: bool) -> Self {
        self.cross_process = cross_process;
        self
    }

    /// With locks that live by a session which they share, or each by a lease of its own.
    #[must_use]
    pub const fn with_sessions(mut self, sessions: bool) -> Self {
        self.sessions = sessions;
        self
    }

    /// With at most `leases` in one call of `renew`, at least 1.
    #[must_use]
    pub const fn with_renew_batch(mut self, leases: usize) -> Self {
        self.renew_batch = if leases == 0 { 1 } else { leases };
        self
    }

    /// The lease that the backend gives for `ttl`: rounded *up* to its grain and its minimum, cut to its maximum
    /// (renewal bridges the rest). The local deadline always follows this one.
    #[must_use]
    pub fn effective_ttl(&self, ttl: Duration) -> Duration {
        let grain = self.ttl_grain.as_nanos().max(1);
        let grains = ttl.as_nanos().div_ceil(grain);
        let rounded = u64::try_from(grains.saturating_mul(grain)).map_or(Duration::MAX, Duration::from_nanos);
        rounded.clamp(self.min_ttl, self.max_ttl)
    }

    /// An [`Unsupported`](ErrorKind::Unsupported) error unless `has`.
    pub(crate) fn require(has: bool, what: &str) -> Result<()> {
        if has {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("this backend has no {what}: choose one that declares it"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_ttl_is_rounded_up_never_down(ms in 1u64..100_000, grain in 1u64..5_000) {
            let grain = Duration::from_millis(grain);
            let caps = Capabilities::MUTEX.with_ttl(grain, Duration::from_secs(3600), grain);
            let asked = Duration::from_millis(ms);
            let given = caps.effective_ttl(asked);
            prop_assert!(given >= asked && given < asked + grain);
            prop_assert_eq!(given.as_nanos() % grain.as_nanos(), 0);
            prop_assert_eq!(caps.effective_ttl(given), given);
        }
    }

    #[test]
    fn bounds() {
        let caps = Capabilities::MUTEX.with_ttl(
            Duration::from_secs(4),
            Duration::from_secs(40),
            Duration::from_secs(1),
        );
        assert_eq!(
            caps.effective_ttl(Duration::from_millis(1)),
            Duration::from_secs(4)
        );
        assert_eq!(
            caps.effective_ttl(Duration::from_secs(100)),
            Duration::from_secs(40)
        );
        assert_eq!(caps.effective_ttl(Duration::MAX), Duration::from_secs(40));
    }
}
