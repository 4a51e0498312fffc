//! Servers, drivers and claims for the tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leasehold_conformance::servers::{Server, ServerKind, ServerRequest, Target};
use leasehold_driver_zk::zookeeper_client::{Acls, Client, CreateMode};
use leasehold_driver_zk::{ZkConfig, ZkDriver, ZkLockManager};
use lockcore::driver::{Acquired, Busy, Grant, Intent};
use lockcore::{
    AttemptId, Claim, Driver, DriverContext, Endpoint, Env, Error, Kind, LockManager, LockName, Namespace,
    Resource, Token,
};
use tokio::sync::OnceCell;

use crate::admin::Admin;

/// A server that many tests share: each has names of its own.
pub(crate) async fn shared() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(|| async { own().await }).await
}

/// The server to ask for: from wherever there is one, or the target that `LEASEHOLD_TEST_TARGET` names, such as
/// `zookeeper/process`.
pub(crate) fn request() -> ServerRequest {
    match std::env::var("LEASEHOLD_TEST_TARGET") {
        Ok(target) => target.parse::<Target>().unwrap().request(),
        Err(_) => ServerRequest::new(ServerKind::ZooKeeper),
    }
}

/// A server that a test may restart, count at and empty.
pub(crate) async fn own() -> Server {
    request().own().start().await.unwrap()
}

pub(crate) fn admin(server: &Server) -> Admin {
    Admin::new(server.address())
}

/// A new driver, as of another process.
pub(crate) async fn driver(server: &Server) -> ZkDriver {
    connect(server.url()).await.unwrap()
}

pub(crate) async fn connect(url: &str) -> Result<ZkDriver, Error> {
    let mut endpoint = Endpoint::parse(url)?;
    let config = ZkConfig::from_endpoint(&mut endpoint)?;
    endpoint.finish()?;
    ZkDriver::connect(config, DriverContext::new(Env::system())).await
}

/// A new manager, as of another process.
pub(crate) async fn manager(server: &Server) -> ZkLockManager {
    ZkLockManager::connect(server.url()).await.unwrap()
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

/// The node whose children contend for `name`.
pub(crate) fn lock(name: &str) -> String {
    format!("/leasehold/1/default/m/{name}")
}

/// A new attempt at `name` for ten seconds.
pub(crate) fn claim(name: &str) -> Claim {
    claim_for(name, Duration::from_secs(10))
}

pub(crate) fn claim_for(name: &str, ttl: Duration) -> Claim {
    let attempt = AttemptId::from_bits(Env::system().random_u128().unwrap());
    let mut claim = Claim::new(resource(name), attempt, ttl);
    claim.details = "{\"host\":\"h|1\",\"pid\":7}".into();
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

/// Stands in the queue `count` times. Nobody asks again for these: they are as good as dead.
pub(crate) async fn enqueue(driver: &ZkDriver, name: &str, count: usize) -> Vec<Claim> {
    let mut claims = Vec::new();
    for _ in 0..count {
        let claim = claim(name);
        busy(driver.acquire(&claim, WAIT).await);
        claims.push(claim);
    }
    claims
}

/// The contenders for `name`, in order.
pub(crate) async fn contenders(client: &Client, name: &str) -> Vec<String> {
    let mut names = client.list_children(&lock(name)).await.unwrap_or_default();
    names.sort_unstable_by_key(|name| name[name.len() - 10..].to_owned());
    names
}

/// A contender of another recipe, such as Curator's.
pub(crate) async fn foreign(client: &Client, name: &str, data: &[u8]) -> String {
    let path = format!("{}/_c_00000000-0000-0000-0000-000000000000-lock-", lock(name));
    let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
    let (_, number) = client.create(&path, data, &options).await.unwrap();
    format!("{path}{number}")
}

/// Acquires `name` in a task, as a live client does, and tells when it got it.
pub(crate) fn acquire(
    manager: &ZkLockManager,
    name: &str,
) -> tokio::task::JoinHandle<(lockcore::Guard, Instant)> {
    let asked = manager
        .lock(name)
        .ttl(Duration::from_secs(10))
        .wait(Duration::from_secs(30));
    tokio::spawn(async move {
        let guard = asked.acquire().await.unwrap();
        (guard, Instant::now())
    })
}

/// Waits until `condition` holds, for ten seconds at most.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
