//! A ZooKeeper server for the suite.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::servers::{self, ClusterRequest, Origin, Server, ServerError, ServerKind, Target};
use leasehold_conformance::{Ability, Backend, Budget, Cluster, Counters};
use leasehold_driver_zk::zookeeper_client::Error as ZkError;
use leasehold_driver_zk::{CAPABILITIES, ZkConfig, ZkDriver};
use lockcore::{
    AttemptId, Capabilities, Driver, DriverContext, DynDriver, Endpoint, Env, Error, ErrorKind, ExpiryClock,
    Kind, Namespace, Resource, Result,
};

use crate::admin::Admin;

/// The test servers' ticks.
const TICK: Duration = Duration::from_millis(500);

/// The shortest session: a machine that is busy with other tests may stand still for the length of a tick, by which a
/// session may end sooner.
const SHORTEST: Duration = Duration::from_secs(2);
const SESSIONS: &str = "minSessionTimeout=2000";

/// One server, started before the first scenario, or one that runs already; or an ensemble.
#[derive(Debug)]
pub(crate) struct ZkBackend {
    /// `None` for an ensemble.
    target: Option<Target>,
    place: Mutex<Place>,
    /// What the servers agree to.
    capabilities: OnceLock<Capabilities>,
}

#[derive(Clone)]
enum Place {
    Nowhere,
    Server(Arc<Server>),
    Ensemble(Arc<servers::Cluster>),
    Url(String),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may have a password.
        f.write_str(match self {
            Self::Nowhere => "nowhere",
            Self::Server(_) => "a server",
            Self::Ensemble(_) => "an ensemble",
            Self::Url(_) => "a URL",
        })
    }
}

impl ZkBackend {
    pub(crate) const fn new(target: Target) -> Self {
        Self {
            target: Some(target),
            place: Mutex::new(Place::Nowhere),
            capabilities: OnceLock::new(),
        }
    }

    /// Three servers that are one.
    pub(crate) const fn ensemble() -> Self {
        Self {
            target: None,
            place: Mutex::new(Place::Nowhere),
            capabilities: OnceLock::new(),
        }
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn server(&self) -> Result<Arc<Server>> {
        match &*self.place() {
            Place::Server(server) => Ok(Arc::clone(server)),
            _ => Err(Error::new(ErrorKind::Internal, "the server was not started here")),
        }
    }

    fn config(&self) -> Result<ZkConfig> {
        let url = match &*self.place() {
            Place::Ensemble(ensemble) => Some(ensemble.url().to_owned()),
            _ => None,
        };
        let mut endpoint = Endpoint::parse(&url.or_else(|| self.url()).unwrap_or_default())?;
        let mut config = ZkConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        if self.target.is_none_or(|target| target.origin != Origin::Url) {
            config.tick = Some(TICK);
        }
        Ok(config)
    }

    fn admin(&self) -> Result<Admin> {
        let config = self.config()?;
        let (host, port) = &config.servers[0];
        Ok(Admin::new(format!("{host}:{port}")))
    }

    /// The contenders for `resource`, in order.
    async fn queue(&self, resource: &Resource) -> Result<Vec<String>> {
        let lock = self.config()?.lock_path(resource)?;
        let client = self.admin()?.client().await.map_err(of_the_administrator)?;
        let mut queue = match client.list_children(&lock).await {
            Ok(children) => children,
            Err(ZkError::NoNode) => Vec::new(),
            Err(error) => return Err(of_the_administrator(error)),
        };
        queue.sort_unstable_by_key(|name| name[name.len() - 10..].to_owned());
        Ok(queue.into_iter().map(|name| format!("{lock}/{name}")).collect())
    }

    async fn node(&self, resource: &Resource, attempt: AttemptId) -> Result<Option<String>> {
        let hex = attempt.to_hex();
        let mut queue = self.queue(resource).await?.into_iter();
        Ok(queue.find(|path| path.replace('-', "").contains(&format!("_c_{hex}"))))
    }

    async fn delete(&self, path: Option<&str>) -> Result<()> {
        let Some(path) = path else { return Ok(()) };
        let client = self.admin()?.client().await.map_err(of_the_administrator)?;
        match client.delete(path, None).await {
            Ok(()) | Err(ZkError::NoNode) => Ok(()),
            Err(error) => Err(of_the_administrator(error)),
        }
    }
}

fn of_the_administrator(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Unavailable, "the administrator's request failed").with_source(error)
}

fn of_the_server(error: ServerError) -> Error {
    Error::new(ErrorKind::Unavailable, "the test server").with_source(error)
}

#[async_trait]
impl Backend for ZkBackend {
    fn name(&self) -> String {
        self.target.map_or_else(
            || "zookeeper-ensemble".to_owned(),
            |target| target.to_string().replace('/', "-"),
        )
    }

    fn capabilities(&self) -> Capabilities {
        *self.capabilities.get_or_init(|| {
            let longest = Duration::from_secs(60);
            CAPABILITIES
                .with_ttl(SHORTEST, longest, Duration::from_millis(1))
                .with_expiry(ExpiryClock::ServerMonotonic, TICK * 2)
        })
    }

    fn another(&self) -> Option<Arc<dyn Backend>> {
        match self.target {
            Some(target) if target.origin == Origin::Url => None,
            Some(target) => Some(Arc::new(Self::new(target))),
            None => Some(Arc::new(Self::ensemble())),
        }
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        let context = DriverContext::new(env.clone());
        let driver = ZkDriver::connect(self.config()?, context.clone()).await?;
        Ok((DynDriver::new(driver), context))
    }

    fn abilities(&self) -> Vec<Ability> {
        let mut abilities = vec![
            Ability::Processes,
            Ability::Network,
            Ability::DeleteLock,
            Ability::DeleteWaiter,
            Ability::EndSession,
            Ability::Residue,
        ];
        let Some(target) = self.target else {
            abilities.push(Ability::Cluster);
            return abilities;
        };
        // A server that was given may have other users.
        if target.origin != Origin::Url {
            abilities.extend([
                Ability::Stop,
                Ability::Pause,
                Ability::KillConnections,
                Ability::KillConnection,
                Ability::Wipe,
                Ability::Usage,
                Ability::Counters,
            ]);
        }
        abilities
    }

    async fn prepare(&self) -> Result<()> {
        let Some(target) = self.target else {
            let request = ClusterRequest::new(ServerKind::ZooKeeper).args([SESSIONS]);
            let ensemble = request.start().await.map_err(of_the_server)?;
            *self.place() = Place::Ensemble(Arc::new(ensemble));
            return Ok(());
        };
        let mut request = target.request();
        if target.origin != Origin::Url {
            request = request.own().args([SESSIONS]);
        }
        let server = request.start().await.map_err(of_the_server)?;
        *self.place() = Place::Server(Arc::new(server));
        if target.origin == Origin::Url {
            let (driver, _) = self.driver(&Env::system()).await?;
            self.capabilities.set(driver.capabilities()).ok();
        }
        Ok(())
    }

    async fn finish(&self) {
        *self.place() = Place::Nowhere;
    }

    fn describe(&self) -> String {
        self.server()
            .map_or_else(|_| self.name(), |server| server.describe())
    }

    fn url(&self) -> Option<String> {
        match &*self.place() {
            Place::Nowhere => None,
            Place::Server(server) => Some(server.url().to_owned()),
            // For a proxy, which stands before one server. Drivers know all of them.
            Place::Ensemble(ensemble) => Some(ensemble.node(0).url().to_owned()),
            Place::Url(url) => Some(url.clone()),
        }
    }

    fn at(&self, url: &str) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Self {
            target: self.target,
            place: Mutex::new(Place::Url(url.to_owned())),
            capabilities: self.capabilities.clone(),
        }))
    }

    fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        match &*self.place() {
            Place::Ensemble(ensemble) => Some(Arc::new(Ensemble(Arc::clone(ensemble)))),
            _ => None,
        }
    }

    async fn stop(&self) -> Result<()> {
        self.server()?.stop().await.map_err(of_the_server)
    }

    async fn start(&self) -> Result<()> {
        self.server()?.start_again().await.map_err(of_the_server)
    }

    async fn pause(&self) -> Result<()> {
        self.server()?.pause().await.map_err(of_the_server)
    }

    async fn resume(&self) -> Result<()> {
        self.server()?.resume().await.map_err(of_the_server)
    }

    async fn kill_connections(&self) -> Result<()> {
        let admin = self.admin()?;
        for session in admin.sessions().await.map_err(of_the_administrator)? {
            // One that has just said goodbye is none of ours.
            admin.cut(session).await.ok();
        }
        Ok(())
    }

    async fn kill_connection(&self, nth: usize) -> Result<bool> {
        let admin = self.admin()?;
        let sessions = admin.sessions().await.map_err(of_the_administrator)?;
        let Some(session) = sessions.get(nth) else {
            return Ok(false);
        };
        admin.cut(*session).await.ok();
        Ok(true)
    }

    async fn end_session(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let Some(path) = self.node(resource, attempt).await? else {
            return Ok(());
        };
        let admin = self.admin()?;
        let client = admin.client().await.map_err(of_the_administrator)?;
        let stat = client.check_stat(&path).await.map_err(of_the_administrator)?;
        if let Some(stat) = stat {
            let ended = admin.end(stat.ephemeral_owner).await;
            ended.map_err(of_the_administrator)?;
        }
        Ok(())
    }

    async fn wipe(&self) -> Result<()> {
        self.admin()?.delete_all("/").await.map_err(of_the_administrator)
    }

    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        let queue = self.queue(resource).await?;
        self.delete(queue.first().map(String::as_str)).await
    }

    async fn delete_waiter(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let node = self.node(resource, attempt).await?;
        self.delete(node.as_deref()).await
    }

    async fn residue(&self, namespace: &Namespace) -> Result<Vec<String>> {
        let folder = format!("/leasehold/1/{}/{}", namespace.key(), Kind::Mutex.code());
        let client = self.admin()?.client().await.map_err(of_the_administrator)?;
        let mut found = Vec::new();
        // Locks without contenders are removed by the server in its own time.
        for lock in client.list_children(&folder).await.unwrap_or_default() {
            let path = format!("{folder}/{lock}");
            let contenders = client.list_children(&path).await.unwrap_or_default();
            found.extend(contenders.iter().map(|name| format!("{path}/{name}")));
        }
        Ok(found)
    }

    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        let admin = self.admin()?;
        let mut usage = Vec::new();
        for (what, name) in [
            ("connections", "zk_num_alive_connections"),
            ("sessions", "zk_global_sessions"),
            ("watches", "zk_watch_count"),
            ("ephemeral nodes", "zk_ephemerals_count"),
        ] {
            usage.push((what, admin.number(name).await.map_err(of_the_administrator)?));
        }
        Ok(usage)
    }

    async fn counters(&self) -> Result<Counters> {
        let admin = self.admin()?;
        let packets = admin.number("zk_packets_received").await;
        let writes = admin.writes().await;
        Ok(Counters::new(
            packets.map_err(of_the_administrator)?,
            writes.map_err(of_the_administrator)?,
        ))
    }

    fn budget(&self) -> Budget {
        // A request is counted as one, also where several leave at once. An acquire is a creation and a listing. A
        // waiter besides says that it waits, watches up to four, looks at the holder, looks once more when somebody
        // before it goes, and claims.
        Budget::SESSIONS
            .with_acquire(2, 1)
            .with_contended(14, 4)
            .with_keep_thousand(1_100, 0)
    }
}

/// The servers of an ensemble.
#[derive(Debug)]
struct Ensemble(Arc<servers::Cluster>);

#[async_trait]
impl Cluster for Ensemble {
    fn size(&self) -> usize {
        self.0.nodes().len()
    }

    async fn leader(&self) -> Result<usize> {
        self.0.leader().await.map_err(of_the_server)
    }

    async fn stop(&self, member: usize) -> Result<()> {
        self.0.node(member).stop().await.map_err(of_the_server)
    }

    async fn start(&self, member: usize) -> Result<()> {
        self.0.node(member).start_again().await.map_err(of_the_server)
    }

    async fn pause(&self, member: usize) -> Result<()> {
        self.0.node(member).pause().await.map_err(of_the_server)
    }

    async fn resume(&self, member: usize) -> Result<()> {
        self.0.node(member).resume().await.map_err(of_the_server)
    }
}
