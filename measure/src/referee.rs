//! Watches one lock: who has it, how it changes hands, and whether it is one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::contender::Hold;
use crate::stats::Times;

/// Of so many grants, one is held for a moment though it need not be held at all.
const LINGER: u64 = 128;

/// Who freed the lock last, and when the release was begun.
#[derive(Clone, Copy, Debug)]
struct Freed {
    by: usize,
    at: Instant,
}

#[derive(Debug)]
pub(crate) struct Referee {
    inside: AtomicU64,
    violations: AtomicU64,
    last_token: AtomicU64,
    stale_tokens: AtomicU64,
    state: Mutex<(Option<Freed>, Times)>,
    grants: watch::Sender<u64>,
}

impl Default for Referee {
    fn default() -> Self {
        Self {
            inside: AtomicU64::new(0),
            violations: AtomicU64::new(0),
            last_token: AtomicU64::new(0),
            stale_tokens: AtomicU64::new(0),
            state: Mutex::default(),
            grants: watch::Sender::new(0),
        }
    }
}

impl Referee {
    /// `who` has got the lock at `now`. Which grant this is, counted from 1.
    pub(crate) fn enters(&self, who: usize, hold: &dyn Hold, now: Instant, counts: bool) -> u64 {
        if self.inside.fetch_add(1, Ordering::SeqCst) > 0 {
            self.violations.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(token) = hold.token()
            && self.last_token.fetch_max(token, Ordering::SeqCst) >= token
        {
            self.stale_tokens.fetch_add(1, Ordering::Relaxed);
        }
        {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(freed) = state.0.take()
                && freed.by != who
                && counts
            {
                state.1.record(now.saturating_duration_since(freed.at));
            }
        }
        let mut grant = 0;
        self.grants.send_modify(|grants| {
            *grants += 1;
            grant = *grants;
        });
        grant
    }

    /// Stays inside for a moment, now and then: whoever is let in meanwhile is seen. Seldom enough that no percentile
    /// below the 99th knows of it.
    pub(crate) async fn linger(&self, grant: u64) {
        if grant.is_multiple_of(LINGER) {
            tokio::task::yield_now().await;
        }
    }

    /// `who` is about to free the lock. When.
    pub(crate) fn leaves(&self, who: usize) -> Instant {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let at = Instant::now();
        state.0 = Some(Freed { by: who, at });
        at
    }

    /// Waits until somebody else has had the lock after `grant`.
    pub(crate) async fn after(&self, grant: u64) {
        // The sender is ours, so there is no other end.
        self.grants
            .subscribe()
            .wait_for(|grants| *grants > grant)
            .await
            .ok();
    }

    pub(crate) fn grants(&self) -> u64 {
        *self.grants.borrow()
    }

    pub(crate) fn violations(&self) -> u64 {
        self.violations.load(Ordering::SeqCst)
    }

    pub(crate) fn stale_tokens(&self) -> u64 {
        self.stale_tokens.load(Ordering::SeqCst)
    }

    /// How long hand-offs took.
    pub(crate) fn hand_offs(&self) -> Times {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.clone()
    }
}
