//! What the parts of one manager share.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::BoxFuture;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::capability::Capabilities;
use crate::claim::Claim;
use crate::driver::{Driver, Lease, Released, Renewal};
use crate::env::{Env, Instant};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Gates;
use crate::held::UnderWay;
use crate::manager::RoundedTtls;
use crate::name::LockName;
use crate::settings::Settings;
use crate::signals::Signals;
use crate::upkeep::Upkeep;

/// The first and the longest pause between tries to clean up.
const CLEAN_UP_PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// What every task of a manager needs; it does not keep the manager open.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) capabilities: Capabilities,
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    /// Releases that nobody waits for.
    pub(crate) clean_ups: TaskTracker,
    /// What was said about TTLs already.
    pub(crate) rounded: RoundedTtls,
}

/// A manager: what its handles, locks and guards hold on to.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) signals: Signals,
    pub(crate) gates: Arc<Gates>,
    pub(crate) upkeep: Arc<Upkeep>,
    /// Ends the upkeep's task with the last holder of this.
    #[expect(dead_code, reason = "its drop is its use")]
    pub(crate) gone: DropGuard,
    pub(crate) closed: CancellationToken,
    /// Cancelled when `close` has finished.
    pub(crate) close_done: CancellationToken,
}

impl Core {
    pub(crate) fn closed_error() -> Error {
        Error::new(ErrorKind::Closed, "the lock manager was closed")
    }
}

impl Shared {
    /// Says where `error` happened.
    pub(crate) fn locate(
        &self,
        operation: &'static str,
        name: Option<&LockName>,
    ) -> impl FnOnce(Error) -> Error {
        let backend = self.driver.backend();
        move |error| error.at(operation, backend, name)
    }

    /// That the backend did not answer in time.
    pub(crate) fn no_answer(limit: Duration) -> Error {
        let limit = humantime::format_duration(limit);
        Error::new(
            ErrorKind::Unavailable,
            format!("no answer from the backend within {limit}"),
        )
    }

    /// The output of `call`, or an error when it takes longer than one request may. Such a call goes on by itself
    /// to its end: a request that is cut off midway can leave a connection in a state that nobody knows.
    pub(crate) async fn bounded<T: Send + 'static>(
        &self,
        mut call: BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        let limit = self.settings.op_timeout;
        match self.env.timeout(limit, &mut call).await {
            Some(result) => result,
            None => {
                drop(self.env.spawn(call));
                Err(Self::no_answer(limit))
            }
        }
    }

    /// Frees whatever `claim` has at the backend, in the background: waits for `pending` calls of the same attempt,
    /// then releases until it is acknowledged, or until the backend has let go by itself.
    pub(crate) fn clean_up(self: &Arc<Self>, claim: Arc<Claim>, pending: Vec<BoxFuture<'static, ()>>) {
        let shared = Arc::clone(self);
        let span = tracing::debug_span!("clean_up", name = %claim.resource.name(), attempt = %claim.attempt);
        let task = async move {
            shared.settle_pending(pending).await;
            shared.release_until_acknowledged(&claim).await;
        };
        drop(self.env.spawn(self.clean_ups.track_future(task.instrument(span))));
    }

    async fn settle_pending(&self, pending: Vec<BoxFuture<'static, ()>>) {
        for mut call in pending {
            if self
                .env
                .timeout(self.settings.op_timeout, &mut call)
                .await
                .is_none()
            {
                tracing::debug!("an earlier request is still under way, releasing all the same");
                drop(self.env.spawn(call));
            }
        }
    }

    async fn release_until_acknowledged(&self, claim: &Arc<Claim>) {
        let give_up = self.env.now().after(claim.ttl.max(claim.waiter_ttl));
        let mut pauses = backoff(CLEAN_UP_PAUSES);
        loop {
            match self.release_once(claim).await {
                Ok(outcome) => return tracing::debug!(?outcome, "cleaned up"),
                Err(error) if self.env.now() >= give_up => {
                    return tracing::warn!(%error, "not cleaned up, the backend has let go of it by now");
                }
                Err(error) => tracing::debug!(%error, "not cleaned up yet"),
            }
            let pause = pauses.next().unwrap_or(CLEAN_UP_PAUSES.1);
            self.env.sleep(self.env.jitter(pause / 2, pause)).await;
        }
    }

    pub(crate) async fn release_once(&self, claim: &Arc<Claim>) -> Result<Released> {
        self.bounded(self.release_call(claim)).await
    }

    pub(crate) fn release_call(&self, claim: &Arc<Claim>) -> BoxFuture<'static, Result<Released>> {
        let (driver, claim) = (Arc::clone(&self.driver), Arc::clone(claim));
        Box::pin(async move { driver.release(&claim).await })
    }

    /// One call for all of `renewals`; the leases are extended by it, also when it is answered later than anybody waits.
    pub(crate) fn renew_call(
        &self,
        leases: Vec<Lease>,
        renewals: Vec<UnderWay>,
    ) -> BoxFuture<'static, Result<Vec<Renewal>>> {
        let (driver, env) = (Arc::clone(&self.driver), self.env.clone());
        Box::pin(async move {
            let answers = driver.renew(&leases).await?;
            for (renewal, answer) in renewals.into_iter().zip(&answers) {
                if *answer == Renewal::Renewed {
                    renewal.confirmed(&env);
                }
            }
            Ok(answers)
        })
    }

    /// `instant` from now; zero when it has passed.
    pub(crate) fn until(&self, instant: Instant) -> Duration {
        instant.since(self.env.now())
    }
}

/// Pauses that double from the first to the longest.
pub(crate) fn backoff((first, longest): (Duration, Duration)) -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(first)
        .with_max_delay(longest)
        .without_max_times()
        .build()
}
