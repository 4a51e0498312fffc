//! What the suite runs on.

mod ability;
mod cluster;
mod cost;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{
    AttemptId, Capabilities, DriverContext, DynDriver, Env, Error, ErrorKind, Namespace, Resource, Result,
};

pub use ability::Ability;
pub use cluster::Cluster;
pub use cost::{Budget, Counters};

use crate::seam::Link;

/// Which time a backend lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Clock {
    /// The machine's.
    Real,
    /// tokio's, paused: waiting takes no time. For backends inside the process.
    Virtual,
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
    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)>;

    /// A new driver whose upkeep goes the way of `link` as well. For backends inside the process, which no proxy can cut
    /// off: while [`Link::is_partitioned`], nothing of the driver may reach the backend, keep-alives included.
    async fn driver_by(&self, env: &Env, link: &Link) -> Result<(DynDriver, DriverContext)> {
        let _ = link;
        self.driver(env).await
    }

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

    /// The same on a server of its own, for scenarios that need one for themselves: they run beside the others there.
    /// `None` where a second server cannot be had: then they come last.
    fn another(&self) -> Option<Arc<dyn Backend>> {
        None
    }

    /// Does a session end with its connection? Then a cut connection is a loss, and the lock is free at once; else the
    /// driver connects again and the session goes on. Asked of drivers that declare
    /// [`Capabilities::sessions`] only.
    fn session_is_connection(&self) -> bool {
        false
    }

    /// The longest that a waiter which is dead or stopped, with a lock of `ttl` in mind, can delay those behind it when
    /// its turn comes: the claim window, unless the backend by its nature cannot tell sooner than when its session ends.
    fn dead_waiter(&self, claim_window: Duration, ttl: Duration) -> Duration {
        let _ = ttl;
        claim_window
    }

    /// Why the scenario with this id cannot hold here by the nature of the backend; `None` for all others. It is left out,
    /// and the run says why.
    fn exempt(&self, id: &str) -> Option<&'static str> {
        let _ = id;
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

    /// Cuts one client's connection at the server, the `nth` from the oldest on; false when there are no more than `nth`.
    async fn kill_connection(&self, nth: usize) -> Result<bool> {
        let _ = nth;
        Err(unsupported("kill_connection"))
    }

    /// Ends the session under which `attempt` holds `resource` or waits for it, as if it had expired at the server: a
    /// lease revoked, a session closed. What lived by it is gone at once.
    async fn end_session(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let _ = (resource, attempt);
        Err(unsupported("end_session"))
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

    /// Deletes the place of `attempt` in the queue for `resource`, as somebody at the server's console would.
    async fn delete_waiter(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let _ = (resource, attempt);
        Err(unsupported("delete_waiter"))
    }

    /// Makes the server, or whoever does it at this backend, remove now what is not used any more: empty parents, rows of
    /// idle names. What clients use stays.
    async fn clean_up(&self, namespace: &Namespace) -> Result<()> {
        let _ = namespace;
        Err(unsupported("clean_up"))
    }

    /// From now on the server can write nothing more to its disk.
    async fn fill_disk(&self) -> Result<()> {
        Err(unsupported("fill_disk"))
    }

    /// Ends [`fill_disk`](Self::fill_disk), with what an administrator does to have the server write again.
    async fn free_disk(&self) -> Result<()> {
        Err(unsupported("free_disk"))
    }

    /// Steps the server's wall clock by this much, forward or back. The scenario steps it back again.
    async fn step_clock(&self, by: Duration, forward: bool) -> Result<()> {
        let _ = (by, forward);
        Err(unsupported("step_clock"))
    }

    /// The servers that it consists of; `None` for a single one.
    fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        None
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

    /// What all clients use at the server, by name: connections, sessions, leases, watches, channels, rows, nodes. Of the
    /// fencing state nothing.
    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        Err(unsupported("usage"))
    }

    /// What is not as it should be with the connections that drivers keep in pools: a lock of the server that an idle one
    /// has, a transaction that is open, settings that somebody changed. One line each.
    async fn strays(&self) -> Result<Vec<String>> {
        Err(unsupported("strays"))
    }

    /// What the server has done so far for drivers, the counting itself not included where it can tell.
    async fn counters(&self) -> Result<Counters> {
        Err(unsupported("counters"))
    }

    /// What operations may cost, in [`counters`](Self::counters).
    fn budget(&self) -> Budget {
        Budget::LEASES
    }
}

fn unsupported(what: &str) -> Error {
    Error::new(
        ErrorKind::Unsupported,
        format!("this backend of the suite has no `{what}`"),
    )
}
