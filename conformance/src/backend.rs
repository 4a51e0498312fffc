//! What the suite runs on.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use lockcore::{Capabilities, Driver, DriverContext, Env, Error, ErrorKind, Namespace, Resource, Result};

/// Which time a backend lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// The machine's.
    Real,
    /// tokio's, paused: waiting takes no time. For backends inside the process.
    Virtual,
}

/// What a scenario can ask of a backend beyond its driver. Scenarios that need what is missing are left out, and the
/// run says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// Other processes reach the same locks: [`Backend::url`] and [`Backend::at`].
    Processes,
    /// Its URL has a host and a port, so that a proxy can stand in between.
    Network,
    /// [`Backend::stop`] and [`Backend::start`].
    Stop,
    /// [`Backend::pause`] and [`Backend::resume`].
    Pause,
    /// [`Backend::kill_connections`].
    KillConnections,
    /// [`Backend::wipe`].
    Wipe,
    /// [`Backend::delete_lock`].
    DeleteLock,
    /// [`Backend::residue`].
    Residue,
    /// Its URL takes a login, and the server knows nobody by the name of `nobody`.
    Logins,
    /// [`Backend::limit_clients`].
    LimitClients,
    /// [`Backend::program`].
    Program,
}

impl Ability {
    /// What it is, for the reason why a scenario was left out.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processes => "other processes can use it",
            Self::Network => "it is reached by host and port",
            Self::Stop => "the suite can stop and start it",
            Self::Pause => "the suite can pause it",
            Self::KillConnections => "the suite can cut its connections at the server",
            Self::Wipe => "the suite can delete all its data",
            Self::DeleteLock => "the suite can delete one lock behind the driver's back",
            Self::Residue => "the suite can look for what is left over",
            Self::Logins => "its URL takes a login",
            Self::LimitClients => "the suite can limit how many clients it takes",
            Self::Program => "the `leasehold` program can use it, and is given",
        }
    }
}

/// A driver with a server to run it on: what the author of a driver implements to have it tested.
///
/// Only the first three methods are needed. Each of the others lets more scenarios run, and is named by
/// [`abilities`](Self::abilities).
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// A word that tells this one from the others of the same run: `redis-8`.
    fn name(&self) -> String;

    /// What its drivers declare.
    fn capabilities(&self) -> Capabilities;

    /// A new driver with a connection of its own, and the context that it was made with.
    async fn driver(&self, env: &Env) -> Result<(Arc<dyn Driver>, DriverContext)>;

    /// What the suite can do with it besides.
    fn abilities(&self) -> Vec<Ability> {
        Vec::new()
    }

    /// Which time it lives in.
    fn clock(&self) -> Clock {
        Clock::Real
    }

    /// A backend for one scenario alone, in the runtime and on the clock of `env`; `None` when all scenarios share
    /// this one, kept apart by random namespaces.
    fn for_scenario(&self, env: &Env) -> Option<Arc<dyn Backend>> {
        let _ = env;
        None
    }

    /// Called once before the first scenario: starts a server, say.
    async fn prepare(&self) -> Result<()> {
        Ok(())
    }

    /// Called once after the last scenario.
    async fn finish(&self) {}

    /// What it is in detail, for people: a version, an image. Asked after [`prepare`](Self::prepare).
    fn describe(&self) -> String {
        self.name()
    }

    /// Where its server is, in the form that [`at`](Self::at) takes. Asked after [`prepare`](Self::prepare).
    fn url(&self) -> Option<String> {
        None
    }

    /// The same backend on a server that runs already: for worker processes, and for a proxy's address.
    ///
    /// # Errors
    /// By kind; `Unsupported` unless it is written.
    fn at(&self, url: &str) -> Result<Arc<dyn Backend>> {
        let _ = url;
        Err(unsupported("at"))
    }

    /// Ends the server without warning; what it has written stays.
    async fn stop(&self) -> Result<()> {
        Err(unsupported("stop"))
    }

    /// Starts it again after [`stop`](Self::stop), at the same URL.
    async fn start(&self) -> Result<()> {
        Err(unsupported("start"))
    }

    /// Keeps the server from answering, with its connections open.
    async fn pause(&self) -> Result<()> {
        Err(unsupported("pause"))
    }

    /// Ends the [`pause`](Self::pause).
    async fn resume(&self) -> Result<()> {
        Err(unsupported("resume"))
    }

    /// Cuts every client's connections at the server.
    async fn kill_connections(&self) -> Result<()> {
        Err(unsupported("kill_connections"))
    }

    /// Deletes all data, fencing state included.
    async fn wipe(&self) -> Result<()> {
        Err(unsupported("wipe"))
    }

    /// Deletes who holds `resource`, as somebody at the server's console would.
    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        let _ = resource;
        Err(unsupported("delete_lock"))
    }

    /// While `on`, the server takes no more clients than it has.
    async fn limit_clients(&self, on: bool) -> Result<()> {
        let _ = on;
        Err(unsupported("limit_clients"))
    }

    /// The `leasehold` program, for the scenarios about it.
    fn program(&self) -> Option<PathBuf> {
        None
    }

    /// Everything that is left in `namespace` beyond the fencing state: locks, waiters, reservations. One line each.
    async fn residue(&self, namespace: &Namespace) -> Result<Vec<String>> {
        let _ = namespace;
        Err(unsupported("residue"))
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("this backend of the suite has no `{what}`"),
    )
}
