//! The front door: a lock manager on Redis.

use lockcore::{DriverContext, Endpoint, Env, LockManager, Manager, Result, Settings};
use redis::Client;

use crate::config::RedisConfig;
use crate::driver::RedisDriver;

/// Hands out locks on a Redis or Valkey server. Cheap to clone; what it can do is in [`LockManager`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use leasehold_driver_redis::RedisLockManager;
/// use lockcore::LockManager;
///
/// # async fn demo() -> lockcore::Result<()> {
/// let locks = RedisLockManager::connect("redis://localhost/0?namespace=shop").await?;
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
pub struct RedisLockManager(Manager);

impl RedisLockManager {
    /// Connects to the server in `url`, with the options of [`RedisConfig::from_endpoint`] and
    /// [`Settings::from_endpoint`] in its query.
    ///
    /// # Errors
    /// [`Invalid`](lockcore::ErrorKind::Invalid) for a URL that cannot be read or has an unknown option, and those of
    /// [`RedisDriver::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::from_endpoint(Endpoint::parse(url)?).await
    }

    /// The same for a URL that was taken apart already.
    ///
    /// # Errors
    /// As [`RedisLockManager::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_endpoint(mut endpoint: Endpoint) -> Result<Self> {
        let settings = Settings::from_endpoint(&mut endpoint)?;
        let config = RedisConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Self::from_config(config, settings).await
    }

    /// Connects as `config` says.
    ///
    /// # Errors
    /// Those of [`RedisDriver::connect`], and [`Invalid`](lockcore::ErrorKind::Invalid) for settings out of bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_config(config: RedisConfig, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = RedisDriver::connect(config, context.clone()).await?;
        Manager::new(driver, context, settings).map(Self)
    }

    /// Connects with the address, login and TLS of an existing client: see [`RedisDriver::from_client`].
    ///
    /// # Errors
    /// As [`RedisLockManager::from_config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_client(client: Client, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = RedisDriver::from_client(client, context.clone()).await?;
        Manager::new(driver, context, settings).map(Self)
    }
}

impl LockManager for RedisLockManager {
    fn manager(&self) -> &Manager {
        &self.0
    }
}

impl AsRef<Manager> for RedisLockManager {
    fn as_ref(&self) -> &Manager {
        &self.0
    }
}
