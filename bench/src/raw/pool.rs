//! Connections of a database, opened when they are needed.

use std::fmt;
use std::sync::{Arc, Mutex};

use leasehold_measure::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::lock;

pub(super) struct Pool<C> {
    idle: Mutex<Vec<C>>,
    permits: Arc<Semaphore>,
}

/// A connection in use. Dropped instead of given back, it ends.
pub(super) struct Loan<C> {
    pub(super) connection: C,
    pool: Arc<Pool<C>>,
    _permit: OwnedSemaphorePermit,
}

impl<C> Pool<C> {
    /// Of `limit` connections at most.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            idle: Mutex::default(),
            permits: Arc::new(Semaphore::new(limit)),
        })
    }

    pub(super) async fn take<O>(self: &Arc<Self>, open: impl FnOnce() -> O) -> Result<Loan<C>, Failure>
    where
        O: Future<Output = Result<C, sqlx::Error>>,
    {
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        // A statement of its own: the lock on the list is not kept while a connection is opened.
        let idle = lock(&self.idle).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => open().await?,
        };
        Ok(Loan {
            connection,
            pool: Arc::clone(self),
            _permit: permit,
        })
    }

    pub(super) fn drain(&self) -> Vec<C> {
        std::mem::take(&mut *lock(&self.idle))
    }
}

impl<C> Loan<C> {
    pub(super) fn give_back(self) {
        lock(&self.pool.idle).push(self.connection);
    }
}

impl<C> fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("idle", &lock(&self.idle).len())
            .finish()
    }
}

impl<C> fmt::Debug for Loan<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").finish_non_exhaustive()
    }
}
