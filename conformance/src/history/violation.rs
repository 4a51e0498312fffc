//! What a judge can find.

use std::fmt;
use std::time::Duration;

/// What must not happen, and did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// Two users held what only one may hold, or more than there is.
    Overlap {
        /// Which lock.
        key: String,
        /// Whose.
        tokens: Vec<u64>,
        /// From when to when, in nanoseconds.
        during: (u64, u64),
    },
    /// Two grants of one lock with one token.
    SameToken {
        /// Which lock.
        key: String,
        /// Which token.
        token: u64,
    },
    /// A grant that began after another had ended has the smaller token.
    TokenFell {
        /// Which lock.
        key: String,
        /// The tokens, in the order of their grants.
        tokens: (u64, u64),
    },
    /// Somebody was granted who came after somebody in the queue.
    Overtaken {
        /// Which lock.
        key: String,
        /// Who was first.
        first: String,
        /// Who overtook.
        second: String,
    },
    /// A free lock was not handed to somebody who waited for it.
    SlowHandOff {
        /// Which lock.
        key: String,
        /// How long it took, or lasted at least.
        took: Duration,
    },
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Overlap {
                key,
                tokens,
                during: (from, to),
            } => {
                let lasted = Duration::from_nanos(to - from);
                write!(f, "{key}: held by too many for {lasted:?}, tokens {tokens:?}")
            }
            Self::SameToken { key, token } => write!(f, "{key}: token {token} was given twice"),
            Self::TokenFell {
                key,
                tokens: (one, two),
            } => write!(f, "{key}: token {two} was given after {one}"),
            Self::Overtaken { key, first, second } => {
                write!(
                    f,
                    "{key}: {second} was granted before {first}, who had queued earlier"
                )
            }
            Self::SlowHandOff { key, took } => {
                write!(
                    f,
                    "{key}: free for {took:?} while somebody waited for it in the queue"
                )
            }
        }
    }
}
