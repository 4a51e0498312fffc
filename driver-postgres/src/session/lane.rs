//! A connection that holds one lock, waits for one, or is idle.

use std::fmt;

use lockcore::Error;
use sqlx::Acquire as _;
use sqlx::PgPool;
use sqlx::postgres::{PgListener, PgPoolOptions, PgRow};
use tokio::sync::OwnedSemaphorePermit;

use crate::error::{classify, is_cut};
use crate::pool::{Access, PATIENCE, Statement, no_answer};

/// A connection, and its place among those that are allowed. Dropped, it is closed, and what it has is freed.
///
/// It is one of sqlx's listeners, because those are told when an idle connection ends.
pub(super) struct Lane {
    listener: PgListener,
    pool: PgPool,
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// Ended, or a request was left midway.
    broken: bool,
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lane")
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        // From here on the listener, which gives its connection back to the pool, closes it. What is dropped here is the
        // wait for that.
        drop(self.pool.close());
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) error: Error,
    /// The connection ended, and the lock with it.
    pub(super) cut: bool,
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        failed.error
    }
}

impl Lane {
    pub(super) async fn open(access: &Access, place: Option<OwnedSemaphorePermit>) -> lockcore::Result<Self> {
        let limit = access.config.connect_timeout;
        let opens = Box::pin(Self::connect(access, place));
        let opened = access.env.timeout(limit, opens).await;
        opened
            .unwrap_or_else(|| Err(no_answer(limit)))
            .map_err(|error| access.at(error))
    }

    async fn connect(access: &Access, place: Option<OwnedSemaphorePermit>) -> lockcore::Result<Self> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(access.config.connect_timeout)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(access.options());
        let mut listener = PgListener::connect_with(&pool).await.map_err(classify)?;
        // A lock does not come back with a new connection.
        listener.eager_reconnect(false);
        listener.ignore_pool_close_event(true);
        let connection = listener.acquire().await.map_err(classify)?;
        access.prepare(connection, "").await?;
        Ok(Self {
            listener,
            pool,
            place,
            broken: false,
        })
    }

    /// Is it of no more use?
    pub(super) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Runs a statement that does not wait for a lock.
    pub(super) async fn ask(
        &mut self,
        access: &Access,
        statement: Statement<'_>,
    ) -> Result<Vec<PgRow>, Failed> {
        let answer = Box::pin(self.run(statement));
        match access.env.timeout(PATIENCE, answer).await {
            Some(answer) => answer,
            None => {
                self.broken = true;
                Err(Failed {
                    error: no_answer(PATIENCE),
                    cut: false,
                })
            }
        }
    }

    /// Runs a statement for as long as it takes.
    pub(super) async fn run(&mut self, statement: Statement<'_>) -> Result<Vec<PgRow>, Failed> {
        if self.broken {
            return Err(Failed {
                error: no_answer(PATIENCE),
                cut: true,
            });
        }
        // Until it is answered.
        self.broken = true;
        match statement.fetch_all(&mut self.listener).await {
            Ok(rows) => {
                self.broken = false;
                Ok(rows)
            }
            Err(error) => Err(Failed {
                cut: is_cut(&error),
                error: classify(error),
            }),
        }
    }

    /// Ends when the connection does.
    pub(super) async fn ended(&mut self) {
        // It listens to nothing.
        while !self.broken && matches!(self.listener.try_recv().await, Ok(Some(_))) {}
        self.broken = true;
    }
}
