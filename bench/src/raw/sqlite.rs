//! SQLite: a row with a lease that one statement takes, on one connection.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use leasehold_measure::{Client, Failure, Hold};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tokio::sync::Mutex;

use super::{POLL, TOKENS};
use crate::contender::Entry;
use crate::place::Place;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS raw_lock (name TEXT NOT NULL PRIMARY KEY, owner TEXT, \
     token INTEGER NOT NULL, expires INTEGER NOT NULL) STRICT";
const TAKE: &str = "INSERT INTO raw_lock (name, owner, token, expires) VALUES ($1, $2, $3, $3 + $4) \
     ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, token = max(token + 1, excluded.token), \
         expires = excluded.expires \
     WHERE expires <= $3 RETURNING token";
const FREE: &str = "UPDATE raw_lock SET owner = NULL, expires = 0 WHERE name = $1 AND owner = $2";

pub(super) fn contender(place: &Arc<Place>) -> Entry {
    Entry::new(place, "raw-table", TOKENS, |place| async move {
        let path = place.url().trim_start_matches("sqlite:");
        // As the driver's: the log of changes is not waited for.
        let mut connection = SqliteConnectOptions::new()
            .filename(format!("{path}.raw"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging()
            .connect()
            .await?;
        sqlx::raw_sql(CREATE).execute(&mut connection).await?;
        let client: Box<dyn Client> = Box::new(Table(Arc::new(Mutex::new(connection))));
        Ok(client)
    })
}

#[derive(Debug)]
struct Table(Arc<Mutex<SqliteConnection>>);

#[derive(Debug)]
struct Row {
    connection: Arc<Mutex<SqliteConnection>>,
    name: String,
    owner: String,
    token: i64,
}

#[async_trait]
impl Client for Table {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let owner = format!("{:032x}", fastrand::u128(..));
        let ttl = i64::try_from(ttl.as_micros())?;
        loop {
            let now = SystemTime::UNIX_EPOCH.elapsed()?.as_micros();
            let mut connection = self.0.lock().await;
            let taking = sqlx::query_scalar::<_, i64>(TAKE)
                .bind(name)
                .bind(&owner)
                .bind(i64::try_from(now)?)
                .bind(ttl)
                .fetch_optional(&mut *connection);
            let taken = taking.await?;
            drop(connection);
            if let Some(token) = taken {
                return Ok(Box::new(Row {
                    connection: Arc::clone(&self.0),
                    name: name.to_owned(),
                    owner,
                    token,
                }));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        let mut connection = self.0.lock().await;
        let begun = Instant::now();
        connection.ping().await?;
        Ok(Some(begun.elapsed()))
    }
}

#[async_trait]
impl Hold for Row {
    fn token(&self) -> Option<u64> {
        u64::try_from(self.token).ok()
    }

    async fn release(self: Box<Self>) -> Result<(), Failure> {
        let mut connection = self.connection.lock().await;
        let freeing = sqlx::query(FREE).bind(&self.name).bind(&self.owner);
        match freeing.execute(&mut *connection).await?.rows_affected() {
            1 => Ok(()),
            _ => Err("the lock was lost while it was held".into()),
        }
    }
}
