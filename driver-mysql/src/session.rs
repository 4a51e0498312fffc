//! The mode `session`: a lock is a `GET_LOCK` on a connection of its own, which the server ends when it was silent for
//! the TTL.

use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use data_encoding::BASE32_NOPAD;
use lockcore::driver::{Acquired, Busy, Grant, Intent, Lease, Released, Renewal};
use lockcore::{
    AttemptId, Claim, DriverContext, Error, ErrorKind, Instant, Resource, Result, Session, Token,
};
use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::claims::key;
use crate::config::Fence;
use crate::connection::{Link, Opener};
use crate::error::{classify, silent};
use crate::keeper::{Command, Keeper};
use crate::pool::{Orphan, Pool};
use crate::script::{Reply, Request, Statement, Value, answer, fill, get, text};

/// Evaluated after `GET_LOCK` has returned: `UTC_TIMESTAMP` would be the start of the statement.
macro_rules! granted_at {
    () => {
        "CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6)) AS UNSIGNED)"
    };
}
pub(crate) const GRANTED_AT: &str = granted_at!();

static TRY: LazyLock<Statement> =
    LazyLock::new(|| Statement::new(concat!("SELECT GET_LOCK(:name, 0), ", granted_at!())));
pub(crate) static RELEASE: LazyLock<Statement> =
    LazyLock::new(|| Statement::new("SELECT RELEASE_LOCK(:name)"));

/// A token that is past the last one of the same name, also when the server's clock was set back.
const FENCE: &str = "INSERT INTO leasehold_lock (name, token, owner, held, queued, expires, since, details) \
     VALUES (:key, LAST_INSERT_ID(:now), NULL, 0, 0, 0, :now, '') \
     ON DUPLICATE KEY UPDATE token = LAST_INSERT_ID(GREATEST(token + 1, CAST(:now AS UNSIGNED)))";

/// An idle connection is used again for so long, and for no longer than half of what the server gives it.
const FRESH: Duration = Duration::from_secs(20);

/// When all but one of the idle connections are closed that were not used since.
const TRIM: Duration = Duration::from_secs(2);

/// The name of the server's lock for `resource` in the mode `session`, as in `IS_USED_LOCK('..')`: the server's names are
/// short, and in MySQL they do not tell `a` from `A`.
#[must_use]
pub fn session_lock_name(resource: &Resource) -> String {
    let hash = Sha256::digest(key(resource).as_bytes());
    let mut name = BASE32_NOPAD.encode(&hash).to_ascii_lowercase();
    name.truncate(52);
    format!("lh:{name}")
}

/// How many requests for locks are under way at a time.
const TURNS: usize = 8;

/// What the server says of a connection that waits for a lock.
const QUEUED: &str = "User lock";
/// How often it is asked for that: a request that was just sent is there in a moment, unless its connection is gone.
const LOOKS: u32 = 100;

/// A connection without a lock.
#[derive(Debug)]
struct Idle {
    link: Link,
    /// When the server ends it for being silent, as far as it was told.
    wait: Option<Duration>,
    since: Instant,
}

/// Where an attempt stands.
#[derive(Clone, Debug)]
pub(crate) enum Standing {
    /// In the server's queue.
    Waiting,
    /// It holds the lock.
    Held(Token, Session),
    /// Its connection is gone.
    Gone,
}

/// An attempt that has a connection.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) orphan: Orphan,
    standing: Mutex<Standing>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Place {
    pub(crate) fn standing(&self) -> Standing {
        lock(&self.standing).clone()
    }

    /// It waits for the lock, or has it.
    fn is_there(&self) -> bool {
        !matches!(self.standing(), Standing::Gone)
    }

    pub(crate) fn stands(&self, standing: Standing) {
        *lock(&self.standing) = standing;
    }
}

/// The locks of one driver.
pub(crate) struct Sessions {
    pub(crate) opener: Arc<Opener>,
    pub(crate) context: DriverContext,
    /// For everything but locks.
    pub(crate) control: Pool,
    limit: usize,
    permits: Arc<Semaphore>,
    /// So many ask for a lock at a time: what comes back after an outage shares connections rather than open one each.
    turns: Semaphore,
    idle: Mutex<Vec<Idle>>,
    /// Idle connections are looked at.
    trimming: AtomicBool,
    places: Mutex<HashMap<AttemptId, Arc<Place>>>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions")
            .field("limit", &self.limit)
            .field("free", &self.permits.available_permits())
            .finish_non_exhaustive()
    }
}

impl Sessions {
    pub(crate) fn new(opener: Arc<Opener>, context: DriverContext) -> Self {
        let limit = opener.config.limit();
        Self {
            control: Pool::new(Arc::clone(&opener), 1),
            opener,
            context,
            limit,
            permits: Arc::new(Semaphore::new(limit)),
            turns: Semaphore::new(TURNS),
            idle: Mutex::default(),
            trimming: AtomicBool::new(false),
            places: Mutex::default(),
        }
    }

    pub(crate) async fn acquire(self: &Arc<Self>, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let place = lock(&self.places).get(&claim.attempt).cloned();
        if let Some(place) = place {
            match place.standing() {
                Standing::Held(token, session) => return Ok(granted(token, session)),
                // Its turn may have come meanwhile.
                Standing::Waiting if self.state(&place).await?.is_some() => return Ok(answered(&place)),
                _ => self.forget(claim.attempt, &place),
            }
        }
        // An earlier request of this attempt may have the lock, on a connection that was given up.
        self.control.settle().await?;
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let limit = self.limit;
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "all {limit} connections have a lock or wait for one: raise the option connections, or use fewer"
                ),
            )
        })?;
        let turn = self.turns.acquire().await;
        let mut idle = self.idle(claim.ttl).await?;
        let name = session_lock_name(&claim.resource);
        let request = match idle.wait {
            Some(wait) if wait == claim.ttl => TRY.with(&[("name", Value::Word(&name))]),
            _ => format!(
                "SET SESSION wait_timeout = {}; SELECT GET_LOCK('{name}', 0), {GRANTED_AT}",
                seconds(claim.ttl)
            )
            .into(),
        };
        let sent = self.context.env.now();
        let replies = self.ask(&mut idle.link, request).await?;
        idle.wait = Some(claim.ttl);
        let row = answer(&replies)?;
        if get::<Option<i64>>(row, 0)? == Some(1) {
            let token = match self.opener.config.fence {
                Fence::Clock => get(row, 1)?,
                Fence::Table => self.fence(&mut idle.link, &claim.resource).await?,
            };
            let session = Session::new(&self.context.signals, sent, claim.ttl);
            let standing = Standing::Held(Token::new(token), session.clone());
            self.keep(
                claim,
                name,
                (idle.link, permit),
                standing,
                &mut lock(&self.places),
            );
            return Ok(granted(Token::new(token), session));
        }
        drop(turn);
        let place = {
            let mut places = lock(&self.places);
            // By an earlier request of this attempt, whose answer came too late.
            let earlier = places
                .get(&claim.attempt)
                .filter(|place| place.is_there())
                .cloned();
            match earlier {
                None if matches!(intent, Intent::Wait { .. }) => {
                    let connection = (idle.link, permit);
                    self.keep(claim, name, connection, Standing::Waiting, &mut places)
                }
                earlier => {
                    drop(places);
                    self.put(idle.link, idle.wait);
                    return Ok(
                        earlier.map_or_else(|| Acquired::Busy(Busy::default()), |place| answered(&place))
                    );
                }
            }
        };
        // It is not in the queue before the server has heard of it.
        for _ in 0..LOOKS {
            if !matches!(place.standing(), Standing::Waiting)
                || self.state(&place).await?.is_none_or(|state| state == QUEUED)
            {
                break;
            }
        }
        Ok(answered(&place))
    }

    pub(crate) async fn fence(&self, link: &mut Link, resource: &Resource) -> Result<u64> {
        let key = key(resource);
        let script = fill(FENCE, &[("key", Value::Bytes(key.as_bytes()))]);
        let replies = self.ask(link, script).await?;
        Ok(replies.first().map_or(0, |reply| reply.last_insert_id))
    }

    pub(crate) async fn release(self: &Arc<Self>, claim: &Claim) -> Result<Released> {
        let place = lock(&self.places).remove(&claim.attempt);
        let mut released = Released::NotHeld;
        if let Some(place) = place {
            let (answer, answered) = oneshot::channel();
            if place.commands.send(Command::Release(answer)).is_ok() && answered.await == Ok(true) {
                released = Released::Released;
            }
        }
        // Whatever connection was given up is ended before this is said to be done.
        self.control.settle().await?;
        Ok(released)
    }

    pub(crate) async fn renew(&self, leases: &[Lease]) -> Vec<Renewal> {
        let looks = leases.iter().map(|lease| async move {
            let place = lock(&self.places).get(&lease.claim.attempt).cloned();
            let Some(place) = place else {
                return Renewal::NotHeld;
            };
            let (answer, answered) = oneshot::channel();
            if place.commands.send(Command::Look(answer)).is_ok() && answered.await == Ok(true) {
                Renewal::Renewed
            } else {
                Renewal::NotHeld
            }
        });
        futures_util::future::join_all(looks).await
    }

    /// Takes the lock from whoever has it, by ending its connection.
    pub(crate) async fn force_release(&self, resource: &Resource) -> Result<bool> {
        let name = session_lock_name(resource);
        let replies = self.control.run(format!("SELECT IS_USED_LOCK('{name}')")).await?;
        let Some(id) = get::<Option<u64>>(answer(&replies)?, 0)? else {
            return Ok(false);
        };
        // That it is gone by itself is as good.
        self.control.try_run(format!("KILL {id}")).await?.ok();
        let ours = lock(&self.places)
            .iter()
            .find(|(_, place)| place.orphan.id == id)
            .map(|(attempt, _)| *attempt);
        if let Some(attempt) = ours {
            self.context.signals.wake(attempt);
        }
        Ok(true)
    }

    /// Ends every lock and every wait: keepers end with their commands.
    pub(crate) fn forget_all(&self) {
        lock(&self.places).clear();
    }

    pub(crate) async fn close(&self) {
        self.forget_all();
        let idle = std::mem::take(&mut *lock(&self.idle));
        for Idle { link, .. } in idle {
            link.close().await;
        }
        self.control.close().await;
    }

    /// One request on a connection, within the patience.
    pub(crate) async fn ask(&self, link: &mut Link, request: impl Into<Request>) -> Result<Vec<Reply>> {
        let patience = self.opener.config.patience;
        let asked = self
            .context
            .env
            .timeout(patience, Box::pin(link.run(request)))
            .await;
        if let Some(Ok(replies)) = asked {
            return Ok(replies);
        }
        self.control.orphan(Orphan::from(&*link));
        Err(asked.map_or_else(silent, |asked| asked.map_or_else(classify, |_| silent())))
    }

    /// A connection that is done with its lock.
    pub(crate) fn put(self: &Arc<Self>, link: Link, wait: Option<Duration>) {
        let since = self.context.env.now();
        let mut idle = lock(&self.idle);
        idle.push(Idle { link, wait, since });
        if idle.len() > 1 && !self.trimming.swap(true, Ordering::AcqRel) {
            let (sessions, env) = (Arc::downgrade(self), self.context.env.clone());
            self.context.env.spawn(async move {
                let round = async || match sessions.upgrade() {
                    Some(sessions) => sessions.trim().await,
                    None => ControlFlow::Break(()),
                };
                env.every(TRIM, round).await;
            });
        }
    }

    /// Closes what nobody has used of late, but for the last one.
    async fn trim(&self) -> ControlFlow<()> {
        let now = self.context.env.now();
        let (old, done) = {
            let mut idle = lock(&self.idle);
            let fresh = |idle: &mut Idle| now.since(idle.since) < TRIM;
            let last = idle.pop();
            let mut old = std::mem::take(&mut *idle);
            *idle = old.extract_if(.., fresh).chain(last).collect();
            let done = idle.len() <= 1;
            if done {
                self.trimming.store(false, Ordering::Release);
            }
            (old, done)
        };
        for Idle { link, .. } in old {
            link.close().await;
        }
        if done {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn keep(
        self: &Arc<Self>,
        claim: &Claim,
        name: String,
        (link, permit): (Link, OwnedSemaphorePermit),
        standing: Standing,
        places: &mut HashMap<AttemptId, Arc<Place>>,
    ) -> Arc<Place> {
        let (commands, heard) = mpsc::unbounded_channel();
        let place = Arc::new(Place {
            orphan: Orphan::from(&link),
            standing: Mutex::new(standing),
            commands,
        });
        let earlier = places.insert(claim.attempt, Arc::clone(&place));
        // The server has given to this connection what another one had.
        if let Some(Standing::Held(_, session)) = earlier.map(|earlier| earlier.standing()) {
            session.end();
        }
        let keeper = Keeper {
            sessions: Arc::clone(self),
            claim: claim.clone(),
            name,
            place: Arc::downgrade(&place),
            heard,
            over: false,
        };
        self.context.env.spawn(async move {
            keeper.run(link).await;
            drop(permit);
        });
        place
    }

    /// Unless another request of the attempt has one of its own by now.
    fn forget(&self, attempt: AttemptId, place: &Arc<Place>) {
        let mut places = lock(&self.places);
        if places
            .get(&attempt)
            .is_some_and(|current| Arc::ptr_eq(current, place))
        {
            places.remove(&attempt);
        }
    }

    /// What the server does for the connection of one that waits; `None` when it has it no more, which it does not say by
    /// itself.
    async fn state(&self, place: &Place) -> Result<Option<String>> {
        let id = place.orphan.id;
        let look =
            format!("SELECT MAX(COALESCE(state, '')) FROM information_schema.processlist WHERE id = {id}");
        let replies = self.control.run(look).await?;
        text(answer(&replies)?, 0)
    }

    async fn idle(&self, ttl: Duration) -> Result<Idle> {
        let now = self.context.env.now();
        loop {
            let found = {
                let mut idle = lock(&self.idle);
                let same = idle.iter().rposition(|idle| idle.wait == Some(ttl));
                match same {
                    Some(at) => Some(idle.swap_remove(at)),
                    None => idle.pop(),
                }
            };
            let Some(idle) = found else {
                let link = self.opener.open().await?;
                return Ok(Idle {
                    link,
                    wait: None,
                    since: now,
                });
            };
            let limit = idle.wait.map_or(FRESH, |wait| FRESH.min(wait / 2));
            if now.since(idle.since) < limit {
                return Ok(idle);
            }
        }
    }
}

/// Whole seconds, as the server counts. lockcore rounds up before.
pub(crate) fn seconds(ttl: Duration) -> u64 {
    ttl.as_secs().max(1)
}

/// The answer to one that was told to wait.
fn answered(place: &Place) -> Acquired {
    match place.standing() {
        Standing::Held(token, session) => granted(token, session),
        _ => Acquired::Busy(Busy::default()),
    }
}

pub(crate) fn granted(token: Token, session: Session) -> Acquired {
    Acquired::Granted(Grant::session(token, session))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use lockcore::{Kind, LockName, Namespace};

    use super::*;

    #[test]
    fn names_of_the_server_are_short_and_plain() {
        let name = |name: &str| {
            let name = LockName::new(name).unwrap();
            session_lock_name(&Resource::new(Namespace::default(), Kind::Mutex, name))
        };
        assert_eq!(name("a").len(), 55);
        assert!(
            name("a")
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == ':')
        );
        assert_ne!(name("a"), name("A"));
        assert_ne!(name("a"), name("a "));
    }
}
