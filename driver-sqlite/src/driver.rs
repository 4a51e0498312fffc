//! The driver: claims, leases, looks.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    Capabilities, Claim, DEFAULT_CLAIM_WINDOW, Diagnosis, Driver, DriverContext, Error, ErrorKind,
    ExpiryClock, Kind, Namespace, Resource, Result, WakeUp,
};

use crate::claims::{Shared, key};
use crate::config::SqliteConfig;
use crate::database::Database;
use crate::doctor;
use crate::looks;
use crate::wake::Wake;

/// How often waiters ask where nobody wakes them.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// How many leases one statement renews.
const RENEW_BATCH: usize = 500;

/// What SQLite can do on Linux and macOS. Where the system names no boot, leases end by the wall clock, and where there are
/// no Unix sockets, waiters ask by themselves: [`SqliteDriver`] declares what it found.
pub const CAPABILITIES: Capabilities = Capabilities::MUTEX
    .with_expiry(ExpiryClock::Boot, Capabilities::MUTEX.expiry_epsilon)
    .with_renew_batch(RENEW_BATCH);

/// Locks in a SQLite file. See the [crate](crate) for what it promises.
#[derive(Debug)]
pub struct SqliteDriver {
    shared: Arc<Shared>,
    capabilities: Capabilities,
}

impl SqliteDriver {
    /// Opens the database, and makes what is missing of it: folders with the rights 0700, the file with 0600.
    ///
    /// # Errors
    /// - [`Invalid`](ErrorKind::Invalid): the path is no file, or the file is no database.
    /// - [`Denied`](ErrorKind::Denied): no right to make or write it.
    /// - [`Unsupported`](ErrorKind::Unsupported): a network file system, a file of a newer version, or one that processes
    ///   with another clock use.
    /// - [`Unavailable`](ErrorKind::Unavailable): the disk is full or fails, or others keep the file locked.
    /// - [`Internal`](ErrorKind::Internal): the file is damaged.
    pub async fn open(config: SqliteConfig, context: DriverContext) -> Result<Self> {
        let push = config.push;
        let database = Arc::new(Database::open(config, context.env.clone()).await?);
        let wake = Wake::start(&database, &context, push);
        let wake_up = if wake.is_push() {
            WakeUp::Push
        } else {
            WakeUp::Poll {
                interval: POLL_INTERVAL,
            }
        };
        let capabilities = CAPABILITIES
            .with_expiry(database.clock.kind(), CAPABILITIES.expiry_epsilon)
            .with_wake_up(wake_up);
        Ok(Self {
            shared: Arc::new(Shared {
                database,
                wake,
                context,
            }),
            capabilities,
        })
    }

    /// Runs `call` to its end: one that nobody polls would keep the connection from all others, and from renewals.
    async fn call<T, F>(&self, call: impl FnOnce(Arc<Shared>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        // In a box, what waits for it is small: the allocator keeps large pieces for nobody, and hands them out in parts.
        self.shared.context.env.to_the_end(Box::pin(call(shared))).await
    }
}

fn only_mutexes(resource: &Resource) -> Result<()> {
    if resource.kind() == Kind::Mutex {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "SQLite has mutexes, not {} locks: use another backend",
            resource.kind()
        ),
    ))
}

impl Driver for SqliteDriver {
    fn backend(&self) -> &'static str {
        "sqlite"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        only_mutexes(&claim.resource)?;
        let claim = claim.clone();
        self.call(move |shared| async move { shared.acquire(&claim, intent).await })
            .await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        only_mutexes(&claim.resource)?;
        let claim = claim.clone();
        self.call(move |shared| async move { shared.release(&claim).await })
            .await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let leases = leases.to_vec();
        self.call(move |shared| async move { looks::renew(&shared.database, &leases).await })
            .await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        let key = key(resource);
        self.call(move |shared| async move { looks::inspect(&shared.database, &key).await })
            .await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        let (namespace, prefix) = (namespace.clone(), prefix.to_owned());
        self.call(move |shared| async move { looks::list(&shared.database, &namespace, &prefix).await })
            .await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        let key = key(resource);
        self.call(
            move |shared| async move { looks::force_release(&shared, &key, DEFAULT_CLAIM_WINDOW).await },
        )
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.call(|shared| async move { looks::ping(&shared.database).await })
            .await
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        let wake_up = self.capabilities.wake_up;
        self.call(move |shared| async move { doctor::diagnose(&shared, wake_up).await })
            .await
    }

    async fn close(&self) -> Result<()> {
        self.shared.wake.close();
        self.call(|shared| async move { shared.database.close().await })
            .await
    }
}
