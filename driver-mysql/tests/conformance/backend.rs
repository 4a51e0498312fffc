//! A MySQL or MariaDB server for the suite.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::servers::{Origin, Server, ServerError, ServerKind, Target};
use leasehold_conformance::{Ability, Backend, Budget, Counters};
use leasehold_driver_mysql::{
    CAPABILITIES, MysqlConfig, MysqlDriver, POLL_CAPABILITIES, SESSION_CAPABILITIES,
};
use lockcore::{
    AttemptId, Capabilities, DriverContext, DynDriver, Endpoint, Env, Error, ErrorKind, Namespace, Resource,
    Result,
};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

/// How the driver keeps locks there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Lease,
    Poll,
    Session,
}

/// One server, started before the first scenario, or one that runs already.
#[derive(Debug)]
pub(crate) struct MysqlBackend {
    target: Target,
    how: How,
    place: Mutex<Place>,
    /// The one connection that is let in while clients are limited.
    gatekeeper: Mutex<Option<MySqlConnection>>,
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

impl MysqlBackend {
    pub(crate) const fn new(target: Target, how: How) -> Self {
        Self {
            target,
            how,
            place: Mutex::new(Place::Nowhere),
            gatekeeper: Mutex::new(None),
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

    /// Runs statements as an administrator does, on a connection of its own.
    async fn admin<T>(&self, run: impl AsyncFnOnce(&mut MySqlConnection) -> sqlx::Result<T>) -> Result<T> {
        let url = match self.place() {
            Place::Server(server) => server.admin_url().to_owned(),
            _ => self.url().unwrap_or_default(),
        };
        let done = async {
            let plain = url.split('?').next().unwrap_or_default();
            let options: MySqlConnectOptions = plain.parse()?;
            let mut connection = options.disable_statement_logging().connect().await?;
            let done = run(&mut connection).await?;
            connection.close().await?;
            Ok(done)
        };
        done.await.map_err(|error: sqlx::Error| {
            Error::new(ErrorKind::Unavailable, "the administrator's statement failed").with_source(error)
        })
    }

    async fn execute(&self, sql: impl Into<String>) -> Result<()> {
        let sql = sql.into();
        self.admin(async |connection| sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await)
            .await
            .map(drop)
    }

    async fn rows(&self, sql: impl Into<String>) -> Result<Vec<String>> {
        let sql = sql.into();
        let rows: Vec<Vec<u8>> = self
            .admin(async |connection| sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(connection).await)
            .await?;
        let text = |row: Vec<u8>| String::from_utf8_lossy(&row).into_owned();
        Ok(rows.into_iter().map(text).collect())
    }

    /// The connections of the drivers, oldest first.
    async fn connections(&self) -> Result<Vec<String>> {
        let user = self.user();
        self.rows(format!(
            "SELECT CAST(id AS CHAR) FROM information_schema.processlist \
             WHERE user = '{user}' AND id <> CONNECTION_ID() ORDER BY id"
        ))
        .await
    }

    fn user(&self) -> String {
        let url = self.url().unwrap_or_default();
        let endpoint = Endpoint::parse(&url).ok();
        endpoint
            .and_then(|endpoint| endpoint.user().map(str::to_owned))
            .unwrap_or_default()
    }

    async fn status(&self, names: &str) -> Result<u64> {
        let rows: Vec<(Vec<u8>, Vec<u8>)> = self
            .admin(async |connection| {
                let sql = format!("SHOW GLOBAL STATUS WHERE Variable_name IN ({names})");
                sqlx::query_as(AssertSqlSafe(sql)).fetch_all(connection).await
            })
            .await?;
        let number =
            |(_, value): &(Vec<u8>, Vec<u8>)| String::from_utf8_lossy(value).parse::<u64>().unwrap_or(0);
        Ok(rows.iter().map(number).sum())
    }
}

fn of_the_server(error: ServerError) -> Error {
    Error::new(ErrorKind::Unavailable, "the test server").with_source(error)
}

fn row_of(resource: &Resource) -> String {
    let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
    format!("{namespace}/{kind}/{}", resource.key())
}

#[async_trait]
impl Backend for MysqlBackend {
    fn name(&self) -> String {
        let how = match self.how {
            How::Lease => "",
            How::Poll => "-poll",
            How::Session => "-session",
        };
        format!("{}{how}", self.target.to_string().replace('/', "-"))
    }

    fn capabilities(&self) -> Capabilities {
        match self.how {
            How::Lease => CAPABILITIES,
            How::Poll => POLL_CAPABILITIES,
            How::Session => SESSION_CAPABILITIES,
        }
    }

    fn another(&self) -> Option<Arc<dyn Backend>> {
        (self.target.origin != Origin::Url).then(|| Arc::new(Self::new(self.target, self.how)) as _)
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        let url = self.url().unwrap_or_default();
        let mut endpoint = Endpoint::parse(&url)?;
        let config = MysqlConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let context = DriverContext::new(env.clone());
        let driver = MysqlDriver::connect(config, context.clone()).await?;
        Ok((DynDriver::new(driver), context))
    }

    fn abilities(&self) -> Vec<Ability> {
        let mut abilities = vec![Ability::Processes, Ability::Network, Ability::Logins];
        if self.how != How::Session {
            abilities.extend([Ability::DeleteLock, Ability::DeleteWaiter, Ability::Residue]);
        }
        // A server that was given may have other users.
        if self.target.origin != Origin::Url {
            abilities.extend([
                Ability::Stop,
                Ability::Pause,
                Ability::KillConnections,
                Ability::KillConnection,
                Ability::LimitClients,
                Ability::Usage,
                Ability::Strays,
                Ability::Counters,
            ]);
            if self.how != How::Session {
                abilities.extend([Ability::Wipe, Ability::CleanUp]);
            }
        }
        abilities
    }

    async fn prepare(&self) -> Result<()> {
        let mut request = self.target.request();
        if self.target.origin != Origin::Url {
            // What was committed outlives the server's process this way, too. The disks below containers can be slow.
            request = request.own().args(["--innodb-flush-log-at-trx-commit=2"]);
        }
        let server = request.start().await.map_err(of_the_server)?;
        *lock(&self.place) = Place::Server(Arc::new(server));
        Ok(())
    }

    async fn finish(&self) {
        lock(&self.gatekeeper).take();
        *lock(&self.place) = Place::Nowhere;
    }

    fn describe(&self) -> String {
        self.server()
            .map_or_else(|_| self.name(), |server| server.describe())
    }

    fn url(&self) -> Option<String> {
        let how = match self.how {
            How::Lease => "",
            How::Poll => "&wake=poll",
            // The suite holds more locks at once than a user of this mode should.
            How::Session => "&mode=session&connections=400",
        };
        // Hundreds of connections are opened here. Those to MySQL, which wants it for the login, are encrypted.
        let tls = match self.target.kind {
            ServerKind::MariaDb => "off",
            _ => "prefer",
        };
        match self.place() {
            Place::Nowhere => None,
            Place::Server(server) => Some(format!("{}?tls={tls}{how}", server.url())),
            Place::Url(url) => Some(url),
        }
    }

    fn at(&self, url: &str) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Self {
            target: self.target,
            how: self.how,
            place: Mutex::new(Place::Url(url.to_owned())),
            gatekeeper: Mutex::new(None),
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
        let connections = self.connections().await?;
        // On one connection, so that no client has time to come back on another one of these.
        self.admin(async |connection| {
            for id in connections {
                // It may be gone by itself.
                let kill = sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}")));
                kill.execute(&mut *connection).await.ok();
            }
            Ok(())
        })
        .await
    }

    async fn kill_connection(&self, nth: usize) -> Result<bool> {
        let connections = self.connections().await?;
        let Some(id) = connections.get(nth) else {
            return Ok(false);
        };
        self.execute(format!("KILL {id}")).await.ok();
        Ok(true)
    }

    fn session_is_connection(&self) -> bool {
        self.how == How::Session
    }

    fn exempt(&self, id: &str) -> Option<&'static str> {
        if self.how != How::Session {
            return None;
        }
        match id {
            "FQ7" => Some("the queue is the server's own, and knows no tickets"),
            "LD2" => Some("a forced release ends the holder's connection: it is told that its session ended"),
            "RN11" | "CO3" => Some("each lock has a connection: nobody has a thousand of them"),
            "FT6" => Some("a waiter says nothing to the server, and hears nothing, until its turn has come"),
            _ => None,
        }
    }

    fn dead_waiter(&self, claim_window: Duration, _: Duration) -> Duration {
        match self.how {
            // The server gives the lock to one that is stopped, and takes it back when that was silent for a second.
            How::Session => Duration::from_millis(2_500),
            _ => claim_window,
        }
    }

    async fn wipe(&self) -> Result<()> {
        self.execute("DELETE FROM leasehold_waiter; DELETE FROM leasehold_lock")
            .await
    }

    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        let name = row_of(resource);
        self.execute(format!("DELETE FROM leasehold_lock WHERE name = '{name}'"))
            .await
    }

    async fn delete_waiter(&self, _: &Resource, attempt: AttemptId) -> Result<()> {
        let attempt = attempt.to_hex();
        self.execute(format!(
            "DELETE FROM leasehold_waiter WHERE attempt = x'{attempt}'"
        ))
        .await
    }

    async fn clean_up(&self, namespace: &Namespace) -> Result<()> {
        // What the drivers do to rows that were not used for a day.
        let (first, last) = (format!("{}/", namespace.key()), format!("{}0", namespace.key()));
        self.execute(format!(
            "DELETE FROM leasehold_lock WHERE name >= '{first}' AND name < '{last}' AND queued = 0 \
             AND expires <= TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
        ))
        .await
    }

    async fn limit_clients(&self, on: bool) -> Result<()> {
        let (user, limit) = (self.user(), u32::from(on));
        lock(&self.gatekeeper).take();
        self.execute(format!(
            "ALTER USER '{user}'@'%' WITH MAX_USER_CONNECTIONS {limit}"
        ))
        .await?;
        if on {
            // The server counts those connections alone that are opened while there is a limit: this is the only one.
            let url = self.url().unwrap_or_default();
            let plain = url.split('?').next().unwrap_or_default();
            let refused = |error| Error::new(ErrorKind::Unavailable, "no gatekeeper").with_source(error);
            let options: MySqlConnectOptions = plain.parse().map_err(refused)?;
            *lock(&self.gatekeeper) = Some(options.connect().await.map_err(refused)?);
        }
        Ok(())
    }

    async fn residue(&self, namespace: &Namespace) -> Result<Vec<String>> {
        let (first, last) = (format!("{}/", namespace.key()), format!("{}0", namespace.key()));
        self.rows(format!(
            "SELECT CONCAT('owner of ', name) FROM leasehold_lock \
             WHERE owner IS NOT NULL AND expires > TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) \
             AND name >= '{first}' AND name < '{last}' \
             UNION ALL \
             SELECT CONCAT('waiter for ', name) FROM leasehold_waiter WHERE name >= '{first}' AND name < '{last}'"
        ))
        .await
    }

    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        let connections = self.connections().await?.len();
        if self.how == How::Session {
            return Ok(vec![(
                "connections",
                u64::try_from(connections).unwrap_or(u64::MAX),
            )]);
        }
        let rows = self
            .rows(
                "SELECT 'x' FROM leasehold_lock WHERE owner IS NOT NULL \
                 UNION ALL SELECT 'x' FROM leasehold_waiter",
            )
            .await?;
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        Ok(vec![
            ("connections", count(connections)),
            ("rows", count(rows.len())),
        ])
    }

    async fn strays(&self) -> Result<Vec<String>> {
        let user = self.user();
        self.rows(format!(
            "SELECT CONCAT('an open transaction of connection ', p.id) \
             FROM information_schema.innodb_trx AS t JOIN information_schema.processlist AS p \
             ON p.id = t.trx_mysql_thread_id WHERE p.user = '{user}' AND p.command = 'Sleep'"
        ))
        .await
    }

    async fn counters(&self) -> Result<Counters> {
        let requests = self.status("'Questions'").await?;
        let writes = self.status("'Handler_commit'").await?;
        Ok(Counters::new(requests, writes))
    }

    fn budget(&self) -> Budget {
        if self.how == How::Session {
            // The server counts every COM_PING, SET and SELECT; a connection is opened in six.
            return Budget::SESSIONS
                .with_acquire(7, 7)
                .with_release(2, 2)
                .with_contended(90, 60);
        }
        // Statements, of which a request may carry a dozen.
        Budget::LEASES.with_contended(90, 60)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
