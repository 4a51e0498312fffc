//! The front door: a lock manager on PostgreSQL.

use lockcore::{DriverContext, Endpoint, Env, LockManager, Manager, Result, Settings};
use sqlx::PgPool;

use crate::config::PostgresConfig;
use crate::driver::PostgresDriver;

/// Hands out locks on a PostgreSQL database. Cheap to clone; what it can do is in [`LockManager`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use leasehold_driver_postgres::PostgresLockManager;
/// use lockcore::LockManager;
///
/// # async fn demo() -> lockcore::Result<()> {
/// let locks = PostgresLockManager::connect("postgres://app@localhost/app?namespace=shop").await?;
/// let guard = locks
///     .lock("orders/42")
///     .ttl(Duration::from_secs(30))
///     .wait(Duration::from_secs(5))
///     .acquire()
///     .await?;
/// println!("token {}", guard.token());
/// guard.release().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PostgresLockManager(Manager);

impl PostgresLockManager {
    /// Connects to the server in `url`, with the options of [`PostgresConfig::from_endpoint`] and
    /// [`Settings::from_endpoint`] in its query.
    ///
    /// # Errors
    /// [`Invalid`](lockcore::ErrorKind::Invalid) for a URL that cannot be read or has an unknown option, and those of
    /// [`PostgresDriver::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::from_endpoint(Endpoint::parse(url)?).await
    }

    /// The same for a URL that was taken apart already.
    ///
    /// # Errors
    /// As [`PostgresLockManager::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_endpoint(mut endpoint: Endpoint) -> Result<Self> {
        let settings = Settings::from_endpoint(&mut endpoint)?;
        let config = PostgresConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Self::from_config(config, settings).await
    }

    /// Connects as `config` says.
    ///
    /// # Errors
    /// Those of [`PostgresDriver::connect`], and [`Invalid`](lockcore::ErrorKind::Invalid) for settings out of bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_config(config: PostgresConfig, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = PostgresDriver::connect(config, context.clone()).await?;
        Manager::new(driver, context, settings).map(Self)
    }

    /// Connects to where an existing pool does, with its login and TLS. Locks get connections of their own: a lock must not
    /// wait for the application's transactions.
    ///
    /// # Errors
    /// As [`PostgresLockManager::from_config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_pool(pool: &PgPool, settings: Settings) -> Result<Self> {
        let config = PostgresConfig::new(pool.connect_options().as_ref().clone());
        Self::from_config(config, settings).await
    }
}

impl LockManager for PostgresLockManager {
    fn manager(&self) -> &Manager {
        &self.0
    }
}

impl AsRef<Manager> for PostgresLockManager {
    fn as_ref(&self) -> &Manager {
        &self.0
    }
}
