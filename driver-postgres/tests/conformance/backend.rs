//! A PostgreSQL server for the suite.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::servers::{Origin, Server, ServerError, Target};
use leasehold_conformance::{Ability, Backend, Budget, Counters};
use leasehold_driver_postgres::sqlx::postgres::PgConnectOptions;
use leasehold_driver_postgres::sqlx::{self, AssertSqlSafe, ConnectOptions as _, Connection as _};
use leasehold_driver_postgres::{
    CAPABILITIES, DEFAULT_CONNECTIONS, Mode, PostgresConfig, PostgresDriver, SESSION_CAPABILITIES,
};
use lockcore::{
    AttemptId, Capabilities, DriverContext, DynDriver, Endpoint, Env, Error, ErrorKind, Namespace, Resource,
    Result,
};

/// One server, started before the first scenario, or one that runs already.
#[derive(Debug)]
pub(crate) struct PostgresBackend {
    target: Target,
    mode: Mode,
    place: Mutex<Place>,
}

#[derive(Clone)]
enum Place {
    Nowhere,
    Server(Arc<Server>),
    Url(String),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may have a password.
        f.write_str(match self {
            Self::Nowhere => "nowhere",
            Self::Server(_) => "a server",
            Self::Url(_) => "a URL",
        })
    }
}

impl PostgresBackend {
    pub(crate) const fn new(target: Target, mode: Mode) -> Self {
        Self {
            target,
            mode,
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

    /// What an administrator asks, on a connection of its own; the first column of the answer as text.
    async fn ask(&self, sql: &str) -> Result<Vec<String>> {
        let url = match self.place() {
            Place::Server(server) => server.admin_url().to_owned(),
            _ => self.url().unwrap_or_default(),
        };
        let options: PgConnectOptions = url.parse().map_err(of_the_administrator)?;
        let mut connection = options
            .application_name("administrator")
            .connect()
            .await
            .map_err(of_the_administrator)?;
        let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&mut connection)
            .await
            .map_err(of_the_administrator)?;
        connection.close().await.map_err(of_the_administrator)?;
        rows.iter()
            .map(|row| sqlx::Row::try_get::<Option<String>, _>(row, 0).map(Option::unwrap_or_default))
            .collect::<Result<_, _>>()
            .map_err(of_the_administrator)
    }

    async fn number(&self, sql: &str) -> Result<u64> {
        let answer = self.ask(sql).await?;
        let number = answer.first().and_then(|number| number.parse().ok());
        number.ok_or_else(|| Error::new(ErrorKind::Internal, "the administrator's question had no answer"))
    }
}

fn of_the_administrator(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the administrator's command failed").with_source(error)
}

fn of_the_server(error: ServerError) -> Error {
    Error::new(ErrorKind::Unavailable, "the test server").with_source(error)
}

fn key(resource: &Resource) -> String {
    let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
    format!("{namespace}/{kind}/{}", resource.key())
}

fn end_sessions(key: &str, whose: &str) -> String {
    format!(
        "SELECT pg_terminate_backend(k.pid)::text FROM leasehold.session_locks('{key}') AS k WHERE {whose}"
    )
}

/// The drivers' server processes.
const OURS: &str = "backend_type = 'client backend' AND application_name = 'leasehold'";

#[async_trait]
impl Backend for PostgresBackend {
    fn name(&self) -> String {
        let target = self.target.to_string().replace('/', "-");
        match self.mode {
            Mode::Session => format!("{target}-session"),
            _ => target,
        }
    }

    fn capabilities(&self) -> Capabilities {
        match self.mode {
            Mode::Session => SESSION_CAPABILITIES,
            _ => CAPABILITIES,
        }
    }

    fn another(&self) -> Option<Arc<dyn Backend>> {
        (self.target.origin != Origin::Url).then(|| Arc::new(Self::new(self.target, self.mode)) as _)
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        let mut endpoint = Endpoint::parse(&self.url().unwrap_or_default())?;
        let mut config = PostgresConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        config.mode = self.mode;
        // Some scenarios lose every request of a connection's beginning, one after the other.
        config.connect_timeout = Duration::from_secs(4);
        if self.mode == Mode::Session {
            // Some scenarios hold many locks at a time.
            config.connections = 150;
        }
        let context = DriverContext::new(env.clone());
        let driver = PostgresDriver::connect(config, context.clone()).await?;
        Ok((DynDriver::new(driver), context))
    }

    fn exempt(&self, id: &str) -> Option<&'static str> {
        if self.mode != Mode::Session {
            return None;
        }
        match id {
            "FT15" => {
                Some("a hundred logins, one for each lock, outlast the time that it gives to a request")
            }
            "RN11" | "CO3" => Some("each lock has a connection of its own: a thousand are too many"),
            "FQ7" => Some("the queue is the server's own, which has no tickets"),
            _ => None,
        }
    }

    fn session_is_connection(&self) -> bool {
        self.mode == Mode::Session
    }

    fn budget(&self) -> Budget {
        match self.mode {
            // A look at the server where the connection is a new one; a try, the wait, a look at the queue, the claim, the
            // release, and the end of a connection that is not kept.
            Mode::Session => Budget::SESSIONS
                .with_acquire(2, 1)
                .with_release(2, 1)
                .with_contended(7, 4),
            _ => Budget::LEASES,
        }
    }

    fn abilities(&self) -> Vec<Ability> {
        let mut abilities = vec![
            Ability::Processes,
            Ability::Network,
            Ability::DeleteLock,
            Ability::Residue,
            Ability::Logins,
        ];
        // Waiters are in the server's own queue, which nobody edits.
        abilities.push(match self.mode {
            Mode::Session => Ability::EndSession,
            _ => Ability::DeleteWaiter,
        });
        // A server that was given may have other users.
        if self.target.origin != Origin::Url {
            abilities.extend([
                Ability::Stop,
                Ability::Pause,
                Ability::KillConnections,
                Ability::KillConnection,
                Ability::CleanUp,
                Ability::Wipe,
                Ability::LimitClients,
                Ability::Usage,
                Ability::Strays,
                Ability::Counters,
            ]);
        }
        abilities
    }

    async fn prepare(&self) -> Result<()> {
        let mut request = self.target.request();
        if self.target.origin != Origin::Url {
            request = request.own().args([
                "-c",
                "max_connections=1000",
                "-c",
                "shared_preload_libraries=pg_stat_statements,plpgsql",
                // Servers are killed here, machines are not.
                "-c",
                "fsync=off",
            ]);
        }
        let server = request.start().await.map_err(of_the_server)?;
        *lock(&self.place) = Place::Server(Arc::new(server));
        if self.target.origin != Origin::Url {
            self.ask("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
                .await?;
        }
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
            Place::Url(url) => Some(url),
        }
    }

    fn at(&self, url: &str) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Self {
            target: self.target,
            mode: self.mode,
            place: Mutex::new(Place::Url(url.to_owned())),
        }))
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
        let kill = format!("SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE {OURS}");
        self.ask(&kill).await.map(drop)
    }

    async fn kill_connection(&self, nth: usize) -> Result<bool> {
        let kill = format!(
            "SELECT pg_terminate_backend(pid)::text FROM \
             (SELECT pid FROM pg_stat_activity WHERE {OURS} ORDER BY backend_start, pid OFFSET {nth} LIMIT 1) AS c"
        );
        Ok(!self.ask(&kill).await?.is_empty())
    }

    async fn wipe(&self) -> Result<()> {
        // What clients prepared goes with it.
        self.ask("DROP SCHEMA IF EXISTS leasehold CASCADE").await?;
        match self.mode {
            Mode::Session => self.kill_connections().await,
            _ => Ok(()),
        }
    }

    async fn limit_clients(&self, on: bool) -> Result<()> {
        let limit = if on {
            let clients = "SELECT count(*)::text FROM pg_stat_activity WHERE usename = 'leasehold'";
            self.number(clients).await?.to_string()
        } else {
            "-1".to_owned()
        };
        self.ask(&format!("ALTER ROLE leasehold CONNECTION LIMIT {limit}"))
            .await
            .map(drop)
    }

    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        let key = key(resource);
        let end = format!("{}; ", end_sessions(&key, "k.granted"));
        let delete = format!("DELETE FROM leasehold.lock WHERE key = '{key}'");
        match self.mode {
            Mode::Session => self.ask(&(end + &delete)).await.map(drop),
            _ => self.ask(&delete).await.map(drop),
        }
    }

    async fn end_session(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let key = key(resource);
        let owns = format!(
            "SELECT count(*)::text FROM leasehold.lock WHERE owner = '{}'",
            attempt.to_hex()
        );
        let whose = match self.number(&owns).await? {
            0 => "NOT k.granted",
            _ => "k.granted",
        };
        self.ask(&end_sessions(&key, whose)).await.map(drop)
    }

    async fn delete_waiter(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let delete = format!(
            "DELETE FROM leasehold.waiter WHERE key = '{}' AND attempt = '{}'",
            key(resource),
            attempt.to_hex()
        );
        self.ask(&delete).await.map(drop)
    }

    async fn clean_up(&self, namespace: &Namespace) -> Result<()> {
        // As after a day.
        let sweep = format!(
            "UPDATE leasehold.lock SET token = 1 WHERE key LIKE '{}/%' AND (owner IS NULL OR expires <= now()); \
             SELECT leasehold.sweep('', 1000000)",
            namespace.key().replace('_', "\\_")
        );
        self.ask(&sweep).await.map(drop)
    }

    async fn residue(&self, namespace: &Namespace) -> Result<Vec<String>> {
        let prefix = format!("{}/", namespace.key());
        let left = format!(
            "SELECT 'owner of ' || key FROM leasehold.lock \
             WHERE owner IS NOT NULL AND starts_with(key, '{prefix}') AND CASE WHEN session IS NULL \
             THEN expires > clock_timestamp() ELSE EXISTS (SELECT FROM leasehold.session_locks(key)) END \
             UNION ALL SELECT 'waiter for ' || key FROM leasehold.waiter WHERE starts_with(key, '{prefix}')"
        );
        self.ask(&left).await
    }

    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        // A pool may grow to its size.
        let connections = format!(
            "SELECT greatest(0, (SELECT count(*) FROM pg_stat_activity WHERE {OURS}) - {} * (SELECT count(*) FROM pg_locks \
             WHERE locktype = 'advisory' AND granted))::text",
            match self.mode {
                Mode::Session => 8,
                _ => DEFAULT_CONNECTIONS + 1,
            }
        );
        Ok(vec![
            ("connections beyond the pools", self.number(&connections).await?),
            (
                "owners",
                self.number("SELECT count(*)::text FROM leasehold.lock WHERE owner IS NOT NULL")
                    .await?,
            ),
            (
                "waiters",
                self.number("SELECT count(*)::text FROM leasehold.waiter").await?,
            ),
            (
                "advisory locks",
                self.number("SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'")
                    .await?,
            ),
        ])
    }

    async fn strays(&self) -> Result<Vec<String>> {
        self.ask(&format!(
            "SELECT pid || ' is ' || state FROM pg_stat_activity WHERE {OURS} AND state LIKE 'idle in %'"
        ))
        .await
    }

    async fn counters(&self) -> Result<Counters> {
        // What sets a connection up is many statements in one round trip.
        let calls = "SELECT coalesce(sum(calls), 0)::bigint::text FROM pg_stat_statements AS s \
             JOIN pg_roles AS r ON r.oid = s.userid WHERE r.rolname = 'leasehold' \
             AND s.query NOT LIKE 'SET %' AND s.query NOT LIKE 'SELECT set_config%'";
        let writes = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text";
        Ok(Counters::new(
            self.number(calls).await?,
            self.number(writes).await?,
        ))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
