//! A held lease, shared by the guard, its lost-futures and the upkeep.

use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::claim::{Claim, SharedClaim, Token};
use crate::env::{Env, Instant, saturating_nanos};
use crate::lease_word::{LeaseState, LeaseWord};
use crate::loss::LossReason;
use crate::session::Session;
use crate::settings::local_deadline;

/// How a lease goes on after its grant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Is it renewed?
    pub(crate) renew: bool,
    /// When it ends whatever happens.
    pub(crate) end: Instant,
    /// Why it ends then.
    pub(crate) end_reason: LossReason,
}

/// A claim that was granted. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Held(SharedClaim);

/// What lockcore knows of a held lease. It lives in the allocation of its claim.
#[derive(Debug)]
pub(crate) struct Hold {
    pub(crate) token: Token,
    /// The greatest one of the grant, by which the backend knows the lease.
    pub(crate) grant: Token,
    /// How many tokens from `token` on up to that are left for those who get the lease without a request.
    pub(crate) spare: u32,
    pub(crate) plan: Plan,
    word: LeaseWord,
    session: Option<Session>,
    ttl_nanos: AtomicU64,
    /// Was a renewal sent that has no good answer yet?
    unanswered: AtomicBool,
    /// Is its release answered, or left to the background?
    settled: AtomicBool,
    terms: Mutex<Terms>,
    /// That it was lost, or settled.
    told: Notify,
}

impl Hold {
    fn new(token: Token, word: LeaseWord, session: Option<Session>, plan: Plan, ttl: Duration) -> Self {
        Self {
            token,
            grant: token,
            spare: 0,
            plan,
            word,
            session,
            ttl_nanos: AtomicU64::new(saturating_nanos(ttl)),
            unanswered: AtomicBool::new(false),
            settled: AtomicBool::new(false),
            terms: Mutex::new(Terms::NONE),
            told: Notify::new(),
        }
    }

    /// Nobody waits for the answer to its release, any more.
    pub(crate) fn settle(&self) {
        self.settled.store(true, Ordering::Release);
        self.told.notify_waiters();
    }
}

impl Deref for Held {
    type Target = Hold;

    fn deref(&self) -> &Hold {
        // There is one since `new`.
        self.0.hold().get_or_init(|| {
            let plan = Plan {
                renew: false,
                end: Instant::default(),
                end_reason: LossReason::Expired,
            };
            Hold::new(Token::new(0), LeaseWord::released(), None, plan, Duration::ZERO)
        })
    }
}

impl Held {
    pub(crate) fn new(
        claim: SharedClaim,
        token: Token,
        deadline: Instant,
        session: Option<Session>,
        plan: Plan,
        spare: u32,
    ) -> Self {
        let first = Token::new(token.get().saturating_sub(spare.into()));
        let hold = Hold::new(first, LeaseWord::new(deadline), session, plan, claim.ttl);
        Self::of(
            claim,
            Hold {
                grant: token,
                spare,
                ..hold
            },
        )
    }

    fn of(claim: SharedClaim, hold: Hold) -> Self {
        // An attempt ends with its grant, so this is the only one.
        let first = claim.hold().set(hold).is_ok();
        debug_assert!(first, "one attempt was granted twice");
        Self(claim)
    }

    /// Ends this as released and goes on as another with the next token, on the same lease. `None` when there is no
    /// token left, or when it is not certain how long the lease lasts: then it stays what it was.
    pub(crate) fn succeed(&self, now: Instant) -> Option<Self> {
        let spare = self.spare.checked_sub(1)?;
        let terms = lock(&self.terms);
        let is_certain = terms.under_way == 0
            && !self.unanswered.load(Ordering::Relaxed)
            && self.ttl() == self.claim().ttl
            && matches!(self.state_at(now), LeaseState::Held(_));
        if !is_certain {
            return None;
        }
        let LeaseState::Held(deadline) = self.word.release(now, self.expiry_reason(now)) else {
            return None;
        };
        let token = Token::new(self.token.get() + 1);
        let (session, plan, ttl) = (self.session.clone(), self.plan, self.claim().ttl);
        let hold = Hold::new(token, LeaseWord::new(deadline), session, plan, ttl);
        let claim = SharedClaim::from(Claim::clone(self.claim()));
        Some(Self::of(
            claim,
            Hold {
                grant: self.grant,
                spare,
                ..hold
            },
        ))
    }

    pub(crate) fn claim(&self) -> &SharedClaim {
        &self.0
    }

    pub(crate) fn ttl(&self) -> Duration {
        Duration::from_nanos(self.ttl_nanos.load(Ordering::Relaxed))
    }

    /// From the next renewal on.
    pub(crate) fn set_ttl(&self, ttl: Duration) {
        self.ttl_nanos.store(saturating_nanos(ttl), Ordering::Relaxed);
    }

    pub(crate) fn is_session_bound(&self) -> bool {
        self.session.is_some()
    }

    /// A renewal for `ttl` is sent at `sent`. If that ends the lease sooner, it does so here before it is asked for.
    pub(crate) fn renewing(&self, ttl: Duration, sent: Instant) -> UnderWay {
        self.unanswered.store(true, Ordering::Relaxed);
        let mut terms = lock(&self.terms);
        terms.under_way += 1;
        terms.shortest = terms.shortest.min(ttl);
        if self.word.shorten(local_deadline(sent, ttl)) {
            // Their timers are set to the old deadline.
            self.told.notify_waiters();
        }
        UnderWay {
            held: self.clone(),
            sent,
            ttl: Some(ttl),
        }
    }

    /// The backend is asked whether it is still held; its term stays what it is.
    pub(crate) fn checking(&self, sent: Instant) -> UnderWay {
        lock(&self.terms).under_way += 1;
        UnderWay {
            held: self.clone(),
            sent,
            ttl: None,
        }
    }

    /// The state now. What has run out is lost from here on, for everybody.
    pub(crate) fn state(&self, env: &Env) -> LeaseState {
        self.state_at(env.now())
    }

    /// The same for a clock that was just read.
    pub(crate) fn state_at(&self, now: Instant) -> LeaseState {
        let state = self.word.state_at(now, self.expiry_reason(now));
        let (Some(session), LeaseState::Held(deadline)) = (&self.session, state) else {
            return state;
        };
        let until = session.deadline();
        if now < until {
            return LeaseState::Held(deadline.min(until));
        }
        self.word.lose(if session.is_lost() {
            LossReason::SessionEnded
        } else {
            LossReason::Unreachable
        });
        self.word.state_at(now, LossReason::Unreachable)
    }

    pub(crate) fn is_over(&self, env: &Env) -> bool {
        !matches!(self.state(env), LeaseState::Held(_))
    }

    fn expiry_reason(&self, now: Instant) -> LossReason {
        if now >= self.plan.end {
            self.plan.end_reason
        } else if self.unanswered.load(Ordering::Relaxed) {
            LossReason::Unreachable
        } else {
            LossReason::Expired
        }
    }

    /// Ends it as lost, if it is held, and tells everybody.
    pub(crate) fn lose(&self, reason: LossReason) {
        self.word.lose(reason);
        self.told.notify_waiters();
    }

    /// Ends it as released, if it is held; the state before.
    pub(crate) fn release(&self, env: &Env) -> LeaseState {
        let now = env.now();
        match self.state_at(now) {
            LeaseState::Held(_) => self.word.release(now, self.expiry_reason(now)),
            over => over,
        }
    }

    /// Of one that is over: waits until nobody waits for the answer to its release.
    pub(crate) async fn settled(&self, env: &Env) {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            if self.settled.load(Ordering::Acquire) || self.state(env) != LeaseState::Released {
                return;
            }
            told.await;
        }
    }

    /// Waits for the loss; for ever when the lease is released.
    pub(crate) async fn lost(&self, env: &Env) -> LossReason {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            match self.state(env) {
                LeaseState::Lost(reason) => return reason,
                LeaseState::Released => std::future::pending().await,
                // Our own timer: the loss is noticed even if the upkeep does not run.
                LeaseState::Held(until) => tokio::select! {
                    biased;
                    () = told => {}
                    () = env.sleep_until(until) => {}
                },
            }
        }
    }
}

/// The renewals of one lease that are under way. The backend may apply them in any order, so while several are, the
/// lease is sure to last for the shortest of their terms only.
#[derive(Debug)]
struct Terms {
    under_way: u32,
    shortest: Duration,
}

impl Terms {
    const NONE: Self = Self {
        under_way: 0,
        shortest: Duration::MAX,
    };
}

/// A renewal that was sent. It may take effect until it is answered, also when nobody waits for the answer any more.
#[derive(Debug)]
#[must_use = "it counts as answered when it is dropped"]
pub(crate) struct UnderWay {
    held: Held,
    sent: Instant,
    /// The new term; `None` when the old one stays.
    ttl: Option<Duration>,
}

impl UnderWay {
    /// The backend confirmed it: the lease is extended, unless the answer came too late.
    pub(crate) fn confirmed(self, now: Instant) {
        let (held, Some(ttl)) = (&self.held, self.ttl) else {
            return;
        };
        held.unanswered.store(false, Ordering::Relaxed);
        let terms = lock(&held.terms);
        let deadline = local_deadline(self.sent, ttl.min(terms.shortest));
        held.word.extend(deadline.min(held.plan.end), now);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut terms = lock(&self.held.terms);
        terms.under_way -= 1;
        if terms.under_way == 0 {
            *terms = Terms::NONE;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
