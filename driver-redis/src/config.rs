//! Where the server is and how to log in.

use std::path::PathBuf;
use std::time::Duration;

use lockcore::{Endpoint, Error, ErrorKind, Result, Secret};

/// How long connecting and logging in may take, all told.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a connection is asked whether it is alive. The answer may take [`KEEP_ALIVE_PATIENCE`].
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How long the answer to a keep-alive may take before the connection counts as broken.
pub const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(3);

/// How many may wait for one lock.
pub const DEFAULT_QUEUE: usize = 1_000;

/// The most that [`RedisConfig::queue`] may say.
pub const MAX_QUEUE: usize = 100_000;

const DEFAULT_PORT: u16 = 6379;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Address {
    /// A host's name or address, without brackets, and a port.
    Tcp(String, u16),
    /// A Unix socket. Only on Unix.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{}:{port}", host.escape_debug()),
            Self::Unix(path) => write!(f, "{}", path.display().to_string().escape_debug()),
        }
    }
}

/// What TLS trusts and shows. The files are PEM, and are read again at each connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The certificates to trust instead of the operating system's. URL: `tls_ca`.
    pub ca: Option<PathBuf>,
    /// The certificate chain to show, and its private key. URL: `tls_cert` and `tls_key`, both or neither.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where the server is, how to log in, and the limits of this driver.
///
/// `Debug` shows no password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisConfig {
    /// Where the server listens.
    pub address: Address,
    /// TLS, or plain text for `None`.
    pub tls: Option<TlsConfig>,
    /// The ACL user; `default` for `None`.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The database's number. 0. URL: the path.
    pub db: u32,
    /// How long connecting and logging in may take, all told, 10 ms to 1 min. 2 s. URL: `connect_timeout`.
    pub connect_timeout: Duration,
    /// How often the connection is asked whether it is alive, 100 ms to 1 h. An answer that takes longer than
    /// [`KEEP_ALIVE_PATIENCE`] ends the connection, and a new one is made. 2 s. URL: `keep_alive`.
    pub keep_alive: Duration,
    /// How many may wait for one lock, 1 to [`MAX_QUEUE`]: those who come later get
    /// [`Unavailable`](ErrorKind::Unavailable). 1,000. URL: `queue`.
    pub queue: usize,
}

impl RedisConfig {
    /// A server without TLS and login, and defaults for the rest.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self {
            address,
            tls: None,
            user: None,
            password: None,
            db: 0,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            keep_alive: DEFAULT_KEEP_ALIVE,
            queue: DEFAULT_QUEUE,
        }
    }

    /// The schemes that [`RedisConfig::from_endpoint`] understands.
    pub const SCHEMES: &'static [&'static str] = &["redis", "rediss", "redis+unix"];

    /// Takes what is ours out of a URL:
    ///
    /// - `redis://user:password@host:6379/db` in plain text, `rediss://...` with TLS; `localhost`, 6379 and 0 when
    ///   they are left out;
    /// - `redis+unix:///path/of/socket?db=0` for a Unix socket;
    /// - the options `connect_timeout`, `keep_alive`, `queue`, and with TLS `tls_ca`, `tls_cert`, `tls_key`.
    ///
    /// The other options stay, see [`Endpoint::finish`].
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for another scheme, several hosts, or a value that cannot be read or is out of
    /// bounds.
    pub fn from_endpoint(endpoint: &mut Endpoint) -> Result<Self> {
        let mut config = match endpoint.scheme() {
            "redis" | "rediss" => Self::tcp(endpoint)?,
            "redis+unix" => Self::unix(endpoint)?,
            other => {
                return Err(invalid(format!(
                    "{other}: is no scheme of Redis: use {}",
                    Self::SCHEMES.join(", ")
                )));
            }
        };
        config.user = endpoint.user().map(str::to_owned);
        config.password = endpoint.password().cloned();
        if let Some(timeout) = endpoint.take_duration("connect_timeout")? {
            config.connect_timeout = timeout;
        }
        if let Some(keep_alive) = endpoint.take_duration("keep_alive")? {
            config.keep_alive = keep_alive;
        }
        if let Some(queue) = endpoint.take_option("queue") {
            config.queue = number("queue", &queue)?;
        }
        config.validate()?;
        Ok(config)
    }

    fn tcp(endpoint: &mut Endpoint) -> Result<Self> {
        let (host, port) = endpoint.single_host()?;
        let mut config = Self::new(Address::Tcp(host.to_owned(), port.unwrap_or(DEFAULT_PORT)));
        let path = endpoint.path().trim_matches('/');
        if !path.is_empty() {
            config.db = number("path, the database,", path)?;
        }
        if endpoint.scheme() == "rediss" {
            let ca = endpoint.take_option("tls_ca").map(PathBuf::from);
            let identity = match (endpoint.take_option("tls_cert"), endpoint.take_option("tls_key")) {
                (None, None) => None,
                (Some(cert), Some(key)) => Some((cert.into(), key.into())),
                _ => {
                    return Err(invalid(
                        "tls_cert and tls_key belong together: give both or neither",
                    ));
                }
            };
            config.tls = Some(TlsConfig { ca, identity });
        }
        Ok(config)
    }

    fn unix(endpoint: &mut Endpoint) -> Result<Self> {
        if !cfg!(unix) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "redis+unix: works on Unix only",
            ));
        }
        if endpoint.path().is_empty() || !endpoint.hosts().is_empty() {
            return Err(invalid(
                "redis+unix: takes the path of a socket and no host: redis+unix:///path",
            ));
        }
        let mut config = Self::new(Address::Unix(endpoint.path().into()));
        if let Some(db) = endpoint.take_option("db") {
            config.db = number("db", &db)?;
        }
        Ok(config)
    }

    /// Checks the bounds that the fields state.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the field and its bounds.
    pub fn validate(&self) -> Result<()> {
        let seconds = Duration::from_secs;
        if !(Duration::from_millis(10)..=seconds(60)).contains(&self.connect_timeout) {
            return Err(invalid("connect_timeout is from 10ms to 1m"));
        }
        if !(Duration::from_millis(100)..=seconds(3600)).contains(&self.keep_alive) {
            return Err(invalid("keep_alive is from 100ms to 1h"));
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            return Err(invalid(format!("queue is from 1 to {MAX_QUEUE}")));
        }
        Ok(())
    }
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

    fn read(url: &str) -> Result<RedisConfig> {
        let mut endpoint = Endpoint::parse(url)?;
        let config = RedisConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Ok(config)
    }

    #[test]
    fn defaults() {
        let config = read("redis:").unwrap();
        assert_eq!(config.address, Address::Tcp("localhost".into(), 6379));
        assert!(config.tls.is_none() && config.user.is_none() && config.password.is_none());
        assert_eq!((config.db, config.queue), (0, 1_000));
        assert_eq!(config.connect_timeout, Duration::from_secs(2));
    }

    #[test]
    fn everything() {
        let config = read(
            "rediss://me:p%40ss@[::1]:7000/3?tls_ca=/ca.pem&tls_cert=/c.pem&tls_key=/k.pem\
             &connect_timeout=500ms&keep_alive=10s&queue=5",
        )
        .unwrap();
        assert_eq!(config.address.to_string(), "[::1]:7000");
        assert_eq!(
            config.tls,
            Some(TlsConfig {
                ca: Some("/ca.pem".into()),
                identity: Some(("/c.pem".into(), "/k.pem".into())),
            })
        );
        assert_eq!(config.user.as_deref(), Some("me"));
        assert_eq!(config.password.as_ref().unwrap().expose(), "p@ss");
        assert_eq!((config.db, config.queue), (3, 5));
        assert_eq!(config.connect_timeout, Duration::from_millis(500));
        assert_eq!(config.keep_alive, Duration::from_secs(10));
        assert!(!format!("{config:?}").contains("p@ss"));
    }

    #[cfg(unix)]
    #[test]
    fn a_socket() {
        let config = read("redis+unix://:pw@/run/redis.sock?db=2").unwrap();
        assert_eq!(config.address, Address::Unix("/run/redis.sock".into()));
        assert_eq!(config.db, 2);
        assert!(read("redis+unix:").is_err());
        assert!(read("redis+unix://host/x").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, part) in [
            ("redis://h/x", "database"),
            ("redis://h/-1", "database"),
            ("redis://h?queue=0", "queue"),
            ("redis://h?queue=many", "queue"),
            ("redis://h?connect_timeout=1h", "connect_timeout"),
            ("redis://h?keep_alive=1ms", "keep_alive"),
            ("redis://a,b", "one host"),
            ("rediss://h?tls_cert=/c", "tls_key"),
            ("redis://h?tls_ca=/c", "tls_ca"),
            ("etcd://h", "scheme"),
        ] {
            let error = read(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }
}
