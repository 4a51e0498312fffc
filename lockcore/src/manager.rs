//! Lock managers: one backend, one set of settings, any number of locks.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::capability::Capabilities;
use crate::core::{Core, Shared};
use crate::diagnosis::Diagnosis;
use crate::driver::{Driver, DriverContext, DynDriver, Listed};
use crate::error::{Error, ErrorKind, Result};
use crate::gate::Gates;
use crate::holder::{Details, Holder, LockStatus, Owner};
use crate::lock::{LockBuilder, Share};
use crate::loss::LossReason;
use crate::name::{Kind, LockName, Resource, decode_key};
use crate::settings::Settings;
use crate::upkeep::Upkeep;

/// Hands out locks on one backend. Object-safe: an application keeps an `Arc<dyn LockManager>` and does not know
/// which backend it is.
#[async_trait]
pub trait LockManager: std::fmt::Debug + Send + Sync {
    /// The manager below; every other method has a body that asks it.
    fn manager(&self) -> &Manager;

    /// The backend's name, such as `memory`.
    fn backend(&self) -> &'static str {
        self.manager().core.shared.driver.backend()
    }

    /// What the backend can do.
    fn capabilities(&self) -> Capabilities {
        self.manager().core.shared.capabilities
    }

    /// The settings of this manager.
    fn settings(&self) -> &Settings {
        &self.manager().core.shared.settings
    }

    /// A mutex: one holder.
    fn lock(&self, name: &str) -> LockBuilder {
        self.manager().builder(name, Share::MUTEX)
    }

    /// The reading side of a reader-writer lock: any number of readers, and no writer. A waiting writer comes before
    /// readers who come later.
    fn read_lock(&self, name: &str) -> LockBuilder {
        self.manager().builder(name, Share::READ)
    }

    /// The writing side of a reader-writer lock: one writer, and no readers.
    fn write_lock(&self, name: &str) -> LockBuilder {
        self.manager().builder(name, Share::WRITE)
    }

    /// `permits` of the `size` permits of a semaphore, all or none. All users of the name give the same size; it can be
    /// changed while nobody holds a permit or waits for one.
    fn semaphore(&self, name: &str, permits: u32, size: u32) -> LockBuilder {
        self.manager().builder(name, Share::permits(permits, size))
    }

    /// One round trip to the backend, and how long it took.
    ///
    /// # Errors
    /// What the backend says, by [`ErrorKind`].
    async fn ping(&self) -> Result<Duration> {
        self.manager().timed_ping().await
    }

    /// What the server is, how its clock stands to ours, and what is risky in its settings, with the remedy. It changes
    /// nothing at the server.
    ///
    /// # Errors
    /// What the backend says, by [`ErrorKind`], when it cannot be reached or refuses us; what it only does not tell is a
    /// finding.
    async fn diagnose(&self) -> Result<Diagnosis> {
        self.manager().diagnose_server().await
    }

    /// Who holds the lock with this name, of any kind, and how many wait.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend cannot tell, [`Invalid`](ErrorKind::Invalid) for a bad
    /// name, and what the backend says.
    async fn inspect(&self, name: &str) -> Result<Vec<LockStatus>> {
        self.manager().inspect_name(name).await
    }

    /// The held locks of this namespace whose names start with `prefix`, in order of their names.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend cannot tell, and what the backend says.
    async fn list(&self, prefix: &str) -> Result<Vec<LockStatus>> {
        self.manager().list_names(prefix).await
    }

    /// Takes the lock with this name, of any kind, away from whoever holds it: for people who know that the holder is
    /// wrong. A holder that lives learns of it with its next renewal at the latest. True when somebody held it.
    ///
    /// # Errors
    /// As [`inspect`](Self::inspect).
    async fn force_release(&self, name: &str) -> Result<bool> {
        self.manager().force_release_name(name).await
    }

    /// Closes the manager: refuses new acquires, ends waits with [`Closed`](ErrorKind::Closed), waits for held locks to
    /// be released for as long as the setting `drain` says (5 s), ends those that are left as lost, and finishes every
    /// clean-up. Locks and guards that outlive it are harmless. Closing twice waits for the first.
    ///
    /// # Errors
    /// What the backend says to a goodbye; the manager is closed all the same.
    ///
    /// # Cancel safety
    /// The closing goes on in the background.
    async fn close(&self) -> Result<()> {
        self.manager().close_all().await
    }
}

/// The lock manager that every backend shares. Cheap to clone; the last clone, lock or guard that is dropped ends its
/// tasks.
#[derive(Clone, Debug)]
pub struct Manager {
    core: Arc<Core>,
}

impl LockManager for Manager {
    fn manager(&self) -> &Manager {
        self
    }
}

impl Manager {
    /// A manager on `driver`, which was made with `context`. Tasks run on the context's runtime.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when a setting is out of bounds, [`Internal`](ErrorKind::Internal) when the
    /// context belongs to another manager already.
    pub fn new(driver: impl Driver, context: DriverContext, settings: Settings) -> Result<Self> {
        Self::from_dyn(DynDriver::new(driver), context, settings)
    }

    /// The same for a driver of any type.
    ///
    /// # Errors
    /// As [`Manager::new`].
    pub fn from_dyn(driver: DynDriver, context: DriverContext, settings: Settings) -> Result<Self> {
        settings.validate()?;
        let DriverContext { env, signals } = context;
        let held_signals = signals.take_held().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a driver context serves one manager: make a new one for each",
            )
        })?;
        let capabilities = driver.capabilities();
        let clean_ups = TaskTracker::new();
        let details = Details::encode(Owner::this_process(settings.label.as_deref()), None);
        let shared = Arc::new(Shared {
            driver,
            capabilities,
            env,
            settings,
            details,
            clean_ups,
            rounded: Mutex::default(),
        });
        let upkeep = Arc::new(Upkeep::new(Arc::clone(&shared)));
        let gone = CancellationToken::new();
        let task = Arc::clone(&upkeep).run(held_signals, gone.clone());
        drop(shared.env.spawn(task));
        let core = Core {
            shared,
            signals,
            gates: Gates::default(),
            upkeep,
            gone: gone.drop_guard(),
            closed: CancellationToken::new(),
            close_done: CancellationToken::new(),
        };
        Ok(Self { core: Arc::new(core) })
    }

    pub(crate) const fn from_core(core: Arc<Core>) -> Self {
        Self { core }
    }

    fn builder(&self, name: &str, share: Share) -> LockBuilder {
        LockBuilder::new(Arc::clone(&self.core), name, share)
    }

    fn resource(&self, name: &LockName, kind: Kind) -> Resource {
        Resource::new(self.core.shared.settings.namespace.clone(), kind, name.clone())
    }

    /// The kinds that the backend can have.
    fn kinds(&self) -> impl Iterator<Item = Kind> + use<> {
        let weighted = self.core.shared.capabilities.weighted;
        Kind::ALL
            .into_iter()
            .filter(move |kind| *kind == Kind::Mutex || weighted)
    }

    async fn timed_ping(&self) -> Result<Duration> {
        let shared = &self.core.shared;
        let (driver, sent) = (shared.driver.clone(), shared.env.now());
        let answer = shared.bounded(Box::pin(async move { driver.ping().await })).await;
        answer.map_err(shared.locate("ping", None))?;
        Ok(shared.env.now().since(sent))
    }

    async fn diagnose_server(&self) -> Result<Diagnosis> {
        let shared = &self.core.shared;
        let driver = shared.driver.clone();
        let found = shared
            .bounded(Box::pin(async move { driver.diagnose().await }))
            .await;
        let mut diagnosis = found.map_err(shared.locate("diagnose", None))?;
        diagnosis.judge_clock(&shared.capabilities);
        Ok(diagnosis)
    }

    pub(crate) async fn inspect_resource(&self, resource: &Resource) -> Result<LockStatus> {
        let shared = &self.core.shared;
        let inspected = async {
            Capabilities::require(shared.capabilities.inspect, "way to tell who holds a lock")?;
            let (driver, asked) = (shared.driver.clone(), resource.clone());
            shared
                .bounded(Box::pin(async move { driver.inspect(&asked).await }))
                .await
        };
        let inspection = inspected
            .await
            .map_err(shared.locate("inspect", Some(resource.name())))?;
        Ok(LockStatus {
            name: resource.name().clone(),
            kind: resource.kind(),
            holders: inspection
                .holders
                .into_iter()
                .map(Holder::from_occupant)
                .collect(),
            waiters: inspection.waiters,
        })
    }

    async fn inspect_name(&self, name: &str) -> Result<Vec<LockStatus>> {
        let name = LockName::new(name).map_err(self.core.shared.locate("inspect", None))?;
        let mut found = Vec::new();
        for kind in self.kinds() {
            let status = self.inspect_resource(&self.resource(&name, kind)).await?;
            if kind == Kind::Mutex || status.is_held() || status.waiters > 0 {
                found.push(status);
            }
        }
        Ok(found)
    }

    async fn list_names(&self, prefix: &str) -> Result<Vec<LockStatus>> {
        let shared = &self.core.shared;
        let listed = async {
            Capabilities::require(shared.capabilities.list, "way to list locks")?;
            let (driver, asked) = (shared.driver.clone(), prefix.to_owned());
            let namespace = shared.settings.namespace.clone();
            shared
                .bounded(Box::pin(async move { driver.list(&namespace, &asked).await }))
                .await
        };
        let listed = listed.await.map_err(shared.locate("list", None))?;
        let mut found: Vec<_> = listed.into_iter().filter_map(status_of).collect();
        found.retain(|status| status.name.as_str().starts_with(prefix));
        found.sort_by(|a, b| (&a.name, a.kind).cmp(&(&b.name, b.kind)));
        Ok(found)
    }

    async fn force_release_name(&self, name: &str) -> Result<bool> {
        let shared = &self.core.shared;
        let name = LockName::new(name).map_err(shared.locate("force-release", None))?;
        let mut held = false;
        for kind in self.kinds() {
            let released = async {
                Capabilities::require(
                    shared.capabilities.force_release,
                    "way to free somebody else's lock",
                )?;
                let (driver, resource) = (shared.driver.clone(), self.resource(&name, kind));
                shared
                    .bounded(Box::pin(async move { driver.force_release(&resource).await }))
                    .await
            };
            held |= released
                .await
                .map_err(shared.locate("force-release", Some(&name)))?;
        }
        Ok(held)
    }

    async fn close_all(&self) -> Result<()> {
        let core = Arc::clone(&self.core);
        if core.closed.is_cancelled() {
            core.close_done.cancelled().await;
            return Ok(());
        }
        core.closed.cancel();
        let env = core.shared.env.clone();
        let closing = env.spawn(async move {
            let _done = core.close_done.clone().drop_guard();
            core.drain().await
        });
        closing
            .await
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Internal, "the runtime ended while closing")))
    }
}

impl Core {
    async fn drain(&self) -> Result<()> {
        let shared = &self.shared;
        let drained = self.upkeep.drained();
        if shared.env.timeout(shared.settings.drain, drained).await.is_none() {
            self.upkeep.lose_all(LossReason::Closed);
        }
        shared.clean_ups.close();
        // Clean-up that the backend does not answer is left to the TTL: closing has an end.
        let limit = shared.settings.op_timeout.saturating_mul(2);
        let cleaned = shared.env.timeout(limit, Box::pin(shared.clean_ups.wait())).await;
        if cleaned.is_none() {
            tracing::warn!(
                left = shared.clean_ups.len(),
                "closed before the backend confirmed every release"
            );
        }
        let driver = shared.driver.clone();
        shared
            .bounded(Box::pin(async move { driver.close().await }))
            .await
            .map_err(shared.locate("close", None))
    }

    /// Says once per pair that a TTL was rounded.
    pub(crate) fn warn_rounded_ttl(&self, asked: &str, given: &str) {
        let mut rounded = self.shared.rounded.lock().unwrap_or_else(PoisonError::into_inner);
        // A program that computes its TTLs must not fill the memory.
        if rounded.len() < 64 && rounded.insert((asked.to_owned(), given.to_owned())) {
            tracing::warn!(
                backend = self.shared.driver.backend(),
                asked,
                given,
                "TTL changed to what the backend can do"
            );
        }
    }
}

/// Pairs of TTLs, asked for and given.
pub(crate) type RoundedTtls = Mutex<HashSet<(String, String)>>;

fn status_of(listed: Listed) -> Option<LockStatus> {
    let Listed {
        kind,
        key,
        inspection,
    } = listed;
    let stored_name = || {
        let details = Details::decode(&inspection.holders.first()?.details)?;
        LockName::new(details.name?).ok()
    };
    // Of a hashed name only the key is left when its holder wrote no details: better that than to hide the lock.
    let name = decode_key(&key)
        .or_else(stored_name)
        .or_else(|| LockName::new(key).ok())?;
    let holders = inspection
        .holders
        .into_iter()
        .map(Holder::from_occupant)
        .collect();
    Some(LockStatus {
        name,
        kind,
        holders,
        waiters: inspection.waiters,
    })
}
