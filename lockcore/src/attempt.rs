//! One attempt at a lock, from its first request to a guard or to its last trace being gone.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::claim::Claim;
use crate::core::{Core, Shared};
use crate::driver::{Acquired, Bound, Grant, Intent};
use crate::env::Instant;
use crate::error::{Error, ErrorKind, Result};
use crate::held::{Held, Plan};
use crate::settings::local_deadline;
use crate::signals::Registration;

type Call = BoxFuture<'static, Result<Acquired>>;

/// Owns an attempt while it has no guard. Dropped at any await point, it leaves nothing: the request under way is
/// driven to its end, then whatever it got is released.
pub(crate) struct Attempt {
    core: Arc<Core>,
    pub(crate) claim: Arc<Claim>,
    registration: Option<Registration>,
    /// The request under way. It lives here, not on the caller's stack, so that dropping the caller keeps it.
    call: Option<Call>,
    /// Requests that were given up on; they go on by themselves.
    late: Vec<BoxFuture<'static, ()>>,
    /// Was anything sent that has to be released?
    dirty: bool,
    /// Counts as a clean-up to come: a closing manager must not say goodbye to the backend before the waiters have left.
    _to_come: TaskTrackerToken,
}

impl Attempt {
    pub(crate) fn new(core: &Arc<Core>, claim: Arc<Claim>) -> Self {
        Self {
            core: Arc::clone(core),
            claim,
            registration: None,
            call: None,
            late: Vec::new(),
            dirty: false,
            _to_come: core.shared.clean_ups.token(),
        }
    }

    /// Makes the attempt reachable for wake-ups. Before the request that stands in the queue, lest one be missed.
    pub(crate) fn register(&mut self) -> &Registration {
        let Self {
            registration,
            core,
            claim,
            ..
        } = self;
        registration.get_or_insert_with(|| core.signals.register(claim.attempt))
    }

    /// Sends the claim once; an error of kind `Unavailable` when there is no answer in time.
    pub(crate) async fn send(&mut self, intent: Intent) -> Result<Acquired> {
        let shared = Arc::clone(&self.core.shared);
        let (driver, claim) = (Arc::clone(&shared.driver), Arc::clone(&self.claim));
        self.dirty = true;
        let call = self
            .call
            .insert(Box::pin(async move { driver.acquire(&claim, intent).await }));
        let limit = shared.settings.op_timeout;
        let answer = shared.env.timeout(limit, call).await;
        let call = self.call.take();
        match answer {
            Some(answer) => answer,
            None => {
                if let Some(call) = call {
                    let late = shared.env.spawn(call);
                    self.late.push(late.map(drop).boxed());
                }
                Err(Shared::no_answer(limit))
            }
        }
    }

    /// A refused try left nothing behind, so nothing has to be released, unless an earlier request is still on its way.
    pub(crate) fn refused(mut self) {
        self.dirty = !self.late.is_empty();
    }

    /// Turns a grant in answer to a request sent at `sent` into a held lease.
    ///
    /// # Errors
    /// `Unavailable` when the answer took so long that the lease is over already.
    pub(crate) fn settle(mut self, grant: Grant, sent: Instant, plan: Plan) -> Result<Arc<Held>> {
        let shared = Arc::clone(&self.core.shared);
        let (deadline, session) = match grant.bound {
            Bound::Lease(ttl) => (local_deadline(sent, ttl), None),
            Bound::Session(session) => (Instant::FAR_FUTURE, Some(session)),
        };
        let until = session
            .as_ref()
            .map_or(deadline, crate::session::Session::deadline)
            .min(plan.end);
        if shared.until(until) == Duration::ZERO {
            // Dropping self releases it.
            let ttl = humantime::format_duration(self.claim.ttl);
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the backend's answer took longer than the lease of {ttl} that it granted: use a longer TTL"
                ),
            ));
        }
        let held = Arc::new(Held::new(
            Arc::clone(&self.claim),
            grant.token,
            deadline.min(plan.end),
            session,
            plan,
        ));
        self.dirty = false;
        self.watch_late_requests(&held);
        Ok(held)
    }

    /// A request that was given up on may be applied after the lock was released: release it again then.
    fn watch_late_requests(&mut self, held: &Arc<Held>) {
        if self.late.is_empty() {
            return;
        }
        let (late, shared, held) = (
            std::mem::take(&mut self.late),
            Arc::clone(&self.core.shared),
            Arc::downgrade(held),
        );
        let (claim, env) = (Arc::clone(&self.claim), shared.env.clone());
        drop(env.spawn(async move {
            futures_util::future::join_all(late).await;
            if held.upgrade().is_none_or(|held| held.is_over(&shared.env)) {
                shared.clean_up(claim, Vec::new());
            }
        }));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.dirty {
            let mut pending = std::mem::take(&mut self.late);
            pending.extend(self.call.take().map(|call| call.map(drop).boxed()));
            self.core.shared.clean_up(Arc::clone(&self.claim), pending);
        }
    }
}
