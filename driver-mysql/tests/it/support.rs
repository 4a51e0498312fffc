//! Servers, drivers and claims for the tests.

use std::time::{Duration, Instant};

use leasehold_conformance::servers::{Server, ServerKind, ServerRequest, Target};
use leasehold_driver_mysql::{MysqlConfig, MysqlDriver};
use lockcore::driver::{Acquired, Busy, Intent};
use lockcore::{
    AttemptId, Claim, DriverContext, Endpoint, Env, Error, Kind, LockName, Namespace, Resource, Token,
};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _};

/// The server to ask for: from wherever there is one, or the target that `LEASEHOLD_TEST_TARGET` names, such as
/// `mysql/container` or `mariadb/process`.
fn request() -> ServerRequest {
    match std::env::var("LEASEHOLD_TEST_TARGET") {
        Ok(target) => target.parse::<Target>().unwrap().request(),
        Err(_) => ServerRequest::new(ServerKind::MariaDb),
    }
}

/// A server that a test may restart and count on.
pub(crate) async fn own() -> Server {
    request().own().start().await.unwrap()
}

/// A new driver, as of another process.
pub(crate) async fn driver(server: &Server) -> MysqlDriver {
    connect(server.url()).await.unwrap()
}

pub(crate) async fn connect(url: &str) -> Result<MysqlDriver, Error> {
    let mut endpoint = Endpoint::parse(url)?;
    let config = MysqlConfig::from_endpoint(&mut endpoint)?;
    endpoint.finish()?;
    MysqlDriver::connect(config, DriverContext::new(Env::system())).await
}

pub(crate) async fn admin(server: &Server) -> MySqlConnection {
    let options: MySqlConnectOptions = server.admin_url().parse().unwrap();
    options.disable_statement_logging().connect().await.unwrap()
}

pub(crate) async fn execute(server: &Server, sql: &str) {
    let mut connection = admin(server).await;
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
}

pub(crate) async fn numbers(server: &Server, sql: &str) -> Vec<u64> {
    let mut connection = admin(server).await;
    let rows: Vec<Vec<u8>> = sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
        .fetch_all(&mut connection)
        .await
        .unwrap();
    let number = |row: &Vec<u8>| String::from_utf8_lossy(row).parse().unwrap();
    rows.iter().map(number).collect()
}

/// The drivers' connections, oldest first.
pub(crate) const CONNECTIONS: &str = "SELECT CAST(id AS CHAR) FROM information_schema.processlist \
     WHERE user = 'leasehold' ORDER BY id";

/// How many statements the server has seen.
pub(crate) async fn questions(connection: &mut MySqlConnection) -> u64 {
    let (_, value): (Vec<u8>, Vec<u8>) = sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Questions'")
        .fetch_one(connection)
        .await
        .unwrap();
    String::from_utf8_lossy(&value).parse().unwrap()
}

pub(crate) fn resource(name: &str) -> Resource {
    Resource::new(Namespace::default(), Kind::Mutex, LockName::new(name).unwrap())
}

/// A new attempt at `name` for half a minute.
pub(crate) fn claim(name: &str) -> Claim {
    let attempt = AttemptId::from_bits(Env::system().random_u128().unwrap());
    let mut claim = Claim::new(resource(name), attempt, Duration::from_secs(30));
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

/// Asks again and again until `done`, for at most `limit`.
pub(crate) async fn eventually(what: &str, limit: Duration, mut done: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + limit;
    while !done().await {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
