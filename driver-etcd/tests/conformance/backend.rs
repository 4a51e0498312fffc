//! An etcd server for the suite.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use leasehold_conformance::servers::{self, ClusterRequest, Origin, Server, ServerError, ServerKind, Target};
use leasehold_conformance::{Ability, Backend, Budget, Cluster, Counters};
use leasehold_driver_etcd::etcd_client::{
    Client, DeleteOptions, Error as ClientError, GetOptions, SortOrder, SortTarget,
};
use leasehold_driver_etcd::{CAPABILITIES, EtcdConfig, EtcdDriver};
use lockcore::{
    AttemptId, Capabilities, DriverContext, DynDriver, Endpoint, Env, Error, ErrorKind, Namespace, Resource,
    Result,
};

use crate::metrics;

/// One server, started before the first scenario, or one that runs already; or a cluster.
#[derive(Debug)]
pub(crate) struct EtcdBackend {
    /// `None` for a cluster.
    target: Option<Target>,
    place: Mutex<Place>,
}

#[derive(Clone)]
enum Place {
    Nowhere,
    Server(Arc<Server>),
    Cluster(Arc<servers::Cluster>),
    Url(String),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may have a password.
        f.write_str(match self {
            Self::Nowhere => "nowhere",
            Self::Server(_) => "a server",
            Self::Cluster(_) => "a cluster",
            Self::Url(_) => "a URL",
        })
    }
}

impl EtcdBackend {
    pub(crate) const fn new(target: Target) -> Self {
        Self {
            target: Some(target),
            place: Mutex::new(Place::Nowhere),
        }
    }

    /// Three servers that are one.
    pub(crate) const fn cluster() -> Self {
        Self {
            target: None,
            place: Mutex::new(Place::Nowhere),
        }
    }

    fn place(&self) -> Place {
        lock(&self.place).clone()
    }

    fn server(&self) -> Result<Arc<Server>> {
        match self.place() {
            Place::Server(server) => Ok(server),
            _ => Err(Error::new(ErrorKind::Internal, "the server was not started here")),
        }
    }

    fn address(&self) -> Result<String> {
        match self.place() {
            Place::Server(server) => Ok(server.address().to_owned()),
            Place::Cluster(cluster) => Ok(cluster.node(0).address().to_owned()),
            Place::Url(url) => {
                let endpoint = Endpoint::parse(&url)?;
                let (host, port) = endpoint.single_host()?;
                Ok(format!("{host}:{}", port.unwrap_or(2379)))
            }
            Place::Nowhere => Err(Error::new(ErrorKind::Internal, "the server was not started")),
        }
    }

    /// What an administrator does, on a connection of its own.
    async fn admin(&self) -> Result<Client> {
        Client::connect([self.address()?], None)
            .await
            .map_err(of_the_administrator)
    }

    async fn metrics(&self) -> Result<String> {
        metrics::read(&self.address()?).await.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the server's metrics cannot be read").with_source(error)
        })
    }

    async fn keys(&self, prefix: String) -> Result<Vec<String>> {
        let options = GetOptions::new().with_prefix().with_keys_only();
        let found = self.admin().await?.get(prefix, Some(options)).await;
        let found = found.map_err(of_the_administrator)?;
        let shown = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
        Ok(found.kvs().iter().map(|found| shown(found.key())).collect())
    }
}

fn prefix(resource: &Resource) -> String {
    let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
    format!("leasehold/1/{namespace}/{kind}/{}/", resource.key())
}

fn of_the_administrator(error: ClientError) -> Error {
    Error::new(ErrorKind::Unavailable, "the administrator's request failed").with_source(error)
}

fn of_the_server(error: ServerError) -> Error {
    Error::new(ErrorKind::Unavailable, "the test server").with_source(error)
}

#[async_trait]
impl Backend for EtcdBackend {
    fn name(&self) -> String {
        self.target.map_or_else(
            || "etcd-cluster".to_owned(),
            |target| target.to_string().replace('/', "-"),
        )
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    fn another(&self) -> Option<Arc<dyn Backend>> {
        match self.target {
            Some(target) if target.origin == Origin::Url => None,
            Some(target) => Some(Arc::new(Self::new(target))),
            None => Some(Arc::new(Self::cluster())),
        }
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        let url = match self.place() {
            Place::Cluster(cluster) => cluster.url().to_owned(),
            _ => self.url().unwrap_or_default(),
        };
        let mut endpoint = Endpoint::parse(&url)?;
        let config = EtcdConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let context = DriverContext::new(env.clone());
        let driver = EtcdDriver::connect(config, context.clone()).await?;
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
            Ability::Logins,
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
                Ability::Wipe,
                Ability::Usage,
                Ability::Counters,
            ]);
        }
        abilities
    }

    async fn prepare(&self) -> Result<()> {
        let Some(target) = self.target else {
            let cluster = ClusterRequest::new(ServerKind::Etcd).start().await;
            *lock(&self.place) = Place::Cluster(Arc::new(cluster.map_err(of_the_server)?));
            return Ok(());
        };
        let mut request = target.request();
        if target.origin != Origin::Url {
            request = request.own();
        }
        let server = request.start().await.map_err(of_the_server)?;
        *lock(&self.place) = Place::Server(Arc::new(server));
        Ok(())
    }

    async fn finish(&self) {
        *lock(&self.place) = Place::Nowhere;
    }

    fn describe(&self) -> String {
        self.server()
            .map_or_else(|_| self.name(), |server| server.describe())
    }

    fn url(&self) -> Option<String> {
        match self.place() {
            Place::Nowhere => None,
            Place::Server(server) => Some(server.url().to_owned()),
            // For a proxy, which stands before one server. Drivers know all of them.
            Place::Cluster(cluster) => Some(cluster.node(0).url().to_owned()),
            Place::Url(url) => Some(url),
        }
    }

    fn at(&self, url: &str) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Self {
            target: self.target,
            place: Mutex::new(Place::Url(url.to_owned())),
        }))
    }

    fn cluster(&self) -> Option<Arc<dyn Cluster>> {
        match self.place() {
            Place::Cluster(cluster) => Some(Arc::new(Members(cluster))),
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

    /// Keys alone: the store's revision goes on, and a lease without keys is nothing.
    async fn wipe(&self) -> Result<()> {
        let everything = DeleteOptions::new().with_all_keys();
        let wiped = self.admin().await?.delete("", Some(everything)).await;
        wiped.map(drop).map_err(of_the_administrator)
    }

    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        let mut admin = self.admin().await?;
        let oldest = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Ascend)
            .with_limit(1);
        let found = admin.get(prefix(resource), Some(oldest)).await;
        for holder in found.map_err(of_the_administrator)?.kvs() {
            let deleted = admin.delete(holder.key(), None).await;
            deleted.map_err(of_the_administrator)?;
        }
        Ok(())
    }

    async fn delete_waiter(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let key = format!("{}{}", prefix(resource), attempt.to_hex());
        let deleted = self.admin().await?.delete(key, None).await;
        deleted.map(drop).map_err(of_the_administrator)
    }

    async fn end_session(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let key = format!("{}{}", prefix(resource), attempt.to_hex());
        let mut admin = self.admin().await?;
        let found = admin.get(key, None).await.map_err(of_the_administrator)?;
        for found in found.kvs() {
            let revoked = admin.lease_client().revoke(found.lease()).await;
            revoked.map_err(of_the_administrator)?;
        }
        Ok(())
    }

    async fn residue(&self, namespace: &Namespace) -> Result<Vec<String>> {
        self.keys(format!("leasehold/1/{}/", namespace.key())).await
    }

    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        let keys = self.keys("leasehold/".to_owned()).await?.len();
        let leases = self.admin().await?.leases().await;
        let leases = leases.map_err(of_the_administrator)?.leases().len();
        let metrics = self.metrics().await?;
        let watches = metrics::sum(&metrics, "etcd_debugging_mvcc_watcher_total", |_| true);
        let count = |count| u64::try_from(count).unwrap_or(u64::MAX);
        Ok(vec![
            ("keys", count(keys)),
            ("leases", count(leases)),
            ("watches", watches),
        ])
    }

    async fn counters(&self) -> Result<Counters> {
        let metrics = self.metrics().await?;
        let requests = metrics::sum(&metrics, "grpc_server_msg_received_total", |labels| {
            !labels.contains("Health")
        });
        let writes = metrics::sum(&metrics, "etcd_server_proposals_committed_total", |_| true);
        Ok(Counters::new(requests, writes))
    }

    fn budget(&self) -> Budget {
        Budget::SESSIONS
    }
}

#[derive(Debug)]
struct Members(Arc<servers::Cluster>);

#[async_trait]
impl Cluster for Members {
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
