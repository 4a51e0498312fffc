//! The driver interface: what a backend has to be able to do, and nothing about how locks behave.
//!
//! A driver is primitives, a classification of its client's errors, and the parsing of its URL. Retry, waiting,
//! deadlines, renewal, loss, cancellation and clean-up are lockcore's. The rules:
//!
//! 1. **Idempotence.** Every call is keyed by the claim's attempt. The same call applied twice has the effect of
//!    one; a repeated [`acquire`](Driver::acquire) after a grant answers with the same token and extends nothing.
//! 2. **Any call may be dropped** at any await point, or may time out, and any other call may follow. lockcore
//!    drives a call that it gave up on to its end whenever it can, and releases after it.
//! 3. **[`release`](Driver::release) leaves no trace** of the attempt: no lock, no place in the queue, no
//!    connection, no task.
//! 4. **Compare and act.** Release and renew touch what this very attempt holds, and create nothing.
//! 5. **No policy.** A driver does not sleep, retry, log, or look at a clock to decide something about a lock.
//!    Upkeep of its connection is its own, built from [`Supervisor`](crate::Supervisor) on the [`Env`].
//! 6. **Contention is an answer, not an error.**
//! 7. **Durations count from before the call.** A TTL in an answer is a lower bound on validity, counted from the
//!    start of the call that got it.
//! 8. **Errors** have the kind that tells the caller what to do: [`Unavailable`](crate::ErrorKind::Unavailable)
//!    when nobody knows whether the call took effect or the server cannot be reached,
//!    [`Denied`](crate::ErrorKind::Denied) for logins and rights, `Invalid`, `Unsupported`, or `Internal`.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::capability::Capabilities;
use crate::claim::{Claim, SharedClaim, Token};
use crate::diagnosis::Diagnosis;
pub use crate::dyn_driver::DynDriver;
use crate::env::Env;
use crate::error::Result;
use crate::name::{Kind, Namespace, Resource};
use crate::session::Session;
use crate::signals::Signals;

/// What a driver gets from lockcore when it is made.
#[derive(Clone, Debug)]
pub struct DriverContext {
    /// Time, randomness, tasks.
    pub env: Env,
    /// Where the driver reports what the backend pushed.
    pub signals: Signals,
}

impl DriverContext {
    /// A context on `env` with signals that nobody has listened to yet.
    #[must_use]
    pub fn new(env: Env) -> Self {
        Self {
            env,
            signals: Signals::new(),
        }
    }
}

/// How a claim is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Intent {
    /// Take it now or not at all. It leaves no trace when refused, and it does not overtake a queue: where the
    /// driver declares FIFO, a free lock with live waiters is refused (and its first waiter woken).
    Try,
    /// Take it or stand in the queue. Repeated by lockcore as the waiter's sign of life at least every third of
    /// `waiter_ttl`, when the driver wakes it, and when the lock may have expired.
    Wait {
        /// The place that an earlier answer gave, for a queue that has forgotten this waiter.
        ticket: Option<u64>,
    },
}

/// The answer to [`Driver::acquire`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Acquired {
    /// This attempt holds the lock.
    Granted(Grant),
    /// Somebody else does, or comes first.
    Busy(Busy),
}

/// A grant.
#[derive(Debug)]
#[non_exhaustive]
pub struct Grant {
    /// The fencing token.
    pub token: Token,
    /// What the grant lasts by.
    pub bound: Bound,
    /// How many tokens right below [`token`](Self::token) are this grant's as well, all of them greater than that of
    /// any earlier grant: those of this process that get the lock one after the other have them in order. At most the
    /// claim's `spare_tokens`, and 0 when somebody else waits, or when the backend cannot.
    pub spare: u32,
}

impl Grant {
    /// A lease of `ttl`, counted from before this call.
    #[must_use]
    pub const fn lease(token: Token, ttl: Duration) -> Self {
        Self {
            token,
            bound: Bound::Lease(ttl),
            spare: 0,
        }
    }

    /// A grant that lasts as long as `session`.
    #[must_use]
    pub const fn session(token: Token, session: Session) -> Self {
        Self {
            token,
            bound: Bound::Session(session),
            spare: 0,
        }
    }

    /// With this many more tokens below its own.
    #[must_use]
    pub const fn with_spare(mut self, spare: u32) -> Self {
        self.spare = spare;
        self
    }
}

/// What a grant lasts by.
#[derive(Debug)]
#[non_exhaustive]
pub enum Bound {
    /// A lease of its own, this long from before the call. lockcore renews it.
    Lease(Duration),
    /// A session that the driver keeps alive for all its locks. lockcore reads its deadline and renews nothing; a
    /// claim without `auto_renew` is ended by lockcore's own timer.
    Session(Session),
}

/// Why there was no grant. Everything is optional: say what came for free with the answer.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Busy {
    /// How many waiters come before this one; `None` when it does not stand in a queue.
    pub ahead: Option<u64>,
    /// The place in the queue, to be handed back with later calls.
    pub ticket: Option<u64>,
    /// When the lock can become free by expiry, from now. lockcore asks again then, since no backend announces it.
    /// For a reserved lock: when the reservation can have been claimed, and that lease can have ended.
    pub free_in: Option<Duration>,
    /// How much longer the lock is kept for a waiter that was woken; `None` when it is not. The next one in the queue
    /// asks again then.
    pub reserved: Option<Duration>,
    /// Who holds it.
    pub holder: Option<Occupant>,
}

impl Busy {
    /// With this many waiters ahead and this ticket.
    #[must_use]
    pub const fn queued(mut self, ahead: u64, ticket: Option<u64>) -> Self {
        self.ahead = Some(ahead);
        self.ticket = ticket;
        self
    }

    /// Free by expiry in `free_in` at the soonest.
    #[must_use]
    pub const fn free_in(mut self, free_in: Option<Duration>) -> Self {
        self.free_in = free_in;
        self
    }

    /// Kept for a waiter that was woken.
    #[must_use]
    pub const fn reserved(mut self, reserved: Option<Duration>) -> Self {
        self.reserved = reserved;
        self
    }

    /// Held by `holder`.
    #[must_use]
    pub fn held_by(mut self, holder: Option<Occupant>) -> Self {
        self.holder = holder;
        self
    }
}

/// Somebody who holds a resource, as stored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Occupant {
    /// The claim's `details`.
    pub details: Arc<str>,
    /// The grant's token; of a grant with spare ones the greatest.
    pub token: Token,
    /// What is left of the lease without renewal.
    pub remaining: Option<Duration>,
    /// The server's wall clock at the grant.
    pub since: Option<SystemTime>,
    /// The claim's weight.
    pub weight: u32,
}

impl Occupant {
    /// A holder of weight 1 with these details and this token.
    #[must_use]
    pub fn new(details: impl Into<Arc<str>>, token: Token) -> Self {
        Self {
            details: details.into(),
            token,
            remaining: None,
            since: None,
            weight: 1,
        }
    }

    /// With what is left of the lease.
    #[must_use]
    pub const fn remaining(mut self, remaining: Option<Duration>) -> Self {
        self.remaining = remaining;
        self
    }

    /// Held since then.
    #[must_use]
    pub const fn since(mut self, since: Option<SystemTime>) -> Self {
        self.since = since;
        self
    }

    /// Of this weight.
    #[must_use]
    pub const fn weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }
}

/// The answer to [`Driver::release`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Released {
    /// The attempt held the lock, and does no longer.
    Released,
    /// The attempt did not hold it. A place in the queue, if it had one, is gone.
    NotHeld,
}

/// A lease to be renewed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Lease {
    /// The claim that was granted.
    pub claim: SharedClaim,
    /// The token of the grant, the greatest where there are spare ones.
    pub token: Token,
    /// How long it is to last from this renewal on; replaces the rest of the old term.
    pub ttl: Duration,
}

impl Lease {
    /// `claim`'s grant with `token`, to last `ttl` more.
    #[must_use]
    pub const fn new(claim: SharedClaim, token: Token, ttl: Duration) -> Self {
        Self { claim, token, ttl }
    }
}

/// The answer for one lease of [`Driver::renew`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewal {
    /// It lasts the asked TTL, counted from before the call.
    Renewed,
    /// The attempt does not hold the lock: expired, taken, deleted or freed by force.
    NotHeld,
    /// Nobody knows, for this lease alone.
    Unknown,
}

/// What [`Driver::inspect`] found.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct Inspection {
    /// The holders with a live lease.
    pub holders: Vec<Occupant>,
    /// How many wait.
    pub waiters: u64,
}

impl Inspection {
    /// These holders and waiters.
    #[must_use]
    pub const fn new(holders: Vec<Occupant>, waiters: u64) -> Self {
        Self { holders, waiters }
    }
}

/// A held lock that [`Driver::list`] found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Listed {
    /// What kind of lock.
    pub kind: Kind,
    /// The resource's [`key`](Resource::key), as stored.
    pub key: String,
    /// Who holds it and how many wait.
    pub inspection: Inspection,
}

impl Listed {
    /// The lock of `kind` with `key`.
    #[must_use]
    pub const fn new(kind: Kind, key: String, inspection: Inspection) -> Self {
        Self {
            kind,
            key,
            inspection,
        }
    }
}

/// A backend. See the [module](self) for the rules that every method keeps.
///
/// Its asynchronous methods are implemented as `async fn`, without `async_trait`, which would box every call once more: a
/// call is boxed once, by lockcore. [`DynDriver`] is any driver.
pub trait Driver: fmt::Debug + Send + Sync + 'static {
    /// The backend's name in messages and metrics: one lower-case word.
    fn backend(&self) -> &'static str;

    /// What it can do. Fixed for the life of the driver.
    fn capabilities(&self) -> Capabilities;

    /// Takes the lock, or stands in the queue, or gives a sign of life, or claims the turn: in one round trip.
    ///
    /// `Busy` under [`Intent::Wait`] means that the attempt is in the queue (or that the backend has none), and that
    /// [`Signals::wake`] will be called for it when it is worth asking again. A queue that is full is
    /// [`Unavailable`](crate::ErrorKind::Unavailable).
    fn acquire(&self, claim: &Claim, intent: Intent) -> impl Future<Output = Result<Acquired>> + Send;

    /// Frees the lock, or leaves the queue, and wakes exactly the next one who can go on.
    fn release(&self, claim: &Claim) -> impl Future<Output = Result<Released>> + Send;

    /// Renews up to [`Capabilities::renew_batch`] leases at once; one answer for each, in order. An error means that
    /// none of them is known. Never brings back what is gone.
    ///
    /// A lock that lives by a session is not renewed but looked at: `Renewed` says that it is still held. lockcore
    /// asks when the driver has called [`Signals::wake`] for its attempt, after [`Signals::wake_all`], and when a
    /// user renews by hand.
    fn renew(&self, leases: &[Lease]) -> impl Future<Output = Result<Vec<Renewal>>> + Send;

    /// Who holds `resource`, and how many wait. Only with [`Capabilities::inspect`].
    fn inspect(&self, resource: &Resource) -> impl Future<Output = Result<Inspection>> + Send;

    /// Every held lock in `namespace` whose name may start with `prefix` (lockcore filters again). Only with
    /// [`Capabilities::list`].
    fn list(&self, namespace: &Namespace, prefix: &str) -> impl Future<Output = Result<Vec<Listed>>> + Send;

    /// Takes `resource` from whoever holds it, and wakes the next waiter; true when somebody held it. The holders
    /// are told with [`Signals::wake`] where the backend can. Tokens go on growing. Only with
    /// [`Capabilities::force_release`].
    fn force_release(&self, resource: &Resource) -> impl Future<Output = Result<bool>> + Send;

    /// One round trip to see that the backend answers.
    fn ping(&self) -> impl Future<Output = Result<()>> + Send;

    /// Looks at the server for `leasehold doctor`: its name and version, its clock, and every setting that decides
    /// whether locks are safe there, each as a finding whether it is well or not, with the remedy. It changes nothing,
    /// and is over within one request's time limit. What cannot be looked at, for lack of a right or in an older
    /// server, is a note and no error.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the login.
    fn diagnose(&self) -> impl Future<Output = Result<Diagnosis>> + Send {
        async {
            self.ping().await?;
            let mut diagnosis = Diagnosis::new(self.backend(), None::<String>);
            diagnosis.note("server", "this driver does not look at the server's settings");
            Ok(diagnosis)
        }
    }

    /// Ends connections and tasks. No other call follows.
    fn close(&self) -> impl Future<Output = Result<()>> + Send;
}
