//! The driver: which mode, and calls that go on to their end.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    Capabilities, Claim, Diagnosis, Driver, DriverContext, Error, ErrorKind, ExpiryClock, Kind, Namespace,
    Resource, Result, Supervisor, WakeUp,
};

use tokio_util::task::TaskTracker;

use crate::claims::Leases;
use crate::config::{Fence, Mode, MysqlConfig, Wake};
use crate::connection::Opener;
use crate::doctor;
use crate::doorbell::{Bell, Hanger};
use crate::looks;
use crate::pool::Pool;
use crate::probe;
use crate::session::Sessions;

/// How often waiters ask where nobody wakes them.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How many leases one statement renews.
const RENEW_BATCH: usize = 500;

/// What the mode `lease` can do.
pub const CAPABILITIES: Capabilities = Capabilities::MUTEX.with_renew_batch(RENEW_BATCH);

/// The same where nobody can wake a waiter: see [`Wake`](crate::Wake).
pub const POLL_CAPABILITIES: Capabilities = CAPABILITIES.with_wake_up(WakeUp::Poll {
    interval: POLL_INTERVAL,
});

/// What the mode `session` can do: see [`Mode::Session`].
pub const SESSION_CAPABILITIES: Capabilities = Capabilities::MUTEX
    .with_ttl(
        Duration::from_secs(1),
        Duration::from_secs(24 * 3600),
        Duration::from_secs(1),
    )
    .with_expiry(ExpiryClock::ServerMonotonic, Duration::from_millis(1_500))
    .with_administration(false, false, true)
    .with_sessions(true)
    .with_renew_batch(RENEW_BATCH);

/// Locks on a MySQL or MariaDB server. See the [crate](crate) for what it promises.
#[derive(Debug)]
pub struct MysqlDriver {
    locks: Locks,
    opener: Arc<Opener>,
    /// The calls under way, also those whose caller went away.
    calls: TaskTracker,
    capabilities: Capabilities,
}

#[derive(Clone, Debug)]
enum Locks {
    Leases(Arc<Leases>),
    Sessions(Arc<Sessions>),
}

impl MysqlDriver {
    /// Connects, and makes the tables when they are missing and `config` allows it.
    ///
    /// # Errors
    /// - [`Invalid`](ErrorKind::Invalid): `config` is out of bounds, the database does not exist, or tables are missing
    ///   that are not to be made; the message has the statements that make them.
    /// - [`Denied`](ErrorKind::Denied): the login was refused, or a right is missing.
    /// - [`Unsupported`](ErrorKind::Unsupported): an old server, tables of another version, or a clock that the mode
    ///   `session` cannot make tokens of.
    /// - [`Unavailable`](ErrorKind::Unavailable): the server cannot be reached, or takes no writes.
    pub async fn connect(config: MysqlConfig, context: DriverContext) -> Result<Self> {
        config.validate()?;
        let opener = Arc::new(Opener {
            config,
            env: context.env.clone(),
        });
        let (locks, capabilities) = match opener.config.mode {
            Mode::Lease => Self::leases(Arc::clone(&opener), context).await?,
            Mode::Session => (
                Self::sessions(Arc::clone(&opener), context).await?,
                SESSION_CAPABILITIES,
            ),
        };
        Ok(Self {
            locks,
            opener,
            calls: TaskTracker::new(),
            capabilities,
        })
    }

    async fn leases(opener: Arc<Opener>, context: DriverContext) -> Result<(Locks, Capabilities)> {
        let push = opener.config.wake == Wake::Auto;
        let pool = Pool::new(Arc::clone(&opener), opener.config.limit());
        pool.run("DO 0".to_owned()).await?;
        let bell = Arc::<Bell>::default();
        let mut doorbell = None;
        if push && probe::may_wake(&pool).await? {
            let hanger = Hanger {
                opener,
                context: context.clone(),
                bell: Arc::clone(&bell),
            };
            let supervisor = Supervisor::start(&context, hanger).await?;
            let hung = supervisor.connection(&context).await?;
            if probe::wakes(&pool, &hung).await? {
                doorbell = Some(supervisor);
            } else {
                supervisor.close();
            }
        }
        if push && doorbell.is_none() {
            tracing::warn!("nobody can be woken through this server: waiters ask again and again instead");
        }
        let capabilities = match doorbell {
            Some(_) => CAPABILITIES,
            None => POLL_CAPABILITIES,
        };
        let leases = Arc::new(Leases::new(pool, context, bell, doorbell));
        Ok((Locks::Leases(leases), capabilities))
    }

    async fn sessions(opener: Arc<Opener>, context: DriverContext) -> Result<Locks> {
        let by_clock = opener.config.fence == Fence::Clock;
        let sessions = Sessions::new(opener, context);
        if !probe::tells_the_time(&sessions.control).await? && by_clock {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "the server runs with sysdate-is-now, so that its clock makes no tokens: use fence=table",
            ));
        }
        Ok(Locks::Sessions(Arc::new(sessions)))
    }

    /// Runs `call` to its end even if the caller goes away: a release that follows must not overtake it, and a
    /// connection is of no use in the middle of an answer.
    async fn call<T, F>(&self, call: F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        self.opener.env.to_the_end(self.calls.track_future(call)).await
    }
}

impl Drop for MysqlDriver {
    fn drop(&mut self) {
        // Nobody can give them back any more.
        if let Locks::Sessions(sessions) = &self.locks {
            sessions.forget_all();
        }
    }
}

fn by_a_session(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("the mode session keeps no table to {what}: use the mode lease"),
    )
}

fn only_mutexes(resource: &Resource) -> Result<()> {
    if resource.kind() == Kind::Mutex {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "MySQL has mutexes here, not {} locks: use another backend",
            resource.kind()
        ),
    ))
}

impl Driver for MysqlDriver {
    fn backend(&self) -> &'static str {
        "mysql"
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        only_mutexes(&claim.resource)?;
        let (locks, claim) = (self.locks.clone(), claim.clone());
        self.call(async move {
            match locks {
                Locks::Leases(leases) => leases.acquire(&claim, intent).await,
                Locks::Sessions(sessions) => sessions.acquire(&claim, intent).await,
            }
        })
        .await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        only_mutexes(&claim.resource)?;
        let (locks, claim) = (self.locks.clone(), claim.clone());
        self.call(async move {
            match locks {
                Locks::Leases(leases) => leases.release(&claim).await,
                Locks::Sessions(sessions) => sessions.release(&claim).await,
            }
        })
        .await
    }

    async fn renew(&self, asked: &[Lease]) -> Result<Vec<Renewal>> {
        let (locks, asked) = (self.locks.clone(), asked.to_vec());
        self.call(async move {
            match locks {
                Locks::Leases(leases) => looks::renew(&leases.pool, &asked).await,
                Locks::Sessions(sessions) => Ok(sessions.renew(&asked).await),
            }
        })
        .await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        only_mutexes(resource)?;
        let Locks::Leases(leases) = self.locks.clone() else {
            return Err(by_a_session("inspect"));
        };
        let resource = resource.clone();
        self.call(async move { looks::inspect(&leases.pool, &resource).await })
            .await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        let Locks::Leases(leases) = self.locks.clone() else {
            return Err(by_a_session("list"));
        };
        let (namespace, prefix) = (namespace.clone(), prefix.to_owned());
        self.call(async move { looks::list(&leases.pool, &namespace, &prefix).await })
            .await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        only_mutexes(resource)?;
        let (locks, resource) = (self.locks.clone(), resource.clone());
        self.call(async move {
            match locks {
                Locks::Leases(leases) => looks::force_release(&leases, &resource).await,
                Locks::Sessions(sessions) => sessions.force_release(&resource).await,
            }
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        let pool = self.pool().clone();
        self.call(async move { pool.run("SELECT 1".to_owned()).await.map(drop) })
            .await
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        doctor::diagnose(&self.opener).await
    }

    async fn close(&self) -> Result<()> {
        // What is on its way is a release, most likely.
        self.calls.close();
        let calls = Box::pin(self.calls.wait());
        self.opener.env.timeout(self.opener.config.patience, calls).await;
        let locks = self.locks.clone();
        self.call(async move {
            match locks {
                Locks::Leases(leases) => {
                    if let Some(doorbell) = &leases.doorbell {
                        doorbell.close();
                    }
                    leases.pool.close().await;
                }
                Locks::Sessions(sessions) => sessions.close().await,
            }
            Ok(())
        })
        .await
    }
}

impl MysqlDriver {
    pub(crate) fn pool(&self) -> &Pool {
        match &self.locks {
            Locks::Leases(leases) => &leases.pool,
            Locks::Sessions(sessions) => &sessions.control,
        }
    }
}
