//! A server session that many locks share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::env::Instant;
use crate::settings::local_deadline;
use crate::signals::Signals;

struct Inner {
    deadline: AtomicU64,
    lost: AtomicBool,
    signals: Signals,
}

/// The deadline of a session that a driver keeps alive, shared by every lock that was granted under it.
///
/// The driver extends it with each answer to a keep-alive, counted from before that keep-alive was sent, and ends it
/// when the server says that it is gone. A session that is over stays over; a new one is a new `Session`.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("deadline", &self.deadline())
            .field("lost", &self.is_lost())
            .finish()
    }
}

impl Session {
    /// A session that was confirmed by a call which started at `sent`, for `ttl` from then.
    #[must_use]
    pub fn new(signals: &Signals, sent: Instant, ttl: Duration) -> Self {
        Self(Arc::new(Inner {
            deadline: AtomicU64::new(local_deadline(sent, ttl).as_nanos()),
            lost: AtomicBool::new(false),
            signals: signals.clone(),
        }))
    }

    /// The server confirmed the session in answer to a keep-alive sent at `sent`.
    pub fn extend(&self, sent: Instant, ttl: Duration) {
        self.0
            .deadline
            .fetch_max(local_deadline(sent, ttl).as_nanos(), Ordering::AcqRel);
    }

    /// The server ended the session: every lock under it is lost now.
    pub fn end(&self) {
        self.0.lost.store(true, Ordering::Release);
        self.0.signals.wake_all();
    }

    /// Until when the session is known to last, by [`local_deadline`].
    #[must_use]
    pub fn deadline(&self) -> Instant {
        if self.is_lost() {
            return Instant::from_nanos(0);
        }
        Instant::from_nanos(self.0.deadline.load(Ordering::Acquire))
    }

    /// Did the server end it?
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.lost.load(Ordering::Acquire)
    }
}
