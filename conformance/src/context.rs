//! What a scenario has at hand.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{
    AttemptId, Capabilities, Claim, DriverContext, DynDriver, Env, Instant, Kind, LockManager, LockName,
    Manager, Namespace, Resource, Settings,
};
use tokio::runtime::Handle;

use crate::backend::{Backend, Clock};
use crate::client::Client;
use crate::failure::{Checked, Failure};
use crate::history::{Bounds, History};
use crate::limits;
use crate::seam::{Link, Seam};
pub use crate::task::Task;

/// A scenario's world: a backend, time, fresh names, a history. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    /// Is the backend this scenario's alone?
    isolated: bool,
    env: Env,
    /// Where the server lives: its client libraries may not be moved between runtimes.
    home: Handle,
    history: History,
    namespace: Namespace,
    names: AtomicU32,
    notes: Mutex<Notes>,
    measured: Arc<Mutex<Vec<String>>>,
}

/// What is judged or cleared up at the end.
#[derive(Debug, Default)]
struct Notes {
    managers: Vec<Manager>,
    namespaces: BTreeSet<Namespace>,
    slow_hand_off: bool,
    no_order: bool,
    leaves_residue: bool,
}

impl Context {
    /// `measured` is where what is measured goes.
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        (env, home): (Env, Handle),
        measured: Arc<Mutex<Vec<String>>>,
    ) -> Checked<Self> {
        let own = backend.for_scenario(&env);
        let isolated = own.is_some();
        let backend = own.unwrap_or(backend);
        let namespace = Namespace::new(format!("conformance-{:032x}", env.random_u128()?))?;
        Ok(Self(Arc::new(Inner {
            backend,
            isolated,
            env,
            home,
            history: History::new(),
            namespace,
            names: AtomicU32::new(0),
            notes: Mutex::default(),
            measured,
        })))
    }

    /// Tells in the summary how long something took, and the TTL that it has to do with.
    pub fn measured(&self, what: &str, took: Duration, ttl: Duration) {
        let epsilon = self.capabilities().expiry_epsilon;
        self.noted(format!(
            "{what}: {took:.2?}, with a TTL of {ttl:?} and {epsilon:?} beyond"
        ));
    }

    /// Tells something in the summary.
    pub fn noted(&self, what: impl Into<String>) {
        let mut measured = self.0.measured.lock().unwrap_or_else(PoisonError::into_inner);
        measured.push(what.into());
    }

    pub(crate) fn is_isolated(&self) -> bool {
        self.0.isolated
    }

    /// The clock of this scenario.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.env.now()
    }

    /// Lets time pass.
    pub async fn sleep(&self, duration: Duration) {
        self.0.env.sleep(duration).await;
    }

    /// The backend. What its server has to do goes through [`Context::at_home`].
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.0.backend
    }

    /// What it declares.
    #[must_use]
    pub fn capabilities(&self) -> Capabilities {
        self.0.backend.capabilities()
    }

    /// Does time stand still while everybody waits?
    #[must_use]
    pub fn is_virtual(&self) -> bool {
        self.0.backend.clock() == Clock::Virtual
    }

    /// What happened so far.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// How much later than promised something may be seen.
    #[must_use]
    pub fn slack(&self) -> Duration {
        self.pick(limits::REAL_SLACK, limits::VIRTUAL_SLACK)
    }

    /// A TTL that the backend gives as it is: `about`, or what comes next to it.
    #[must_use]
    pub fn ttl(&self, about: Duration) -> Duration {
        self.capabilities().effective_ttl(about)
    }

    /// A TTL for locks that are meant to run out, as the backend will give it.
    #[must_use]
    pub fn expiring_ttl(&self) -> Duration {
        self.ttl(limits::EXPIRING_TTL)
    }

    /// A TTL for locks that are meant to be renewed, as the backend will give it.
    #[must_use]
    pub fn renewed_ttl(&self) -> Duration {
        self.ttl(limits::RENEWED_TTL)
    }

    /// How long after `ttl` an abandoned lock may still be there.
    #[must_use]
    pub fn late(&self) -> Duration {
        self.capabilities().expiry_epsilon + self.slack()
    }

    /// How long an abandoned lease of `ttl` lasts at the longest at the backend, for those who sleep for as long. What
    /// a slow machine adds comes on top by itself.
    #[must_use]
    pub fn surely_over(&self, ttl: Duration) -> Duration {
        ttl + self.capabilities().expiry_epsilon + Duration::from_millis(200)
    }

    /// One value on the real clock, another on virtual time.
    pub fn pick<T>(&self, real: T, in_virtual_time: T) -> T {
        if self.is_virtual() { in_virtual_time } else { real }
    }

    /// A lock name that nobody else uses.
    #[must_use]
    pub fn name(&self) -> String {
        format!("lock-{}", self.0.names.fetch_add(1, Ordering::Relaxed))
    }

    /// The settings of this scenario's clients: a namespace of its own.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let mut settings = Settings::default();
        settings.namespace = self.0.namespace.clone();
        settings.claim_window = self.pick(limits::REAL_CLAIM_WINDOW, settings.claim_window);
        settings.drain = Duration::ZERO;
        settings
    }

    /// A client with a connection of its own.
    ///
    /// # Errors
    /// When the backend does not let it in.
    pub async fn client(&self) -> Checked<Client> {
        self.client_with(self.settings()).await
    }

    /// A client with these settings.
    ///
    /// # Errors
    /// As [`Context::client`].
    pub async fn client_with(&self, settings: Settings) -> Checked<Client> {
        self.client_of(self.backend(), settings, true).await
    }

    /// A client that hears nothing of what the backend pushes.
    ///
    /// # Errors
    /// As [`Context::client`].
    pub async fn deaf_client(&self, settings: Settings) -> Checked<Client> {
        self.client_of(self.backend(), settings, false).await
    }

    /// A client of another backend: of the same server through a proxy, say.
    ///
    /// # Errors
    /// As [`Context::client`].
    pub async fn client_at(&self, backend: &Arc<dyn Backend>, settings: Settings) -> Checked<Client> {
        self.client_of(backend, settings, true).await
    }

    /// A driver as it is, without the engine above it, for what no guard would ask.
    ///
    /// # Errors
    /// As [`Context::client`].
    pub async fn driver(&self) -> Checked<DynDriver> {
        Ok(self.backend().driver(&self.0.env).await?.0)
    }

    /// A fresh attempt at a mutex of this scenario, for [`Context::driver`], with `ttl` or what comes next to it.
    ///
    /// # Errors
    /// For a bad name.
    pub fn claim(&self, name: &str, ttl: Duration) -> Checked<Claim> {
        let resource = Resource::new(self.0.namespace.clone(), Kind::Mutex, LockName::new(name)?);
        let attempt = AttemptId::from_bits(self.0.env.random_u128()?);
        Ok(Claim::new(resource, attempt, self.ttl(ttl)))
    }

    /// The longest that a dead or stopped waiter for a lock of `ttl` can delay those behind it.
    #[must_use]
    pub fn dead_waiter(&self, settings: &Settings, ttl: Duration) -> Duration {
        self.backend().dead_waiter(settings.claim_window, ttl)
    }

    async fn client_of(
        &self,
        backend: &Arc<dyn Backend>,
        settings: Settings,
        hears: bool,
    ) -> Checked<Client> {
        let link = Link::default();
        let (driver, context) = backend.driver_by(&self.0.env, &link).await?;
        let context = if hears {
            context
        } else {
            DriverContext::new(context.env)
        };
        let seam = Seam::new(driver, context.env.clone(), link.clone(), self.0.history.clone());
        let namespace = settings.namespace.clone();
        let manager = Manager::new(seam, context, settings)?;
        let mut notes = self.notes();
        notes.namespaces.insert(namespace);
        notes.managers.push(manager.clone());
        Ok(Client::new(
            manager,
            link,
            self.0.history.clone(),
            self.0.env.clone(),
        ))
    }

    /// Runs `future` as a task of this scenario.
    pub fn spawn<F>(&self, future: F) -> Task<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Task::new(self.0.env.spawn(future))
    }

    /// Runs something that the server has to do, where the server lives.
    ///
    /// # Errors
    /// When it fails.
    pub async fn at_home<T, F>(&self, work: impl FnOnce(Arc<dyn Backend>) -> F) -> Checked<T>
    where
        F: Future<Output = lockcore::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let work = work(Arc::clone(self.backend()));
        // Paused time would run off while another runtime works.
        if self.is_virtual() {
            return Ok(work.await?);
        }
        Ok(self.0.home.spawn(work).await??)
    }

    /// Lets `look` look again and again until it is true.
    ///
    /// # Errors
    /// When it is still false after `limit`, or fails.
    #[track_caller]
    pub fn eventually<F>(
        &self,
        what: &str,
        limit: Duration,
        mut look: impl FnMut() -> F,
    ) -> impl Future<Output = Checked>
    where
        F: Future<Output = Checked<bool>>,
    {
        let late = Failure::new(format!("not within {limit:?}: {what}"));
        async move {
            let end = self.now().after(limit);
            loop {
                let in_time = self.now() < end;
                if look().await? {
                    return Ok(());
                }
                if !in_time {
                    return Err(late);
                }
                self.sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// The output of `future`.
    ///
    /// # Errors
    /// When it takes longer than `limit`.
    #[track_caller]
    pub fn within<F: Future>(
        &self,
        what: &str,
        limit: Duration,
        future: F,
    ) -> impl Future<Output = Checked<F::Output>> {
        let late = Failure::new(format!("not within {limit:?}: {what}"));
        let env = self.0.env.clone();
        async move { env.timeout(limit, Box::pin(future)).await.ok_or(late) }
    }

    /// Tells the history that somebody outside the contract has a hand in everything now.
    pub fn disturbed(&self) {
        self.0.history.disturbed(None, self.now());
    }

    /// In this scenario a free lock may be handed over late: somebody who waits is dead, deaf or cut off.
    pub fn expect_slow_hand_off(&self) {
        self.notes().slow_hand_off = true;
    }

    /// In this scenario waiters may be served out of order: the network takes them out of the queue, and they come back.
    pub fn expect_no_order(&self) {
        self.notes().no_order = true;
    }

    /// This scenario leaves locks behind that only their TTL ends.
    pub fn expect_residue(&self) {
        self.notes().leaves_residue = true;
    }

    /// Not of this scenario's making any more: it is neither closed nor looked after at the end.
    pub fn disown(&self) {
        self.notes().managers.clear();
    }

    pub(crate) fn bounds(&self) -> Bounds {
        let (slow, no_order) = {
            let notes = self.notes();
            (notes.slow_hand_off, notes.no_order)
        };
        let bound = self.pick(limits::REAL_HAND_OFF, limits::VIRTUAL_HAND_OFF);
        Bounds {
            fifo: self.capabilities().fifo && !no_order,
            hand_off: (!slow).then_some(bound),
        }
    }

    /// Closes every client and looks for what they left at the backend.
    pub(crate) async fn clear_up(&self) -> Checked {
        let managers = std::mem::take(&mut self.notes().managers);
        let closing = managers.iter().map(|manager| manager.close());
        for closed in futures_util::future::join_all(closing).await {
            closed?;
        }
        let can = self.backend().abilities().contains(&crate::Ability::Residue);
        if self.notes().leaves_residue || !can {
            return Ok(());
        }
        let namespaces = self.notes().namespaces.clone();
        for namespace in namespaces {
            let end = self.now().after(limits::RESIDUE);
            loop {
                let of = namespace.clone();
                let left = self
                    .at_home(|backend| async move { backend.residue(&of).await })
                    .await?;
                if left.is_empty() {
                    break;
                }
                if self.now() >= end {
                    return Err(Failure::new(format!(
                        "left at the backend after everything was closed: {left:?}"
                    )));
                }
                self.sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
