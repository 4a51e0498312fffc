//! Pauses for the upkeep of connections, so that no driver has loops of its own that sleep.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::env::Env;

impl Env {
    /// Does `work` after each `period`, until it breaks.
    pub async fn every<F>(&self, period: Duration, mut work: impl FnMut() -> F)
    where
        F: Future<Output = ControlFlow<()>>,
    {
        loop {
            self.sleep(period).await;
            if work().await.is_break() {
                return;
            }
        }
    }

    /// Makes `attempt` until it succeeds, fails with an error that does not pass by itself, or `limit` has passed, with
    /// pauses of a random length between the two of `pauses`. For what a client library should wait for and does not: a file
    /// that another process is about to open. Requests are tried again by lockcore alone.
    ///
    /// # Errors
    /// That of the last attempt.
    pub async fn persist<T, E, F>(
        &self,
        limit: Duration,
        (shortest, longest): (Duration, Duration),
        passes: impl Fn(&E) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
    {
        let end = self.now().after(limit);
        loop {
            match attempt().await {
                Err(error) if passes(&error) && self.now() < end => {
                    self.sleep(self.jitter(shortest, longest)).await;
                }
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_is_done_until_it_breaks() {
        let env = Env::virtual_time(1);
        let (start, mut times) = (env.now(), 0);
        let work = || {
            times += 1;
            ready(if times < 3 {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        };
        env.every(Duration::from_secs(5), work).await;
        assert_eq!((times, env.now().since(start)), (3, Duration::from_secs(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_end_with_success_another_error_or_time() {
        let env = Env::virtual_time(1);
        let pauses = (Duration::from_millis(10), Duration::from_millis(20));
        let (limit, passing) = (Duration::from_secs(1), |error: &u32| *error < 100);
        let mut times = 0;
        let counted = || {
            times += 1;
            ready(if times < 5 { Err(times) } else { Ok(times) })
        };
        assert_eq!(env.persist(limit, pauses, passing, counted).await, Ok(5));
        let other = || ready(Err::<(), _>(100));
        assert_eq!(env.persist(limit, pauses, passing, other).await, Err(100));
        let start = env.now();
        let never = || ready(Err::<(), _>(1));
        assert_eq!(env.persist(limit, pauses, passing, never).await, Err(1));
        let took = env.now().since(start);
        assert!(took >= limit && took <= limit + pauses.1, "{took:?}");
    }
}
