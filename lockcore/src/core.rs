//! What the parts of one manager share.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::capability::Capabilities;
use crate::claim::SharedClaim;
use crate::driver::{Driver, DynDriver, Lease, Renewal};
use crate::dyn_driver::Call;
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
/// How many times the limit of one request a try to clean up is waited for, in the end.
const CLEAN_UP_PATIENCE: u32 = 4;

/// What every task of a manager needs; it does not keep the manager open.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) driver: DynDriver,
    pub(crate) capabilities: Capabilities,
    pub(crate) env: Env,
    pub(crate) settings: Settings,
    /// What most claims say of their holder: this process with the label of the settings.
    pub(crate) details: Arc<str>,
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
    pub(crate) gates: Gates,
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
    pub(crate) async fn bounded<T: Send + 'static>(&self, call: Call<T>) -> Result<T> {
        self.bounded_by(self.settings.op_timeout, call).await
    }

    async fn bounded_by<T: Send + 'static>(&self, limit: Duration, mut call: Call<T>) -> Result<T> {
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
    pub(crate) fn clean_up(self: &Arc<Self>, claim: SharedClaim, pending: Vec<BoxFuture<'static, ()>>) {
        let shared = Arc::clone(self);
        let span = tracing::debug_span!("clean_up", name = %claim.resource.name(), attempt = %claim.attempt);
        let task = async move {
            let late = shared.settle_pending(pending).await;
            shared.release_until_acknowledged(&claim).await;
            if late.is_empty() {
                return;
            }
            // One that was applied after the release has left something again.
            let over = claim.ttl.max(claim.waiter_ttl);
            let ended = shared
                .env
                .timeout(over, futures_util::future::join_all(late))
                .await;
            if ended.is_some() {
                shared.release_until_acknowledged(&claim).await;
            }
        };
        drop(self.env.spawn(self.clean_ups.track_future(task.instrument(span))));
    }

    /// Waits for `pending`, each for as long as a request may take; those that are still under way then.
    async fn settle_pending(&self, pending: Vec<BoxFuture<'static, ()>>) -> Vec<JoinHandle<()>> {
        let mut late = Vec::new();
        for mut call in pending {
            let limit = self.settings.op_timeout;
            if self.env.timeout(limit, &mut call).await.is_none() {
                tracing::debug!("an earlier request is still under way, releasing all the same");
                late.push(self.env.spawn(call));
            }
        }
        late
    }

    async fn release_until_acknowledged(&self, claim: &SharedClaim) {
        let give_up = self.env.now().after(claim.ttl.max(claim.waiter_ttl));
        let mut pauses = backoff(CLEAN_UP_PAUSES);
        let mut patience = self.settings.op_timeout;
        loop {
            match self
                .bounded_by(patience, self.driver.release_call(claim.clone()))
                .await
            {
                Ok(outcome) => return tracing::debug!(?outcome, "cleaned up"),
                Err(error) if self.env.now() >= give_up => {
                    return tracing::warn!(%error, "not cleaned up, the backend has let go of it by now");
                }
                Err(error) => tracing::debug!(%error, "not cleaned up yet"),
            }
            // A backend that is slow is not helped by more and more requests behind those that it has.
            patience = patience
                .saturating_mul(2)
                .min(self.settings.op_timeout * CLEAN_UP_PATIENCE);
            let pause = pauses.next().unwrap_or(CLEAN_UP_PAUSES.1);
            self.env.sleep(self.env.jitter(pause / 2, pause)).await;
        }
    }

    /// One call for all of `renewals`; the leases are extended by it, also when it is answered later than anybody waits.
    pub(crate) fn renew_call(&self, leases: Vec<Lease>, renewals: Vec<UnderWay>) -> Call<Vec<Renewal>> {
        let (driver, env) = (self.driver.clone(), self.env.clone());
        Box::pin(async move {
            let answers = driver.renew(&leases).await?;
            let now = env.now();
            for (renewal, answer) in renewals.into_iter().zip(&answers) {
                if *answer == Renewal::Renewed {
                    renewal.confirmed(now);
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
