//! Where the server is, how to log in, and how locks are kept there.

use std::path::PathBuf;
use std::time::Duration;

use lockcore::{Endpoint, Error, ErrorKind, Result, Secret};

/// How long connecting and logging in may take, all told.
pub const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take before its connection counts as broken.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(5);

/// How many connections the mode `lease` uses at most, besides the one for wake-ups.
pub const DEFAULT_CONNECTIONS: usize = 4;

/// How many connections the mode `session` uses at most: one for each lock that is held or waited for.
pub const DEFAULT_SESSIONS: usize = 16;

/// The most that [`MysqlConfig::connections`] may say.
pub const MAX_CONNECTIONS: usize = 1_000;

const DEFAULT_PORT: u16 = 3306;

/// What a lock is on the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mode {
    /// A row with an end, in a table. URL: `lease`.
    #[default]
    Lease,
    /// A `GET_LOCK` on a connection of its own. URL: `session`.
    Session,
}

/// How waiters of the mode `lease` learn that their turn has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Wake {
    /// They are told where the server can do it, and ask again and again where it cannot. URL: `auto`.
    #[default]
    Auto,
    /// They ask again and again. URL: `poll`.
    Poll,
}

/// Where tokens of the mode `session` come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fence {
    /// The server's clock at the moment of the grant. No write, and no table. URL: `clock`.
    #[default]
    Clock,
    /// A row for each lock, never behind the server's clock. One write for each grant. URL: `table`.
    Table,
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tls {
    /// Where the server offers it, and without a look at its certificate, as MySQL's own programs do: it keeps out who
    /// only listens. URL: `prefer`.
    #[default]
    Prefer,
    /// Never. URL: `off`.
    Off,
    /// Always, with the server's certificate and name verified. URL: `verify`.
    Verify,
}

/// Where the server is, how to log in, and the limits of this driver.
///
/// `Debug` shows no password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MysqlConfig {
    /// The host's name or address. `localhost`.
    pub host: String,
    /// Its port. 3306.
    pub port: u16,
    /// A Unix socket, instead of host and port. URL: `socket`.
    pub socket: Option<PathBuf>,
    /// The user; `root` for `None`.
    pub user: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The database that has the tables. Needed in the mode `lease` and with [`Fence::Table`]. URL: the path.
    pub database: Option<String>,
    /// Encryption. URL: `tls`.
    pub tls: Tls,
    /// The certificates to trust with [`Tls::Verify`] instead of the operating system's, PEM. URL: `tls_ca`.
    pub tls_ca: Option<PathBuf>,
    /// The certificate chain to show, and its private key, PEM. URL: `tls_cert` and `tls_key`, both or neither.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    /// What a lock is on the server. URL: `mode`.
    pub mode: Mode,
    /// How waiters are woken in the mode `lease`. URL: `wake`.
    pub wake: Wake,
    /// Where tokens come from in the mode `session`. URL: `fence`.
    pub fence: Fence,
    /// Whether missing tables are made when the first connection is. `true`. URL: `create`.
    pub create: bool,
    /// How many connections are used at most, 1 to [`MAX_CONNECTIONS`]; [`DEFAULT_CONNECTIONS`] or
    /// [`DEFAULT_SESSIONS`] for `None`. URL: `connections`.
    pub connections: Option<usize>,
    /// How long connecting and logging in may take, all told, 10 ms to 1 min. 5 s. URL: `connect_timeout`.
    pub connect_timeout: Duration,
    /// How long an answer may take before its connection is given up and a new one is made, 100 ms to 10 min. It is
    /// more than the setting `op_timeout`, or an answer that comes late is never heard. 5 s. URL: `patience`.
    pub patience: Duration,
}

impl MysqlConfig {
    /// A server without a login and a database, and defaults for the rest.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            socket: None,
            user: None,
            password: None,
            database: None,
            tls: Tls::default(),
            tls_ca: None,
            tls_identity: None,
            mode: Mode::default(),
            wake: Wake::default(),
            fence: Fence::default(),
            create: true,
            connections: None,
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            patience: DEFAULT_PATIENCE,
        }
    }

    /// The schemes that [`MysqlConfig::from_endpoint`] understands.
    pub const SCHEMES: &'static [&'static str] = &["mysql", "mysqls", "mariadb"];

    /// Takes what is ours out of a URL:
    ///
    /// - `mysql://user:password@host:3306/database`, and the same with `mariadb:`; `localhost` and 3306 when they are
    ///   left out. `mysqls:` is `mysql:` with `tls=verify`;
    /// - the options `mode`, `wake`, `fence`, `create`, `connections`, `connect_timeout`, `patience`, `socket`, `tls`,
    ///   `tls_ca`, `tls_cert`, `tls_key`.
    ///
    /// The other options stay, see [`Endpoint::finish`].
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for another scheme, several hosts, or a value that cannot be read or is out of
    /// bounds.
    pub fn from_endpoint(endpoint: &mut Endpoint) -> Result<Self> {
        if !Self::SCHEMES.contains(&endpoint.scheme()) {
            return Err(invalid(format!(
                "{}: is no scheme of MySQL: use {}",
                endpoint.scheme(),
                Self::SCHEMES.join(", ")
            )));
        }
        let (host, port) = endpoint.single_host()?;
        let mut config = Self::new(host, port.unwrap_or(DEFAULT_PORT));
        config.user = endpoint.user().map(str::to_owned);
        config.password = endpoint.password().cloned();
        let database = endpoint.path().trim_matches('/');
        config.database = Some(database.to_owned()).filter(|database| !database.is_empty());
        config.socket = endpoint.take_option("socket").map(PathBuf::from);
        config.take_tls(endpoint)?;
        let mode = choice(
            endpoint,
            "mode",
            &[("lease", Mode::Lease), ("session", Mode::Session)],
        )?;
        config.mode = mode.unwrap_or_default();
        match config.mode {
            Mode::Lease => {
                let wake = choice(endpoint, "wake", &[("auto", Wake::Auto), ("poll", Wake::Poll)])?;
                config.wake = wake.unwrap_or_default();
            }
            Mode::Session => {
                let fence = choice(
                    endpoint,
                    "fence",
                    &[("clock", Fence::Clock), ("table", Fence::Table)],
                )?;
                config.fence = fence.unwrap_or_default();
            }
        }
        if let Some(create) = endpoint.take_bool("create")? {
            config.create = create;
        }
        if let Some(connections) = endpoint.take_option("connections") {
            let number = connections.parse();
            config.connections = Some(number.map_err(|_| {
                invalid(format!(
                    "the URL's connections is a whole number, not {connections:?}"
                ))
            })?);
        }
        if let Some(timeout) = endpoint.take_duration("connect_timeout")? {
            config.connect_timeout = timeout;
        }
        if let Some(patience) = endpoint.take_duration("patience")? {
            config.patience = patience;
        }
        config.validate()?;
        Ok(config)
    }

    fn take_tls(&mut self, endpoint: &mut Endpoint) -> Result<()> {
        let choices = [
            ("prefer", Tls::Prefer),
            ("off", Tls::Off),
            ("verify", Tls::Verify),
        ];
        let tls = choice(endpoint, "tls", &choices)?;
        if endpoint.scheme() == "mysqls" {
            if tls.is_some_and(|tls| tls != Tls::Verify) {
                return Err(invalid("mysqls: is tls=verify: leave the option out"));
            }
            self.tls = Tls::Verify;
        } else {
            self.tls = tls.unwrap_or_default();
        }
        self.tls_ca = endpoint.take_option("tls_ca").map(PathBuf::from);
        self.tls_identity = match (endpoint.take_option("tls_cert"), endpoint.take_option("tls_key")) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            _ => {
                return Err(invalid(
                    "tls_cert and tls_key belong together: give both or neither",
                ));
            }
        };
        Ok(())
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
        if !(Duration::from_millis(100)..=seconds(600)).contains(&self.patience) {
            return Err(invalid("patience is from 100ms to 10m"));
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.limit()) {
            return Err(invalid(format!("connections is from 1 to {MAX_CONNECTIONS}")));
        }
        if self.tls_ca.is_some() && self.tls != Tls::Verify {
            return Err(invalid("tls_ca is of use with tls=verify alone"));
        }
        if self.needs_tables() && self.database.is_none() {
            return Err(invalid(
                "the URL names no database for the tables: write mysql://host/database",
            ));
        }
        Ok(())
    }

    /// Are there tables?
    pub(crate) fn needs_tables(&self) -> bool {
        self.mode == Mode::Lease || self.fence == Fence::Table
    }

    pub(crate) fn limit(&self) -> usize {
        self.connections.unwrap_or(match self.mode {
            Mode::Lease => DEFAULT_CONNECTIONS,
            Mode::Session => DEFAULT_SESSIONS,
        })
    }

    /// The server, for messages.
    pub(crate) fn address(&self) -> String {
        match &self.socket {
            Some(path) => path.display().to_string().escape_debug().to_string(),
            None if self.host.contains(':') => format!("[{}]:{}", self.host, self.port),
            None => format!("{}:{}", self.host.escape_debug(), self.port),
        }
    }
}

fn choice<T: Copy>(endpoint: &mut Endpoint, option: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
    let Some(text) = endpoint.take_option(option) else {
        return Ok(None);
    };
    let found = choices.iter().find(|(name, _)| *name == text);
    found.map(|(_, choice)| Some(*choice)).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        invalid(format!("the URL's {option} is one of: {}", names.join(", ")))
    })
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(url: &str) -> Result<MysqlConfig> {
        let mut endpoint = Endpoint::parse(url)?;
        let config = MysqlConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Ok(config)
    }

    #[test]
    fn defaults() {
        let config = read("mysql:///locks").unwrap();
        assert_eq!((config.host.as_str(), config.port), ("localhost", 3306));
        assert_eq!(config.database.as_deref(), Some("locks"));
        assert_eq!(
            (config.mode, config.wake, config.tls),
            (Mode::Lease, Wake::Auto, Tls::Prefer)
        );
        assert_eq!((config.limit(), config.create), (4, true));
        assert_eq!(read("mysql://h?mode=session").unwrap().limit(), 16);
    }

    #[test]
    fn everything() {
        let config = read(
            "mysqls://me:p%40ss@[::1]:7000/locks?tls_ca=/ca.pem&tls_cert=/c.pem&tls_key=/k.pem&mode=session\
             &fence=table&create=false&connections=9&connect_timeout=500ms&patience=10s",
        )
        .unwrap();
        assert_eq!(config.address(), "[::1]:7000");
        assert_eq!((config.tls, config.fence), (Tls::Verify, Fence::Table));
        assert_eq!((config.limit(), config.create), (9, false));
        assert_eq!(config.password.as_ref().unwrap().expose(), "p@ss");
        assert!(!format!("{config:?}").contains("p@ss"));
        let config = read("mariadb://h/locks?wake=poll&tls=off&socket=/run/my.sock").unwrap();
        assert_eq!((config.wake, config.tls), (Wake::Poll, Tls::Off));
        assert_eq!(config.address(), "/run/my.sock");
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (url, part) in [
            ("mysql://h", "database"),
            ("mysql://h?mode=session&fence=table", "database"),
            ("mysql://h/d?mode=both", "mode"),
            ("mysql://h/d?wake=never", "wake"),
            ("mysql://h/d?fence=table", "fence"),
            ("mysql://h/d?tls=maybe", "tls"),
            ("mysqls://h/d?tls=off", "verify"),
            ("mysql://h/d?tls_ca=/c", "verify"),
            ("mysql://h/d?tls_cert=/c", "tls_key"),
            ("mysql://h/d?connections=0", "connections"),
            ("mysql://h/d?connections=many", "connections"),
            ("mysql://h/d?connect_timeout=1h", "connect_timeout"),
            ("mysql://h/d?patience=1ms", "patience"),
            ("mysql://a,b/d", "one host"),
            ("etcd://h", "scheme"),
        ] {
            let error = read(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }
}
