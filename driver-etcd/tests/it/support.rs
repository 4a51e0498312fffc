//! Servers, drivers and claims for the tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leasehold_conformance::servers::{Server, ServerKind, ServerRequest, Target};
use leasehold_driver_etcd::etcd_client::{Client, GetOptions, PutOptions};
use leasehold_driver_etcd::{EtcdConfig, EtcdDriver, EtcdLockManager};
use lockcore::driver::{Acquired, Busy, Grant, Intent};
use lockcore::{
    AttemptId, Claim, Driver, DriverContext, Endpoint, Env, Error, Kind, LockName, Namespace, Resource, Token,
};
use tokio::sync::OnceCell;

use crate::metrics;

/// A server that many tests share: each has names of its own.
pub(crate) async fn shared() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(|| async { own().await }).await
}

/// The server to ask for: etcd from wherever there is one, or the target that `LEASEHOLD_TEST_TARGET` names, such as
/// `etcd/container` or `etcd/process`.
pub(crate) fn request() -> ServerRequest {
    match std::env::var("LEASEHOLD_TEST_TARGET") {
        Ok(target) => target.parse::<Target>().unwrap().request(),
        Err(_) => ServerRequest::new(ServerKind::Etcd),
    }
}

/// A server that a test may restart and empty.
pub(crate) async fn own() -> Server {
    request().own().start().await.unwrap()
}

/// A new driver, as of another process.
pub(crate) async fn driver(server: &Server) -> EtcdDriver {
    connect(server.url()).await.unwrap()
}

pub(crate) async fn connect(url: &str) -> Result<EtcdDriver, Error> {
    let mut endpoint = Endpoint::parse(url)?;
    let config = EtcdConfig::from_endpoint(&mut endpoint)?;
    endpoint.finish()?;
    EtcdDriver::connect(config, DriverContext::new(Env::system())).await
}

/// A new manager, as of another process.
pub(crate) async fn manager(server: &Server) -> EtcdLockManager {
    EtcdLockManager::connect(server.url()).await.unwrap()
}

/// A name that no other test has.
pub(crate) fn unique(name: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{next}", std::process::id())
}

pub(crate) fn resource(name: &str) -> Resource {
    Resource::new(Namespace::default(), Kind::Mutex, LockName::new(name).unwrap())
}

/// A new attempt at `name` for half a minute.
pub(crate) fn claim(name: &str) -> Claim {
    claim_for(name, Duration::from_secs(30))
}

pub(crate) fn claim_for(name: &str, ttl: Duration) -> Claim {
    let attempt = AttemptId::from_bits(Env::system().random_u128().unwrap());
    let mut claim = Claim::new(resource(name), attempt, ttl);
    claim.details = "{\"host\":\"h|1\",\"pid\":7}".into();
    claim
}

/// An attempt that has a lease of its own.
pub(crate) fn claim_once(name: &str, ttl: Duration) -> Claim {
    let mut claim = claim_for(name, ttl);
    claim.auto_renew = false;
    claim
}

pub(crate) const WAIT: Intent = Intent::Wait { ticket: None };

pub(crate) fn grant(answer: Result<Acquired, Error>) -> Grant {
    match answer.unwrap() {
        Acquired::Granted(grant) => grant,
        other => panic!("not granted: {other:?}"),
    }
}

pub(crate) fn granted(answer: Result<Acquired, Error>) -> Token {
    grant(answer).token
}

pub(crate) fn busy(answer: Result<Acquired, Error>) -> Busy {
    match answer.unwrap() {
        Acquired::Busy(busy) => busy,
        other => panic!("not busy: {other:?}"),
    }
}

/// Stands in the queue; the claim, and its place.
pub(crate) async fn enqueue(driver: &EtcdDriver, name: &str) -> (Claim, Intent) {
    let claim = claim(name);
    let ticket = busy(driver.acquire(&claim, WAIT).await).ticket;
    (claim, Intent::Wait { ticket })
}

/// What an administrator does.
pub(crate) struct Admin {
    client: Client,
    address: String,
}

impl Admin {
    pub(crate) async fn new(server: &Server) -> Self {
        let address = server.address().to_owned();
        Self {
            client: Client::connect([&address], None).await.unwrap(),
            address,
        }
    }

    pub(crate) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The attempts that have a key at `name`, with their leases, and their values.
    pub(crate) async fn keys(&self, name: &str) -> Vec<(String, i64, String)> {
        let options = GetOptions::new().with_prefix();
        let found = self.client().get(folder(name), Some(options)).await.unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = found.kvs().iter();
        found
            .map(|found| (text(found.key()), found.lease(), text(found.value())))
            .collect()
    }

    pub(crate) async fn put(&self, key: &str, value: &str, lease: i64) {
        let options = PutOptions::new().with_lease(lease);
        self.client().put(key, value, Some(options)).await.unwrap();
    }

    pub(crate) async fn leases(&self) -> usize {
        self.client().leases().await.unwrap().leases().len()
    }

    pub(crate) async fn metrics(&self) -> String {
        metrics::read(&self.address).await.unwrap()
    }

    pub(crate) async fn watches(&self) -> u64 {
        metrics::sum(&self.metrics().await, "etcd_debugging_mvcc_watcher_total", |_| {
            true
        })
    }
}

pub(crate) fn folder(name: &str) -> String {
    format!("leasehold/1/default/m/{}/", resource(name).key())
}

pub(crate) fn key(claim: &Claim) -> String {
    format!(
        "{}{}",
        folder(claim.resource.name().as_str()),
        claim.attempt.to_hex()
    )
}

/// Waits until `condition` holds, for ten seconds at most.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
