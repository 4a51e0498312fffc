//! MySQL and MariaDB: `GET_LOCK`, and a row with a lease that one statement takes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use leasehold_measure::{Client, Failure, Hold, Offers};
use sqlx::mysql::{MySqlConnectOptions, MySqlSslMode};
use sqlx::{ConnectOptions as _, Connection as _, MySqlConnection};

use super::pool::{Loan, Pool};
use super::{FIFO, POLL, TOKENS};
use crate::contender::Entry;
use crate::place::Place;

/// One connection for each lock that is held or waited for: more than are ever needed.
const SESSIONS: usize = 2000;
/// Connections that statements share.
const SHARED: usize = 16;
/// Longer than any run.
const PATIENCE: i64 = 3600;

/// The clock is read when the lock is granted, which makes it a token.
const GET_LOCK: &str =
    "SELECT GET_LOCK(?, ?), CAST(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', SYSDATE(6)) AS SIGNED)";
const RELEASE_LOCK: &str = "SELECT RELEASE_LOCK(?)";

const CREATE: &str = "CREATE TABLE IF NOT EXISTS raw_lock (name VARBINARY(255) NOT NULL PRIMARY KEY, \
     owner VARBINARY(64) NULL, token BIGINT UNSIGNED NOT NULL, expires BIGINT NOT NULL) ENGINE = InnoDB";
const INSERT: &str = "INSERT IGNORE INTO raw_lock (name, owner, token, expires) VALUES (?, NULL, 0, 0)";
/// Whether it was granted shows in the last insert id, which is the token.
const TAKE: &str = "UPDATE raw_lock SET owner = ?, \
     token = LAST_INSERT_ID(GREATEST(token + 1, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)))), \
     expires = TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) + ? \
     WHERE name = ? AND expires <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
const FREE: &str = "UPDATE raw_lock SET owner = NULL, expires = 0 WHERE name = ? AND owner = ?";

pub(super) fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    // A session's lock needs no renewal.
    let session = Offers {
        renewal: true,
        ..FIFO
    };
    vec![
        Entry::new(place, "raw-session", session, |place| async move {
            let client: Box<dyn Client> = Box::new(Session(Database::new(place.url(), SESSIONS)?));
            Ok(client)
        }),
        Entry::new(place, "raw-table", TOKENS, |place| async move {
            let database = Database::new(place.url(), SHARED)?;
            let mut loan = database.take().await?;
            sqlx::raw_sql(CREATE).execute(&mut loan.connection).await?;
            loan.give_back();
            let client: Box<dyn Client> = Box::new(Table(database));
            Ok(client)
        }),
    ]
}

#[derive(Clone, Debug)]
struct Database {
    options: Arc<MySqlConnectOptions>,
    pool: Arc<Pool<MySqlConnection>>,
}

impl Database {
    fn new(url: &str, connections: usize) -> Result<Self, Failure> {
        let options: MySqlConnectOptions = url.parse()?;
        let options = options
            .ssl_mode(MySqlSslMode::Disabled)
            .disable_statement_logging();
        Ok(Self {
            options: Arc::new(options),
            pool: Pool::new(connections),
        })
    }

    async fn take(&self) -> Result<Loan<MySqlConnection>, Failure> {
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
    loan: Loan<MySqlConnection>,
    name: String,
    token: i64,
}

#[async_trait]
impl Client for Session {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let mut loan = self.0.take().await?;
        let asked = sqlx::query_as::<_, (Option<i64>, i64)>(GET_LOCK)
            .bind(name)
            .bind(PATIENCE)
            .fetch_one(&mut loan.connection);
        match asked.await? {
            (Some(1), token) => Ok(Box::new(HeldBySession {
                loan,
                name: name.to_owned(),
                token,
            })),
            _ => Err("GET_LOCK was not granted".into()),
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
impl Hold for HeldBySession {
    fn token(&self) -> Option<u64> {
        u64::try_from(self.token).ok()
    }

    async fn release(mut self: Box<Self>) -> Result<(), Failure> {
        let asked = sqlx::query_scalar::<_, Option<i64>>(RELEASE_LOCK)
            .bind(&self.name)
            .fetch_one(&mut self.loan.connection);
        match asked.await? {
            Some(1) => {
                self.loan.give_back();
                Ok(())
            }
            _ => Err("the lock was lost while it was held".into()),
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
    token: u64,
}

#[async_trait]
impl Client for Table {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let owner = format!("{:032x}", fastrand::u128(..));
        let ttl = i64::try_from(ttl.as_micros())?;
        let mut is_there = false;
        loop {
            let mut loan = self.0.take().await?;
            let taking = sqlx::query(TAKE).bind(&owner).bind(ttl).bind(name);
            let token = taking.execute(&mut loan.connection).await?.last_insert_id();
            if token == 0 && !is_there {
                // Nobody has used the name before, perhaps.
                sqlx::query(INSERT)
                    .bind(name)
                    .execute(&mut loan.connection)
                    .await?;
            }
            loan.give_back();
            match token {
                0 if is_there => tokio::time::sleep(POLL).await,
                0 => is_there = true,
                _ => {
                    return Ok(Box::new(Row {
                        database: self.0.clone(),
                        name: name.to_owned(),
                        owner,
                        token,
                    }));
                }
            }
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
        Some(self.token)
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
