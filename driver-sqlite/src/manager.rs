//! The front door: a lock manager on a SQLite file.

use std::path::PathBuf;

use lockcore::{DriverContext, Endpoint, Env, LockManager, Manager, Result, Settings};

use crate::config::SqliteConfig;
use crate::driver::SqliteDriver;

/// Hands out locks that live in a SQLite file. Cheap to clone; what it can do is in [`LockManager`].
///
/// ```
/// use std::time::Duration;
///
/// use leasehold_driver_sqlite::SqliteLockManager;
/// use lockcore::LockManager;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("locks.db");
/// let locks = SqliteLockManager::open(path).await?;
/// let guard = locks
///     .lock("orders/42")
///     .ttl(Duration::from_secs(30))
///     .wait(Duration::from_secs(5))
///     .acquire()
///     .await?;
/// println!("token {}", guard.token());
/// guard.release().await?;
/// locks.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SqliteLockManager(Manager);

impl SqliteLockManager {
    /// Opens the database file at `path` with default settings, and makes it when it is missing.
    ///
    /// # Errors
    /// Those of [`SqliteConfig::new`] and [`SqliteDriver::open`].
    ///
    /// # Panics
    /// Outside a tokio runtime with its time and I/O drivers on.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self> {
        Self::from_config(SqliteConfig::new(path)?, Settings::default()).await
    }

    /// Opens the file in `url`, with the options of [`SqliteConfig::from_endpoint`] and [`Settings::from_endpoint`] in
    /// its query.
    ///
    /// # Errors
    /// [`Invalid`](lockcore::ErrorKind::Invalid) for a URL that cannot be read or has an unknown option, and those of
    /// [`SqliteDriver::open`].
    ///
    /// # Panics
    /// As [`SqliteLockManager::open`].
    pub async fn connect(url: &str) -> Result<Self> {
        Self::from_endpoint(Endpoint::parse(url)?).await
    }

    /// The same for a URL that was taken apart already.
    ///
    /// # Errors
    /// As [`SqliteLockManager::connect`].
    ///
    /// # Panics
    /// As [`SqliteLockManager::open`].
    pub async fn from_endpoint(mut endpoint: Endpoint) -> Result<Self> {
        let settings = Settings::from_endpoint(&mut endpoint)?;
        let config = SqliteConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Self::from_config(config, settings).await
    }

    /// Opens the file as `config` says.
    ///
    /// # Errors
    /// Those of [`SqliteDriver::open`], and [`Invalid`](lockcore::ErrorKind::Invalid) for settings out of bounds.
    ///
    /// # Panics
    /// As [`SqliteLockManager::open`].
    pub async fn from_config(config: SqliteConfig, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = SqliteDriver::open(config, context.clone()).await?;
        Manager::new(driver, context, settings).map(Self)
    }
}

impl LockManager for SqliteLockManager {
    fn manager(&self) -> &Manager {
        &self.0
    }
}

impl AsRef<Manager> for SqliteLockManager {
    fn as_ref(&self) -> &Manager {
        &self.0
    }
}
