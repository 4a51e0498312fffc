//! A manager whose locks are recorded: what scenarios acquire with.

use std::future::Future;
use std::ops::Deref;
use std::time::Duration;

use lockcore::{
    Env, Guard, Kind, Lock, LockBuilder, LockManager, LockName, LossReason, Manager, Namespace, Release,
    ReleaseError, Resource, Result, Retry, Wait,
};

use crate::history::{Event, History, key};
use crate::seam::Link;

/// A manager with a connection of its own. Its `lock`, `read_lock`, `write_lock` and `semaphore` are recorded; through
/// [`Deref`] it is a [`Manager`] for everything else.
#[derive(Clone, Debug)]
pub struct Client {
    manager: Manager,
    link: Link,
    log: Log,
}

#[derive(Clone, Debug)]
struct Log {
    history: History,
    env: Env,
}

impl Deref for Client {
    type Target = Manager;

    fn deref(&self) -> &Manager {
        &self.manager
    }
}

impl Client {
    pub(crate) fn new(manager: Manager, link: Link, history: History, env: Env) -> Self {
        Self {
            manager,
            link,
            log: Log { history, env },
        }
    }

    /// The manager itself; what is acquired with it is not recorded as held.
    #[must_use]
    pub fn manager(&self) -> &Manager {
        &self.manager
    }

    /// Its way to the backend.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The clock of its locks.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.log.env
    }

    /// The namespace of its locks.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.manager.settings().namespace
    }

    /// The resource of a lock of this client.
    ///
    /// # Errors
    /// [`Invalid`](lockcore::ErrorKind::Invalid) for a bad name.
    pub fn resource(&self, kind: Kind, name: &str) -> Result<Resource> {
        Ok(Resource::new(
            self.namespace().clone(),
            kind,
            LockName::new(name)?,
        ))
    }

    /// [`LockManager::lock`]
    pub fn lock(&self, name: &str) -> Request {
        self.request(self.manager.lock(name))
    }

    /// [`LockManager::read_lock`]
    pub fn read_lock(&self, name: &str) -> Request {
        self.request(self.manager.read_lock(name))
    }

    /// [`LockManager::write_lock`]
    pub fn write_lock(&self, name: &str) -> Request {
        self.request(self.manager.write_lock(name))
    }

    /// [`LockManager::semaphore`]
    pub fn semaphore(&self, name: &str, permits: u32, size: u32) -> Request {
        self.request(self.manager.semaphore(name, permits, size))
    }

    fn request(&self, builder: LockBuilder) -> Request {
        Request {
            builder,
            namespace: self.namespace().clone(),
            log: self.log.clone(),
        }
    }
}

/// A [`LockBuilder`] whose guards are recorded.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is acquired or built"]
pub struct Request {
    builder: LockBuilder,
    namespace: Namespace,
    log: Log,
}

impl Request {
    /// [`LockBuilder::ttl`]
    pub fn ttl(self, ttl: Duration) -> Self {
        self.map(|builder| builder.ttl(ttl))
    }

    /// [`LockBuilder::exact_ttl`]
    pub fn exact_ttl(self) -> Self {
        self.map(LockBuilder::exact_ttl)
    }

    /// [`LockBuilder::wait`]
    pub fn wait(self, wait: impl Into<Wait>) -> Self {
        let wait = wait.into();
        self.map(|builder| builder.wait(wait))
    }

    /// [`LockBuilder::retry`]
    pub fn retry(self, retry: Retry) -> Self {
        self.map(|builder| builder.retry(retry))
    }

    /// [`LockBuilder::auto_renew`]
    pub fn auto_renew(self, auto_renew: bool) -> Self {
        self.map(|builder| builder.auto_renew(auto_renew))
    }

    /// [`LockBuilder::max_hold`]
    pub fn max_hold(self, max_hold: Duration) -> Self {
        self.map(|builder| builder.max_hold(max_hold))
    }

    /// [`LockBuilder::label`]
    pub fn label(self, label: impl Into<String>) -> Self {
        self.map(|builder| builder.label(label))
    }

    fn map(self, change: impl FnOnce(LockBuilder) -> LockBuilder) -> Self {
        Self {
            builder: change(self.builder),
            ..self
        }
    }

    /// The builder itself; what is acquired with it is not recorded as held.
    pub fn unrecorded(self) -> LockBuilder {
        self.builder
    }

    /// [`LockBuilder::build`]
    ///
    /// # Errors
    /// As there.
    pub fn build(self) -> Result<RecordedLock> {
        let lock = self.builder.build()?;
        let resource = Resource::new(self.namespace, lock.kind(), lock.name().clone());
        Ok(RecordedLock {
            lock,
            key: key(&resource),
            log: self.log,
        })
    }

    /// [`LockBuilder::try_acquire`]
    ///
    /// # Errors
    /// As there.
    pub async fn try_acquire(self) -> Result<Option<Held>> {
        self.build()?.try_acquire().await
    }

    /// [`LockBuilder::acquire`]
    ///
    /// # Errors
    /// As there.
    pub async fn acquire(self) -> Result<Held> {
        self.build()?.acquire().await
    }
}

/// A [`Lock`] whose guards are recorded.
#[derive(Clone, Debug)]
pub struct RecordedLock {
    lock: Lock,
    key: String,
    log: Log,
}

impl RecordedLock {
    /// The lock itself.
    #[must_use]
    pub fn inner(&self) -> &Lock {
        &self.lock
    }

    /// [`Lock::try_acquire`]
    ///
    /// # Errors
    /// As there.
    pub async fn try_acquire(&self) -> Result<Option<Held>> {
        Ok(self.lock.try_acquire().await?.map(|guard| self.held(guard)))
    }

    /// [`Lock::acquire`]
    ///
    /// # Errors
    /// As there.
    pub async fn acquire(&self) -> Result<Held> {
        Ok(self.held(self.lock.acquire().await?))
    }

    /// [`Lock::acquire_within`]
    ///
    /// # Errors
    /// As there.
    pub async fn acquire_within(&self, wait: impl Into<Wait>) -> Result<Held> {
        Ok(self.held(self.lock.acquire_within(wait.into()).await?))
    }

    fn held(&self, guard: Guard) -> Held {
        let held = Held {
            guard: Some(guard),
            key: self.key.clone(),
            log: self.log.clone(),
        };
        held.observe();
        held
    }
}

/// A guard whose life is recorded. [`Deref`] gives the [`Guard`]; what is asked through this type is recorded.
#[derive(Debug)]
#[must_use = "the lock is freed as soon as it is dropped"]
pub struct Held {
    /// `None` once it was taken out.
    guard: Option<Guard>,
    key: String,
    log: Log,
}

impl Deref for Held {
    type Target = Guard;

    #[expect(
        clippy::expect_used,
        reason = "the guard is taken out only by methods that consume self"
    )]
    fn deref(&self) -> &Guard {
        self.guard.as_ref().expect("a guard that is still there")
    }
}

impl Held {
    /// Writes down how long the guard says that it is valid, if it is.
    fn observe(&self) {
        // Before the guard is asked, so that the interval is none too long.
        let at = self.log.env.now();
        let Some(guard) = &self.guard else { return };
        let left = guard.remaining();
        if !left.is_zero() {
            self.log.history.record(Event::Held {
                key: self.key.clone(),
                token: guard.token().get(),
                at: at.as_nanos(),
                until: at.after(left).as_nanos(),
            });
        }
    }

    fn end(&self) {
        self.observe();
        self.ended();
    }

    /// Not valid from now on, at the latest.
    fn ended(&self) {
        let Some(guard) = &self.guard else { return };
        self.log.history.record(Event::Ended {
            key: self.key.clone(),
            token: guard.token().get(),
            at: self.log.env.now().as_nanos(),
        });
    }

    /// [`Guard::is_held`]
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.observe();
        let is_held = self.guard.as_ref().is_some_and(Guard::is_held);
        if !is_held {
            self.ended();
        }
        is_held
    }

    /// [`Guard::renew_for`]
    ///
    /// # Errors
    /// As there.
    pub async fn renew_for(&self, ttl: Duration) -> Result<()> {
        let renewed = Guard::renew_for(self, ttl).await;
        // Also when it failed: a shorter lease takes effect all the same.
        self.observe();
        renewed
    }

    /// [`Guard::lost`], recorded when it comes.
    pub fn lost(&self) -> impl Future<Output = LossReason> + Send + 'static {
        self.observe();
        let (key, log, token) = (self.key.clone(), self.log.clone(), self.token().get());
        let lost = Guard::lost(self);
        async move {
            let reason = lost.await;
            let at = log.env.now().as_nanos();
            log.history.record(Event::Ended { key, token, at });
            reason
        }
    }

    /// [`Guard::release`]
    ///
    /// # Errors
    /// As there.
    pub async fn release(mut self) -> Result<Release, ReleaseError> {
        self.end();
        match self.guard.take() {
            Some(guard) => guard.release().await,
            None => Ok(Release::NotHeld),
        }
    }

    /// The guard itself; from here on nothing is recorded, and the lock counts as given back.
    pub fn into_guard(mut self) -> Option<Guard> {
        self.end();
        self.guard.take()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.end();
    }
}
