//! The reference model with locks that live by a session: one for each TTL and connection, kept alive by a task of the
//! driver. To the store it is a lease on each lock that one message renews.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use lockcore::driver::{
    Acquired, Bound, Driver, Grant, Inspection, Intent, Lease, Listed, Released, Renewal,
};
use lockcore::memory::{MemoryDriver, MemoryStore};
use lockcore::{
    AttemptId, Capabilities, Claim, DriverContext, Env, Error, ErrorKind, Instant, Namespace, Resource,
    Result, Session, SharedClaim, Signals, Token,
};
use tokio::task::AbortHandle;

use crate::seam::Link;

/// The sessions of one store, as an administrator sees them.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<Vec<Weak<Shared>>>);

impl Sessions {
    pub(super) fn driver(
        &self,
        inner: MemoryDriver,
        context: &DriverContext,
        (capabilities, link): (Capabilities, Link),
    ) -> SessionDriver {
        let shared = Arc::new(Shared {
            inner,
            capabilities,
            env: context.env.clone(),
            signals: context.signals.clone(),
            link,
            table: Mutex::default(),
        });
        lock(&self.0).push(Arc::downgrade(&shared));
        SessionDriver(shared)
    }

    /// Ends the session of `attempt`, and everything that lives by it, at the server.
    pub(super) async fn end(&self, store: &MemoryStore, attempt: AttemptId) -> Result<()> {
        let ended = self
            .drivers()
            .iter()
            .find_map(|driver| driver.take_session_of(attempt));
        match ended {
            Some(ended) => ended.ended_at(store).await,
            None => Err(Error::new(ErrorKind::Invalid, "no session has this attempt")),
        }
    }

    /// Ends every session.
    pub(super) async fn end_all(&self, store: &MemoryStore) -> Result<()> {
        for driver in self.drivers() {
            let ended = std::mem::take(&mut *lock(&driver.table));
            for ended in ended.into_values() {
                ended.ended_at(store).await?;
            }
        }
        Ok(())
    }

    fn drivers(&self) -> Vec<Arc<Shared>> {
        lock(&self.0).iter().filter_map(Weak::upgrade).collect()
    }
}

/// What lives by one session.
struct Kept {
    session: Session,
    members: HashMap<AttemptId, Member>,
    keeper: AbortHandle,
}

impl Kept {
    /// The server ends it, and tells.
    async fn ended_at(self, store: &MemoryStore) -> Result<()> {
        let (admin, _) = store.driver();
        for member in self.members.values() {
            admin.release(&member.claim).await?;
        }
        self.session.end();
        Ok(())
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Member {
    claim: SharedClaim,
    /// `None` while it waits.
    held: Option<Token>,
}

struct Shared {
    inner: MemoryDriver,
    capabilities: Capabilities,
    env: Env,
    signals: Signals,
    link: Link,
    table: Mutex<HashMap<Duration, Kept>>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn take_session_of(&self, attempt: AttemptId) -> Option<Kept> {
        let mut table = lock(&self.table);
        let ttl = table
            .iter()
            .find(|(_, kept)| kept.members.contains_key(&attempt))
            .map(|(ttl, _)| *ttl)?;
        table.remove(&ttl)
    }

    /// Makes `claim` a member of its session, which is begun if there is none.
    fn enter(self: &Arc<Self>, claim: &Claim) -> Session {
        let now = self.env.now();
        let mut table = lock(&self.table);
        // One that was silent for too long is over at the server.
        if table
            .get(&claim.ttl)
            .is_some_and(|kept| kept.session.deadline() <= now)
        {
            table.remove(&claim.ttl);
        }
        let kept = table
            .entry(claim.ttl)
            .or_insert_with(|| self.begin(now, claim.ttl));
        kept.members.entry(claim.attempt).or_insert_with(|| Member {
            claim: claim.clone().into(),
            held: None,
        });
        kept.session.clone()
    }

    fn begin(self: &Arc<Self>, now: Instant, ttl: Duration) -> Kept {
        let session = Session::new(&self.signals, now, ttl);
        let keeping = keep(Arc::downgrade(self), self.env.clone(), session.clone(), ttl);
        Kept {
            session,
            members: HashMap::new(),
            keeper: self.env.spawn(keeping).abort_handle(),
        }
    }

    fn leave(&self, attempt: AttemptId) {
        for kept in lock(&self.table).values_mut() {
            kept.members.remove(&attempt);
        }
    }

    fn took(&self, claim: &Claim, token: Token) {
        if let Some(member) = lock(&self.table)
            .get_mut(&claim.ttl)
            .and_then(|kept| kept.members.get_mut(&claim.attempt))
        {
            member.held = Some(token);
        }
    }

    /// What the session for `ttl` has to renew at the store.
    fn leases(&self, ttl: Duration) -> Vec<Lease> {
        let table = lock(&self.table);
        let members = table.get(&ttl).into_iter().flat_map(|kept| kept.members.values());
        let leases = members.filter_map(|member| Some(Lease::new(member.claim.clone(), member.held?, ttl)));
        leases.collect()
    }

    /// One message; false when the session is over.
    async fn keep_alive(&self, session: &Session, ttl: Duration) -> bool {
        let sent = self.env.now();
        if session.deadline() <= sent {
            session.end();
            return false;
        }
        if let Ok(answers) = self.inner.renew(&self.leases(ttl)).await {
            session.extend(sent, ttl);
            drop(answers);
        }
        true
    }
}

/// Keeps `session` alive for as long as its driver lives.
async fn keep(shared: Weak<Shared>, env: Env, session: Session, ttl: Duration) {
    loop {
        env.sleep(ttl / 4).await;
        let Some(shared) = shared.upgrade() else { return };
        if !shared.link.is_partitioned() && !shared.keep_alive(&session, ttl).await {
            return;
        }
    }
}

/// A connection whose locks live by sessions. Dropped, it is gone like a process that died.
#[derive(Debug)]
pub(super) struct SessionDriver(Arc<Shared>);

impl Drop for SessionDriver {
    fn drop(&mut self) {
        lock(&self.0.table).clear();
    }
}

impl Driver for SessionDriver {
    fn backend(&self) -> &'static str {
        "session"
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        if self.0.capabilities.effective_ttl(claim.ttl) != claim.ttl {
            let message = format!("no session has a TTL of {:?}", claim.ttl);
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        let session = self.0.enter(claim);
        let answer = self.0.inner.acquire(claim, intent).await;
        Ok(match answer {
            Ok(Acquired::Granted(Grant {
                token,
                bound: Bound::Lease(_),
                ..
            })) => {
                self.0.took(claim, token);
                Acquired::Granted(Grant::session(token, session))
            }
            Ok(other) => {
                if intent == Intent::Try {
                    self.0.leave(claim.attempt);
                }
                other
            }
            Err(error) => {
                self.0.leave(claim.attempt);
                return Err(error);
            }
        })
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let released = self.0.inner.release(claim).await?;
        self.0.leave(claim.attempt);
        Ok(released)
    }

    /// A look: the term of the session stays what it is.
    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let terms: Vec<_> = leases
            .iter()
            .map(|lease| Lease::new(lease.claim.clone(), lease.token, lease.claim.ttl))
            .collect();
        self.0.inner.renew(&terms).await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        self.0.inner.inspect(resource).await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        self.0.inner.list(namespace, prefix).await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        self.0.inner.force_release(resource).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.inner.ping().await
    }

    async fn close(&self) -> Result<()> {
        lock(&self.0.table).clear();
        self.0.inner.close().await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
