//! The mode `lease`: each call is one statement.

use std::sync::atomic::{AtomicI64, AtomicU32};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    Batches, Capabilities, Claim, DEFAULT_CLAIM_WINDOW, Driver, DriverContext, Namespace, Resource, Result,
    Supervisor, WakeUp,
};

use crate::batch::{Batched, MOST};
use crate::claims::{Shared, Statements, key};
use crate::config::PostgresConfig;
use crate::driver::{CAPABILITIES, only_mutexes};
use crate::listener::Connector;
use crate::pool::{Access, Pool};

/// How often waiters ask where nobody wakes them.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Locks that are rows with a lease.
#[derive(Debug)]
pub(crate) struct LeaseDriver {
    shared: Arc<Shared>,
    supervisor: Option<Supervisor<Connector>>,
    capabilities: Capabilities,
}

impl LeaseDriver {
    pub(crate) async fn connect(config: PostgresConfig, context: DriverContext) -> Result<Self> {
        let push = config.push;
        let statements = Statements::new(&config.schema);
        let queue = config.queue;
        let access = Arc::new(Access::new(config, context.env.clone()));
        let pool = Arc::new(Pool::new(Arc::clone(&access), access.config.connections));
        let wake = Arc::<AtomicI64>::default();
        let batch = Batched {
            pool: Arc::clone(&pool),
            take: Arc::clone(&statements.take),
            free: Arc::clone(&statements.free),
            wake: Arc::clone(&wake),
        };
        let connections = access.config.connections;
        let shared = Arc::new(Shared {
            pool: Arc::clone(&pool),
            batches: Batches::over_connections(&context.env, batch, connections, MOST),
            statements,
            context: context.clone(),
            wake: Arc::clone(&wake),
            queue,
            requests: AtomicU32::new(0),
            swept: Mutex::default(),
        });
        pool.warm().await?;
        let supervisor = if push {
            let connector = Connector {
                access,
                context: context.clone(),
                pool,
                wake,
            };
            Some(Supervisor::start(&context, connector).await?)
        } else {
            access.refuse_pooler().await?;
            None
        };
        let capabilities = if push {
            CAPABILITIES
        } else {
            CAPABILITIES.with_wake_up(WakeUp::Poll {
                interval: POLL_INTERVAL,
            })
        };
        Ok(Self {
            shared,
            supervisor,
            capabilities,
        })
    }

    /// Runs `call` to its end even if the caller goes away: a release that follows must not overtake it, and a
    /// connection in the middle of an answer would be of no more use.
    async fn call<T: Send + 'static>(&self, call: impl AsyncCall<T>) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        self.shared.context.env.to_the_end(call(shared)).await
    }
}

type Future<T> = std::pin::Pin<Box<dyn std::future::Future<Output = Result<T>> + Send>>;

trait AsyncCall<T>: FnOnce(Arc<Shared>) -> Future<T> + Send {}
impl<T, F: FnOnce(Arc<Shared>) -> Future<T> + Send> AsyncCall<T> for F {}

impl Driver for LeaseDriver {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        only_mutexes(&claim.resource)?;
        let claim = claim.clone();
        self.call(move |shared| Box::pin(async move { shared.acquire(&claim, intent).await }))
            .await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        only_mutexes(&claim.resource)?;
        let claim = claim.clone();
        self.call(move |shared| Box::pin(async move { shared.release(&claim).await }))
            .await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let leases = leases.to_vec();
        self.call(move |shared| Box::pin(async move { shared.renew(&leases).await }))
            .await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        let key = key(resource);
        self.call(move |shared| Box::pin(async move { shared.inspect(&key).await }))
            .await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        let (namespace, prefix) = (namespace.clone(), prefix.to_owned());
        self.call(move |shared| Box::pin(async move { shared.list(&namespace, &prefix).await }))
            .await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        let key = key(resource);
        self.call(move |shared| {
            Box::pin(async move {
                let released = shared.give_up(&key, "", DEFAULT_CLAIM_WINDOW, true).await?;
                Ok(released == Released::Released)
            })
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.call(|shared| Box::pin(async move { shared.ping().await }))
            .await
    }

    async fn close(&self) -> Result<()> {
        if let Some(supervisor) = &self.supervisor {
            supervisor.close();
        }
        self.call(|shared| {
            Box::pin(async move {
                shared.pool.close().await;
                Ok(())
            })
        })
        .await
    }
}
