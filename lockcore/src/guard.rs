//! A held lock in the user's hands.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::capability::Capabilities;
use crate::claim::{SharedClaim, Token};
use crate::core::{Core, Shared};
use crate::driver::{Driver, Lease, Released, Renewal};
use crate::dyn_driver::Call;
use crate::error::{Error, ErrorKind, Result};
use crate::held::Held;
use crate::lease_word::LeaseState;
use crate::loss::LossReason;
use crate::name::{Kind, LockName};
use crate::settings::validate_ttl;

/// What became of a release that the backend answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Release {
    /// The lock was held to the end, and is free now.
    Released,
    /// The lock had been lost before; whoever holds it now keeps it.
    NotHeld,
}

/// A held lock. Dropping it frees the lock in the background; [`release`](Guard::release) frees it and says how that
/// went.
///
/// # Time
/// The guard is valid up to its local deadline, on a clock that goes on during suspend (see [`crate::Instant`]): the
/// moment *before* the last successful request was sent, plus the TTL, less a margin for drift. Nothing that the
/// network does or does not do moves it. A process that was stopped for longer finds [`is_held`](Guard::is_held)
/// false at its first look. What a lock cannot do: stop an effect that is on its way already. Give
/// [`token`](Guard::token) to the guarded store for that.
///
/// # Leaks
/// A guard given to [`std::mem::forget`] is renewed until `max_hold`, the manager's end, or the end of the process.
#[must_use = "the lock is freed as soon as the guard is dropped"]
pub struct Guard {
    held: Held,
    core: Arc<Core>,
    /// Taken when the guard is taken apart by `release`.
    armed: bool,
    /// Is the lease passed on along the line of this process?
    tenure: bool,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("name", &self.held.claim().resource.name())
            .field("kind", &self.held.claim().resource.kind())
            .field("token", &self.held.token)
            .field("state", &self.held.state(&self.core.shared.env))
            .finish()
    }
}

impl Guard {
    pub(crate) const fn new(core: Arc<Core>, held: Held, tenure: bool) -> Self {
        Self {
            held,
            core,
            armed: true,
            tenure,
        }
    }

    /// The lock's name.
    #[must_use]
    pub fn name(&self) -> &LockName {
        self.held.claim().resource.name()
    }

    /// What the name locks.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.held.claim().resource.kind()
    }

    /// The fencing token: greater than that of every earlier grant of this lock. Renewal does not change it.
    #[must_use]
    pub fn token(&self) -> Token {
        self.held.token
    }

    /// How much of the capacity is held: 1 for a mutex or a reader.
    #[must_use]
    pub fn weight(&self) -> u32 {
        self.held.claim().weight
    }

    /// The lease that the backend gives with each renewal; at least what was asked for, unless the backend's
    /// maximum is less.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.held.ttl()
    }

    /// Is the lock held at this moment? Compares the clock at the call, so it needs no running task. Once false,
    /// it stays false.
    #[must_use]
    pub fn is_held(&self) -> bool {
        matches!(self.state(), LeaseState::Held(_))
    }

    /// How long the lock stays valid if no renewal succeeds from now on; zero once it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.state() {
            LeaseState::Held(until) => self.core.shared.until(until),
            LeaseState::Released | LeaseState::Lost(_) => Duration::ZERO,
        }
    }

    /// `Ok` while the lock is held: for loops that do their work in steps.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost), with the reason.
    pub fn check(&self) -> Result<()> {
        match self.state() {
            LeaseState::Lost(reason) => Err(self.lost_error(reason)),
            LeaseState::Held(_) | LeaseState::Released => Ok(()),
        }
    }

    /// Ends when the lock is lost, with the reason, no later than the local deadline; at once when it is lost
    /// already. A release, or the drop of the guard, never ends it. The future does not borrow the guard.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping it.
    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + use<> {
        let (held, env) = (self.held.clone(), self.core.shared.env.clone());
        async move { held.lost(&env).await }
    }

    /// Runs `work`, and drops it when the lock is lost.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost) when the lock was lost before the work was done. Where both happen at once, the loss
    /// counts.
    ///
    /// # Cancel safety
    /// Dropping this future drops the work; the lock stays held.
    pub async fn protect<F: Future>(&self, work: F) -> Result<F::Output> {
        tokio::select! {
            biased;
            reason = self.held.lost(&self.core.shared.env) => Err(self.lost_error(reason)),
            output = work => {
                self.check()?;
                Ok(output)
            }
        }
    }

    /// Renews the lease now, for the TTL that it has. Needed only with `auto_renew(false)`.
    ///
    /// # Errors
    /// [`Lost`](ErrorKind::Lost) when the lock is not ours any more; [`Unavailable`](ErrorKind::Unavailable) when the
    /// backend did not answer: the lock is then still held up to the old deadline.
    ///
    /// # Cancel safety
    /// The request goes on; its answer is ignored.
    pub async fn renew(&self) -> Result<()> {
        self.renew_for(self.held.ttl()).await
    }

    /// Renews the lease now, to end `ttl` from now: later or sooner than it would. Automatic renewals use the new TTL
    /// from here on. Bounds and rounding are those of the builder's `ttl`.
    ///
    /// # Errors
    /// As [`renew`](Self::renew); [`Invalid`](ErrorKind::Invalid) when the TTL is out of bounds;
    /// [`Unsupported`](ErrorKind::Unsupported) for another TTL where a session that locks share sets it
    /// ([`Capabilities::sessions`]), unless the lock was taken with `auto_renew(false)`.
    pub async fn renew_for(&self, ttl: Duration) -> Result<()> {
        let shared = &self.core.shared;
        let locate = shared.locate("renew", Some(self.name()));
        let renewed = async {
            validate_ttl(ttl)?;
            self.check()?;
            let ttl = shared.capabilities.effective_ttl(ttl);
            let sent = shared.env.now();
            let renewal = if self.held.is_session_bound() && self.held.plan.renew {
                Capabilities::require(
                    ttl == self.held.ttl(),
                    "TTL that can be changed while a lock is held",
                )?;
                self.held.checking(sent)
            } else {
                self.held.set_ttl(ttl);
                self.held.renewing(ttl, sent)
            };
            let attempt = self.held.claim().attempt;
            self.core.upkeep.retime(attempt, sent);
            let lease = Lease::new(self.held.claim().clone(), self.held.grant, ttl);
            let answer = shared
                .bounded(shared.renew_call(vec![lease], vec![renewal]))
                .await?;
            match answer.first() {
                Some(Renewal::Renewed) => self.check(),
                Some(Renewal::Unknown) | None => Err(Error::new(
                    ErrorKind::Unavailable,
                    "the backend does not know whether the lease was renewed",
                )),
                Some(Renewal::NotHeld) => {
                    self.held.lose(LossReason::Revoked);
                    self.core.upkeep.lose(attempt, LossReason::Revoked);
                    self.check()
                }
            }
        };
        renewed.await.map_err(locate)
    }

    /// Frees the lock, or gives it to the next one who waits for it in this manager, see
    /// [`Settings::local_handover`](crate::Settings::local_handover).
    ///
    /// # Errors
    /// When the backend did not confirm it: nobody knows whether the lock is free yet. [`ReleaseError::retry`] asks
    /// again; dropping the error leaves that to the background. Either way the lease ends by its TTL.
    ///
    /// # Cancel safety
    /// From the call on the lock counts as released; a dropped future goes on in the background.
    pub async fn release(mut self) -> Result<Release, ReleaseError> {
        self.armed = false;
        if self.hand_over() {
            return Ok(Release::Released);
        }
        if !matches!(self.held.release(&self.core.shared.env), LeaseState::Held(_)) {
            // Whoever found the loss cleans up.
            return Ok(Release::NotHeld);
        }
        let pending = PendingRelease {
            shared: Arc::clone(&self.core.shared),
            claim: self.held.claim().clone(),
            call: None,
            done: false,
            under_way: None,
        };
        let sending = pending.send();
        self.core.upkeep.forget(self.held.claim().attempt);
        // A tenure ends with this guard, after the answer: the next one in line finds the lock free.
        sending.await
    }

    /// Gives the lease to the next one in the line of this process, if there is one and the lease is good for it.
    fn hand_over(&mut self) -> bool {
        let passed = self.tenure && self.core.gates.hand_over(&self.core, &self.held);
        self.tenure &= !passed;
        passed
    }

    fn state(&self) -> LeaseState {
        self.held.state(&self.core.shared.env)
    }

    fn lost_error(&self, reason: LossReason) -> Error {
        Error::new(ErrorKind::Lost, format!("the lock was lost: {reason}"))
            .with_loss(reason)
            .at("hold", self.core.shared.driver.backend(), Some(self.name()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if !self.armed {
            // `release` has done it.
        } else if self.hand_over() {
            return;
        } else if matches!(self.held.release(&self.core.shared.env), LeaseState::Held(_)) {
            self.core.shared.clean_up(self.held.claim().clone(), Vec::new());
            self.held.settle();
            // Last: a closing manager waits for what is held, then for clean-ups.
            self.core.upkeep.forget(self.held.claim().attempt);
        }
        if self.tenure {
            let claim = self.held.claim();
            self.core.gates.end_tenure(&claim.resource, claim.attempt);
        }
    }
}

/// A release under way. Dropped before it is done, it goes on in the background.
struct PendingRelease {
    shared: Arc<Shared>,
    claim: SharedClaim,
    call: Option<Call<Released>>,
    done: bool,
    /// Counts as a clean-up while it is sent: a closing manager waits for it.
    under_way: Option<TaskTrackerToken>,
}

impl PendingRelease {
    fn send(mut self) -> impl Future<Output = Result<Release, ReleaseError>> {
        self.under_way = Some(self.shared.clean_ups.token());
        self.answer()
    }

    async fn answer(mut self) -> Result<Release, ReleaseError> {
        let limit = self.shared.settings.op_timeout;
        let call = self
            .call
            .insert(self.shared.driver.release_call(self.claim.clone()));
        let answer = self.shared.env.timeout(limit, call).await;
        if answer.is_some() {
            self.call = None;
        }
        match answer.unwrap_or_else(|| Err(Shared::no_answer(limit))) {
            Ok(outcome) => {
                self.done = true;
                Ok(match outcome {
                    Released::Released => Release::Released,
                    Released::NotHeld => Release::NotHeld,
                })
            }
            Err(error) => {
                let error = self.shared.locate("release", Some(self.claim.resource.name()))(error);
                self.under_way = None;
                Err(ReleaseError(Box::new((error, Mutex::new(self)))))
            }
        }
    }
}

impl Drop for PendingRelease {
    fn drop(&mut self) {
        if !self.done {
            let pending = self.call.take().map(|call| call.map(drop).boxed());
            self.shared
                .clean_up(self.claim.clone(), pending.into_iter().collect());
        }
        if let Some(hold) = self.claim.hold().get() {
            hold.settle();
        }
    }
}

/// A release that the backend did not confirm: the third outcome, *unknown*. Dropped, it goes on in the background.
#[must_use = "dropping it leaves the release to the background"]
pub struct ReleaseError(Box<(Error, Exclusive<PendingRelease>)>);

/// Makes the request under way `Sync`, which errors have to be: it is reached through `into_inner` alone.
type Exclusive<T> = Mutex<T>;

impl ReleaseError {
    /// Why it is not known.
    #[must_use]
    pub fn error(&self) -> &Error {
        &self.0.0
    }

    /// Asks again. The release touches this guard's own grant only, however often it is sent.
    ///
    /// # Errors
    /// As [`Guard::release`].
    pub async fn retry(self) -> Result<Release, Self> {
        let (_, pending) = *self.0;
        let mut pending = pending.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut call) = pending.call.take() {
            let limit = pending.shared.settings.op_timeout;
            if pending.shared.env.timeout(limit, &mut call).await.is_none() {
                drop(pending.shared.env.spawn(call));
            }
        }
        pending.send().await
    }
}

impl fmt::Debug for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReleaseError").field(self.error()).finish()
    }
}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it is not known whether the lock was freed: {}", self.error())
    }
}

impl std::error::Error for ReleaseError {}

impl From<ReleaseError> for Error {
    fn from(error: ReleaseError) -> Self {
        let (error, _goes_on) = *error.0;
        error
    }
}
