//! When a session gives its next sign of life: one schedule for everything that a driver keeps alive.

use std::time::Duration;

use crate::env::{Env, Instant};

/// A sign of life is given when this share of what the session is sure to last has passed.
const DIVISOR: u32 = 3;

/// The schedule of one session's signs of life.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    env: Env,
    longest: Duration,
    due: Instant,
}

impl Heartbeat {
    /// For a session that was confirmed by a request sent at `sent`, for `lasts` from then; a sign of life is due after a
    /// sixth to a third of that, and after `longest` at the latest, which is how soon a dead connection is noticed.
    #[must_use]
    pub fn new(env: &Env, sent: Instant, lasts: Duration, longest: Duration) -> Self {
        let mut heartbeat = Self {
            env: env.clone(),
            longest,
            due: sent,
        };
        heartbeat.confirmed(sent, lasts);
        heartbeat
    }

    /// The session was confirmed by a request sent at `sent`, for `lasts` from then.
    pub fn confirmed(&mut self, sent: Instant, lasts: Duration) {
        let pause = (lasts / DIVISOR).min(self.longest);
        self.due = sent.after(self.env.jitter(pause / 2, pause));
    }

    /// When the next one is due.
    #[must_use]
    pub const fn next(&self) -> Instant {
        self.due
    }

    /// Waits until the next one is due. Cancel safe.
    pub async fn due(&self) {
        self.env.sleep_until(self.due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn due_within_a_third_or_sooner() {
        let env = Env::virtual_time(1);
        let seconds = Duration::from_secs;
        let mut heartbeat = Heartbeat::new(&env, env.now(), seconds(9), seconds(60));
        for _ in 0..100 {
            let start = env.now();
            heartbeat.due().await;
            let waited = env.now().since(start);
            assert!(
                waited >= Duration::from_millis(1_500) && waited <= seconds(3),
                "{waited:?}"
            );
            heartbeat.confirmed(env.now(), seconds(9));
        }
        heartbeat.confirmed(env.now(), seconds(9_000));
        assert!(heartbeat.next() <= env.now().after(seconds(60)));
    }
}
