//! The front door: a lock manager on MySQL or MariaDB.

use lockcore::{DriverContext, Endpoint, Env, LockManager, Manager, Result, Settings};

use crate::config::MysqlConfig;
use crate::driver::MysqlDriver;

/// Hands out locks on a MySQL or MariaDB server. Cheap to clone; what it can do is in [`LockManager`].
///
/// ```no_run
/// use std::time::Duration;
///
/// use leasehold_driver_mysql::MysqlLockManager;
/// use lockcore::LockManager;
///
/// # async fn demo() -> lockcore::Result<()> {
/// let locks = MysqlLockManager::connect("mysql://app:secret@localhost/app?namespace=shop").await?;
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
pub struct MysqlLockManager(Manager);

impl MysqlLockManager {
    /// Connects to the server in `url`, with the options of [`MysqlConfig::from_endpoint`] and
    /// [`Settings::from_endpoint`] in its query.
    ///
    /// # Errors
    /// [`Invalid`](lockcore::ErrorKind::Invalid) for a URL that cannot be read or has an unknown option, and those of
    /// [`MysqlDriver::connect`].
    ///
    /// # Panics
    /// Outside a tokio runtime with its time and I/O drivers on.
    pub async fn connect(url: &str) -> Result<Self> {
        Self::from_endpoint(Endpoint::parse(url)?).await
    }

    /// The same for a URL that was taken apart already.
    ///
    /// # Errors
    /// As [`MysqlLockManager::connect`].
    ///
    /// # Panics
    /// As [`MysqlLockManager::connect`].
    pub async fn from_endpoint(mut endpoint: Endpoint) -> Result<Self> {
        let settings = Settings::from_endpoint(&mut endpoint)?;
        let config = MysqlConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Self::from_config(config, settings).await
    }

    /// Connects as `config` says.
    ///
    /// # Errors
    /// Those of [`MysqlDriver::connect`], and [`Invalid`](lockcore::ErrorKind::Invalid) for settings out of bounds.
    ///
    /// # Panics
    /// As [`MysqlLockManager::connect`].
    pub async fn from_config(config: MysqlConfig, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let context = DriverContext::new(Env::system());
        let driver = MysqlDriver::connect(config, context.clone()).await?;
        Manager::new(driver, context, settings).map(Self)
    }
}

impl LockManager for MysqlLockManager {
    fn manager(&self) -> &Manager {
        &self.0
    }
}

impl AsRef<Manager> for MysqlLockManager {
    fn as_ref(&self) -> &Manager {
        &self.0
    }
}
