//! From a URL to a lock manager.

use std::fmt;
use std::sync::Arc;

use lockcore::{Endpoint, LockManager, Result, Secret, Settings};

use crate::drivers;

/// Connects to the backend that `url` names.
///
/// | URL | backend | feature |
/// |---|---|---|
/// | `memory:` | this process alone; each connect is a store of its own, see [`memory::MemoryStore`](crate::memory::MemoryStore) for sharing one | |
/// | `sqlite:/var/lib/app/locks.db` | the processes of one machine | `sqlite` |
/// | `redis://user:password@host:6379/0` | Redis or Valkey | `redis` |
/// | `rediss://host`, `redis+unix:///run/redis.sock` | the same with TLS, and on a Unix socket | `redis` |
/// | `postgres://user:password@host:5432/database?sslmode=verify-full` | PostgreSQL; `?mode=session` for locks that live by a connection | `postgres` |
/// | `etcd://user:password@h1:2379,h2:2379` | etcd; `etcds://` with TLS | `etcd` |
/// | `zk://user:password@h1:2181,h2:2181/app` | ZooKeeper; `zks://` with TLS | `zk` |
/// | `mysql://user:password@host:3306/database` | MySQL or MariaDB; also `mariadb://`, and `mysqls://` with a verified certificate | `mysql` |
///
/// Options ride in the query, durations as `30s` or `500ms`: the fields of [`Settings`] (`namespace`, `ttl`,
/// `op_timeout`, `waiter_ttl`, `claim_window`, `local_handover`, `drain`, `label`) on every backend, and those that a driver documents.
///
/// # Errors
/// [`Invalid`](crate::ErrorKind::Invalid) for an unknown scheme or option, [`Unsupported`](crate::ErrorKind::Unsupported)
/// for a scheme whose Cargo feature is off, and what the backend says: [`Denied`](crate::ErrorKind::Denied) for a wrong
/// login, [`Unavailable`](crate::ErrorKind::Unavailable) when it cannot be reached. No message shows a password.
///
/// # Panics
/// Outside a tokio runtime with its time and I/O drivers on.
pub async fn connect(url: &str) -> Result<Arc<dyn LockManager>> {
    Connector::new(url)?.connect().await
}

/// Connects with what does not belong into a URL: a password from a secret store, settings made in code.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> leasehold::Result<()> {
/// use std::time::Duration;
///
/// let locks = leasehold::Connector::new("memory:?namespace=billing")?
///     .settings(|settings| settings.ttl = Duration::from_secs(10))
///     .connect()
///     .await?;
/// assert_eq!(locks.settings().namespace.as_str(), "billing");
/// # Ok(())
/// # }
/// ```
#[must_use = "a connector does nothing until it connects"]
pub struct Connector {
    endpoint: Endpoint,
    settings: Settings,
}

impl Connector {
    /// Reads `url`. Nothing is sent.
    ///
    /// # Errors
    /// As [`connect`] for what is wrong with the URL itself; what only a driver understands is checked by
    /// [`Connector::connect`].
    pub fn new(url: &str) -> Result<Self> {
        let mut endpoint = Endpoint::parse(url)?;
        drivers::find(endpoint.scheme())?;
        let settings = Settings::from_endpoint(&mut endpoint)?;
        Ok(Self { endpoint, settings })
    }

    /// Logs in as `user` (the backend's default user for `None`) with `password`, whatever the URL says.
    pub fn login(mut self, user: Option<&str>, password: Secret) -> Self {
        self.endpoint.set_login(user.map(str::to_owned), Some(password));
        self
    }

    /// Changes settings after the URL's were read.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Self {
        change(&mut self.settings);
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// As [`connect`]; [`Invalid`](crate::ErrorKind::Invalid) when a setting is out of bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime with its time and I/O drivers on.
    pub async fn connect(self) -> Result<Arc<dyn LockManager>> {
        self.settings.validate()?;
        drivers::find(self.endpoint.scheme())?(self.endpoint, self.settings).await
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("endpoint", &self.endpoint)
            .field("settings", &self.settings)
            .finish()
    }
}
