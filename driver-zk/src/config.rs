//! Where the servers are, how to log in, and the limits of this driver.

use std::path::PathBuf;
use std::time::Duration;

use lockcore::{Endpoint, Error, ErrorKind, Resource, Result, Secret};

use crate::layout::{Layout, checked_path};

/// How long opening a session may take, all told.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a connection may be silent before another server is tried.
pub const DEFAULT_SILENCE: Duration = Duration::from_secs(8);

/// How many may wait for one lock.
pub const DEFAULT_QUEUE: usize = 1_000;

/// The most that [`ZkConfig::queue`] may say: the answer to a listing has to stay below the server's limit of 1 MiB.
pub const MAX_QUEUE: usize = 10_000;

const DEFAULT_PORT: u16 = 2181;

/// What TLS trusts and shows. The files are PEM, and are read again for each session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsConfig {
    /// The certificates to trust instead of the operating system's. URL: `tls_ca`.
    pub ca: Option<PathBuf>,
    /// The certificate chain to show, and its private key. URL: `tls_cert` and `tls_key`, both or neither.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Who may use the nodes that are created here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Access {
    /// Anybody who reaches the server, to delete them as well. URL: `acl=open`.
    Open,
    /// Those with the same login alone. URL: `acl=creator`.
    Creator,
}

/// Where the servers are, how to log in, and the limits of this driver.
///
/// `Debug` shows no password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ZkConfig {
    /// The ensemble: hosts without brackets, and ports. One is chosen at random; the others are tried when it fails.
    pub servers: Vec<(String, u16)>,
    /// The path below which everything of ours is, such as `/app`; empty for the server's root. URL: the path. It is
    /// created where it is missing and the rights allow it.
    pub root: String,
    /// Share locks with Java services: the lock called `name` is the `InterProcessMutex` on `<this path>/name`, see
    /// the [crate]. Then there is no namespace. URL: `curator`.
    pub curator: Option<String>,
    /// TLS, or plain text for `None`.
    pub tls: Option<TlsConfig>,
    /// The login of the scheme `digest`: a user and a password.
    pub login: Option<(String, Secret)>,
    /// Who may use the nodes that are created. URL: `acl`; `creator` with a login, `open` without one.
    pub access: Access,
    /// How long opening a session may take, all told, 10 ms to 1 min. 2 s. URL: `connect_timeout`.
    pub connect_timeout: Duration,
    /// How long a connection may be silent before another server is tried, 100 ms to 1 min, and never more than two
    /// fifths of the session's TTL. An idle client says something after three eighths of it. 8 s. URL: `silence`.
    pub silence: Duration,
    /// The server's `tickTime`, 1 ms to 1 min: by so much a session may end earlier than its timeout after a sign of
    /// life that one server has seen and the others have not. Found out when connecting for `None`, from the shortest
    /// session that the server agrees to, which is two ticks unless its `minSessionTimeout` says otherwise. URL: `tick`.
    pub tick: Option<Duration>,
    /// How many may wait for one lock, 1 to [`MAX_QUEUE`]: those who come later get
    /// [`Unavailable`](ErrorKind::Unavailable). 1,000. URL: `queue`.
    pub queue: usize,
}

impl ZkConfig {
    /// Servers without TLS and login, and defaults for the rest.
    #[must_use]
    pub fn new(servers: Vec<(String, u16)>) -> Self {
        Self {
            servers,
            root: String::new(),
            curator: None,
            tls: None,
            login: None,
            access: Access::Open,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            silence: DEFAULT_SILENCE,
            tick: None,
            queue: DEFAULT_QUEUE,
        }
    }

    /// The schemes that [`ZkConfig::from_endpoint`] understands.
    pub const SCHEMES: &'static [&'static str] = &["zk", "zks"];

    /// Takes what is ours out of a URL:
    ///
    /// - `zk://user:password@host:2181,host/path` in plain text, `zks://...` with TLS; `localhost` and 2181 when they
    ///   are left out;
    /// - the options `curator`, `acl`, `connect_timeout`, `silence`, `tick`, `queue`, and with TLS `tls_ca`,
    ///   `tls_cert`, `tls_key`.
    ///
    /// The other options stay, see [`Endpoint::finish`].
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for another scheme, or a value that cannot be read or is out of bounds.
    pub fn from_endpoint(endpoint: &mut Endpoint) -> Result<Self> {
        if !Self::SCHEMES.contains(&endpoint.scheme()) {
            return Err(invalid(format!(
                "{}: is no scheme of ZooKeeper: use {}",
                endpoint.scheme(),
                Self::SCHEMES.join(", ")
            )));
        }
        let host = |(host, port): &(String, Option<u16>)| (host.clone(), port.unwrap_or(DEFAULT_PORT));
        let mut servers: Vec<_> = endpoint.hosts().iter().map(host).collect();
        if servers.is_empty() {
            servers.push(("localhost".to_owned(), DEFAULT_PORT));
        }
        let mut config = Self::new(servers);
        endpoint.path().clone_into(&mut config.root);
        config.curator = endpoint.take_option("curator");
        config.login = match (endpoint.user(), endpoint.password()) {
            (None, None) => None,
            (Some(user), Some(password)) => Some((user.to_owned(), password.clone())),
            _ => {
                return Err(invalid(
                    "a login is a user and a password: zk://user:password@host",
                ));
            }
        };
        config.access = match endpoint.take_option("acl").as_deref() {
            None if config.login.is_none() => Access::Open,
            None | Some("creator") => Access::Creator,
            Some("open") => Access::Open,
            Some(_) => return Err(invalid("acl is open or creator")),
        };
        if endpoint.scheme() == "zks" {
            config.tls = Some(tls(endpoint)?);
        }
        for (option, value) in [
            ("connect_timeout", &mut config.connect_timeout),
            ("silence", &mut config.silence),
        ] {
            if let Some(duration) = endpoint.take_duration(option)? {
                *value = duration;
            }
        }
        config.tick = endpoint.take_duration("tick")?;
        if let Some(queue) = endpoint.take_option("queue") {
            config.queue = queue
                .parse()
                .map_err(|_| invalid(format!("the URL's queue is a whole number, not {queue:?}")))?;
        }
        config.validate()?;
        Ok(config)
    }

    /// Checks the bounds that the fields state.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the field and its bounds.
    pub fn validate(&self) -> Result<()> {
        let (ms, minute) = (Duration::from_millis, Duration::from_secs(60));
        let plain = |host: &str| !host.is_empty() && !host.contains(['/', ',', '[', ']', ' ']);
        if self.servers.is_empty() || !self.servers.iter().all(|(host, port)| plain(host) && *port > 0) {
            return Err(invalid(
                "there has to be a server, with a plain host and a port over 0",
            ));
        }
        if !(ms(10)..=minute).contains(&self.connect_timeout) {
            return Err(invalid("connect_timeout is from 10ms to 1m"));
        }
        if !(ms(100)..=minute).contains(&self.silence) {
            return Err(invalid("silence is from 100ms to 1m"));
        }
        if self.tick.is_some_and(|tick| !(ms(1)..=minute).contains(&tick)) {
            return Err(invalid("tick is from 1ms to 1m"));
        }
        if !(1..=MAX_QUEUE).contains(&self.queue) {
            return Err(invalid(format!("queue is from 1 to {MAX_QUEUE}")));
        }
        if self.access == Access::Creator && self.login.is_none() && self.tls.is_none() {
            return Err(invalid("acl=creator needs a login: zk://user:password@host"));
        }
        self.layout().map(drop)
    }

    /// The node whose children contend for `resource`: what a Java service gives to its `InterProcessMutex`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a root or a `curator` that is no path, and with `curator` for another
    /// namespace than the default.
    pub fn lock_path(&self, resource: &Resource) -> Result<String> {
        self.layout()?.lock(resource)
    }

    pub(crate) fn layout(&self) -> Result<Layout> {
        let root = checked_path("the URL's path", &self.root)?;
        let Some(curator) = &self.curator else {
            return Ok(Layout::Ours { root });
        };
        let curator = checked_path("curator", curator)?;
        if curator.is_empty() {
            return Err(invalid(
                "curator is the path that the locks are in, such as /locks",
            ));
        }
        Ok(Layout::Curator {
            base: format!("{root}{curator}"),
        })
    }

    /// As the client takes it.
    pub(crate) fn connect_string(&self) -> String {
        let server = |(host, port): &(String, u16)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        self.servers.iter().map(server).collect::<Vec<_>>().join(",")
    }
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

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use lockcore::{Kind, LockName, Namespace};

    use super::*;

    fn read(url: &str) -> Result<ZkConfig> {
        let mut endpoint = Endpoint::parse(url)?;
        let config = ZkConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Ok(config)
    }

    #[test]
    fn defaults() {
        let config = read("zk:").unwrap();
        assert_eq!(config.connect_string(), "localhost:2181");
        assert!(config.tls.is_none() && config.login.is_none() && config.tick.is_none());
        assert_eq!((config.root.as_str(), config.queue), ("", 1_000));
        assert_eq!(config.access, Access::Open);
    }

    #[test]
    fn everything() {
        let config = read(
            "zks://me:p%40ss@h1:1,[::1]:2,h3/app?tls_ca=/ca.pem&tls_cert=/c.pem&tls_key=/k.pem&acl=open&tick=2s\
             &connect_timeout=500ms&silence=1s&queue=5",
        )
        .unwrap();
        assert_eq!(config.connect_string(), "h1:1,[::1]:2,h3:2181");
        assert_eq!(
            config.tls,
            Some(TlsConfig {
                ca: Some("/ca.pem".into()),
                identity: Some(("/c.pem".into(), "/k.pem".into())),
            })
        );
        assert_eq!((config.root.as_str(), config.queue), ("/app", 5));
        assert_eq!(config.access, Access::Open);
        assert_eq!(config.tick, Some(Duration::from_secs(2)));
        assert_eq!(
            (config.connect_timeout, config.silence),
            (Duration::from_millis(500), Duration::from_secs(1))
        );
        let (user, password) = config.login.clone().unwrap();
        assert_eq!((user.as_str(), password.expose()), ("me", "p@ss"));
        assert!(!format!("{config:?}").contains("p@ss"));
        assert_eq!(read("zk://me:pw@h").unwrap().access, Access::Creator);
    }

    #[test]
    fn the_path_of_a_lock_is_told() {
        let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new("a/b").unwrap());
        for (url, path) in [
            ("zk://h", "/leasehold/1/default/m/a%2Fb"),
            ("zk://h/app/", "/app/leasehold/1/default/m/a%2Fb"),
            ("zk://h/app?curator=/locks", "/app/locks/a%2Fb"),
        ] {
            assert_eq!(read(url).unwrap().lock_path(&resource).unwrap(), path);
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, part) in [
            ("zk://h//a", "path"),
            ("zk://h:0", "port"),
            ("zk://h?queue=0", "queue"),
            ("zk://h?queue=many", "queue"),
            ("zk://h?queue=10001", "queue"),
            ("zk://h?connect_timeout=1h", "connect_timeout"),
            ("zk://h?silence=1ms", "silence"),
            ("zk://h?tick=0s", "tick"),
            ("zk://h?acl=closed", "acl"),
            ("zk://h?acl=creator", "login"),
            ("zk://me@h", "password"),
            ("zk://h?curator=/", "curator"),
            ("zk://h?curator=locks", "curator"),
            ("zks://h?tls_cert=/c", "tls_key"),
            ("zk://h?tls_ca=/c", "tls_ca"),
            ("etcd://h", "scheme"),
        ] {
            let error = read(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }
}
