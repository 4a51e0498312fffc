//! Servers, drivers and claims for the tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leasehold_conformance::servers::{Server, ServerKind, ServerRequest, Target};
use leasehold_driver_redis::redis::aio::MultiplexedConnection;
use leasehold_driver_redis::redis::{self, AsyncConnectionConfig, Client, FromRedisValue};
use leasehold_driver_redis::{RedisConfig, RedisDriver, RedisLockManager};
use lockcore::driver::{Acquired, Busy, Intent};
use lockcore::{
    AttemptId, Claim, Driver, DriverContext, Endpoint, Env, Error, Kind, LockName, Namespace, Resource, Token,
};
use tokio::sync::OnceCell;

/// A server that many tests share: each has names of its own.
pub(crate) async fn shared() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER.get_or_init(|| async { own().await }).await
}

/// The server to ask for: Redis from wherever there is one, or the target that `LEASEHOLD_TEST_TARGET` names, such as
/// `valkey/container` or `redis/process`.
pub(crate) fn request() -> ServerRequest {
    match std::env::var("LEASEHOLD_TEST_TARGET") {
        Ok(target) => target.parse::<Target>().unwrap().request(),
        Err(_) => ServerRequest::new(ServerKind::Redis),
    }
}

/// A server that a test may restart, fill and empty.
pub(crate) async fn own() -> Server {
    request().own().start().await.unwrap()
}

/// A new driver, as of another process.
pub(crate) async fn driver(server: &Server) -> RedisDriver {
    connect(server.url()).await.unwrap()
}

pub(crate) async fn connect(url: &str) -> Result<RedisDriver, Error> {
    let mut endpoint = Endpoint::parse(url)?;
    let config = RedisConfig::from_endpoint(&mut endpoint)?;
    endpoint.finish()?;
    RedisDriver::connect(config, DriverContext::new(Env::system())).await
}

/// A new manager, as of another process.
pub(crate) async fn manager(server: &Server) -> RedisLockManager {
    RedisLockManager::connect(server.url()).await.unwrap()
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

pub(crate) const WAIT: Intent = Intent::Wait { ticket: None };

pub(crate) fn granted(answer: Result<Acquired, Error>) -> Token {
    match answer.unwrap() {
        Acquired::Granted(grant) => grant.token,
        other => panic!("not granted: {other:?}"),
    }
}

pub(crate) fn busy(answer: Result<Acquired, Error>) -> Busy {
    match answer.unwrap() {
        Acquired::Busy(busy) => busy,
        other => panic!("not busy: {other:?}"),
    }
}

/// Stands in the queue `count` times.
pub(crate) async fn enqueue(driver: &RedisDriver, name: &str, count: usize) -> Vec<Claim> {
    let mut claims = Vec::new();
    for _ in 0..count {
        let claim = claim(name);
        busy(driver.acquire(&claim, WAIT).await);
        claims.push(claim);
    }
    claims
}

/// A plain connection, for what an administrator does.
pub(crate) struct Admin(MultiplexedConnection);

impl Admin {
    pub(crate) async fn new(server: &Server) -> Self {
        let client = Client::open(format!("redis://{}", server.address())).unwrap();
        // As patient as the tests that use it: the default is half a second.
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(10)))
            .set_response_timeout(Some(Duration::from_secs(10)));
        let connecting = client.get_multiplexed_async_connection_with_config(&patient);
        Self(connecting.await.unwrap())
    }

    pub(crate) async fn run<T: FromRedisValue>(&mut self, command: &str) -> T {
        let mut words = command.split_whitespace();
        let mut command = redis::cmd(words.next().unwrap());
        command.arg(words.collect::<Vec<_>>());
        command.query_async(&mut self.0).await.unwrap()
    }

    /// The letters of the keys that there are for `name`.
    pub(crate) async fn keys(&mut self, name: &str) -> String {
        let key = resource(name).key().to_owned();
        let mut letters = Vec::new();
        for letter in ['L', 'F', 'W', 'Q'] {
            let exists: bool = self
                .run(&format!("EXISTS leasehold:1:default:m:{{{key}}}:{letter}"))
                .await;
            letters.extend(exists.then_some(letter));
        }
        letters.into_iter().collect()
    }
}

/// Waits until `condition` holds, for ten seconds at most.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
