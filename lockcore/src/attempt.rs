//! One attempt at a lock, from its first request to a guard or to its last trace being gone.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::claim::SharedClaim;
use crate::core::{Core, Shared};
use crate::driver::{Acquired, Bound, Grant, Intent};
use crate::dyn_driver::Call;
use crate::env::Instant;
use crate::error::{Error, ErrorKind, Result};
use crate::held::{Held, Plan};
use crate::settings::local_deadline;
use crate::signals::WaiterSlot;

/// Owns an attempt while it has no guard. Dropped at any await point, it leaves nothing: the request under way is
/// driven to its end, then whatever it got is released.
pub(crate) struct Attempt<'a> {
    core: &'a Core,
    pub(crate) claim: SharedClaim,
    /// Can it be woken?
    registered: bool,
    /// The request under way. It lives here, not on the caller's stack, so that dropping the caller keeps it.
    call: Option<Call<Acquired>>,
    /// Requests that were given up on; they go on by themselves.
    late: Vec<BoxFuture<'static, ()>>,
    /// Was anything sent that has to be released?
    dirty: bool,
    /// Counts as a clean-up to come: a closing manager must not say goodbye to the backend before the waiters have left,
    /// and before a lease is in the upkeep or given back.
    _to_come: TaskTrackerToken,
}

impl<'a> Attempt<'a> {
    pub(crate) fn new(core: &'a Core, claim: SharedClaim) -> Self {
        Self {
            core,
            claim,
            registered: false,
            call: None,
            late: Vec::new(),
            dirty: false,
            _to_come: core.shared.clean_ups.token(),
        }
    }

    /// Makes the attempt reachable for wake-ups. Before the request that stands in the queue, lest one be missed.
    pub(crate) fn register(&mut self) -> &WaiterSlot {
        if !std::mem::replace(&mut self.registered, true) {
            self.core.signals.enter(&self.claim);
        }
        self.claim.waiter()
    }

    /// Sends the claim once; an error of kind `Unavailable` when there is no answer in time.
    pub(crate) async fn send(&mut self, intent: Intent) -> Result<Acquired> {
        let shared = &self.core.shared;
        self.dirty = true;
        let call = self
            .call
            .insert(shared.driver.acquire_call(self.claim.clone(), intent));
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

    /// Turns a grant in answer to a request sent at `sent`, that came by `now`, into a held lease.
    ///
    /// # Errors
    /// `Unavailable` when the answer took so long that the lease is over already.
    pub(crate) fn settle(&mut self, grant: Grant, [sent, now]: [Instant; 2], plan: Plan) -> Result<Held> {
        let (deadline, session) = match grant.bound {
            Bound::Lease(ttl) => (local_deadline(sent, ttl), None),
            Bound::Session(session) if plan.renew => (Instant::FAR_FUTURE, Some(session)),
            // The session goes on, so our own timer ends the lease.
            Bound::Session(session) => (local_deadline(sent, self.claim.ttl), Some(session)),
        };
        let until = session
            .as_ref()
            .map_or(deadline, |session| session.deadline().min(deadline))
            .min(plan.end);
        if until <= now {
            // Dropping self releases it.
            let ttl = humantime::format_duration(self.claim.ttl);
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the backend's answer took longer than the lease of {ttl} that it granted: use a longer TTL"
                ),
            ));
        }
        let (claim, deadline) = (self.claim.clone(), deadline.min(plan.end));
        // What a late request leaves is released once the grant is over, so that has to be the end of the lease.
        let spare = if self.late.is_empty() { grant.spare } else { 0 };
        let held = Held::new(claim, grant.token, deadline, session, plan, spare);
        self.dirty = false;
        self.watch_late_requests(&held);
        Ok(held)
    }

    /// A request that was given up on may be applied after the lock was released: release it again then.
    fn watch_late_requests(&mut self, held: &Held) {
        if self.late.is_empty() {
            return;
        }
        let late = std::mem::take(&mut self.late);
        let (shared, held) = (Arc::clone(&self.core.shared), held.clone());
        let env = shared.env.clone();
        drop(env.spawn(async move {
            futures_util::future::join_all(late).await;
            if held.is_over(&shared.env) {
                // Not before the guard's own release, which would find nothing.
                held.settled(&shared.env).await;
                shared.clean_up(held.claim().clone(), Vec::new());
            }
        }));
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if self.registered {
            self.core.signals.leave(self.claim.attempt);
        }
        if self.dirty {
            let mut pending = std::mem::take(&mut self.late);
            pending.extend(self.call.take().map(|call| call.map(drop).boxed()));
            self.core.shared.clean_up(self.claim.clone(), pending);
        }
    }
}
