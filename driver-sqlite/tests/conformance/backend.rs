//! SQLite files for the suite.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use leasehold_conformance::{Ability, Backend};
use leasehold_driver_sqlite::{SqliteConfig, SqliteDriver};
use lockcore::{
    AttemptId, Capabilities, Driver, DriverContext, DynDriver, Endpoint, Env, Error, ErrorKind, Namespace,
    Resource, Result,
};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;

/// Every scenario has a file of its own, or all of them a folder.
#[derive(Debug)]
pub(crate) struct SqliteBackend {
    push: bool,
    capabilities: Capabilities,
    path: PathBuf,
    folder: Option<Arc<TempDir>>,
}

impl SqliteBackend {
    pub(crate) fn new(push: bool) -> Result<Self> {
        let io = |error| Error::new(ErrorKind::Internal, "no folder for the files").with_source(error);
        let folder = tempfile::tempdir().map_err(io)?;
        let config = SqliteConfig::new(folder.path().join("first.db"))?.push(push);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(io)?;
        // What the driver can do here, it says when it has a file.
        let capabilities = runtime.block_on(async {
            let driver = SqliteDriver::open(config, DriverContext::new(Env::system())).await?;
            driver.close().await?;
            Ok::<_, Error>(driver.capabilities())
        })?;
        Ok(Self {
            push,
            capabilities,
            path: folder.path().join("locks.db"),
            folder: Some(Arc::new(folder)),
        })
    }

    async fn sql<T>(&self, run: impl AsyncFnOnce(&mut SqliteConnection) -> sqlx::Result<T>) -> Result<T> {
        let options = SqliteConnectOptions::new().filename(&self.path);
        let done = async {
            let mut connection = options.connect().await?;
            let done = run(&mut connection).await?;
            connection.close().await?;
            Ok(done)
        };
        done.await.map_err(|error: sqlx::Error| {
            Error::new(ErrorKind::Internal, "behind the driver's back").with_source(error)
        })
    }
}

fn key(resource: &Resource) -> String {
    let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
    format!("{namespace}/{kind}/{}", resource.key())
}

#[async_trait]
impl Backend for SqliteBackend {
    fn name(&self) -> String {
        if self.push { "sqlite" } else { "sqlite-poll" }.into()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn another(&self) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self::new(self.push).ok()?))
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        let config = SqliteConfig::new(&self.path)?.push(self.push);
        let context = DriverContext::new(env.clone());
        let driver = SqliteDriver::open(config, context.clone()).await?;
        Ok((DynDriver::new(driver), context))
    }

    fn abilities(&self) -> Vec<Ability> {
        vec![
            Ability::Processes,
            Ability::Wipe,
            Ability::DeleteLock,
            Ability::DeleteWaiter,
            Ability::CleanUp,
            Ability::Residue,
            Ability::Usage,
        ]
    }

    fn for_scenario(&self, _: &Env) -> Option<Arc<dyn Backend>> {
        static FILES: AtomicU64 = AtomicU64::new(0);
        let folder = self.folder.as_ref()?;
        let number = FILES.fetch_add(1, Ordering::Relaxed);
        Some(Arc::new(Self {
            path: folder.path().join(format!("scenario-{number}.db")),
            folder: self.folder.clone(),
            ..*self
        }))
    }

    fn url(&self) -> Option<String> {
        Some(format!("sqlite:{}", self.path.display()))
    }

    fn at(&self, url: &str) -> Result<Arc<dyn Backend>> {
        let endpoint = Endpoint::parse(url)?;
        Ok(Arc::new(Self {
            path: endpoint.path().into(),
            folder: None,
            ..*self
        }))
    }

    async fn wipe(&self) -> Result<()> {
        self.sql(async |connection| {
            sqlx::raw_sql("DELETE FROM leasehold_lock; DELETE FROM leasehold_waiter")
                .execute(connection)
                .await
        })
        .await
        .map(drop)
    }

    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        let key = key(resource);
        self.sql(async |connection| {
            sqlx::query("DELETE FROM leasehold_lock WHERE key = $1")
                .bind(key)
                .execute(connection)
                .await
        })
        .await
        .map(drop)
    }

    async fn delete_waiter(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let key = key(resource);
        self.sql(async |connection| {
            sqlx::query("DELETE FROM leasehold_waiter WHERE key = $1 AND attempt = $2")
                .bind(key)
                .bind(attempt.to_hex())
                .execute(connection)
                .await
        })
        .await
        .map(drop)
    }

    async fn clean_up(&self, namespace: &Namespace) -> Result<()> {
        const IDLE: &str = "DELETE FROM leasehold_lock \
             WHERE owner IS NULL AND substr(key, 1, length($1)) = $1 \
             AND NOT EXISTS (SELECT 1 FROM leasehold_waiter WHERE leasehold_waiter.key = leasehold_lock.key)";
        let prefix = format!("{}/", namespace.key());
        self.sql(async |connection| sqlx::query(IDLE).bind(prefix).execute(connection).await)
            .await
            .map(drop)
    }

    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        const ROWS: &str = "SELECT (SELECT count(*) FROM leasehold_waiter), \
             (SELECT count(*) FROM leasehold_lock WHERE owner IS NOT NULL)";
        let (waiters, owners): (i64, i64) = self
            .sql(async |connection| sqlx::query_as(ROWS).fetch_one(connection).await)
            .await?;
        let rows = [waiters, owners].map(|rows| rows.try_into().unwrap_or(u64::MAX));
        Ok(["waiters", "owners"].into_iter().zip(rows).collect())
    }

    async fn residue(&self, namespace: &Namespace) -> Result<Vec<String>> {
        // Reservations and leases are gone when they have an owner no more, or have run out.
        const LEFT: &str = "SELECT 'owner of ' || key FROM leasehold_lock \
             WHERE owner IS NOT NULL AND substr(key, 1, length($1)) = $1 \
             UNION ALL \
             SELECT 'waiter for ' || key FROM leasehold_waiter WHERE substr(key, 1, length($1)) = $1";
        let prefix = format!("{}/", namespace.key());
        self.sql(async |connection| sqlx::query_scalar(LEFT).bind(prefix).fetch_all(connection).await)
            .await
    }
}
