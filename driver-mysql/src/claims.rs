//! The mode `lease`: taking, waiting, releasing.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use lockcore::driver::{Acquired, Busy, Grant, Intent, Occupant, Released};
use lockcore::{AttemptId, Batches, Claim, DriverContext, Resource, Result, Supervisor, Token};
use sqlx::mysql::MySqlRow;

use crate::batch::{MOST, Scripted};
use crate::doorbell::{Bell, Hanger};
use crate::pool::Pool;
use crate::script::{Statement, Value, answer, fill, get, text};
use crate::sweep::Sweep;

static TAKE: LazyLock<Statement> = LazyLock::new(|| Statement::new(include_str!("sql/take.sql")));
static FREE: LazyLock<Statement> = LazyLock::new(|| Statement::new(include_str!("sql/free.sql")));
const LOOK: &str = include_str!("sql/look.sql");
const CLAIM: &str = include_str!("sql/claim.sql");
const ENQUEUE: &str = include_str!("sql/enqueue.sql");
const ACQUIRE: &str = include_str!("sql/acquire.sql");
const RELEASE: &str = include_str!("sql/release.sql");

/// By how much a waiter that stands by looks later than the end of the reservation before it.
const STANDBY_SLACK: Duration = Duration::from_millis(5);

/// The locks of one driver.
#[derive(Debug)]
pub(crate) struct Leases {
    pub(crate) pool: Pool,
    batches: Batches<Scripted>,
    pub(crate) context: DriverContext,
    pub(crate) bell: Arc<Bell>,
    /// Keeps the doorbell; `None` where waiters ask by themselves.
    pub(crate) doorbell: Option<Supervisor<Hanger>>,
    /// Who holds a lock that others wait for, as far as we know: the short way of a release would be in vain.
    contended: Mutex<HashSet<AttemptId>>,
    pub(crate) sweep: Sweep,
}

/// The name in a row: `namespace/kind/name`. None of the three has a slash.
pub(crate) fn key(resource: &Resource) -> String {
    let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
    format!("{namespace}/{kind}/{}", resource.key())
}

impl Leases {
    pub(crate) fn new(
        pool: Pool,
        context: DriverContext,
        bell: Arc<Bell>,
        doorbell: Option<Supervisor<Hanger>>,
    ) -> Self {
        let batch = Scripted(pool.clone());
        Self {
            batches: Batches::over_connections(&context.env, batch, pool.limit(), MOST),
            pool,
            context,
            bell,
            doorbell,
            contended: Mutex::default(),
            sweep: Sweep::default(),
        }
    }

    pub(crate) async fn acquire(self: &Arc<Self>, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let key = key(&claim.resource);
        let (waits, ticket) = match intent {
            Intent::Wait { ticket } => (true, ticket),
            _ => (false, None),
        };
        let alone = async || match ticket {
            Some(_) => self.come_back(claim, &key, ticket).await,
            None => self.take(claim, &key, waits).await,
        };
        let acquired = self.batches.acquire(claim, intent, alone).await;
        self.written(&key);
        acquired
    }

    async fn take(&self, claim: &Claim, key: &str, waits: bool) -> Result<Acquired> {
        let take = TAKE.with(&[
            ("key", Value::Bytes(key.as_bytes())),
            ("me", Value::Attempt(claim.attempt)),
            ("ttl", Value::Micros(claim.ttl)),
            ("details", Value::Bytes(claim.details.as_bytes())),
            ("spare", Value::Number(claim.spare_tokens.into())),
        ]);
        let taken = self.pool.run(take).await?;
        if let Some(token) = taken
            .first()
            .map(|reply| reply.last_insert_id)
            .filter(|id| *id > 0)
        {
            return Ok(granted(token, claim.ttl, claim.spare_tokens));
        }
        if !waits && let Some(acquired) = self.look(claim, key).await? {
            return Ok(acquired);
        }
        self.ask(claim, key, waits, None).await
    }

    /// Of one who stands in the queue: most likely its turn has come.
    async fn come_back(&self, claim: &Claim, key: &str, ticket: Option<u64>) -> Result<Acquired> {
        let values = [
            ("key", Value::Bytes(key.as_bytes())),
            ("me", Value::Attempt(claim.attempt)),
            ("ttl", Value::Micros(claim.ttl)),
            ("details", Value::Bytes(claim.details.as_bytes())),
        ];
        let replies = self.pool.run(fill(CLAIM, &values)).await?;
        let token = replies
            .iter()
            .map(|reply| reply.last_insert_id)
            .find(|id| *id > 0);
        let Some(token) = token else {
            return self.ask(claim, key, true, ticket).await;
        };
        self.contended(|held| held.insert(claim.attempt));
        Ok(granted(token, claim.ttl, 0))
    }

    /// For a try that was refused: who holds the lock. `None` when nobody does.
    async fn look(&self, claim: &Claim, key: &str) -> Result<Option<Acquired>> {
        let values = [
            ("key", Value::Bytes(key.as_bytes())),
            ("me", Value::Attempt(claim.attempt)),
        ];
        let replies = self.pool.run(fill(LOOK, &values)).await?;
        let Some(row) = replies.first().and_then(|reply| reply.rows.first()) else {
            return Ok(None);
        };
        let (ours, left, held): (i64, i64, i64) = (get(row, 0)?, get(row, 2)?, get(row, 3)?);
        if left <= 0 {
            return Ok(None);
        }
        let left = duration(left);
        if ours == 1 && held == 1 {
            return Ok(Some(granted(get(row, 1)?, left, 0)));
        }
        let busy = if held == 1 {
            let holder = occupant(row, [4, 1, 2, 5])?;
            Busy::default().free_in(Some(left)).held_by(Some(holder))
        } else {
            Busy::default().reserved(Some(left))
        };
        Ok(Some(Acquired::Busy(busy)))
    }

    async fn ask(&self, claim: &Claim, key: &str, waits: bool, ticket: Option<u64>) -> Result<Acquired> {
        let name = self.bell.name();
        if waits {
            self.bell.listen();
        }
        let values = [
            ("key", Value::Bytes(key.as_bytes())),
            ("me", Value::Attempt(claim.attempt)),
            ("ttl", Value::Micros(claim.ttl)),
            ("details", Value::Bytes(claim.details.as_bytes())),
            ("waits", Value::Number(waits.into())),
            // One that no clock gave must leave room for those behind it.
            (
                "ticket",
                ticket.map_or(Value::Null, |ticket| Value::Number(ticket.min(1 << 62))),
            ),
            ("life", Value::Micros(claim.waiter_ttl)),
            ("spare", Value::Number(claim.spare_tokens.into())),
            ("wake", name.as_deref().map_or(Value::Null, Value::Word)),
        ];
        let mut replies = Vec::new();
        if waits {
            replies = self.pool.run(fill(ENQUEUE, &values)).await?;
        }
        if replies.iter().all(|reply| reply.rows.is_empty()) {
            replies = self.pool.run(fill(ACQUIRE, &values)).await?;
        }
        let row = answer(&replies)?;
        let left = get::<i64>(row, 2)?;
        let others = get::<i64>(row, 8)? == 1;
        if get::<i64>(row, 0)? == 1 {
            if others {
                self.contended(|held| held.insert(claim.attempt));
            }
            // A grant before this call is not prolonged by it.
            let spare = if others { 0 } else { claim.spare_tokens };
            return Ok(granted(get(row, 1)?, duration(left), spare));
        }
        let mut busy = Busy::default();
        if left > 0 && get::<i64>(row, 3)? == 1 {
            let holder = occupant(row, [4, 1, 2, 5])?;
            busy = busy.free_in(Some(duration(left))).held_by(Some(holder));
        } else if left > 0 {
            busy = busy.reserved(Some(duration(left)));
        } else if get::<i64>(row, 9)? == 1 {
            // Free, and somebody comes first: it may not know.
            self.give_up(key, None, claim.claim_window).await?;
            busy = busy.reserved(Some(claim.claim_window));
        }
        if let Some(ticket) = get::<Option<u64>>(row, 6)? {
            busy = busy.queued(get(row, 7)?, Some(ticket));
        }
        Ok(Acquired::Busy(busy))
    }

    pub(crate) async fn release(self: &Arc<Self>, claim: &Claim) -> Result<Released> {
        let key = key(&claim.resource);
        let released = if self.contended(|held| held.remove(&claim.attempt)) {
            self.give_up(&key, Some(claim.attempt), claim.claim_window).await
        } else {
            self.batches.release(claim, || self.free(claim, &key)).await
        };
        self.written(&key);
        released
    }

    async fn free(&self, claim: &Claim, key: &str) -> Result<Released> {
        let values = [
            ("key", Value::Bytes(key.as_bytes())),
            ("me", Value::Attempt(claim.attempt)),
        ];
        let freed = self.pool.run(FREE.with(&values)).await?;
        match freed.first().map(|reply| reply.last_insert_id) {
            Some(2) => Ok(Released::Released),
            Some(1) => Ok(Released::NotHeld),
            _ => self.give_up(key, Some(claim.attempt), claim.claim_window).await,
        }
    }

    /// Frees whatever `attempt` has of `key`, and calls the next ones to go on.
    pub(crate) async fn give_up(
        &self,
        key: &str,
        attempt: Option<AttemptId>,
        window: Duration,
    ) -> Result<Released> {
        let script = fill(
            RELEASE,
            &[
                ("key", Value::Bytes(key.as_bytes())),
                ("me", attempt.map_or(Value::Bytes(b""), Value::Attempt)),
                ("window", Value::Micros(window)),
                ("slack", Value::Micros(STANDBY_SLACK)),
            ],
        );
        let replies = self.pool.run(script).await?;
        let row = answer(&replies)?;
        let mut after = String::new();
        for bell in text(row, 1)?.unwrap_or_default().split(',') {
            if let Ok(id) = bell.parse::<u64>() {
                write!(after, "KILL QUERY {id};").unwrap_or_default();
            }
        }
        bury(&text(row, 2)?.unwrap_or_default(), &mut after);
        if !after.is_empty() {
            // One that fails is made up for: a doorbell looks by itself every other second, and so do those who stand by.
            self.pool.try_run(after).await.ok();
        }
        Ok(match get::<i64>(row, 0)? {
            2 => Released::Released,
            _ => Released::NotHeld,
        })
    }

    fn contended(&self, change: impl FnOnce(&mut HashSet<AttemptId>) -> bool) -> bool {
        change(&mut self.contended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// After a write about `key`: now and then there is something to clear up.
    fn written(self: &Arc<Self>, key: &str) {
        if self.sweep.is_due() {
            let (leases, key) = (Arc::clone(self), key.to_owned());
            self.context
                .env
                .spawn(async move { leases.sweep.run(&leases.pool, &key).await });
        }
    }
}

/// Statements that remove dead waiters, from `attempt=doorbell,..`, of which the last may be cut short. Who has hung up
/// another doorbell meanwhile lives.
fn bury(dead: &str, script: &mut String) {
    for waiter in dead.split(',') {
        let Some((attempt, wake)) = waiter.split_once('=') else {
            continue;
        };
        let Some(attempt) = AttemptId::from_hex(attempt) else {
            continue;
        };
        let attempt = attempt.to_hex();
        write!(
            script,
            "DELETE FROM leasehold_waiter WHERE attempt = x'{attempt}'"
        )
        .unwrap_or_default();
        match wake.strip_prefix("leasehold-").and_then(AttemptId::from_hex) {
            Some(bell) => {
                write!(script, " AND wake = 'leasehold-{}';", bell.to_hex()).unwrap_or_default();
            }
            None if wake.is_empty() => script.push_str(" AND wake IS NULL;"),
            None => script.push_str(" AND deadline = 0;"),
        }
    }
}

pub(crate) fn granted(token: u64, ttl: Duration, spare: u32) -> Acquired {
    Acquired::Granted(Grant::lease(Token::new(token), ttl).with_spare(spare))
}

/// Who holds a lock, from a row's columns for details, token, time left and time of the grant.
pub(crate) fn occupant(row: &MySqlRow, columns: [usize; 4]) -> Result<Occupant> {
    let [details, token, left, since] = columns;
    let details = text(row, details)?.unwrap_or_default();
    let since = Duration::from_micros(get(row, since)?);
    Ok(Occupant::new(details, Token::new(get(row, token)?))
        .remaining(Some(duration(get(row, left)?)))
        .since(UNIX_EPOCH.checked_add(since)))
}

pub(crate) fn duration(micros: i64) -> Duration {
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_buried_by_their_doorbell() {
        let (a, b) = ("0".repeat(31) + "a", "0".repeat(31) + "b");
        let mut script = String::new();
        bury(&format!("{a}=leasehold-{b},{b}=,{a}=leaseh,zz=,"), &mut script);
        let begin = "DELETE FROM leasehold_waiter WHERE attempt =";
        assert_eq!(
            script,
            format!(
                "{begin} x'{a}' AND wake = 'leasehold-{b}';{begin} x'{b}' AND wake IS NULL;{begin} x'{a}' AND deadline = 0;"
            )
        );
    }

    #[test]
    fn durations_of_the_server() {
        assert_eq!(duration(-5), Duration::ZERO);
        assert_eq!(duration(7), Duration::from_micros(7));
    }
}
