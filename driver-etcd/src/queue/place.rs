//! Where a waiter stands, and what follows for it when a key is gone.

use std::ops::Range;
use std::time::Duration;

use lockcore::AttemptId;

use super::{COUNT_AGAIN, STAND_BY};

/// Who stands before a waiter, as far as an answer named them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Named {
    /// With when their keys were created.
    pub(crate) keys: Vec<(AttemptId, i64)>,
    /// All who came at these revisions have been named.
    pub(crate) all: Range<i64>,
}

/// Where a waiter stands, as an answer of the server told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// When its key was created.
    pub(crate) created: i64,
    /// How many keys are older.
    pub(crate) older: Older,
    /// The store's revision of the answer.
    pub(crate) seen: i64,
}

/// How many keys are older than a waiter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Older {
    Exactly(usize),
    AtLeast(usize),
}

impl Older {
    /// One of them is gone; of those that are left so many have a name. Nothing when it is time to ask who they are.
    pub(super) const fn less(self, named: usize) -> Option<Self> {
        match self {
            Self::Exactly(count) if count > STAND_BY + 1 || count <= named + 1 => {
                Some(Self::Exactly(count.saturating_sub(1)))
            }
            Self::AtLeast(count) if count > COUNT_AGAIN => Some(Self::AtLeast(count - 1)),
            _ => None,
        }
    }

    pub(super) const fn least(self) -> usize {
        match self {
            Self::Exactly(count) | Self::AtLeast(count) => count,
        }
    }
}

/// What a waiter does about a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    Nothing,
    /// Asks now.
    Ask,
    /// Asks when as many as this had a claim window each.
    StandBy(usize),
}

impl Place {
    /// A key of the lock is gone. It was created `then`, if it had a name, as have `named` of those that are older than this
    /// place and left. `free` when nobody is known to hold the lock.
    pub(super) fn hear(&mut self, at: i64, then: Option<i64>, named: usize, free: bool) -> Hint {
        if at <= self.seen {
            // The answer knew it already.
            return Hint::Nothing;
        }
        // Several keys may be gone with one revision: of dead waiters that somebody went past. Each counts.
        let is_older = match then {
            Some(then) => then < self.created,
            // One of those between the named ones and this place, or one behind it, which then is counted too early.
            None => self.older.least() > named,
        };
        if !is_older {
            return Hint::Nothing;
        }
        let older = self.older.less(named);
        self.older = older.unwrap_or(self.older);
        match older {
            None | Some(Older::Exactly(0)) => Hint::Ask,
            Some(Older::Exactly(count)) if free && count <= STAND_BY => Hint::StandBy(count),
            Some(_) => Hint::Nothing,
        }
    }
}

/// A claim window for each of `older`.
pub(crate) fn windows(window: Duration, older: usize) -> Duration {
    window.saturating_mul(u32::try_from(older).unwrap_or(u32::MAX))
}
