//! Locks: what is made of a name and options, and acquired any number of times.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::acquire::Target;
use crate::capability::Capabilities;
use crate::core::Core;
use crate::driver::Driver;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guard;
use crate::holder::{Details, LockStatus, Owner};
use crate::manager::Manager;
use crate::name::{Kind, LockName, Resource};
use crate::options::{Options, Retry, Wait};
use crate::settings::{validate_label, validate_ttl};

/// A lock of any kind on any backend: object-safe, shared, acquired any number of times.
///
/// It is not reentrant: a second acquire of the same object is refused or waits like anybody else's.
#[async_trait]
pub trait DistributedLock: std::fmt::Debug + Send + Sync {
    /// The lock's name.
    fn name(&self) -> &LockName;

    /// What the name locks.
    fn kind(&self) -> Kind;

    /// Takes the lock now or not at all: one request, and `None` when somebody else has it or waits for it.
    ///
    /// # Errors
    /// By [`ErrorKind`]; contention is not one.
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing behind.
    async fn try_acquire(&self) -> Result<Option<Guard>>;

    /// Waits for the lock, as long as `wait` says.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) when it was busy to the end of the wait, with the holder if known;
    /// [`Unavailable`](ErrorKind::Unavailable) when the backend did not answer, before it did once (see [`Retry`]) or at
    /// the end of the wait; [`Closed`](ErrorKind::Closed) when the manager was closed meanwhile.
    ///
    /// # Time
    /// A request that is under way at the end of the wait is not cut off: a backend that does not answer at all adds
    /// up to the setting `op_timeout`, 3 s.
    ///
    /// # Cancel safety
    /// A dropped future leaves its place in the queue, and frees what it may have been granted.
    async fn acquire_within(&self, wait: Wait) -> Result<Guard>;

    /// Waits for the lock as long as its builder said, by default for ever.
    ///
    /// # Errors
    /// As [`acquire_within`](Self::acquire_within).
    async fn acquire(&self) -> Result<Guard>;

    /// Who holds the lock, and how many wait.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the backend cannot tell, and what the backend says.
    async fn inspect(&self) -> Result<LockStatus>;
}

/// A lock on the backend of a [`Manager`].
#[derive(Clone, Debug)]
pub struct Lock {
    target: Arc<Target>,
}

/// The methods of [`DistributedLock`], without the box that its calls by `dyn` need.
impl Lock {
    /// See [`DistributedLock::name`].
    #[must_use]
    pub fn name(&self) -> &LockName {
        self.target.resource.name()
    }

    /// See [`DistributedLock::kind`].
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.target.resource.kind()
    }

    /// See [`DistributedLock::try_acquire`].
    ///
    /// # Errors
    /// Those that are listed there.
    #[tracing::instrument(level = "debug", skip_all, fields(name = %self.name(), kind = %self.kind()))]
    pub async fn try_acquire(&self) -> Result<Option<Guard>> {
        let tried = self.target.try_acquire().await;
        tried.map(Result::ok).map_err(|error| self.located(error))
    }

    /// See [`DistributedLock::acquire_within`].
    ///
    /// # Errors
    /// Those that are listed there.
    #[tracing::instrument(level = "debug", skip_all, fields(name = %self.name(), kind = %self.kind(), ?wait))]
    pub async fn acquire_within(&self, wait: Wait) -> Result<Guard> {
        let acquired = self.target.acquire(wait).await;
        acquired.map_err(|error| self.located(error))
    }

    /// See [`DistributedLock::acquire`].
    ///
    /// # Errors
    /// Those that are listed there.
    pub async fn acquire(&self) -> Result<Guard> {
        self.acquire_within(self.target.options.wait).await
    }

    /// See [`DistributedLock::inspect`].
    ///
    /// # Errors
    /// Those that are listed there.
    pub async fn inspect(&self) -> Result<LockStatus> {
        Manager::from_core(Arc::clone(&self.target.core))
            .inspect_resource(&self.target.resource)
            .await
    }

    fn located(&self, error: Error) -> Error {
        let Target { core, resource, .. } = &*self.target;
        core.shared.locate("acquire", Some(resource.name()))(error)
    }
}

#[async_trait]
impl DistributedLock for Lock {
    fn name(&self) -> &LockName {
        self.name()
    }

    fn kind(&self) -> Kind {
        self.kind()
    }

    async fn try_acquire(&self) -> Result<Option<Guard>> {
        self.try_acquire().await
    }

    async fn acquire_within(&self, wait: Wait) -> Result<Guard> {
        self.acquire_within(wait).await
    }

    async fn acquire(&self) -> Result<Guard> {
        self.acquire().await
    }

    async fn inspect(&self) -> Result<LockStatus> {
        self.inspect().await
    }
}

/// How much of a resource a lock takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share {
    pub(crate) kind: Kind,
    pub(crate) weight: u32,
    pub(crate) capacity: u32,
}

/// The capacity of a reader-writer lock: how many readers there can be.
const MOST_READERS: u32 = 1 << 30;

impl Share {
    pub(crate) const MUTEX: Self = Self {
        kind: Kind::Mutex,
        weight: 1,
        capacity: 1,
    };
    pub(crate) const READ: Self = Self {
        kind: Kind::ReadWrite,
        weight: 1,
        capacity: MOST_READERS,
    };
    pub(crate) const WRITE: Self = Self {
        kind: Kind::ReadWrite,
        weight: MOST_READERS,
        capacity: MOST_READERS,
    };

    pub(crate) const fn permits(weight: u32, capacity: u32) -> Self {
        Self {
            kind: Kind::Semaphore,
            weight,
            capacity,
        }
    }
}

/// A name with options, to be acquired at once or built into a [`Lock`]. What is wrong with it shows then.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is acquired or built"]
pub struct LockBuilder {
    core: Arc<Core>,
    name: Result<LockName, Arc<Error>>,
    share: Share,
    options: Options,
}

impl LockBuilder {
    pub(crate) fn new(core: Arc<Core>, name: &str, share: Share) -> Self {
        let settings = &core.shared.settings;
        let options = Options {
            ttl: settings.ttl,
            exact_ttl: false,
            wait: Wait::Forever,
            retry: Retry::DEFAULT,
            auto_renew: true,
            max_hold: None,
            label: settings.label.clone(),
        };
        Self {
            core,
            name: LockName::new(name).map_err(Arc::new),
            share,
            options,
        }
    }

    /// How long the lock outlives a holder that died: over 0 and at most 24 h; by default the manager's, 30 s.
    ///
    /// It is rounded up to what the backend can do, which [`Guard::ttl`] tells. A live holder renews it.
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.options.ttl = ttl;
        self
    }

    /// Refuses a TTL that the backend cannot give as it is, with [`Unsupported`](ErrorKind::Unsupported), instead of
    /// rounding it up.
    pub const fn exact_ttl(mut self) -> Self {
        self.options.exact_ttl = true;
        self
    }

    /// How long [`acquire`](Self::acquire) waits: a [`Duration`] or a [`Wait`]; by default for ever.
    pub fn wait(mut self, wait: impl Into<Wait>) -> Self {
        self.options.wait = wait.into();
        self
    }

    /// How often a request is sent again that the backend did not answer.
    pub const fn retry(mut self, retry: Retry) -> Self {
        self.options.retry = retry;
        self
    }

    /// Whether the lease is renewed while the guard lives; by default it is. Without, the lock ends after its TTL
    /// unless [`Guard::renew`] is called.
    pub const fn auto_renew(mut self, auto_renew: bool) -> Self {
        self.options.auto_renew = auto_renew;
        self
    }

    /// Ends the lock this long after the grant, whatever the holder does: a bound for work that hangs. None by default.
    pub const fn max_hold(mut self, max_hold: Duration) -> Self {
        self.options.max_hold = Some(max_hold);
        self
    }

    /// What the holder calls itself to people who look, 1 to 128 bytes; by default the manager's label.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.options.label = Some(label.into());
        self
    }

    /// Checks everything and makes a lock that can be acquired any number of times. No request is sent.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for the name or an option, [`Unsupported`](ErrorKind::Unsupported) for what the
    /// backend lacks.
    pub fn build(self) -> Result<Lock> {
        let backend = self.core.shared.driver.backend();
        self.checked().map_err(|error| error.at("lock", backend, None))
    }

    fn checked(self) -> Result<Lock> {
        let Self {
            core,
            name,
            share,
            options,
        } = self;
        let name = name.map_err(|error| Error::new(error.kind(), error.message()))?;
        let capabilities = core.shared.capabilities;
        Capabilities::require(
            share.kind == Kind::Mutex || capabilities.weighted,
            share.kind.as_str(),
        )?;
        if share.weight == 0 || share.weight > share.capacity {
            let (weight, capacity) = (share.weight, share.capacity);
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("{weight} of {capacity} permits: ask for at least 1 and at most all of them"),
            ));
        }
        validate_ttl(options.ttl)?;
        if let Some(label) = &options.label {
            validate_label(label)?;
        }
        if options.max_hold.is_some_and(|max_hold| max_hold.is_zero()) {
            return Err(Error::new(
                ErrorKind::Invalid,
                "max_hold is zero: leave it out for no bound",
            ));
        }
        let ttl = capabilities.effective_ttl(options.ttl);
        if ttl != options.ttl {
            let [asked, given] = [options.ttl, ttl].map(|ttl| humantime::format_duration(ttl).to_string());
            if options.exact_ttl {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!("this backend cannot give a TTL of exactly {asked}, the nearest is {given}"),
                ));
            }
            core.warn_rounded_ttl(&asked, &given);
        }
        let resource = Resource::new(core.shared.settings.namespace.clone(), share.kind, name);
        let (label, stored_name) = (options.label.as_deref(), Details::name(&resource));
        let details = if label == core.shared.settings.label.as_deref() && stored_name.is_none() {
            Arc::clone(&core.shared.details)
        } else {
            Details::encode(Owner::this_process(label), stored_name)
        };
        let Share { weight, capacity, .. } = share;
        Ok(Lock {
            target: Arc::new(Target {
                core,
                resource,
                weight,
                capacity,
                ttl,
                details,
                options,
            }),
        })
    }

    /// [`DistributedLock::try_acquire`] of the built lock.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and of the call.
    pub async fn try_acquire(self) -> Result<Option<Guard>> {
        self.build()?.try_acquire().await
    }

    /// [`DistributedLock::acquire`] of the built lock.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and of the call.
    pub async fn acquire(self) -> Result<Guard> {
        self.build()?.acquire().await
    }

    /// Acquires the lock, runs `work` under it, and frees it, whether the work ends, fails, panics or is dropped. The
    /// work is dropped when the lock is lost.
    ///
    /// # Errors
    /// Those of [`acquire`](Self::acquire) before the work, [`Lost`](ErrorKind::Lost) instead of its output. A release
    /// that the backend did not confirm goes on in the background and is no error.
    ///
    /// # Cancel safety
    /// Dropping the future drops the work and frees the lock.
    pub async fn with_lock<T, F>(self, work: impl FnOnce(crate::claim::Token) -> F) -> Result<T>
    where
        F: Future<Output = T>,
    {
        let guard = self.acquire().await?;
        let output = guard.protect(work(guard.token())).await;
        if let Err(error) = guard.release().await {
            tracing::warn!(%error, "the release goes on in the background");
        }
        output
    }

    /// Who holds the lock, and how many wait.
    ///
    /// # Errors
    /// Those of [`build`](Self::build) and of [`DistributedLock::inspect`].
    pub async fn inspect(self) -> Result<LockStatus> {
        self.build()?.inspect().await
    }
}
