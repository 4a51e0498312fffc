//! Files, drivers and claims for tests.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_driver_sqlite::{SqliteConfig, SqliteDriver, SqliteLockManager};
use lockcore::driver::{Acquired, Busy, Driver, DriverContext, Grant, Intent, Released};
use lockcore::{AttemptId, Claim, Env, Kind, LockName, Namespace, Resource, Settings};
use sqlx::{ConnectOptions as _, Connection as _};

pub(crate) const TTL: Duration = Duration::from_secs(30);
pub(crate) const WAIT: Intent = Intent::Wait { ticket: None };

/// A folder that is removed with the value, and the path of a database in it.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locks.db");
        Self { folder, path }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs SQL on the file behind the drivers' backs.
    pub(crate) async fn sql(&self, sql: &'static str) -> i64 {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&self.path);
        let mut connection = options.connect().await.unwrap();
        let rows: Vec<i64> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows.first().copied().unwrap_or(0)
    }

    /// The sockets beside the database.
    pub(crate) fn sockets(&self) -> usize {
        std::fs::read_dir(self.folder().join("locks.db-wake")).map_or(0, Iterator::count)
    }
}

pub(crate) async fn open(config: SqliteConfig) -> lockcore::Result<SqliteDriver> {
    SqliteDriver::open(config, DriverContext::new(Env::system())).await
}

pub(crate) async fn driver(path: &Path) -> SqliteDriver {
    open(SqliteConfig::new(path).unwrap()).await.unwrap()
}

/// A manager whose waiters have `window` to claim what is reserved for them.
pub(crate) async fn manager(path: &Path, window: Duration) -> SqliteLockManager {
    let mut settings = Settings::default();
    settings.claim_window = window;
    let config = SqliteConfig::new(path).unwrap();
    SqliteLockManager::from_config(config, settings).await.unwrap()
}

pub(crate) fn resource(name: &str) -> Resource {
    Resource::new(Namespace::default(), Kind::Mutex, LockName::new(name).unwrap())
}

pub(crate) fn claim(name: &str) -> Claim {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let pid = u128::from(std::process::id());
    let attempt = AttemptId::from_bits(pid << 64 | u128::from(NEXT.fetch_add(1, Ordering::Relaxed)));
    let mut claim = Claim::new(resource(name), attempt, TTL);
    claim.details = "someone".into();
    claim
}

/// What tests ask of a driver, without the cases that they do not expect.
pub(crate) trait Ask {
    async fn grant(&self, claim: &Claim, intent: Intent) -> Grant;
    async fn busy(&self, claim: &Claim, intent: Intent) -> Busy;
    async fn free(&self, claim: &Claim);
}

impl Ask for SqliteDriver {
    async fn grant(&self, claim: &Claim, intent: Intent) -> Grant {
        match self.acquire(claim, intent).await.unwrap() {
            Acquired::Granted(grant) => grant,
            other => panic!("{other:?}"),
        }
    }

    async fn busy(&self, claim: &Claim, intent: Intent) -> Busy {
        match self.acquire(claim, intent).await.unwrap() {
            Acquired::Busy(busy) => busy,
            other => panic!("{other:?}"),
        }
    }

    async fn free(&self, claim: &Claim) {
        assert_eq!(self.release(claim).await.unwrap(), Released::Released);
    }
}
