//! Where the server is, how to log in, and what a user can choose.

use std::fmt;
use std::str::FromStr as _;
use std::time::Duration;

use lockcore::{Endpoint, Error, ErrorKind, Result};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use crate::schema;

/// How long connecting and logging in may take, all told.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the listening connection is asked whether it is alive. The answer may take [`KEEP_ALIVE_PATIENCE`].
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How long the answer to a keep-alive may take before the connection counts as broken.
pub const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(3);

/// How many connections requests share in the mode `lease`, besides the one that listens.
pub const DEFAULT_CONNECTIONS: usize = 4;

/// How many locks may be held or waited for at a time in the mode `session`, each on a connection of its own.
pub const DEFAULT_SESSION_CONNECTIONS: usize = 16;

/// The most that [`PostgresConfig::connections`] may say.
pub const MAX_CONNECTIONS: usize = 1_000;

/// How many may wait for one lock.
pub const DEFAULT_QUEUE: usize = 1_000;

/// The most that [`PostgresConfig::queue`] may say.
pub const MAX_QUEUE: usize = 10_000;

/// The schema of tables and functions.
pub const DEFAULT_SCHEMA: &str = "leasehold";

/// What a lock lives by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// A row with a lease. A restart of the server leaves it as it is.
    #[default]
    Lease,
    /// An advisory lock of a connection, which the server ends when it hears nothing for the lock's TTL.
    Session,
}

/// Where the server is, how to log in, and the limits of this driver.
///
/// `Debug` shows no password.
#[derive(Clone)]
#[non_exhaustive]
pub struct PostgresConfig {
    /// Where and as whom to connect: sqlx's options. A password in them shows in their own `Debug`.
    pub options: PgConnectOptions,
    /// The schema of tables and functions, made when it is missing: lower-case letters, digits and `_`. URL: `schema`.
    pub schema: String,
    /// What locks live by. URL: `mode`, `lease` or `session`.
    pub mode: Mode,
    /// Are waiters told by NOTIFY? Otherwise they ask every 20 ms: for servers where a listening connection cannot be had.
    /// Only with [`Mode::Lease`]. URL: `wake`, `push` or `poll`.
    pub push: bool,
    /// How many connections requests share, 1 to [`MAX_CONNECTIONS`]; one more listens.
    /// [`DEFAULT_CONNECTIONS`], in the mode `session` [`DEFAULT_SESSION_CONNECTIONS`]. URL: `connections`.
    pub connections: usize,
    /// How many may wait for one lock, 1 to [`MAX_QUEUE`]: those who come later get
    /// [`Unavailable`](ErrorKind::Unavailable). 1,000. Only with [`Mode::Lease`]. URL: `queue`.
    pub queue: usize,
    /// How long connecting and logging in may take, all told, 10 ms to 1 min. 5 s. URL: `connect_timeout`, a duration
    /// or, as in libpq, seconds.
    pub connect_timeout: Duration,
    /// How often the listening connection is asked whether it is alive, 100 ms to 1 h. An answer that takes longer than
    /// [`KEEP_ALIVE_PATIENCE`] ends the connection, and a new one is made. 2 s. URL: `keep_alive`.
    pub keep_alive: Duration,
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConfig")
            .field("address", &address(&self.options))
            .field("database", &self.options.get_database())
            .field("user", &self.options.get_username())
            .field("schema", &self.schema)
            .field("mode", &self.mode)
            .field("push", &self.push)
            .field("connections", &self.connections)
            .field("queue", &self.queue)
            .field("connect_timeout", &self.connect_timeout)
            .field("keep_alive", &self.keep_alive)
            .finish()
    }
}

/// Where the server is, for people.
pub(crate) fn address(options: &PgConnectOptions) -> String {
    match options.get_socket() {
        Some(socket) => socket.display().to_string().escape_debug().to_string(),
        None => format!("{}:{}", options.get_host().escape_debug(), options.get_port()),
    }
}

impl PostgresConfig {
    /// A server that is reached with `options`, such as those of a pool that the application has
    /// (`pool.connect_options()`), and defaults for the rest. Locks get connections of their own.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        Self {
            options,
            schema: DEFAULT_SCHEMA.to_owned(),
            mode: Mode::Lease,
            push: true,
            connections: DEFAULT_CONNECTIONS,
            queue: DEFAULT_QUEUE,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            keep_alive: DEFAULT_KEEP_ALIVE,
        }
    }

    /// The schemes that [`PostgresConfig::from_endpoint`] understands.
    pub const SCHEMES: &'static [&'static str] = &["postgres", "postgresql"];

    /// Takes what is ours out of a URL, `postgres://user:password@host:5432/database?option=value`. What it leaves out
    /// comes, as with libpq, from `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, `PGPASSWORD`, `PGSSLMODE` and the like.
    /// The options are
    ///
    /// - those of libpq: `host` (a path is the folder of a Unix socket), `port`, `user`, `dbname`, `password`,
    ///   `application_name` (`leasehold`), `connect_timeout`, `sslmode` (`disable`, `allow`, `prefer`, `require`,
    ///   `verify-ca`, `verify-full`; `prefer`), `sslrootcert`, `sslcert`, `sslkey`;
    /// - `schema`, `mode`, `wake`, `connections`, `queue` and `keep_alive`: see the fields.
    ///
    /// The other options stay, see [`Endpoint::finish`].
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for another scheme, several hosts, or a value that cannot be read or is out of
    /// bounds.
    pub fn from_endpoint(endpoint: &mut Endpoint) -> Result<Self> {
        if !Self::SCHEMES.contains(&endpoint.scheme()) {
            return Err(invalid(format!(
                "{}: is no scheme of PostgreSQL: use {}",
                endpoint.scheme(),
                Self::SCHEMES.join(", ")
            )));
        }
        let mut config = Self::new(options(endpoint)?);
        if let Some(schema) = endpoint.take_option("schema") {
            config.schema = schema;
        }
        match endpoint.take_option("mode").as_deref() {
            None | Some("lease") => {}
            Some("session") => {
                config.mode = Mode::Session;
                config.connections = DEFAULT_SESSION_CONNECTIONS;
            }
            Some(other) => return Err(invalid(format!("mode is lease or session, not {other:?}"))),
        }
        match endpoint.take_option("wake").as_deref() {
            None | Some("push") => {}
            Some("poll") => config.push = false,
            Some(other) => return Err(invalid(format!("wake is push or poll, not {other:?}"))),
        }
        if let Some(connections) = endpoint.take_option("connections") {
            config.connections = number("connections", &connections)?;
        }
        if let Some(queue) = endpoint.take_option("queue") {
            config.queue = number("queue", &queue)?;
        }
        if let Some(timeout) = endpoint.take_option("connect_timeout") {
            config.connect_timeout = seconds("connect_timeout", &timeout)?;
        }
        if let Some(keep_alive) = endpoint.take_duration("keep_alive")? {
            config.keep_alive = keep_alive;
        }
        config.validate()?;
        Ok(config)
    }

    /// Checks the bounds that the fields state.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the field and its bounds.
    pub fn validate(&self) -> Result<()> {
        let ranges = Duration::from_millis(10)..=Duration::from_secs(60);
        if !ranges.contains(&self.connect_timeout) {
            return Err(invalid("connect_timeout is from 10ms to 1m"));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(3600)).contains(&self.keep_alive) {
            return Err(invalid("keep_alive is from 100ms to 1h"));
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.connections) {
            return Err(invalid(format!("connections is from 1 to {MAX_CONNECTIONS}")));
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            return Err(invalid(format!("queue is from 1 to {MAX_QUEUE}")));
        }
        if self.mode == Mode::Session && !self.push {
            return Err(invalid(
                "wake=poll belongs to mode=lease: a session waits in the server",
            ));
        }
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if self.schema.is_empty()
            || self.schema.len() > 63
            || !self.schema.chars().all(plain)
            || self.schema.starts_with(|c: char| c.is_ascii_digit())
            || self.schema.starts_with("pg_")
        {
            return Err(invalid(
                "schema is a name of lower-case letters, digits and _, at most 63, that does not begin with a digit or pg_",
            ));
        }
        Ok(())
    }

    /// The SQL that makes the schema, its tables and its functions: for an administrator, where the locks' user has no
    /// right to make them.
    #[must_use]
    pub fn migration(&self) -> String {
        schema::migration(&self.schema, true)
    }
}

fn options(endpoint: &mut Endpoint) -> Result<PgConnectOptions> {
    let mut options = PgConnectOptions::new_without_pgpass().application_name("leasehold");
    if !endpoint.hosts().is_empty() {
        let (host, port) = endpoint.single_host()?;
        options = at(options, host);
        if let Some(port) = port {
            options = options.port(port);
        }
    }
    if let Some(user) = endpoint.user() {
        options = options.username(user);
    }
    if let Some(password) = endpoint.password() {
        options = options.password(password.expose());
    }
    let database = endpoint.path().trim_start_matches('/').to_owned();
    if !database.is_empty() {
        options = options.database(&database);
    }
    if let Some(host) = endpoint.take_option("host") {
        options = at(options, &host);
    }
    if let Some(port) = endpoint.take_option("port") {
        options = options.port(number("port", &port)?);
    }
    if let Some(user) = endpoint.take_option("user") {
        options = options.username(&user);
    }
    if let Some(password) = endpoint.take_option("password") {
        options = options.password(&password);
    }
    if let Some(database) = endpoint.take_option("dbname") {
        options = options.database(&database);
    }
    if let Some(name) = endpoint.take_option("application_name") {
        options = options.application_name(&name);
    }
    if let Some(mode) = endpoint.take_option("sslmode") {
        let mode = PgSslMode::from_str(&mode).map_err(|_| {
            invalid("sslmode is disable, allow, prefer, require, verify-ca or verify-full".to_owned())
        })?;
        options = options.ssl_mode(mode);
    }
    if let Some(path) = endpoint.take_option("sslrootcert") {
        options = options.ssl_root_cert(path);
    }
    if let Some(path) = endpoint.take_option("sslcert") {
        options = options.ssl_client_cert(path);
    }
    if let Some(path) = endpoint.take_option("sslkey") {
        options = options.ssl_client_key(path);
    }
    Ok(options)
}

fn at(options: PgConnectOptions, host: &str) -> PgConnectOptions {
    if host.starts_with('/') {
        options.socket(host)
    } else {
        options.host(host)
    }
}

fn seconds(what: &str, text: &str) -> Result<Duration> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut endpoint = Endpoint::parse(&format!("x:?{what}={}", text.replace(' ', "+")))?;
    Ok(endpoint.take_duration(what)?.unwrap_or_default())
}

fn number<T: std::str::FromStr>(what: &str, text: &str) -> Result<T> {
    text.parse()
        .map_err(|_| invalid(format!("the URL's {what} is a whole number, not {text:?}")))
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<PostgresConfig> {
        let mut endpoint = Endpoint::parse(url)?;
        let config = PostgresConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Ok(config)
    }

    #[test]
    fn everything() {
        let config = read(
            "postgres://me:p%40ss@db:6000/app?sslmode=verify-full&sslrootcert=/ca.pem&schema=locks&connections=2\
             &queue=5&connect_timeout=3&keep_alive=10s&wake=poll&application_name=x",
        )
        .unwrap();
        assert_eq!(address(&config.options), "db:6000");
        assert_eq!(config.options.get_username(), "me");
        assert_eq!(config.options.get_database(), Some("app"));
        assert!(matches!(config.options.get_ssl_mode(), PgSslMode::VerifyFull));
        assert_eq!(config.schema, "locks");
        assert_eq!((config.connections, config.queue), (2, 5));
        assert_eq!(config.connect_timeout, Duration::from_secs(3));
        assert_eq!(config.keep_alive, Duration::from_secs(10));
        assert!(!config.push);
        assert!(!format!("{config:?}").contains("p@ss"));
        let config =
            read("postgresql:///app?host=/run/postgresql&mode=session&connect_timeout=500ms").unwrap();
        assert_eq!(address(&config.options), "/run/postgresql");
        assert_eq!((config.mode, config.connections), (Mode::Session, 16));
        assert_eq!(config.connect_timeout, Duration::from_millis(500));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, part) in [
            ("postgres://h?queue=0", "queue"),
            ("postgres://h?connections=none", "connections"),
            ("postgres://h?connect_timeout=1h", "connect_timeout"),
            ("postgres://h?connect_timeout=soon", "connect_timeout"),
            ("postgres://h?keep_alive=1ms", "keep_alive"),
            ("postgres://h?mode=both", "mode"),
            ("postgres://h?mode=session&wake=poll", "mode=lease"),
            ("postgres://h?wake=never", "wake"),
            ("postgres://h?sslmode=maybe", "sslmode"),
            ("postgres://h?schema=a\"b", "schema"),
            ("postgres://h?schema=", "schema"),
            ("postgres://a,b", "one host"),
            ("postgres://h?sslmod=require", "sslmod"),
            ("etcd://h", "scheme"),
        ] {
            let error = read(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }
}
