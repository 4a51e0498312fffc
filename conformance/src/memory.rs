//! The suite's backend in memory: the reference model, and the ground on which mutants are tested.

mod session;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::memory::{CAPABILITIES, Call, MemoryDriver, MemoryStore};
use lockcore::{
    AttemptId, Capabilities, Claim, Driver, DriverContext, DynDriver, Env, Namespace, Resource, Result,
};

use crate::backend::{Ability, Backend, Budget, Clock, Counters};
use crate::seam::Link;
use session::Sessions;

/// Puts something around each driver.
type Wrap = Arc<dyn Fn(MemoryDriver, &DriverContext) -> DynDriver + Send + Sync>;

/// `memory:` for the suite. Every scenario has a store of its own.
#[derive(Clone)]
pub struct MemoryBackend {
    name: String,
    clock: Clock,
    capabilities: Capabilities,
    wrap: Option<Wrap>,
    store: Option<MemoryStore>,
    /// Of the locks of this scenario, when they live by sessions.
    sessions: Arc<Sessions>,
    /// Do these end with their connections?
    cut_sessions: bool,
}

impl fmt::Debug for MemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBackend")
            .field("name", &self.name)
            .field("clock", &self.clock)
            .finish_non_exhaustive()
    }
}

impl MemoryBackend {
    /// On `clock`.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        let name = match clock {
            Clock::Virtual => "memory",
            Clock::Real => "memory-real-time",
        };
        Self {
            name: name.into(),
            clock,
            capabilities: CAPABILITIES,
            wrap: None,
            store: None,
            sessions: Arc::default(),
            cut_sessions: false,
        }
    }

    /// With locks that live by sessions: see [`Capabilities::sessions`].
    #[must_use]
    pub fn with_sessions(self, name: impl Into<String>) -> Self {
        // No session is kept alive more often than that.
        let min = self.capabilities.min_ttl.max(Duration::from_millis(100));
        Self {
            name: name.into(),
            capabilities: self
                .capabilities
                .with_ttl(min, self.capabilities.max_ttl, self.capabilities.ttl_grain)
                .with_sessions(true),
            ..self
        }
    }

    /// With locks that live by sessions which end with their connections.
    #[must_use]
    pub fn with_connections(self, name: impl Into<String>) -> Self {
        Self {
            cut_sessions: true,
            ..self.with_sessions(name)
        }
    }

    /// With another driver around each of its drivers: a mutant, say.
    #[must_use]
    pub fn wrapped(
        self,
        name: impl Into<String>,
        wrap: impl Fn(MemoryDriver, &DriverContext) -> DynDriver + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            wrap: Some(Arc::new(wrap)),
            ..self
        }
    }

    /// Declared as `capabilities`, which the wrapped drivers have to answer as well.
    #[must_use]
    pub fn declared(self, capabilities: Capabilities) -> Self {
        Self { capabilities, ..self }
    }

    fn store(&self, env: &Env) -> MemoryStore {
        self.store.clone().unwrap_or_else(|| MemoryStore::new(env))
    }

    fn of_scenario(&self) -> Result<&MemoryStore> {
        self.store.as_ref().ok_or_else(|| {
            lockcore::Error::new(
                lockcore::ErrorKind::Internal,
                "a memory store belongs to one scenario",
            )
        })
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        self.driver_by(env, &Link::default()).await
    }

    async fn driver_by(&self, env: &Env, link: &Link) -> Result<(DynDriver, DriverContext)> {
        let (driver, context) = self.store(env).driver();
        let driver = match &self.wrap {
            Some(wrap) => wrap(driver, &context),
            None if self.capabilities.sessions => {
                let declared = (self.capabilities, link.clone());
                DynDriver::new(self.sessions.driver(driver, &context, declared))
            }
            None => DynDriver::new(driver),
        };
        Ok((driver, context))
    }

    fn abilities(&self) -> Vec<Ability> {
        let mut abilities = vec![
            Ability::Wipe,
            Ability::DeleteLock,
            Ability::DeleteWaiter,
            Ability::CleanUp,
            Ability::Residue,
            Ability::Usage,
            Ability::Counters,
        ];
        if self.capabilities.sessions {
            abilities.push(Ability::EndSession);
        }
        if self.cut_sessions {
            abilities.push(Ability::KillConnections);
        }
        abilities
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn for_scenario(&self, env: &Env) -> Option<Arc<dyn Backend>> {
        let store = Some(MemoryStore::new(env));
        Some(Arc::new(Self {
            store,
            sessions: Arc::default(),
            ..self.clone()
        }))
    }

    async fn wipe(&self) -> Result<()> {
        self.of_scenario()?.restart_empty();
        Ok(())
    }

    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        let (admin, _) = self.of_scenario()?.driver();
        admin.force_release(resource).await.map(drop)
    }

    async fn end_session(&self, _: &Resource, attempt: AttemptId) -> Result<()> {
        self.sessions.end(self.of_scenario()?, attempt).await
    }

    async fn delete_waiter(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let (admin, _) = self.of_scenario()?.driver();
        let claim = Claim::new(resource.clone(), attempt, self.capabilities.max_ttl);
        admin.release(&claim).await.map(drop)
    }

    /// The store forgets idle names by itself.
    async fn clean_up(&self, _: &Namespace) -> Result<()> {
        Ok(())
    }

    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        let names = self.of_scenario()?.resources();
        Ok(vec![("names", u64::try_from(names).unwrap_or(u64::MAX))])
    }

    /// What keeps a session is a message to the store like any other.
    async fn counters(&self) -> Result<Counters> {
        let store = self.of_scenario()?;
        let writes = [Call::Acquire, Call::Release, Call::Renew].map(|call| store.calls(call));
        let writes = writes.iter().sum();
        Ok(Counters::new(writes + store.calls(Call::Other), writes))
    }

    fn budget(&self) -> Budget {
        // Renewed up to six times in a TTL, in up to twenty batches more than it takes at the least.
        let batches = 1000_usize.div_ceil(self.capabilities.renew_batch) + 20;
        let requests = u64::try_from(batches * 6).unwrap_or(u64::MAX);
        Budget::LEASES.with_keep_thousand(requests, 6000)
    }

    fn session_is_connection(&self) -> bool {
        self.cut_sessions
    }

    async fn kill_connections(&self) -> Result<()> {
        self.sessions.end_all(self.of_scenario()?).await
    }

    async fn residue(&self, _: &Namespace) -> Result<Vec<String>> {
        Ok(match self.of_scenario()?.resources() {
            0 => Vec::new(),
            left => vec![format!("{left} names are held or waited for")],
        })
    }
}
