//! Server sessions that many locks share: one for each TTL, opened when it is first needed, kept alive, and closed when
//! nobody has used it for a while. Written once for every backend that has sessions.

use std::collections::HashMap;
use std::fmt;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::driver::DriverContext;
use crate::error::{Error, ErrorKind, Result};
use crate::heartbeat::Heartbeat;
use crate::schedule::next_retry;
use crate::session::Session;

/// A keep-alive is sent again when this share passes without an answer, so that a short silence leaves time for several.
const PATIENCE_DIVISOR: u32 = 6;
/// The longest pause between two that are not answered.
const LONGEST_PATIENCE: Duration = Duration::from_secs(3);
/// How long a session stays open that nobody uses; its TTL, if that is longer.
const IDLE: Duration = Duration::from_secs(30);

/// How a driver opens a session and keeps it alive.
#[async_trait]
pub trait OpenSession: fmt::Debug + Send + Sync + 'static {
    /// What names the session in requests.
    type Handle: Clone + Send + Sync + 'static;

    /// Opens a session that the server ends `ttl` after the last sign of life. With it, how long the session is sure
    /// to last from before this call: what the server agreed to, less what it may be early by.
    ///
    /// # Errors
    /// By kind.
    async fn open(&self, ttl: Duration) -> Result<(Self::Handle, Duration)>;

    /// One sign of life, in one round trip: for how long from before this call the session is sure to last; `None`
    /// when the server has ended it.
    ///
    /// # Errors
    /// Of any kind when nobody knows. The pool tries again until the session can have ended.
    async fn keep_alive(&self, handle: &Self::Handle) -> Result<Option<Duration>>;

    /// Ends when the server says by itself that the session is gone; never, for a client that is not told.
    async fn ended(&self, handle: &Self::Handle) {
        let _ = handle;
        std::future::pending().await
    }

    /// Ends the session at the server if it can be reached. Called once for each session that was opened.
    async fn close(&self, handle: Self::Handle);
}

/// An open session. Whoever has a lock or a place in a queue under it keeps it, so that it stays open.
pub struct PooledSession<H> {
    handle: H,
    session: Session,
    ttl: Duration,
    /// The server said that it is gone.
    gone: CancellationToken,
}

impl<H> PooledSession<H> {
    /// What names it in requests.
    pub const fn handle(&self) -> &H {
        &self.handle
    }

    /// Its deadline, for [`Grant::session`](crate::driver::Grant::session).
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// The TTL that it was opened for.
    #[must_use]
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }
}

impl<H> fmt::Debug for PooledSession<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PooledSession")
            .field("ttl", &self.ttl)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

/// The sessions of one driver. Cheap to clone. They are closed with the last clone, or by [`close`](Self::close).
pub struct SessionPool<O: OpenSession>(Arc<Open<O>>);

/// What the pool's owners have. The tasks that keep the sessions have the rest alone, and end without owners.
struct Open<O: OpenSession> {
    inner: Arc<Inner<O>>,
    #[expect(dead_code, reason = "its drop is its use")]
    closes: DropGuard,
}

impl<O: OpenSession> Deref for Open<O> {
    type Target = Arc<Inner<O>>;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

struct Inner<O: OpenSession> {
    context: DriverContext,
    opener: O,
    buckets: Mutex<HashMap<Duration, Bucket<O::Handle>>>,
    closed: CancellationToken,
    keepers: TaskTracker,
}

struct Bucket<H> {
    current: Option<Arc<PooledSession<H>>>,
    /// Held by the one that opens it.
    opening: Arc<tokio::sync::Mutex<()>>,
}

/// Why a session is not kept any longer.
enum End {
    /// Nobody needs it.
    Unused,
    /// The server has ended it.
    Gone,
    /// It may have ended: no sign of life was confirmed in time.
    Unconfirmed,
}

impl<O: OpenSession> Clone for SessionPool<O> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<O: OpenSession> fmt::Debug for SessionPool<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionPool")
            .field("opener", &self.0.opener)
            .field("sessions", &self.sessions())
            .finish()
    }
}

impl<O: OpenSession> SessionPool<O> {
    /// A pool without sessions.
    #[must_use]
    pub fn new(context: &DriverContext, opener: O) -> Self {
        let closed = CancellationToken::new();
        let closes = closed.clone().drop_guard();
        let inner = Arc::new(Inner {
            context: context.clone(),
            opener,
            buckets: Mutex::default(),
            closed,
            keepers: TaskTracker::new(),
        });
        Self(Arc::new(Open { inner, closes }))
    }

    /// What opens its sessions.
    #[must_use]
    pub fn opener(&self) -> &O {
        &self.0.opener
    }

    /// The session for `ttl`; opens it if there is none, once for all who ask.
    ///
    /// Cancel safe: a session that is being opened is kept for the next one who asks.
    ///
    /// # Errors
    /// Those of [`OpenSession::open`], and [`Closed`](ErrorKind::Closed) after [`close`](Self::close).
    pub async fn get(&self, ttl: Duration) -> Result<Arc<PooledSession<O::Handle>>> {
        if self.0.closed.is_cancelled() {
            return Err(closed());
        }
        if let Some(session) = self.0.current(ttl) {
            return Ok(session);
        }
        let inner = Arc::clone(&self.0.inner);
        let opened = self.0.context.env.spawn(async move { inner.open(ttl).await });
        opened.await.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "opening a session failed").with_source(error))
        })
    }

    /// Those that are open, by TTL.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<PooledSession<O::Handle>>> {
        let mut all: Vec<_> = lock(&self.0.buckets)
            .values()
            .filter_map(|bucket| bucket.current.clone())
            .collect();
        all.sort_unstable_by_key(|session| session.ttl);
        all
    }

    /// `session` is gone, as an answer of the server to another request said: all its locks are lost now.
    pub fn ended(&self, session: &Arc<PooledSession<O::Handle>>) {
        self.0.forget(session);
        session.session.end();
        session.gone.cancel();
    }

    /// Closes every session; none is opened any more.
    ///
    /// Cancel safe: they are closed all the same.
    pub async fn close(&self) {
        self.0.closed.cancel();
        self.0.keepers.close();
        self.0.keepers.wait().await;
    }
}

impl<O: OpenSession> Inner<O> {
    fn current(&self, ttl: Duration) -> Option<Arc<PooledSession<O::Handle>>> {
        let buckets = lock(&self.buckets);
        let current = buckets.get(&ttl)?.current.as_ref()?;
        (current.session.deadline() > self.context.env.now()).then(|| Arc::clone(current))
    }

    async fn open(self: Arc<Self>, ttl: Duration) -> Result<Arc<PooledSession<O::Handle>>> {
        let opening = Arc::clone(&self.bucket(&mut lock(&self.buckets), ttl).opening);
        let _alone = opening.lock().await;
        if let Some(session) = self.current(ttl) {
            return Ok(session);
        }
        let sent = self.context.env.now();
        let (handle, lasts) = tokio::select! {
            biased;
            () = self.closed.cancelled() => return Err(closed()),
            opened = self.opener.open(ttl) => opened?,
        };
        let session = Arc::new(PooledSession {
            handle,
            session: Session::new(&self.context.signals, sent, lasts),
            ttl,
            gone: CancellationToken::new(),
        });
        self.bucket(&mut lock(&self.buckets), ttl).current = Some(Arc::clone(&session));
        let keeper = Arc::clone(&self).keep(Arc::clone(&session), lasts);
        drop(self.context.env.spawn(self.keepers.track_future(keeper)));
        Ok(session)
    }

    fn bucket<'a>(
        &self,
        buckets: &'a mut HashMap<Duration, Bucket<O::Handle>>,
        ttl: Duration,
    ) -> &'a mut Bucket<O::Handle> {
        buckets.entry(ttl).or_insert_with(|| Bucket {
            current: None,
            opening: Arc::default(),
        })
    }

    async fn keep(self: Arc<Self>, session: Arc<PooledSession<O::Handle>>, lasts: Duration) {
        let end = self.keep_alive(&session, lasts).await;
        self.forget(&session);
        match end {
            End::Unused => {}
            End::Gone => session.session.end(),
            End::Unconfirmed => {
                tracing::warn!(ttl = ?session.ttl, "a session was not confirmed in time: its locks are lost");
                // Its waiters stand in a queue that may be gone.
                self.context.signals.wake_all();
            }
        }
        self.opener.close(session.handle.clone()).await;
    }

    async fn keep_alive(&self, session: &Arc<PooledSession<O::Handle>>, mut lasts: Duration) -> End {
        let env = &self.context.env;
        let mut heartbeat = Heartbeat::new(env, env.now(), lasts, Duration::MAX);
        let mut due = heartbeat.next();
        let (mut failures, mut used) = (0, env.now());
        let mut ended = self.opener.ended(&session.handle);
        // An answer counts however late it comes, so a call goes on when the next one is sent.
        let mut calls = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                () = self.closed.cancelled() => return End::Unused,
                () = session.gone.cancelled() => return End::Gone,
                () = &mut ended => return End::Gone,
                Some((sent, answer)) = calls.next(), if !calls.is_empty() => {
                    due = match answer {
                        Ok(Some(confirmed)) => {
                            failures = 0;
                            lasts = confirmed;
                            session.session.extend(sent, lasts);
                            heartbeat.confirmed(sent, lasts);
                            heartbeat.next()
                        }
                        Ok(None) => return End::Gone,
                        Err(_) => {
                            failures += 1;
                            next_retry(env, lasts, failures)
                        }
                    };
                    continue;
                }
                () = env.sleep_until(due.min(session.session.deadline())) => {}
            }
            let sent = env.now();
            if sent >= session.session.deadline() {
                return End::Unconfirmed;
            }
            if self.is_used(session) {
                used = sent;
            } else if sent.since(used) > IDLE.max(session.ttl) && self.retire(session) {
                return End::Unused;
            }
            let call = self.opener.keep_alive(&session.handle);
            calls.push(async move { (sent, call.await) });
            due = sent.after((lasts / PATIENCE_DIVISOR).min(LONGEST_PATIENCE));
        }
    }

    /// Does anybody have it but the pool and the task that keeps it?
    fn is_used(&self, session: &Arc<PooledSession<O::Handle>>) -> bool {
        Arc::strong_count(session) > 2
    }

    /// Takes it out of the pool if it is still unused: true if nobody can get it any more.
    fn retire(&self, session: &Arc<PooledSession<O::Handle>>) -> bool {
        let mut buckets = lock(&self.buckets);
        if self.is_used(session) {
            return false;
        }
        Self::take_out(&mut buckets, session);
        true
    }

    fn forget(&self, session: &Arc<PooledSession<O::Handle>>) {
        Self::take_out(&mut lock(&self.buckets), session);
    }

    fn take_out(buckets: &mut HashMap<Duration, Bucket<O::Handle>>, session: &Arc<PooledSession<O::Handle>>) {
        if let Some(bucket) = buckets.get_mut(&session.ttl) {
            bucket.current.take_if(|current| Arc::ptr_eq(current, session));
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the lock manager is closed")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
