//! Why a lock was lost.

use std::fmt;

/// Why a lock was lost. Loss is final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LossReason {
    /// The lease ran out, and renewal was off or no renewal could be sent in time.
    Expired,
    /// The lease ran out while the backend did not answer the renewals.
    Unreachable,
    /// The backend says that the lock is not ours: expired there, taken, deleted or freed by force.
    Revoked,
    /// The session that the lock lived by ended.
    SessionEnded,
    /// `max_hold` was reached.
    MaxHold,
    /// The manager was closed before the lock was released.
    Closed,
}

impl LossReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [
        Self::Expired,
        Self::Unreachable,
        Self::Revoked,
        Self::SessionEnded,
        Self::MaxHold,
        Self::Closed,
    ];

    /// A few words for people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "the lease ran out",
            Self::Unreachable => "the lease ran out while the backend did not answer",
            Self::Revoked => "the backend gave it to somebody else or dropped it",
            Self::SessionEnded => "the session with the backend ended",
            Self::MaxHold => "it was held for as long as max_hold allows",
            Self::Closed => "the manager was closed",
        }
    }
}

impl fmt::Display for LossReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
