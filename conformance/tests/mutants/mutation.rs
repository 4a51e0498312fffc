//! How a mutant is made: the memory driver behind a layer that changes one thing.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use leasehold_conformance::{Ability, Backend, Budget, Clock, Counters, Link, MemoryBackend};
use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    AttemptId, Capabilities, Claim, Driver, DriverContext, DynDriver, Env, Namespace, Resource, Result,
    Signals,
};

/// A row of the table.
pub(crate) struct Mutant {
    /// One word.
    pub(crate) name: &'static str,
    /// What is wrong with it.
    pub(crate) what: &'static str,
    /// The scenarios that have to reject it.
    pub(crate) by: &'static [&'static str],
    /// Do its locks live by sessions?
    pub(crate) sessions: bool,
    /// Makes it, once for each scenario: all connections of a scenario share it.
    pub(crate) make: fn() -> Arc<dyn Mutation>,
}

/// One client's connection, and what is beyond it.
pub(crate) struct Connection {
    pub(crate) id: u64,
    pub(crate) env: Env,
    pub(crate) signals: Signals,
    /// The driver that does it right.
    pub(crate) driver: DynDriver,
}

/// What a mutant does differently. The default of each method is to do it right.
#[async_trait]
pub(crate) trait Mutation: Send + Sync + 'static {
    async fn acquire(&self, to: &Connection, claim: &Claim, intent: Intent) -> Result<Acquired> {
        to.driver.acquire(claim, intent).await
    }

    async fn release(&self, to: &Connection, claim: &Claim) -> Result<Released> {
        to.driver.release(claim).await
    }

    async fn renew(&self, to: &Connection, leases: &[Lease]) -> Result<Vec<Renewal>> {
        to.driver.renew(leases).await
    }

    async fn inspect(&self, to: &Connection, resource: &Resource) -> Result<Inspection> {
        to.driver.inspect(resource).await
    }

    async fn force_release(&self, to: &Connection, resource: &Resource) -> Result<bool> {
        to.driver.force_release(resource).await
    }

    /// What is sent instead of `resource`.
    fn resource(&self, resource: &Resource) -> Resource {
        resource.clone()
    }

    /// The server removes what is not used.
    fn clean_up(&self) {}

    /// Called for each new connection.
    fn connected(&self, to: &Connection) {
        let _ = to;
    }

    /// Whether the engine hears what the backend pushes.
    fn hears(&self) -> bool {
        true
    }
}

/// The driver with a mutation.
struct Mutated {
    connection: Connection,
    mutation: Arc<dyn Mutation>,
}

impl fmt::Debug for Mutated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mutated")
            .field("connection", &self.connection.id)
            .finish()
    }
}

impl Mutated {
    fn claim(&self, claim: &Claim) -> Claim {
        let mut claim = claim.clone();
        claim.resource = self.mutation.resource(&claim.resource);
        claim
    }
}

impl Driver for Mutated {
    fn backend(&self) -> &'static str {
        "mutant"
    }

    fn capabilities(&self) -> Capabilities {
        self.connection.driver.capabilities()
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let claim = self.claim(claim);
        self.mutation.acquire(&self.connection, &claim, intent).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let claim = self.claim(claim);
        self.mutation.release(&self.connection, &claim).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let mut leases = leases.to_vec();
        for lease in &mut leases {
            lease.claim = self.claim(&lease.claim).into();
        }
        self.mutation.renew(&self.connection, &leases).await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        let resource = self.mutation.resource(resource);
        self.mutation.inspect(&self.connection, &resource).await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        self.connection.driver.list(namespace, prefix).await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        let resource = self.mutation.resource(resource);
        self.mutation.force_release(&self.connection, &resource).await
    }

    async fn ping(&self) -> Result<()> {
        self.connection.driver.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.connection.driver.close().await
    }
}

/// A backend of mutants.
struct Mutants {
    name: &'static str,
    make: fn() -> Arc<dyn Mutation>,
    memory: Arc<dyn Backend>,
    mutation: Arc<dyn Mutation>,
    connections: AtomicU64,
}

impl fmt::Debug for Mutants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

pub(crate) fn backend(mutant: &Mutant) -> Arc<dyn Backend> {
    let memory = MemoryBackend::new(Clock::Virtual);
    Arc::new(Mutants {
        name: mutant.name,
        make: mutant.make,
        memory: Arc::new(if mutant.sessions {
            memory.with_connections("memory-connection")
        } else {
            memory
        }),
        mutation: (mutant.make)(),
        connections: AtomicU64::new(0),
    })
}

#[async_trait]
impl Backend for Mutants {
    fn name(&self) -> String {
        self.name.into()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        self.driver_by(env, &Link::default()).await
    }

    async fn driver_by(&self, env: &Env, link: &Link) -> Result<(DynDriver, DriverContext)> {
        let (driver, context) = self.memory.driver_by(env, link).await?;
        let connection = Connection {
            id: self.connections.fetch_add(1, Ordering::Relaxed),
            env: env.clone(),
            signals: context.signals.clone(),
            driver,
        };
        self.mutation.connected(&connection);
        let context = if self.mutation.hears() {
            context
        } else {
            DriverContext::new(env.clone())
        };
        let mutation = Arc::clone(&self.mutation);
        Ok((DynDriver::new(Mutated { connection, mutation }), context))
    }

    fn abilities(&self) -> Vec<Ability> {
        self.memory.abilities()
    }

    fn clock(&self) -> Clock {
        Clock::Virtual
    }

    fn for_scenario(&self, env: &Env) -> Option<Arc<dyn Backend>> {
        Some(Arc::new(Self {
            memory: self.memory.for_scenario(env)?,
            mutation: (self.make)(),
            connections: AtomicU64::new(0),
            ..*self
        }))
    }

    async fn wipe(&self) -> Result<()> {
        self.memory.wipe().await
    }

    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        self.memory.delete_lock(&self.mutation.resource(resource)).await
    }

    async fn delete_waiter(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let resource = self.mutation.resource(resource);
        self.memory.delete_waiter(&resource, attempt).await
    }

    async fn end_session(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let resource = self.mutation.resource(resource);
        self.memory.end_session(&resource, attempt).await
    }

    fn session_is_connection(&self) -> bool {
        self.memory.session_is_connection()
    }

    async fn kill_connections(&self) -> Result<()> {
        self.memory.kill_connections().await
    }

    async fn clean_up(&self, namespace: &Namespace) -> Result<()> {
        self.mutation.clean_up();
        self.memory.clean_up(namespace).await
    }

    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        self.memory.usage().await
    }

    async fn counters(&self) -> Result<Counters> {
        self.memory.counters().await
    }

    fn budget(&self) -> Budget {
        self.memory.budget()
    }

    async fn residue(&self, namespace: &Namespace) -> Result<Vec<String>> {
        self.memory.residue(namespace).await
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
