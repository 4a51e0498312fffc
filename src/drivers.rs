//! Which URL scheme is served by which driver. The only lines of the workspace that ask for a feature.

use std::pin::Pin;
use std::sync::Arc;

/// The etcd driver: its configuration, and constructors from a client of your own.
#[cfg(feature = "etcd")]
pub use leasehold_driver_etcd as etcd;
/// The MySQL and MariaDB driver and its configuration.
#[cfg(feature = "mysql")]
pub use leasehold_driver_mysql as mysql;
/// The PostgreSQL driver and its configuration.
#[cfg(feature = "postgres")]
pub use leasehold_driver_postgres as postgres;
/// The Redis driver: its configuration, and constructors from a client of your own.
#[cfg(feature = "redis")]
pub use leasehold_driver_redis as redis;
/// The SQLite driver and its configuration.
#[cfg(feature = "sqlite")]
pub use leasehold_driver_sqlite as sqlite;
/// The ZooKeeper driver: its configuration, and constructors from a connector of your own.
#[cfg(feature = "zk")]
pub use leasehold_driver_zk as zk;
pub use lockcore::memory;
use lockcore::{Endpoint, Env, Error, ErrorKind, LockManager, Result, Settings};

type Connected = Pin<Box<dyn Future<Output = Result<Arc<dyn LockManager>>> + Send>>;

/// A backend. Its row is here even when its feature is off, so that its URL gets a helpful answer.
pub(crate) struct Row {
    pub(crate) schemes: &'static [&'static str],
    /// The feature that it needs; empty for what is always there.
    pub(crate) feature: &'static str,
    pub(crate) connect: Option<fn(Endpoint, Settings) -> Connected>,
}

pub(crate) const DRIVERS: &[Row] = &[
    Row {
        schemes: &["memory"],
        feature: "",
        connect: Some(connect_memory),
    },
    Row {
        schemes: &["sqlite"],
        feature: "sqlite",
        #[cfg(feature = "sqlite")]
        connect: Some(connect_sqlite),
        #[cfg(not(feature = "sqlite"))]
        connect: None,
    },
    Row {
        schemes: &["redis", "rediss", "redis+unix"],
        feature: "redis",
        #[cfg(feature = "redis")]
        connect: Some(connect_redis),
        #[cfg(not(feature = "redis"))]
        connect: None,
    },
    Row {
        schemes: &["postgres", "postgresql"],
        feature: "postgres",
        #[cfg(feature = "postgres")]
        connect: Some(connect_postgres),
        #[cfg(not(feature = "postgres"))]
        connect: None,
    },
    Row {
        schemes: &["etcd", "etcds"],
        feature: "etcd",
        #[cfg(feature = "etcd")]
        connect: Some(connect_etcd),
        #[cfg(not(feature = "etcd"))]
        connect: None,
    },
    Row {
        schemes: &["zk", "zks"],
        feature: "zk",
        #[cfg(feature = "zk")]
        connect: Some(connect_zk),
        #[cfg(not(feature = "zk"))]
        connect: None,
    },
    Row {
        schemes: &["mysql", "mysqls", "mariadb"],
        feature: "mysql",
        #[cfg(feature = "mysql")]
        connect: Some(connect_mysql),
        #[cfg(not(feature = "mysql"))]
        connect: None,
    },
];

/// The row for `scheme`.
///
/// # Errors
/// [`Invalid`](ErrorKind::Invalid) when there is none, [`Unsupported`](ErrorKind::Unsupported) when its feature is off.
pub(crate) fn find(scheme: &str) -> Result<fn(Endpoint, Settings) -> Connected> {
    let row = DRIVERS
        .iter()
        .find(|row| row.schemes.contains(&scheme))
        .ok_or_else(|| {
            let known: Vec<_> = DRIVERS
                .iter()
                .flat_map(|row| row.schemes)
                .map(|scheme| format!("{scheme}:"))
                .collect();
            Error::new(
                ErrorKind::Invalid,
                format!(
                    "unknown scheme {scheme}: in the URL; known are {}",
                    known.join(", ")
                ),
            )
        })?;
    row.connect.ok_or_else(|| {
        Error::new(
            ErrorKind::Unsupported,
            format!("the scheme {scheme}: needs the Cargo feature `{}`", row.feature),
        )
    })
}

fn connect_memory(endpoint: Endpoint, settings: Settings) -> Connected {
    Box::pin(async move {
        if !endpoint.hosts().is_empty() || !endpoint.path().is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "memory: takes no host and no path: each connect makes a store of its own",
            ));
        }
        endpoint.finish()?;
        let manager = memory::MemoryStore::new(&Env::system()).manager(settings)?;
        Ok(Arc::new(manager) as Arc<dyn LockManager>)
    })
}

#[cfg(feature = "sqlite")]
fn connect_sqlite(mut endpoint: Endpoint, settings: Settings) -> Connected {
    use sqlite::{SqliteConfig, SqliteLockManager};

    Box::pin(async move {
        let config = SqliteConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let manager = SqliteLockManager::from_config(config, settings).await?;
        Ok(Arc::new(manager) as Arc<dyn LockManager>)
    })
}

#[cfg(feature = "redis")]
fn connect_redis(mut endpoint: Endpoint, settings: Settings) -> Connected {
    use redis::{RedisConfig, RedisLockManager};

    Box::pin(async move {
        let config = RedisConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let manager = RedisLockManager::from_config(config, settings).await?;
        Ok(Arc::new(manager) as Arc<dyn LockManager>)
    })
}

#[cfg(feature = "zk")]
fn connect_zk(mut endpoint: Endpoint, settings: Settings) -> Connected {
    use zk::{ZkConfig, ZkLockManager};

    Box::pin(async move {
        let config = ZkConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let manager = ZkLockManager::from_config(config, settings).await?;
        Ok(Arc::new(manager) as Arc<dyn LockManager>)
    })
}

#[cfg(feature = "etcd")]
fn connect_etcd(mut endpoint: Endpoint, settings: Settings) -> Connected {
    use etcd::{EtcdConfig, EtcdLockManager};

    Box::pin(async move {
        let config = EtcdConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let manager = EtcdLockManager::from_config(config, settings).await?;
        Ok(Arc::new(manager) as Arc<dyn LockManager>)
    })
}

#[cfg(feature = "postgres")]
fn connect_postgres(mut endpoint: Endpoint, settings: Settings) -> Connected {
    use postgres::{PostgresConfig, PostgresLockManager};

    Box::pin(async move {
        let config = PostgresConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let manager = PostgresLockManager::from_config(config, settings).await?;
        Ok(Arc::new(manager) as Arc<dyn LockManager>)
    })
}

#[cfg(feature = "mysql")]
fn connect_mysql(mut endpoint: Endpoint, settings: Settings) -> Connected {
    use mysql::{MysqlConfig, MysqlLockManager};

    Box::pin(async move {
        let config = MysqlConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let manager = MysqlLockManager::from_config(config, settings).await?;
        Ok(Arc::new(manager) as Arc<dyn LockManager>)
    })
}
