//! The driver, in the mode that the configuration names.

use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    Capabilities, Claim, Diagnosis, Driver, DriverContext, DynDriver, Error, ErrorKind, Kind, Namespace,
    Resource, Result,
};

use crate::config::{Mode, PostgresConfig};
use crate::doctor;
use crate::lease::LeaseDriver;
use crate::pool::Access;
use crate::session::SessionDriver;

/// How many leases one statement renews.
const RENEW_BATCH: usize = 500;

/// What locks can do in the mode `lease`. With `wake=poll` the driver declares [`WakeUp::Poll`](lockcore::WakeUp::Poll)
/// besides.
pub const CAPABILITIES: Capabilities = Capabilities::MUTEX.with_renew_batch(RENEW_BATCH);

/// What locks can do in the mode `session`: each lives by a connection of its own.
pub const SESSION_CAPABILITIES: Capabilities = CAPABILITIES.with_sessions(true);

/// Locks in a PostgreSQL database. See the [crate] for the protocol.
#[derive(Debug)]
pub struct PostgresDriver {
    mode: DynDriver,
    /// For a look at the server.
    access: Access,
}

impl PostgresDriver {
    /// Connects, and makes the schema where it is missing. From then on the connections are kept: they are opened again
    /// when they break.
    ///
    /// # Errors
    /// - [`Unavailable`](ErrorKind::Unavailable): no answer within the connect timeout, no room for one more client, a
    ///   server that is starting up, or a standby.
    /// - [`Denied`](ErrorKind::Denied): login, certificate or rights; the message has the migration where only that is
    ///   missing.
    /// - [`Unsupported`](ErrorKind::Unsupported): an old server, a schema of a newer version, a pooler that shares sessions.
    /// - [`Invalid`](ErrorKind::Invalid): a setting out of bounds, or a database that does not exist.
    pub async fn connect(config: PostgresConfig, context: DriverContext) -> Result<Self> {
        config.validate()?;
        let access = Access::new(config.clone(), context.env.clone());
        let mode = match config.mode {
            Mode::Lease => DynDriver::new(LeaseDriver::connect(config, context).await?),
            Mode::Session => DynDriver::new(SessionDriver::connect(config, context).await?),
        };
        Ok(Self { mode, access })
    }
}

pub(crate) fn only_mutexes(resource: &Resource) -> Result<()> {
    if resource.kind() == Kind::Mutex {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!(
            "PostgreSQL has mutexes, not {} locks: use another backend",
            resource.kind()
        ),
    ))
}

impl Driver for PostgresDriver {
    fn backend(&self) -> &'static str {
        self.mode.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.mode.capabilities()
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        self.mode.acquire(claim, intent).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.mode.release(claim).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        self.mode.renew(leases).await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        self.mode.inspect(resource).await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        self.mode.list(namespace, prefix).await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        self.mode.force_release(resource).await
    }

    async fn ping(&self) -> Result<()> {
        self.mode.ping().await
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        doctor::diagnose(&self.access).await
    }

    async fn close(&self) -> Result<()> {
        self.mode.close().await
    }
}
