//! PostgreSQL: an advisory lock that is waited for at the server, and a row with a lease that one statement takes.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use leasehold_measure::{Client, Failure, Hold, Offers};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use super::pool::{Loan, Pool};
use super::{FIFO, POLL, TOKENS};
use crate::contender::Entry;
use crate::place::Place;

/// One connection for each lock that is held or waited for: more than are ever needed.
const SESSIONS: usize = 1100;
/// Connections that statements share.
const SHARED: usize = 16;

/// One client at a time makes what is missing.
const CREATE: &str = "SET client_min_messages = warning; SELECT pg_advisory_lock(1); \
     CREATE SEQUENCE IF NOT EXISTS raw_token; \
     CREATE TABLE IF NOT EXISTS raw_lock (name text COLLATE \"C\" PRIMARY KEY, owner text COLLATE \"C\", \
         token bigint NOT NULL, expires timestamptz NOT NULL) WITH (fillfactor = 50); \
     SELECT pg_advisory_unlock(1)";

/// Columns are computed from left to right: the number is drawn by the one who has the lock.
const LOCK: &str = "SELECT pg_advisory_lock($1)::text, nextval('raw_token')";
const UNLOCK: &str = "SELECT pg_advisory_unlock($1)";

const TAKE: &str = "INSERT INTO raw_lock AS held (name, owner, token, expires) \
     VALUES ($1, $2, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
         clock_timestamp() + $3 * interval '1 microsecond') \
     ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, expires = excluded.expires, \
         token = greatest(held.token + 1, excluded.token) \
     WHERE held.expires <= clock_timestamp() RETURNING token";
const FREE: &str = "UPDATE raw_lock SET owner = NULL, expires = '-infinity' WHERE name = $1 AND owner = $2";

pub(super) fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    // A session's lock needs no renewal.
    let session = Offers {
        renewal: true,
        ..FIFO
    };
    vec![
        Entry::new(place, "raw-session", session, |place| async move {
            let client: Box<dyn Client> = Box::new(Session(Database::open(place.url(), SESSIONS).await?));
            Ok(client)
        }),
        Entry::new(place, "raw-table", TOKENS, |place| async move {
            let client: Box<dyn Client> = Box::new(Table(Database::open(place.url(), SHARED).await?));
            Ok(client)
        }),
    ]
}

#[derive(Clone, Debug)]
struct Database {
    options: Arc<PgConnectOptions>,
    pool: Arc<Pool<PgConnection>>,
}

impl Database {
    async fn open(url: &str, connections: usize) -> Result<Self, Failure> {
        let options: PgConnectOptions = url.parse()?;
        let options = options.ssl_mode(PgSslMode::Disable).disable_statement_logging();
        let database = Self {
            options: Arc::new(options),
            pool: Pool::new(connections),
        };
        let mut loan = database.take().await?;
        sqlx::raw_sql(CREATE).execute(&mut loan.connection).await?;
        loan.give_back();
        Ok(database)
    }

    async fn take(&self) -> Result<Loan<PgConnection>, Failure> {
        self.pool.take(|| self.options.connect()).await
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        let mut loan = self.take().await?;
        let begun = Instant::now();
        loan.connection.ping().await?;
        let took = begun.elapsed();
        loan.give_back();
        Ok(Some(took))
    }

    async fn close(&self) -> Result<(), Failure> {
        for connection in self.pool.drain() {
            connection.close().await?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Session(Database);

#[derive(Debug)]
struct HeldBySession {
    loan: Loan<PgConnection>,
    key: i64,
    token: i64,
}

#[async_trait]
impl Client for Session {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let key = hasher.finish().cast_signed();
        let mut loan = self.0.take().await?;
        let asked = sqlx::query_as::<_, (String, i64)>(LOCK)
            .bind(key)
            .fetch_one(&mut loan.connection);
        let (_, token) = asked.await?;
        Ok(Box::new(HeldBySession { loan, key, token }))
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        self.0.ping().await
    }

    async fn close(self: Box<Self>) -> Result<(), Failure> {
        self.0.close().await
    }
}

#[async_trait]
impl Hold for HeldBySession {
    fn token(&self) -> Option<u64> {
        u64::try_from(self.token).ok()
    }

    async fn release(mut self: Box<Self>) -> Result<(), Failure> {
        let asked = sqlx::query_scalar::<_, bool>(UNLOCK)
            .bind(self.key)
            .fetch_one(&mut self.loan.connection);
        match asked.await? {
            true => {
                self.loan.give_back();
                Ok(())
            }
            false => Err("the lock was lost while it was held".into()),
        }
    }
}

#[derive(Debug)]
struct Table(Database);

#[derive(Debug)]
struct Row {
    database: Database,
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
            let mut loan = self.0.take().await?;
            let taking = sqlx::query_scalar::<_, i64>(TAKE)
                .bind(name)
                .bind(&owner)
                .bind(ttl)
                .fetch_optional(&mut loan.connection);
            let taken = taking.await?;
            loan.give_back();
            if let Some(token) = taken {
                return Ok(Box::new(Row {
                    database: self.0.clone(),
                    name: name.to_owned(),
                    owner,
                    token,
                }));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        self.0.ping().await
    }

    async fn close(self: Box<Self>) -> Result<(), Failure> {
        self.0.close().await
    }
}

#[async_trait]
impl Hold for Row {
    fn token(&self) -> Option<u64> {
        u64::try_from(self.token).ok()
    }

    async fn release(self: Box<Self>) -> Result<(), Failure> {
        let mut loan = self.database.take().await?;
        let freeing = sqlx::query(FREE).bind(&self.name).bind(&self.owner);
        let freed = freeing.execute(&mut loan.connection).await?.rows_affected();
        loan.give_back();
        match freed {
            1 => Ok(()),
            _ => Err("the lock was lost while it was held".into()),
        }
    }
}
