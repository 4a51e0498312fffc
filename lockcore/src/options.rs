//! What one lock may say for itself.

use std::time::Duration;

/// How long an acquire may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// Not at all: one attempt.
    No,
    /// Up to this long. Zero is [`Wait::No`].
    For(Duration),
    /// For ever.
    Forever,
}

impl From<Duration> for Wait {
    fn from(duration: Duration) -> Self {
        if duration.is_zero() {
            Self::No
        } else {
            Self::For(duration)
        }
    }
}

/// How often an attempt that the backend did not answer is sent again, before the backend has answered once.
///
/// Only [`Unavailable`](crate::ErrorKind::Unavailable) is retried, always with the same attempt id, so a request that
/// did arrive is not applied twice. Once a waiter stands in a queue it rides out every outage to the end of its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retry {
    /// How many times to send it again.
    pub times: u32,
    /// The first pause; later ones double, with jitter.
    pub first_pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Retry {
    /// Twice, after about 50 and 100 ms.
    pub const DEFAULT: Self = Self {
        times: 2,
        first_pause: Duration::from_millis(50),
        longest_pause: Duration::from_secs(1),
    };

    /// Not at all.
    pub const NONE: Self = Self {
        times: 0,
        ..Self::DEFAULT
    };

    /// This many times.
    #[must_use]
    pub const fn times(times: u32) -> Self {
        Self {
            times,
            ..Self::DEFAULT
        }
    }

    /// With pauses from `first` to `longest`.
    #[must_use]
    pub const fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.first_pause = first;
        self.longest_pause = longest;
        self
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The options of one lock, after validation.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// What was asked for.
    pub(crate) ttl: Duration,
    pub(crate) exact_ttl: bool,
    pub(crate) wait: Wait,
    pub(crate) retry: Retry,
    pub(crate) auto_renew: bool,
    pub(crate) max_hold: Option<Duration>,
    pub(crate) label: Option<String>,
}
