//! The connections that requests share: few, however many locks there are.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{Env, Error, ErrorKind, Result};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgRow};
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Postgres, Row as _};
use tokio::sync::Semaphore;

use crate::config::{Mode, PostgresConfig as Config, address};
use crate::error::{POOLED, classify, is_fatal, is_stale, state};
use crate::schema;

/// How long an answer may take before the connection counts as broken. The server itself gives up a wait for a row after two seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// How long connections may take to say goodbye.
pub(crate) const GOODBYE: Duration = Duration::from_millis(200);

/// What a session has to know. Sequential scans are off because a plan that is made while a table is empty is kept.
/// Acknowledged leases must be on the disk, whatever the database's default is for other data.
const SETUP: &str = "\
    SET default_transaction_isolation = 'read committed'; SET search_path = pg_catalog, pg_temp; \
    SET client_min_messages = warning; SET statement_timeout = 0; SET jit = off; \
    SET enable_seqscan = off; SET idle_in_transaction_session_timeout = 0; \
    SELECT set_config('synchronous_commit', 'local', false) WHERE current_setting('synchronous_commit') = 'off'; \
    SELECT set_config(name, '0', false) FROM unnest(ARRAY['idle_session_timeout', 'transaction_timeout']) AS name \
    WHERE current_setting(name, true) IS NOT NULL; ";

/// What has to be known of a server.
const LOOK: &str =
    "SELECT current_setting('server_version_num') AS version, pg_is_in_recovery()::text AS standby";

/// A row that somebody else keeps locked is not waited for much longer than a request may take.
const LEASE_SETUP: &str = "SET lock_timeout = '2s'; ";

/// Waiters wait for as long as they want, and the server looks whether they are there. Not known before 14, which is
/// refused with words of our own.
const SESSION_SETUP: &str = "\
    SET lock_timeout = 0; SELECT set_config('client_connection_check_interval', '1s', false) \
    WHERE current_setting('client_connection_check_interval', true) IS NOT NULL; ";

/// What every connection of a driver needs to know.
#[derive(Debug)]
pub(crate) struct Access {
    pub(crate) config: Config,
    pub(crate) env: Env,
}

impl Access {
    pub(crate) fn new(config: Config, env: Env) -> Self {
        Self { config, env }
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.config.options.clone().disable_statement_logging()
    }

    /// A connection that is ready for use.
    pub(crate) async fn connect(&self) -> Result<PgConnection> {
        let limit = self.config.connect_timeout;
        let opened = self.env.timeout(limit, Box::pin(self.open())).await;
        opened
            .unwrap_or_else(|| Err(no_answer(limit)))
            .map_err(|error| self.at(error))
    }

    /// Says which server it was.
    pub(crate) fn at(&self, error: Error) -> Error {
        let place = address(&self.config.options);
        Error::new(error.kind(), format!("PostgreSQL at {place}: {error}"))
    }

    async fn open(&self) -> Result<PgConnection> {
        let mut connection = self.options().connect().await.map_err(classify)?;
        self.prepare(&mut connection, "").await?;
        Ok(connection)
    }

    /// Looks at the server, sets the session up, and runs `more`: one round trip. What is missing is made.
    pub(crate) async fn prepare(&self, connection: &mut PgConnection, more: &str) -> Result<()> {
        let Config { schema, mode, .. } = &self.config;
        let by_mode = match mode {
            Mode::Lease => LEASE_SETUP,
            Mode::Session => SESSION_SETUP,
        };
        let setup = format!("{by_mode}{SETUP}{more}{LOOK}, {}", schema::question(schema));
        let rows = sqlx::raw_sql(AssertSqlSafe(setup))
            .fetch_all(&mut *connection)
            .await
            .map_err(classify)?;
        let answer = rows
            .last()
            .ok_or_else(|| Error::new(ErrorKind::Internal, "the server does not tell its version"))?;
        let text = |column: &str| answer.try_get::<String, _>(column).map_err(classify);
        check_server(
            text("version")?.parse().unwrap_or(0),
            text("standby")? == "true",
            *mode,
        )?;
        schema::ensure(connection, schema, answer).await
    }

    /// Sees that two connections are two sessions. Where there is a listener, it sees to that.
    pub(crate) async fn refuse_pooler(&self) -> Result<()> {
        let (mut one, mut other) = (self.connect().await?, self.connect().await?);
        let witness = (self.env.random_u128()? >> 65).to_string();
        let lock = format!("SELECT pg_advisory_lock({witness})");
        sqlx::raw_sql(AssertSqlSafe(lock))
            .execute(&mut one)
            .await
            .map_err(classify)?;
        let try_lock = format!("SELECT pg_try_advisory_lock({witness})::text AS shared");
        let rows = sqlx::raw_sql(AssertSqlSafe(try_lock))
            .fetch_all(&mut other)
            .await
            .map_err(classify)?;
        let shared = rows.first().map(|row| row.try_get::<String, _>("shared"));
        if shared.transpose().map_err(classify)?.as_deref() != Some("false") {
            return Err(Error::new(ErrorKind::Unsupported, POOLED));
        }
        Ok(())
    }
}

fn check_server(version: u32, standby: bool, mode: Mode) -> Result<()> {
    let (oldest, why) = match mode {
        Mode::Lease => (12, "use PostgreSQL 12 or newer"),
        Mode::Session => (
            14,
            "mode=session needs PostgreSQL 14 or newer: use it, or mode=lease",
        ),
    };
    let major = version / 10_000;
    if major < oldest {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!("the server is version {major}: {why}"),
        ));
    }
    if standby {
        // Worth a retry: after a failover the name leads to the new primary soon.
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the server is a standby: connect to its primary",
        ));
    }
    Ok(())
}

pub(crate) fn no_answer(limit: Duration) -> Error {
    Error::new(ErrorKind::Unavailable, format!("no answer within {limit:?}"))
}

/// A statement with its arguments, made anew for each connection that it is sent on.
pub(crate) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// A text that was written here, with nothing in it that came from outside but the checked name of the schema.
pub(crate) fn statement<'q>(sql: &Arc<str>) -> Statement<'q> {
    sqlx::query(AssertSqlSafe(Arc::clone(sql)))
}

#[derive(Debug)]
struct Idle {
    connection: PgConnection,
    generation: u64,
}

/// A pool of connections. One that fails is closed; one that was idle while the server went is replaced unseen.
#[derive(Debug)]
pub(crate) struct Pool {
    access: Arc<Access>,
    permits: Semaphore,
    idle: Mutex<Vec<Idle>>,
    /// Raised when the server was lost: connections from before are of no use.
    generation: AtomicU64,
}

impl Pool {
    pub(crate) fn new(access: Arc<Access>, size: usize) -> Self {
        Self {
            permits: Semaphore::new(size),
            access,
            idle: Mutex::default(),
            generation: AtomicU64::new(0),
        }
    }

    /// Runs `statement` and gives its rows.
    pub(crate) async fn run<'q>(&self, statement: impl Fn() -> Statement<'q>) -> Result<Vec<PgRow>> {
        self.try_run(statement).await?.map_err(classify)
    }

    /// The same, with the server's refusals apart.
    ///
    /// A connection that turns out to have ended while it was idle is replaced and the statement sent again: every call
    /// of a driver may be applied twice. So is one whose tables were dropped; a new one makes them again.
    pub(crate) async fn try_run<'q>(
        &self,
        statement: impl Fn() -> Statement<'q>,
    ) -> Result<sqlx::Result<Vec<PgRow>>> {
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_| Error::new(ErrorKind::Closed, "the connections were closed"))?;
        if let Some(idle) = self.pop() {
            match self.send(idle, statement()).await {
                Err(Failed::Stale(error)) => {
                    tracing::debug!(%error, "an idle connection was of no more use");
                    // Nor are the others, most likely.
                    self.idle().clear();
                }
                outcome => return refusal_apart(outcome),
            }
        }
        let generation = self.generation.load(Ordering::Acquire);
        let connection = self.access.connect().await?;
        let fresh = Idle {
            connection,
            generation,
        };
        refusal_apart(self.send(fresh, statement()).await)
    }

    /// Opens a connection to begin with.
    pub(crate) async fn warm(&self) -> Result<()> {
        let generation = self.generation.load(Ordering::Acquire);
        let connection = self.access.connect().await?;
        self.push(Idle {
            connection,
            generation,
        });
        Ok(())
    }

    async fn send(&self, mut on: Idle, statement: Statement<'_>) -> Result<Vec<PgRow>, Failed> {
        // To the end, not to the first row: an error of the commit comes last.
        let answer = Box::pin(statement.fetch_all(&mut on.connection));
        match self.access.env.timeout(PATIENCE, answer).await {
            Some(Ok(rows)) => {
                self.push(on);
                Ok(rows)
            }
            Some(Err(error)) => {
                if !is_fatal(&error) {
                    self.push(on);
                }
                Err(if is_stale(&error) {
                    Failed::Stale(error)
                } else if state(&error).is_some() {
                    Failed::Refused(error)
                } else {
                    Failed::Otherwise(classify(error))
                })
            }
            None => Err(Failed::Otherwise(no_answer(PATIENCE))),
        }
    }

    /// The server was lost.
    pub(crate) fn renew(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.idle().clear();
    }

    /// Says goodbye on idle connections. Those in use are closed when they are done.
    pub(crate) async fn close(&self) {
        self.permits.close();
        let idle = std::mem::take(&mut *self.idle());
        let goodbye = Box::pin(async move {
            for idle in idle {
                // It is as good as closed.
                idle.connection.close().await.ok();
            }
        });
        self.access.env.timeout(GOODBYE, goodbye).await;
    }

    fn pop(&self) -> Option<Idle> {
        let generation = self.generation.load(Ordering::Acquire);
        let mut idle = self.idle();
        // The one that was used last is the one that is most likely to live.
        while let Some(last) = idle.pop() {
            if last.generation == generation {
                return Some(last);
            }
        }
        None
    }

    fn push(&self, used: Idle) {
        if used.generation == self.generation.load(Ordering::Acquire) && !self.permits.is_closed() {
            self.idle().push(used);
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no answer.
enum Failed {
    /// The connection ended, or the tables are not those that it knew.
    Stale(sqlx::Error),
    /// The server says no.
    Refused(sqlx::Error),
    Otherwise(Error),
}

fn refusal_apart(outcome: Result<Vec<PgRow>, Failed>) -> Result<sqlx::Result<Vec<PgRow>>> {
    match outcome {
        Ok(rows) => Ok(Ok(rows)),
        Err(Failed::Refused(error)) => Ok(Err(error)),
        Err(Failed::Stale(error)) => Err(classify(error)),
        Err(Failed::Otherwise(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_will_not_do() {
        check_server(120_000, false, Mode::Lease).unwrap();
        check_server(140_001, false, Mode::Session).unwrap();
        for (version, standby, mode, kind, part) in [
            (110_022, false, Mode::Lease, ErrorKind::Unsupported, "12 or newer"),
            (
                130_010,
                false,
                Mode::Session,
                ErrorKind::Unsupported,
                "mode=lease",
            ),
            (0, false, Mode::Lease, ErrorKind::Unsupported, "12 or newer"),
            (170_000, true, Mode::Lease, ErrorKind::Unavailable, "primary"),
        ] {
            let error = check_server(version, standby, mode).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
