//! The suite's backend in memory: the reference model, and the ground on which mutants are tested.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use lockcore::memory::{CAPABILITIES, MemoryDriver, MemoryStore};
use lockcore::{Capabilities, Driver, DriverContext, Env, Namespace, Resource, Result};

use crate::backend::{Ability, Backend, Clock};

/// Puts something around each driver.
type Wrap = Arc<dyn Fn(MemoryDriver, &DriverContext) -> Arc<dyn Driver> + Send + Sync>;

/// `memory:` for the suite. Every scenario has a store of its own.
#[derive(Clone)]
pub struct MemoryBackend {
    name: String,
    clock: Clock,
    capabilities: Capabilities,
    wrap: Option<Wrap>,
    store: Option<MemoryStore>,
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
        }
    }

    /// With another driver around each of its drivers: a mutant, say.
    #[must_use]
    pub fn wrapped(
        self,
        name: impl Into<String>,
        wrap: impl Fn(MemoryDriver, &DriverContext) -> Arc<dyn Driver> + Send + Sync + 'static,
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

    async fn driver(&self, env: &Env) -> Result<(Arc<dyn Driver>, DriverContext)> {
        let (driver, context) = self.store(env).driver();
        let driver = match &self.wrap {
            Some(wrap) => wrap(driver, &context),
            None => Arc::new(driver),
        };
        Ok((driver, context))
    }

    fn abilities(&self) -> Vec<Ability> {
        vec![Ability::Wipe, Ability::DeleteLock, Ability::Residue]
    }

    fn clock(&self) -> Clock {
        self.clock
    }

    fn for_scenario(&self, env: &Env) -> Option<Arc<dyn Backend>> {
        let store = Some(MemoryStore::new(env));
        Some(Arc::new(Self {
            store,
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

    async fn residue(&self, _: &Namespace) -> Result<Vec<String>> {
        Ok(match self.of_scenario()?.resources() {
            0 => Vec::new(),
            left => vec![format!("{left} names are held or waited for")],
        })
    }
}
