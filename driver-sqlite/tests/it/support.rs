//! Files, drivers and claims for tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_driver_sqlite::{SqliteConfig, SqliteDriver};
use lockcore::driver::{Acquired, Busy, Driver, DriverContext, Grant, Intent};
use lockcore::{AttemptId, Claim, Env, Kind, LockName, Namespace, Resource};

pub(crate) const TTL: Duration = Duration::from_secs(30);

/// A folder that is removed with the value, and the path of a database in it.
pub(crate) struct Place {
    _folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

pub(crate) fn place() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("locks.db");
    Place {
        _folder: folder,
        path,
    }
}

/// A driver and the context that it reports to.
pub(crate) struct Node {
    pub(crate) driver: SqliteDriver,
    pub(crate) context: DriverContext,
}

pub(crate) async fn node(path: &Path) -> Node {
    node_with(SqliteConfig::new(path).unwrap()).await
}

pub(crate) async fn node_with(config: SqliteConfig) -> Node {
    let context = DriverContext::new(Env::system());
    let driver = SqliteDriver::open(config, context.clone()).await.unwrap();
    Node { driver, context }
}

pub(crate) fn resource(name: &str) -> Resource {
    Resource::new(Namespace::default(), Kind::Mutex, LockName::new(name).unwrap())
}

pub(crate) fn attempt() -> AttemptId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let pid = u128::from(std::process::id());
    AttemptId::from_bits(pid << 64 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed)))
}

pub(crate) fn claim(name: &str) -> Claim {
    let mut claim = Claim::new(resource(name), attempt(), TTL);
    claim.details = "someone".into();
    claim
}

pub(crate) const WAIT: Intent = Intent::Wait { ticket: None };

impl Node {
    pub(crate) async fn grant(&self, claim: &Claim, intent: Intent) -> Grant {
        match self.driver.acquire(claim, intent).await.unwrap() {
            Acquired::Granted(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn busy(&self, claim: &Claim, intent: Intent) -> Busy {
        match self.driver.acquire(claim, intent).await.unwrap() {
            Acquired::Busy(busy) => busy,
            other => panic!("{other:?}"),
        }
    }
}
