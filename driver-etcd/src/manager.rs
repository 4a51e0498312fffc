//! The front door: a lock manager on etcd.

use etcd_client::Client;
use lockcore::{DriverContext, Endpoint, Env, LockManager, Manager, Result, Settings};

use crate::config::EtcdConfig;
use crate::driver::EtcdDriver;

/// Hands out locks on an etcd cluster. Cheap to clone; what it can do is in [`LockManager`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use leasehold_driver_etcd::EtcdLockManager;
/// use lockcore::LockManager;
///
/// # async fn demo() -> lockcore::Result<()> {
/// let locks = EtcdLockManager::connect("etcd://localhost?namespace=shop").await?;
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
pub struct EtcdLockManager(Manager);

impl EtcdLockManager {
    /// Connects to the cluster in `url`, with the options of [`EtcdConfig::from_endpoint`] and
    /// [`Settings::from_endpoint`] in its query.
    ///
    /// # Errors
    /// [`Invalid`](lockcore::ErrorKind::Invalid) for a URL that cannot be read or has an unknown option, and those of
    /// [`EtcdDriver::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::from_endpoint(Endpoint::parse(url)?).await
    }

    /// The same for a URL that was taken apart already.
    ///
    /// # Errors
    /// As [`EtcdLockManager::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_endpoint(mut endpoint: Endpoint) -> Result<Self> {
        let settings = Settings::from_endpoint(&mut endpoint)?;
        let config = EtcdConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Self::from_config(config, settings).await
    }

    /// Connects as `config` says.
    ///
    /// # Errors
    /// Those of [`EtcdDriver::connect`], and [`Invalid`](lockcore::ErrorKind::Invalid) for settings out of bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_config(config: EtcdConfig, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = EtcdDriver::connect(config, context.clone()).await?;
        Manager::new(driver, context, settings).map(Self)
    }

    /// Connects by way of an existing client: see [`EtcdDriver::from_client`].
    ///
    /// # Errors
    /// As [`EtcdLockManager::from_config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_client(client: Client, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = EtcdDriver::from_client(client, context.clone()).await?;
        Manager::new(driver, context, settings).map(Self)
    }
}

impl LockManager for EtcdLockManager {
    fn manager(&self) -> &Manager {
        &self.0
    }
}

impl AsRef<Manager> for EtcdLockManager {
    fn as_ref(&self) -> &Manager {
        &self.0
    }
}
