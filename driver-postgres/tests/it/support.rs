//! Servers, drivers and claims for the tests.

use std::time::{Duration, Instant};

use leasehold_conformance::servers::{Server, ServerKind, ServerRequest, Target};
use leasehold_driver_postgres::sqlx::postgres::{PgConnectOptions, PgRow};
use leasehold_driver_postgres::sqlx::{self, AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _};
use leasehold_driver_postgres::{PostgresConfig, PostgresDriver};
use lockcore::driver::{Acquired, Busy, Intent};
use lockcore::{
    AttemptId, Claim, Driver, DriverContext, Endpoint, Env, Error, Kind, LockName, Namespace, Resource, Token,
};

/// The server to ask for: from wherever there is one, or the target that `LEASEHOLD_TEST_TARGET` names, such as
/// `postgres/container` or `postgres/process`.
fn request() -> ServerRequest {
    match std::env::var("LEASEHOLD_TEST_TARGET") {
        Ok(target) => target.parse::<Target>().unwrap().request(),
        Err(_) => ServerRequest::new(ServerKind::Postgres),
    }
}

/// A server that a test may restart and count on.
pub(crate) async fn own() -> Server {
    let settings = [
        "shared_preload_libraries=pg_stat_statements",
        "max_connections=500",
    ];
    let args = settings.into_iter().flat_map(|setting| ["-c", setting]);
    request().own().args(args).start().await.unwrap()
}

/// A new driver, as of another process.
pub(crate) async fn driver(server: &Server) -> PostgresDriver {
    connect(server.url()).await.unwrap()
}

pub(crate) async fn connect(url: &str) -> Result<PostgresDriver, Error> {
    connect_with(url, DriverContext::new(Env::system())).await
}

pub(crate) async fn connect_with(url: &str, context: DriverContext) -> Result<PostgresDriver, Error> {
    let mut endpoint = Endpoint::parse(url)?;
    let config = PostgresConfig::from_endpoint(&mut endpoint)?;
    endpoint.finish()?;
    PostgresDriver::connect(config, context).await
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
    claim.details = "{\"host\":\"h\u{e9}|1\",\"pid\":7}".into();
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
pub(crate) async fn enqueue(driver: &PostgresDriver, name: &str, count: usize) -> Vec<Claim> {
    let mut claims = Vec::new();
    for _ in 0..count {
        let claim = claim(name);
        busy(driver.acquire(&claim, WAIT).await);
        claims.push(claim);
    }
    claims
}

/// A connection of an administrator.
pub(crate) struct Admin(PgConnection);

impl Admin {
    pub(crate) async fn new(server: &Server) -> Self {
        let options: PgConnectOptions = server.admin_url().parse().unwrap();
        Self(options.application_name("administrator").connect().await.unwrap())
    }

    pub(crate) async fn run(&mut self, sql: &str) -> Vec<PgRow> {
        let sql = AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).fetch_all(&mut self.0).await.unwrap()
    }

    /// The number that is the answer.
    pub(crate) async fn number(&mut self, sql: &str) -> i64 {
        let rows = self.run(&format!("SELECT ({sql})::text")).await;
        rows[0].get::<String, _>(0).parse().unwrap()
    }

    /// The connections of drivers, without those that listen or with them alone.
    pub(crate) async fn connections(&mut self) -> i64 {
        self.number("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'leasehold'")
            .await
    }
}

/// Waits until `condition` holds, for ten seconds at most.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
