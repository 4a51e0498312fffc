//! Taking, waiting, releasing, renewing: each is one statement.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use lockcore::driver::{Acquired, Busy, Grant, Intent, Lease, Occupant, Released, Renewal};
use lockcore::{AttemptId, Batches, Claim, DriverContext, Error, ErrorKind, Resource, Result, Token};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::batch::Batched;
use crate::error::classify;
use crate::pool::{Pool, statement};
use crate::push::hear;
use crate::schema::quoted;

/// After so many requests a few rows are looked at that may be of no more use.
const REQUESTS_PER_SWEEP: u32 = 256;
/// How many rows at a time.
const SWEPT_ROWS: i32 = 256;

/// The statements, with the name of the schema in them. Prepared once on each connection.
#[derive(Debug)]
pub(crate) struct Statements {
    acquire: Arc<str>,
    release: Arc<str>,
    pub(crate) take: Arc<str>,
    pub(crate) free: Arc<str>,
    renew: Arc<str>,
    sweep: Arc<str>,
    pub(crate) inspect: Arc<str>,
    pub(crate) list: Arc<str>,
    pub(crate) ping: Arc<str>,
}

impl Statements {
    pub(crate) fn new(schema: &str) -> Self {
        let fill = |sql: &str| Arc::from(sql.replace("{schema}", &quoted(schema)));
        Self {
            acquire: fill("SELECT * FROM {schema}.acquire($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"),
            release: fill("SELECT * FROM {schema}.release($1, $2, $3, $4, $5)"),
            take: fill(include_str!("sql/take.sql")),
            free: fill(include_str!("sql/free.sql")),
            renew: fill(include_str!("sql/renew.sql")),
            sweep: fill("SELECT {schema}.sweep($1, $2)"),
            inspect: fill(include_str!("sql/inspect.sql")),
            list: fill(include_str!("sql/list.sql")),
            ping: fill("SELECT EXISTS (SELECT FROM {schema}.lock WHERE key = '')"),
        }
    }
}

/// What every call needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) pool: Arc<Pool>,
    pub(crate) batches: Batches<Batched>,
    pub(crate) statements: Statements,
    pub(crate) context: DriverContext,
    /// The number of our listener; 0 while it is down.
    pub(crate) wake: Arc<AtomicI64>,
    pub(crate) queue: usize,
    pub(crate) requests: AtomicU32,
    /// Where the next sweep begins.
    pub(crate) swept: std::sync::Mutex<String>,
}

/// The key of a row: `namespace/kind/name`. None of the three has a slash.
pub(crate) fn key(resource: &Resource) -> String {
    let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
    format!("{namespace}/{kind}/{}", resource.key())
}

impl Shared {
    /// How others reach this process. Without a listener a waiter asks by itself, and is woken once it is back.
    fn wake(&self) -> Option<i64> {
        Some(self.wake.load(Ordering::Acquire)).filter(|wake| *wake != 0)
    }

    pub(crate) async fn acquire(self: &Arc<Self>, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let (waits, ticket) = match intent {
            Intent::Wait { ticket } => (true, ticket),
            _ => (false, None),
        };
        let alone = || self.ask(claim, waits, ticket);
        let acquired = self.batches.acquire(claim, intent, alone).await;
        self.count_for_sweep();
        acquired
    }

    async fn ask(&self, claim: &Claim, waits: bool, ticket: Option<u64>) -> Result<Acquired> {
        let (key, attempt) = (key(&claim.resource), claim.attempt.to_hex());
        let ticket = ticket.map(|ticket| i64::try_from(ticket).unwrap_or(i64::MAX).min(i64::MAX / 2));
        let queue = i64::try_from(self.queue).unwrap_or(i64::MAX);
        let wake = self.wake();
        let rows = self
            .pool
            .run(|| {
                statement(&self.statements.acquire)
                    .bind(&key)
                    .bind(&attempt)
                    .bind(micros(claim.ttl))
                    .bind(claim.details.as_bytes())
                    .bind(wake)
                    .bind(micros(claim.claim_window))
                    .bind(waits)
                    .bind(ticket)
                    .bind(micros(claim.waiter_ttl))
                    .bind(queue)
                    .bind(i64::from(claim.spare_tokens))
            })
            .await?;
        let row = only(&rows)?;
        self.tell(row)?;
        match get::<&str>(row, "outcome")? {
            "granted" => {
                let others: bool = get(row, "others")?;
                let grant = Grant::lease(token_of(get(row, "token")?), span(get(row, "left_us")?));
                let spare = if others { 0 } else { claim.spare_tokens };
                Ok(Acquired::Granted(grant.with_spare(spare)))
            }
            "full" => Err(Error::new(
                ErrorKind::Unavailable,
                format!("{} waiters stand in the lock's queue already", self.queue),
            )),
            _ => busy(row).map(Acquired::Busy),
        }
    }

    pub(crate) async fn release(self: &Arc<Self>, claim: &Claim) -> Result<Released> {
        let (key, attempt) = (key(&claim.resource), claim.attempt.to_hex());
        let alone = || self.give_up(&key, &attempt, claim.claim_window, false);
        self.batches.release(claim, alone).await
    }

    /// Frees what `attempt` has, or with `force` what anybody holds.
    pub(crate) async fn give_up(
        &self,
        key: &str,
        attempt: &str,
        window: Duration,
        force: bool,
    ) -> Result<Released> {
        let wake = self.wake();
        let rows = self
            .pool
            .run(|| {
                statement(&self.statements.release)
                    .bind(key)
                    .bind(attempt)
                    .bind(micros(window))
                    .bind(wake)
                    .bind(force)
            })
            .await?;
        let row = only(&rows)?;
        self.tell(row)?;
        Ok(if get(row, "was_held")? {
            Released::Released
        } else {
            Released::NotHeld
        })
    }

    pub(crate) async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut rows: Vec<_> = leases
            .iter()
            .map(|lease| {
                let token = i64::try_from(lease.token.get()).unwrap_or(i64::MAX);
                let attempt = lease.claim.attempt.to_hex();
                (key(&lease.claim.resource), attempt, token, micros(lease.ttl))
            })
            .collect();
        // In one order everywhere: batches that have a row in common do not deadlock.
        rows.sort_unstable();
        let (mut keys, mut attempts, mut tokens, mut ttls) = (vec![], vec![], vec![], vec![]);
        for (key, attempt, token, ttl) in rows {
            keys.push(key);
            attempts.push(attempt);
            tokens.push(token);
            ttls.push(ttl);
        }
        let wake = self.wake();
        let rows = self
            .pool
            .run(|| {
                statement(&self.statements.renew)
                    .bind(&keys)
                    .bind(&attempts)
                    .bind(&tokens)
                    .bind(&ttls)
                    .bind(wake)
            })
            .await?;
        let mut renewed = std::collections::HashSet::with_capacity(rows.len());
        for row in &rows {
            renewed.extend(AttemptId::from_hex(get(row, "owner")?));
        }
        let outcome = |lease: &Lease| {
            if renewed.contains(&lease.claim.attempt) {
                Renewal::Renewed
            } else {
                Renewal::NotHeld
            }
        };
        Ok(leases.iter().map(outcome).collect())
    }

    /// What concerns this process itself comes with the answer.
    fn tell(&self, row: &PgRow) -> Result<()> {
        for message in get::<Vec<String>>(row, "told")? {
            hear(&self.context.signals, &message);
        }
        Ok(())
    }

    fn count_for_sweep(self: &Arc<Self>) {
        if self.requests.fetch_add(1, Ordering::Relaxed) % REQUESTS_PER_SWEEP == REQUESTS_PER_SWEEP - 1 {
            let shared = Arc::clone(self);
            self.context.env.spawn(async move { shared.sweep().await });
        }
    }

    /// What fails here is done by a later sweep.
    pub(crate) async fn sweep(&self) {
        let from = self.swept().clone();
        let rows = self
            .pool
            .run(|| statement(&self.statements.sweep).bind(&from).bind(SWEPT_ROWS))
            .await;
        let next = rows.ok().and_then(|rows| rows.first()?.try_get(0).ok());
        *self.swept() = next.flatten().unwrap_or_default();
    }

    fn swept(&self) -> std::sync::MutexGuard<'_, String> {
        self.swept
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn busy(row: &PgRow) -> Result<Busy> {
    let left = get::<Option<i64>>(row, "left_us")?.map(span);
    let mut busy = match get::<Option<bool>>(row, "held")? {
        Some(true) => Busy::default().free_in(left).held_by(Some(occupant(row)?)),
        Some(false) => Busy::default().reserved(left),
        None => Busy::default(),
    };
    if let Some(ticket) = get::<Option<i64>>(row, "ticket")? {
        let ahead = count(get(row, "ahead")?);
        busy = busy.queued(ahead, u64::try_from(ticket).ok());
    }
    Ok(busy)
}

/// Who holds a lock, from a row with `details`, `token`, `left_us` and `since_us`.
pub(crate) fn occupant(row: &PgRow) -> Result<Occupant> {
    let details = String::from_utf8_lossy(get(row, "details")?);
    let since = span(get(row, "since_us")?);
    let left: Option<i64> = get(row, "left_us")?;
    Ok(Occupant::new(&*details, token_of(get(row, "token")?))
        .remaining(left.map(span))
        .since(UNIX_EPOCH.checked_add(since)))
}

pub(crate) fn count(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or(0)
}

pub(crate) fn token_of(value: i64) -> Token {
    Token::new(u64::try_from(value).unwrap_or(0))
}

pub(crate) fn span(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

/// In whole microseconds, rounded up. The longest durations that lockcore allows are days.
pub(crate) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(i64::MAX / 4)
}

pub(crate) fn only(rows: &[PgRow]) -> Result<&PgRow> {
    rows.first()
        .ok_or_else(|| Error::new(ErrorKind::Internal, "the server gave no answer"))
}

pub(crate) fn get<'r, T>(row: &'r PgRow, column: &str) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(classify)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn microseconds_are_rounded_up() {
        for (nanos, expected) in [(0, 0), (1, 1), (1_000, 1), (1_001, 2)] {
            assert_eq!(micros(Duration::from_nanos(nanos)), expected);
        }
    }
}
