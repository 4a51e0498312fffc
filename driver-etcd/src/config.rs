//! Where the servers are and how to log in.

use std::path::PathBuf;
use std::time::Duration;

use lockcore::{Endpoint, Error, ErrorKind, Result, Secret};

/// How long connecting and logging in may take, all servers told.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may be silent before it is asked whether it is alive. The answer may take [`KEEP_ALIVE_PATIENCE`].
pub const DEFAULT_KEEP_ALIVE: Duration = Duration::from_secs(5);

/// How long the answer to a keep-alive may take before the connection counts as broken.
pub const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(4);

/// How many may wait for one lock.
pub const DEFAULT_QUEUE: usize = 1_000;

/// The most that [`EtcdConfig::queue`] may say: the server reads the whole queue for each request about it.
pub const MAX_QUEUE: usize = 10_000;

const DEFAULT_PORT: u16 = 2379;

/// What TLS trusts and shows. The files are PEM, and are read again at each connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The certificates to trust instead of the operating system's. URL: `tls_ca`.
    pub ca: Option<PathBuf>,
    /// The certificate chain to show, and its private key. URL: `tls_cert` and `tls_key`, both or neither.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Where the servers are, how to log in, and the limits of this driver.
///
/// `Debug` shows no password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// Hosts, without brackets, and ports of the cluster's members. One of them is used at a time; when it fails, the
    /// next.
    pub hosts: Vec<(String, u16)>,
    /// TLS, or plain text for `None`.
    pub tls: Option<TlsConfig>,
    /// The user and the password; both or neither.
    pub login: Option<(String, Secret)>,
    /// How long connecting and logging in may take, all members told, 10 ms to 1 min. A member that does
    /// not answer within half a second gets company by the next one. 5 s. URL: `connect_timeout`.
    pub connect_timeout: Duration,
    /// How long a connection may be silent before it is asked whether it is alive and its member part of a majority,
    /// 100 ms to 1 h; one that owes an answer is asked after a second. An answer that takes longer than [`KEEP_ALIVE_PATIENCE`] ends the connection, and the next member is tried.
    /// 5 s. URL: `keep_alive`.
    pub keep_alive: Duration,
    /// How many may wait for one lock, 1 to [`MAX_QUEUE`]: those who come later get
    /// [`Unavailable`](ErrorKind::Unavailable). 1,000. URL: `queue`.
    pub queue: usize,
}

impl EtcdConfig {
    /// Members without TLS and login, and defaults for the rest.
    #[must_use]
    pub fn new(hosts: Vec<(String, u16)>) -> Self {
        Self {
            hosts,
            tls: None,
            login: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            keep_alive: DEFAULT_KEEP_ALIVE,
            queue: DEFAULT_QUEUE,
        }
    }

    /// The schemes that [`EtcdConfig::from_endpoint`] understands.
    pub const SCHEMES: &'static [&'static str] = &["etcd", "etcds"];

    /// Takes what is ours out of a URL:
    ///
    /// - `etcd://user:password@host1:2379,host2:2379` in plain text, `etcds://...` with TLS; `localhost` and 2379 when
    ///   they are left out;
    /// - the options `connect_timeout`, `keep_alive`, `queue`, and with TLS `tls_ca`, `tls_cert`, `tls_key`.
    ///
    /// The other options stay, see [`Endpoint::finish`].
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for another scheme, a path, half a login, or a value that cannot be read or is
    /// out of bounds.
    pub fn from_endpoint(endpoint: &mut Endpoint) -> Result<Self> {
        if !Self::SCHEMES.contains(&endpoint.scheme()) {
            return Err(invalid(format!(
                "{}: is no scheme of etcd: use {}",
                endpoint.scheme(),
                Self::SCHEMES.join(", ")
            )));
        }
        if !endpoint.path().trim_matches('/').is_empty() {
            return Err(invalid(
                "etcd: takes no path: ?namespace= keeps applications apart",
            ));
        }
        let hosts: Vec<_> = endpoint
            .hosts()
            .iter()
            .map(|(host, port)| (host.clone(), port.unwrap_or(DEFAULT_PORT)))
            .collect();
        let mut config = Self::new(match hosts.is_empty() {
            true => vec![("localhost".to_owned(), DEFAULT_PORT)],
            false => hosts,
        });
        config.login = match (endpoint.user(), endpoint.password()) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user.to_owned(), password.clone())),
            _ => {
                return Err(invalid(
                    "a login of etcd is a user and a password: give both or neither",
                ));
            }
        };
        if endpoint.scheme() == "etcds" {
            config.tls = Some(Self::tls(endpoint)?);
        }
        if let Some(timeout) = endpoint.take_duration("connect_timeout")? {
            config.connect_timeout = timeout;
        }
        if let Some(keep_alive) = endpoint.take_duration("keep_alive")? {
            config.keep_alive = keep_alive;
        }
        if let Some(queue) = endpoint.take_option("queue") {
            config.queue = queue
                .parse()
                .map_err(|_| invalid(format!("the URL's queue is a whole number, not {queue:?}")))?;
        }
        config.validate()?;
        Ok(config)
    }

    fn tls(endpoint: &mut Endpoint) -> Result<TlsConfig> {
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
        Ok(TlsConfig { ca, identity })
    }

    /// Checks the bounds that the fields state.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the field and its bounds.
    pub fn validate(&self) -> Result<()> {
        let seconds = Duration::from_secs;
        if self.hosts.is_empty() {
            return Err(invalid("etcd needs at least one host"));
        }
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

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<EtcdConfig> {
        let mut endpoint = Endpoint::parse(url)?;
        let config = EtcdConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Ok(config)
    }

    #[test]
    fn defaults() {
        let config = read("etcd:").unwrap();
        assert_eq!(config.hosts, [("localhost".to_owned(), 2379)]);
        assert!(config.tls.is_none() && config.login.is_none());
        assert_eq!(config.queue, 1_000);
        assert_eq!(config.connect_timeout, Duration::from_secs(5));
    }

    #[test]
    fn everything() {
        let config = read(
            "etcds://me:p%40ss@h1,[::1]:7000/?tls_ca=/ca.pem&tls_cert=/c.pem&tls_key=/k.pem\
             &connect_timeout=500ms&keep_alive=10s&queue=5",
        )
        .unwrap();
        assert_eq!(config.hosts, [("h1".to_owned(), 2379), ("::1".to_owned(), 7000)]);
        assert_eq!(
            config.tls,
            Some(TlsConfig {
                ca: Some("/ca.pem".into()),
                identity: Some(("/c.pem".into(), "/k.pem".into())),
            })
        );
        let (user, password) = config.login.clone().unwrap();
        assert_eq!((user.as_str(), password.expose()), ("me", "p@ss"));
        assert_eq!(config.connect_timeout, Duration::from_millis(500));
        assert_eq!(config.keep_alive, Duration::from_secs(10));
        assert_eq!(config.queue, 5);
        assert!(!format!("{config:?}").contains("p@ss"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, part) in [
            ("etcd://h/x", "path"),
            ("etcd://me@h", "password"),
            ("etcd://:pw@h", "user"),
            ("etcd://h?queue=0", "queue"),
            ("etcd://h?queue=many", "queue"),
            ("etcd://h?connect_timeout=1h", "connect_timeout"),
            ("etcd://h?keep_alive=1ms", "keep_alive"),
            ("etcds://h?tls_cert=/c", "tls_key"),
            ("etcd://h?tls_ca=/c", "tls_ca"),
            ("redis://h", "scheme"),
        ] {
            let error = read(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }
}
