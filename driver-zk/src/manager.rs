//! The front door: a lock manager on ZooKeeper.

use lockcore::{
    DriverContext, Endpoint, Env, Kind, LockManager, LockName, Manager, Resource, Result, Settings,
};
use zookeeper_client::Connector;

use crate::config::ZkConfig;
use crate::driver::ZkDriver;

/// Hands out locks on a ZooKeeper ensemble. Cheap to clone; what it can do is in [`LockManager`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use leasehold_driver_zk::ZkLockManager;
/// use lockcore::LockManager;
///
/// # async fn demo() -> lockcore::Result<()> {
/// let locks = ZkLockManager::connect("zk://zk1:2181,zk2:2181/app?namespace=shop").await?;
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
pub struct ZkLockManager {
    manager: Manager,
    config: ZkConfig,
}

impl ZkLockManager {
    /// Connects to the ensemble in `url`, with the options of [`ZkConfig::from_endpoint`] and
    /// [`Settings::from_endpoint`] in its query.
    ///
    /// # Errors
    /// [`Invalid`](lockcore::ErrorKind::Invalid) for a URL that cannot be read or has an unknown option, and those of
    /// [`ZkDriver::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::from_endpoint(Endpoint::parse(url)?).await
    }

    /// The same for a URL that was taken apart already.
    ///
    /// # Errors
    /// As [`ZkLockManager::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_endpoint(mut endpoint: Endpoint) -> Result<Self> {
        let settings = Settings::from_endpoint(&mut endpoint)?;
        let config = ZkConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Self::from_config(config, settings).await
    }

    /// Connects as `config` says.
    ///
    /// # Errors
    /// Those of [`ZkDriver::connect`], and [`Invalid`](lockcore::ErrorKind::Invalid) for settings out of bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_config(config: ZkConfig, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = ZkDriver::connect(config.clone(), context.clone()).await?;
        let manager = Manager::new(driver, context, settings)?;
        Ok(Self { manager, config })
    }

    /// The same with the login and TLS of a connector of the client library: see [`ZkDriver::from_connector`].
    ///
    /// # Errors
    /// As [`ZkLockManager::from_config`].
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn from_connector(connector: Connector, config: ZkConfig, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = ZkDriver::from_connector(connector, config.clone(), context.clone()).await?;
        let manager = Manager::new(driver, context, settings)?;
        Ok(Self { manager, config })
    }

    /// The node whose children contend for the mutex `name`: what a Java service gives to its `InterProcessMutex`.
    ///
    /// # Errors
    /// [`Invalid`](lockcore::ErrorKind::Invalid) for a name that is empty or too long, and as [`ZkConfig::lock_path`].
    pub fn lock_path(&self, name: &str) -> Result<String> {
        let namespace = self.manager.settings().namespace.clone();
        self.config
            .lock_path(&Resource::new(namespace, Kind::Mutex, LockName::new(name)?))
    }
}

impl LockManager for ZkLockManager {
    fn manager(&self) -> &Manager {
        &self.manager
    }
}

impl AsRef<Manager> for ZkLockManager {
    fn as_ref(&self) -> &Manager {
        &self.manager
    }
}
