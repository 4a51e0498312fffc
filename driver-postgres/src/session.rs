//! The mode `session`: a lock is an advisory lock of a connection that it has for itself.
//!
//! The connection's `idle_session_timeout` is the lock's TTL, so the server ends a lock whose process gives no sign of life;
//! a task for each lock does that. Who waits does so in the server, with the claim window as the timeout: a stopped
//! process that is granted the lock loses it soon.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockcore::driver::{Acquired, Busy, Grant, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    AttemptId, Capabilities, Claim, Driver, DriverContext, Error, ErrorKind, Instant, Kind, Namespace,
    Resource, Result, Supervisor,
};
use sqlx::postgres::PgRow;
use tokio::sync::Semaphore;

mod keeper;
mod lane;

use crate::claims::{count, get, key, micros, occupant, only, span, token_of};
use crate::config::PostgresConfig;
use crate::driver::{SESSION_CAPABILITIES, only_mutexes};
use crate::listener::Connector;
use crate::looks::range;
use crate::pool::{Access, Pool, Statement, statement};
use crate::schema::quoted;
use keeper::{Held, Kept, Waiting};
use lane::Lane;

/// Connections for everything that is not a lock, besides the one that listens.
const COMMON_CONNECTIONS: usize = 2;
/// How many requests for locks are under way at a time.
const TURNS: usize = 8;
/// How many connections without a lock are kept for the next one.
const IDLE_CONNECTIONS: usize = 4;

#[derive(Debug)]
pub(crate) struct Statements {
    acquire: Arc<str>,
    release: Arc<str>,
    alive: Arc<str>,
    wait: Arc<str>,
    queued: Arc<str>,
    revoke: Arc<str>,
    owner: Arc<str>,
    inspect: Arc<str>,
    list: Arc<str>,
    ping: Arc<str>,
    end: Arc<str>,
    force_end: Arc<str>,
}

impl Statements {
    fn new(schema: &str) -> Self {
        let fill = |sql: &str| Arc::from(sql.replace("{schema}", &quoted(schema)));
        Self {
            acquire: fill("SELECT * FROM {schema}.session_acquire($1, $2, $3, $4, $5, $6, $7)"),
            release: fill("SELECT {schema}.session_release($1, $2, $3)"),
            alive: fill("SELECT 1"),
            // Who is granted the lock and does not come for it loses it with its connection.
            wait: fill(
                "SELECT set_config('idle_session_timeout', ($2 / 1000 + 1)::text, false), pg_advisory_lock($1)",
            ),
            queued: fill("SELECT {schema}.session_queued($1, $2)"),
            revoke: fill("SELECT {schema}.session_revoke($1)"),
            owner: fill("SELECT owner = $2 AS is_ours FROM {schema}.lock WHERE key = $1"),
            inspect: fill(include_str!("sql/session_inspect.sql")),
            list: fill(include_str!("sql/session_list.sql")),
            ping: fill("SELECT EXISTS (SELECT FROM {schema}.lock WHERE key = '')"),
            end: fill("SELECT pg_terminate_backend($1)"),
            // The holder's process hears of it first, and why.
            force_end: fill("SELECT pg_terminate_backend($1) FROM pg_sleep(0.05)"),
        }
    }
}

/// Locks that live by connections.
#[derive(Debug)]
pub(crate) struct SessionDriver {
    sessions: Arc<Sessions>,
    supervisor: Supervisor<Connector>,
}

/// What one attempt has. Calls for one attempt take turns.
#[derive(Debug, Default)]
struct Line(tokio::sync::Mutex<State>);

#[derive(Debug, Default)]
enum State {
    #[default]
    Nothing,
    Waiting(Waiting),
    Held(Held),
}

#[derive(Debug)]
struct Sessions {
    access: Arc<Access>,
    pool: Arc<Pool>,
    statements: Statements,
    context: DriverContext,
    wake: Arc<AtomicI64>,
    /// One for each connection that holds a lock or waits.
    places: Arc<Semaphore>,
    /// So many ask for a lock at a time: what comes back after an outage shares connections rather than open one each.
    turns: Semaphore,
    lines: Mutex<HashMap<AttemptId, Arc<Line>>>,
    idle: Mutex<Vec<Lane>>,
}

impl Drop for SessionDriver {
    /// Keepers hold on to what they need until their locks are gone.
    fn drop(&mut self) {
        self.sessions.places.close();
        self.sessions.lines().clear();
        self.sessions.idle().clear();
    }
}

impl SessionDriver {
    pub(crate) async fn connect(config: PostgresConfig, context: DriverContext) -> Result<Self> {
        let statements = Statements::new(&config.schema);
        let places = Arc::new(Semaphore::new(config.connections));
        let access = Arc::new(Access::new(config, context.env.clone()));
        let pool = Arc::new(Pool::new(Arc::clone(&access), COMMON_CONNECTIONS));
        let wake = Arc::<AtomicI64>::default();
        pool.warm().await?;
        let connector = Connector {
            access: Arc::clone(&access),
            context: context.clone(),
            pool: Arc::clone(&pool),
            wake: Arc::clone(&wake),
        };
        let supervisor = Supervisor::start(&context, connector).await?;
        let sessions = Arc::new(Sessions {
            access,
            pool,
            statements,
            context,
            wake,
            places,
            turns: Semaphore::new(TURNS),
            lines: Mutex::default(),
            idle: Mutex::default(),
        });
        Ok(Self { sessions, supervisor })
    }

    /// Runs `call` to its end even if the caller goes away.
    async fn call<T, F>(&self, call: impl FnOnce(Arc<Sessions>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let sessions = Arc::clone(&self.sessions);
        self.sessions.context.env.to_the_end(call(sessions)).await
    }
}

impl Sessions {
    fn acquire_statement<'q>(&'q self, claim: &Claim, has: bool) -> Statement<'q> {
        let wake = Some(self.wake.load(Ordering::Acquire)).filter(|wake| *wake != 0);
        statement(&self.statements.acquire)
            .bind(key(&claim.resource))
            .bind(claim.attempt.to_hex())
            .bind(micros(claim.ttl))
            .bind(claim.details.as_bytes().to_vec())
            .bind(wake)
            .bind(has)
            .bind(i64::from(claim.spare_tokens))
    }

    async fn acquire(self: Arc<Self>, claim: Claim, intent: Intent) -> Result<Acquired> {
        let waits = matches!(intent, Intent::Wait { .. });
        let line = if waits {
            Arc::clone(self.lines().entry(claim.attempt).or_default())
        } else {
            // What is refused leaves nothing behind.
            let line = self.lines().get(&claim.attempt).cloned();
            line.unwrap_or_default()
        };
        let mut state = line.0.lock().await;
        let (lane, rows, sent) = match std::mem::take(&mut *state) {
            State::Held(held) if !held.session.is_lost() => {
                let grant = Grant::session(held.token, held.session.clone());
                *state = State::Held(held);
                return Ok(Acquired::Granted(grant));
            }
            State::Waiting(waiting) if !waiting.is_over() => {
                // The server may have lost its end of the connection without ours noticing.
                match self.is_queued(&claim, waiting.pid).await {
                    Ok(false) => {}
                    other => {
                        *state = State::Waiting(waiting);
                        return other.map(|_| Acquired::Busy(Busy::default().queued(0, None)));
                    }
                }
                // What is left of it would stand in the queue for nothing.
                self.leave(waiting).await;
                self.begin(&claim).await?
            }
            State::Waiting(waiting) => match waiting.into_lane() {
                Some(mut lane) => {
                    let sent = self.context.env.now();
                    let claimed = lane.ask(&self.access, self.acquire_statement(&claim, true));
                    match claimed.await {
                        Ok(rows) => (lane, rows, sent),
                        // The turn was missed, or the connection broke: a new place.
                        Err(_) => self.begin(&claim).await?,
                    }
                }
                None => self.begin(&claim).await?,
            },
            _ => self.begin(&claim).await?,
        };
        let row = only(&rows)?;
        match get::<&str>(row, "outcome")? {
            "granted" => {
                let token = token_of(get(row, "token")?);
                let kept = Kept {
                    key: key(&claim.resource),
                    attempt: claim.attempt,
                    ttl: claim.ttl,
                    token,
                    sent,
                };
                let held = Held::keep(&self, lane, kept);
                let others: bool = get(row, "others")?;
                let spare = if others { 0 } else { claim.spare_tokens };
                let grant = Grant::session(token, held.session.clone()).with_spare(spare);
                *state = State::Held(held);
                drop(state);
                self.lines().insert(claim.attempt, line);
                Ok(Acquired::Granted(grant))
            }
            "busy" => {
                let busy = busy(row, waits)?;
                if waits {
                    let (number, pid) = (get(row, "number")?, get(row, "pid")?);
                    *state = State::Waiting(Waiting::start(&self, lane, number, pid, &claim));
                    if let Err(error) = self.is_queued(&claim, pid).await {
                        tracing::debug!(%error, "a waiter was not seen in the queue");
                    }
                } else {
                    self.park(lane);
                }
                Ok(Acquired::Busy(busy))
            }
            _ => {
                // Free only later; lockcore asks again then.
                self.park(lane);
                let left = get::<Option<i64>>(row, "left_us")?.map(span);
                Ok(Acquired::Busy(Busy::default().queued(0, None).free_in(left)))
            }
        }
    }

    /// Does the server have the connection in its queue, or gave it the lock? Waits a moment for that: who asks later
    /// comes later.
    async fn is_queued(&self, claim: &Claim, pid: i32) -> Result<bool> {
        let key = key(&claim.resource);
        let queued = || statement(&self.statements.queued).bind(&key).bind(pid);
        let rows = self.pool.run(queued).await?;
        get(only(&rows)?, "session_queued")
    }

    /// Asks for the lock on a connection that nobody uses.
    async fn begin(&self, claim: &Claim) -> Result<(Lane, Vec<PgRow>, Instant)> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "all {} connections hold a lock or wait for one: raise the URL's connections, and with it the server's \
                     max_connections, or use mode=lease",
                    self.access.config.connections
                ),
            )
        })?;
        let _turn = self.turns.acquire().await;
        let idle = self.idle().pop();
        if let Some(mut lane) = idle {
            lane.place = Some(place);
            let sent = self.context.env.now();
            match lane.ask(&self.access, self.acquire_statement(claim, false)).await {
                Ok(rows) => return Ok((lane, rows, sent)),
                Err(failed) if failed.cut => {}
                Err(failed) => return Err(failed.into()),
            }
            // Others that were idle have most likely ended too.
            self.idle().clear();
            let place = lane.place.take();
            return self.fresh(claim, place).await;
        }
        self.fresh(claim, Some(place)).await
    }

    async fn fresh(
        &self,
        claim: &Claim,
        place: Option<tokio::sync::OwnedSemaphorePermit>,
    ) -> Result<(Lane, Vec<PgRow>, Instant)> {
        let mut lane = Lane::open(&self.access, place).await?;
        let sent = self.context.env.now();
        let rows = lane
            .ask(&self.access, self.acquire_statement(claim, false))
            .await?;
        Ok((lane, rows, sent))
    }

    /// Keeps a connection without a lock for the next one.
    fn park(&self, mut lane: Lane) {
        if lane.is_broken() {
            return;
        }
        lane.place = None;
        let mut idle = self.idle();
        if !self.places.is_closed() && idle.len() < IDLE_CONNECTIONS {
            idle.push(lane);
        }
    }

    async fn release(self: Arc<Self>, claim: Claim) -> Result<Released> {
        let Some(line) = self.lines().remove(&claim.attempt) else {
            return Ok(Released::NotHeld);
        };
        let mut state = line.0.lock().await;
        match std::mem::take(&mut *state) {
            State::Held(held) => held.release().await,
            State::Waiting(waiting) => {
                self.leave(waiting).await;
                Ok(Released::NotHeld)
            }
            State::Nothing => Ok(Released::NotHeld),
        }
    }

    /// Leaves the queue.
    async fn leave(&self, waiting: Waiting) {
        // Its server process does not look at its connection while it waits.
        if !waiting.is_over()
            && let Err(error) = self.end(waiting.pid, &self.statements.end).await
        {
            // It is closed as soon as it is granted the lock.
            tracing::debug!(%error, "a waiter could not be ended");
        }
    }

    /// Ends a connection at the server.
    async fn end(&self, pid: i32, by: &Arc<str>) -> Result<()> {
        self.pool.run(|| statement(by).bind(pid)).await.map(drop)
    }

    /// Looks whether the locks are there. Their connections are kept alive by their keepers.
    async fn renew(self: Arc<Self>, leases: Vec<Lease>) -> Result<Vec<Renewal>> {
        let mut looks = Vec::with_capacity(leases.len());
        for lease in leases {
            let sessions = Arc::clone(&self);
            looks.push(self.context.env.spawn(async move { sessions.look(&lease).await }));
        }
        let mut answers = Vec::with_capacity(looks.len());
        for look in looks {
            answers.push(look.await.unwrap_or(Renewal::Unknown));
        }
        Ok(answers)
    }

    async fn look(&self, lease: &Lease) -> Renewal {
        let line = self.lines().get(&lease.claim.attempt).cloned();
        let Some(line) = line else {
            return Renewal::NotHeld;
        };
        let state = line.0.lock().await;
        match &*state {
            State::Held(held) if held.token == lease.token && held.look().await => Renewal::Renewed,
            _ => Renewal::NotHeld,
        }
    }

    fn lines(&self) -> MutexGuard<'_, HashMap<AttemptId, Arc<Line>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Lane>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn busy(row: &PgRow, waits: bool) -> Result<Busy> {
    let mut busy = Busy::default();
    if get::<Option<i64>>(row, "token")?.is_some() {
        busy = busy.held_by(Some(occupant(row)?));
    }
    if waits {
        busy = busy.queued(0, None);
    }
    Ok(busy)
}

impl Driver for SessionDriver {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn capabilities(&self) -> Capabilities {
        SESSION_CAPABILITIES
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        only_mutexes(&claim.resource)?;
        let claim = claim.clone();
        self.call(move |sessions| sessions.acquire(claim, intent)).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        only_mutexes(&claim.resource)?;
        let claim = claim.clone();
        self.call(move |sessions| sessions.release(claim)).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let leases = leases.to_vec();
        self.call(move |sessions| sessions.renew(leases)).await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        let key = key(resource);
        self.call(move |sessions| async move {
            let rows = sessions
                .pool
                .run(|| statement(&sessions.statements.inspect).bind(&key))
                .await?;
            let row = only(&rows)?;
            let held = get::<Option<&str>>(row, "owner")?.is_some();
            let holders = held.then(|| occupant(row)).transpose()?;
            Ok(Inspection::new(
                holders.into_iter().collect(),
                count(get(row, "waiters")?),
            ))
        })
        .await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        let (first, last) = range(namespace, Kind::Mutex, prefix);
        self.call(move |sessions| async move {
            let list = || statement(&sessions.statements.list).bind(&first).bind(&last);
            let rows = sessions.pool.run(list).await?;
            crate::looks::listed(&rows)
        })
        .await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        let key = key(resource);
        self.call(move |sessions| async move {
            let rows = sessions
                .pool
                .run(|| statement(&sessions.statements.revoke).bind(&key))
                .await?;
            let Some(pid) = get::<Option<i32>>(only(&rows)?, "session_revoke")? else {
                return Ok(false);
            };
            sessions
                .end(pid, &sessions.statements.force_end)
                .await
                .map(|()| true)
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.call(|sessions| async move {
            sessions
                .pool
                .run(|| statement(&sessions.statements.ping))
                .await
                .map(drop)
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        self.supervisor.close();
        self.call(|sessions| async move {
            sessions.places.close();
            sessions.lines().clear();
            sessions.idle().clear();
            sessions.pool.close().await;
            Ok(())
        })
        .await
    }
}
