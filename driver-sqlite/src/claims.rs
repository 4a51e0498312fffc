//! Taking, waiting, releasing: each is one transaction, and at most one more for every dead waiter that it meets.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use lockcore::driver::{Acquired, Busy, Grant, Intent, Occupant, Released};
use lockcore::{AttemptId, Claim, DriverContext, Error, ErrorKind, Resource, Result, Token};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use crate::database::{Answer, Database, Value};
use crate::error::classify;
use crate::schema::OTHER_MACHINE;
use crate::wake::{Message, Sent, Wake};

const TAKE: &str = include_str!("sql/take.sql");
const ACQUIRE: &str = include_str!("sql/acquire.sql");
const FREE: &str = include_str!("sql/free.sql");
const RELEASE: &str = include_str!("sql/release.sql");

/// By how much a waiter that stands by looks later than the end of the reservation before it.
const STANDBY_SLACK: Duration = Duration::from_millis(5);

/// What every call needs.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) database: Arc<Database>,
    pub(crate) wake: Wake,
    pub(crate) context: DriverContext,
}

/// The key of a row: `namespace/kind/name`. None of the three has a slash.
pub(crate) fn key(resource: &Resource) -> Arc<str> {
    let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
    format!("{namespace}/{kind}/{}", resource.key()).into()
}

/// A waiter at the front of a queue.
#[derive(Debug)]
struct Head {
    attempt: String,
    wake: Option<String>,
}

impl Head {
    /// A row that no driver wrote is as good as dead.
    fn send(&self, wake: &Wake, message: impl FnOnce(AttemptId) -> Message) -> Sent {
        AttemptId::from_hex(&self.attempt).map_or(Sent::Dead, |attempt| {
            wake.send(self.wake.as_deref(), message(attempt))
        })
    }
}

impl Shared {
    pub(crate) async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let database = &self.database;
        let (key, attempt) = (key(&claim.resource), claim.attempt.to_hex());
        let mut values: Vec<Value> = vec![
            (&key).into(),
            attempt.into(),
            nanos(claim.ttl).into(),
            database.wall_micros().into(),
            (&claim.details).into(),
            database.clock.boot.as_str().into(),
            self.wake.address().as_ref().into(),
            i64::from(claim.spare_tokens).into(),
        ];
        let (waits, ticket) = match intent {
            Intent::Wait { ticket } => (true, ticket),
            _ => (false, None),
        };
        if ticket.is_none() {
            let taken = database.write(TAKE, &values).await?;
            if let Some(row) = taken.rows.first() {
                return Ok(granted(get(row, 0)?, claim.ttl, claim.spare_tokens));
            }
        }
        values.extend([
            i64::from(waits).into(),
            ticket.map(clock_reading).into(),
            nanos(claim.waiter_ttl).into(),
            nanos(claim.claim_window).into(),
            Value::Null,
        ]);
        loop {
            let answer = database.write(ACQUIRE, &values).await?;
            let dead = self.announce(&answer, claim.claim_window)?;
            let Some(dead) = dead else {
                return acquired(claim.spare_tokens, waits, &answer);
            };
            // It may be our turn now.
            if let Some(last) = values.last_mut() {
                *last = dead.into();
            }
        }
    }

    pub(crate) async fn release(&self, claim: &Claim) -> Result<Released> {
        self.give_up(&key(&claim.resource), &claim.attempt.to_hex(), claim.claim_window)
            .await
    }

    /// Frees whatever `attempt` has of `key`, and lets the next one go on.
    pub(crate) async fn give_up(&self, key: &Arc<str>, attempt: &str, window: Duration) -> Result<Released> {
        let database = &self.database;
        let mut values: Vec<Value> = vec![key.into(), attempt.into()];
        let freed = database.write(FREE, &values).await?;
        if let Some(row) = freed.rows.first() {
            return Ok(released(get(row, 0)?));
        }
        let boot = database.clock.boot.as_str().into();
        values.extend([nanos(window).into(), boot, Value::Null]);
        let answer = database.write(RELEASE, &values).await?;
        let mut outcome = Released::NotHeld;
        for row in tagged(&answer, "answer") {
            outcome = released(get(row?, 1)?);
        }
        let mut dead = self.announce(&answer, window)?;
        while let Some(waiter) = dead {
            if let Some(last) = values.last_mut() {
                *last = waiter.into();
            }
            // The lock is free already. If this fails, the reservation runs out, and those who stand by go on.
            let Ok(answer) = database.write(RELEASE, &values).await else {
                break;
            };
            dead = self.announce(&answer, window)?;
        }
        Ok(outcome)
    }

    /// Tells the head of a queue that the lock is reserved for it, and the ones behind it to stand by for the case that
    /// it is stopped. Gives the head when its process is gone.
    fn announce(&self, answer: &Answer, window: Duration) -> Result<Option<String>> {
        let mut heads = Vec::new();
        for row in tagged(answer, "head") {
            let row = row?;
            let (attempt, wake) = (get(row, 1)?, get(row, 2)?);
            heads.push(Head { attempt, wake });
        }
        let mut heads = heads.into_iter();
        let Some(first) = heads.next() else {
            return Ok(None);
        };
        for (place, other) in (1_u32..).zip(heads) {
            let delay = window.saturating_mul(place).saturating_add(STANDBY_SLACK * place);
            other.send(&self.wake, |attempt| Message::stand_by(attempt, delay));
        }
        let sent = first.send(&self.wake, Message::Look);
        Ok((sent == Sent::Dead).then_some(first.attempt))
    }
}

fn acquired(spare: u32, waits: bool, answer: &Answer) -> Result<Acquired> {
    let Some(row) = tagged(answer, "answer").next().transpose()? else {
        return Err(Error::new(
            ErrorKind::Internal,
            "the database lost its row of settings: stop its users and remove it",
        ));
    };
    if !get::<bool>(row, 1)? {
        return Err(Error::new(ErrorKind::Unsupported, OTHER_MACHINE));
    }
    let left = get::<Option<i64>>(row, 4)?.map(|expires| until(answer.now, expires));
    if get::<Option<bool>>(row, 2)? == Some(true) {
        let others: bool = get(row, 10)?;
        let spare = if others { 0 } else { spare };
        return Ok(granted(get(row, 3)?, left.unwrap_or_default(), spare));
    }
    let mut busy = match get::<Option<bool>>(row, 5)? {
        Some(true) => {
            let holder = occupant(row, answer.now, [6, 3, 4, 7])?;
            Busy::default().free_in(left).held_by(Some(holder))
        }
        Some(false) => Busy::default().reserved(left),
        None => Busy::default(),
    };
    if waits && let Some(ticket) = get::<Option<i64>>(row, 8)? {
        let ahead: i64 = get(row, 9)?;
        busy = busy.queued(u64::try_from(ahead).unwrap_or(0), u64::try_from(ticket).ok());
    }
    Ok(Acquired::Busy(busy))
}

fn granted(token: i64, ttl: Duration, spare: u32) -> Acquired {
    Acquired::Granted(Grant::lease(token_of(token), ttl).with_spare(spare))
}

fn released(held: bool) -> Released {
    if held {
        Released::Released
    } else {
        Released::NotHeld
    }
}

/// Who holds a lock, from a row's columns for details, token, expiry and time of the grant.
pub(crate) fn occupant(row: &SqliteRow, now: i64, columns: [usize; 4]) -> Result<Occupant> {
    let [details, token, expires, since] = columns;
    let details: String = get(row, details)?;
    let since = u64::try_from(get::<i64>(row, since)?).unwrap_or(0);
    Ok(Occupant::new(details, token_of(get(row, token)?))
        .remaining(Some(until(now, get(row, expires)?)))
        .since(UNIX_EPOCH.checked_add(Duration::from_micros(since))))
}

fn token_of(value: i64) -> Token {
    Token::new(u64::try_from(value).unwrap_or(0))
}

fn until(now: i64, expires: i64) -> Duration {
    Duration::from_nanos(u64::try_from(expires.saturating_sub(now)).unwrap_or(0))
}

/// A ticket for the table. One that no clock gave must leave room for those behind it.
fn clock_reading(ticket: u64) -> i64 {
    i64::try_from(ticket).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

/// A duration for the table; the longest ones that lockcore allows are days.
pub(crate) fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX / 4)
}

fn tagged<'a>(answer: &'a Answer, tag: &'a str) -> impl Iterator<Item = Result<&'a SqliteRow>> {
    answer
        .rows
        .iter()
        .filter_map(move |row| match get::<&str>(row, 0) {
            Ok(found) => (found == tag).then_some(Ok(row)),
            Err(error) => Some(Err(error)),
        })
}

pub(crate) fn get<'r, T>(row: &'r SqliteRow, column: usize) -> Result<T>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    row.try_get(column).map_err(classify)
}
