//! What a user can choose.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lockcore::{Endpoint, Error, ErrorKind, Result};

/// How long one request waits for the writes of other processes.
const DEFAULT_BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// When SQLite waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Synchronous {
    /// Not at a commit. A crash of a process loses nothing. A crash of the machine may lose the last grants, but ends
    /// every lease anyway; tokens still grow, because they are never behind the wall clock.
    #[default]
    Normal,
    /// At every commit: tokens grow after a power failure even when the wall clock was set back besides.
    Full,
}

/// Where the database is, and how it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteConfig {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) busy_timeout: Duration,
    pub(crate) push: bool,
}

impl SqliteConfig {
    /// The database file at `path`, which is made when it is missing, with its folders. Relative paths count from the
    /// working directory at the time of [`SqliteDriver::open`](crate::SqliteDriver::open).
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when the path is empty, names SQLite's in-memory database, or is not UTF-8.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        check(&path)?;
        Ok(Self {
            path,
            synchronous: Synchronous::default(),
            busy_timeout: DEFAULT_BUSY_TIMEOUT,
            push: true,
        })
    }

    /// Takes this driver's parts out of a URL: `sqlite:/var/lib/app/locks.db`, `sqlite:locks.db` or
    /// `sqlite:///var/lib/app/locks.db`, with the options
    ///
    /// - `synchronous`: `normal` (the default) or `full`, see [`Synchronous`];
    /// - `busy_timeout`: see [`SqliteConfig::busy_timeout`];
    /// - `push`: see [`SqliteConfig::push`].
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for another scheme, a host, a login, a bad value, or as [`SqliteConfig::new`].
    pub fn from_endpoint(endpoint: &mut Endpoint) -> Result<Self> {
        if endpoint.scheme() != "sqlite" {
            return Err(invalid(format!(
                "a SQLite URL starts with sqlite:, not {}:",
                endpoint.scheme()
            )));
        }
        if !endpoint.hosts().is_empty() || endpoint.user().is_some() || endpoint.password().is_some() {
            return Err(invalid(
                "a SQLite URL has no host and no login: write sqlite:relative.db or sqlite:///absolute.db",
            ));
        }
        let mut config = Self::new(endpoint.path())?;
        if let Some(synchronous) = endpoint.take_option("synchronous") {
            config.synchronous = match synchronous.as_str() {
                "normal" => Synchronous::Normal,
                "full" => Synchronous::Full,
                _ => return Err(invalid("the URL's synchronous is normal or full")),
            };
        }
        if let Some(timeout) = endpoint.take_duration("busy_timeout")? {
            config = config.busy_timeout(timeout)?;
        }
        if let Some(push) = endpoint.take_bool("push")? {
            config.push = push;
        }
        Ok(config)
    }

    /// The path of the database file as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// When SQLite waits for the disk.
    #[must_use]
    pub const fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How long one request may wait for other processes to finish writing before it fails as
    /// [`Unavailable`](ErrorKind::Unavailable): 1 ms to 1 min, 2 s by default. Keep it below the setting `op_timeout`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when it is out of bounds.
    pub fn busy_timeout(mut self, timeout: Duration) -> Result<Self> {
        if !(Duration::from_millis(1)..=Duration::from_secs(60)).contains(&timeout) {
            return Err(invalid("busy_timeout is from 1ms to 1m"));
        }
        self.busy_timeout = timeout;
        Ok(self)
    }

    /// Whether waiters are woken through sockets in a folder beside the database (the default on Unix), or ask again
    /// every 10 ms at most (everywhere else, and where no socket can be made).
    #[must_use]
    pub const fn push(mut self, push: bool) -> Self {
        self.push = push;
        self
    }
}

fn check(path: &Path) -> Result<()> {
    let Some(text) = path.to_str() else {
        return Err(invalid("the path of a SQLite database is UTF-8"));
    };
    if text.is_empty() || text.contains(":memory:") {
        return Err(invalid(
            "a SQLite database needs a path, such as sqlite:locks.db; for locks inside one process use memory:",
        ));
    }
    if text.contains('\0') {
        return Err(invalid("the path of a SQLite database has no NUL"));
    }
    if text.ends_with(std::path::is_separator) {
        return Err(invalid(format!(
            "{text:?} is a folder: name a database file in it"
        )));
    }
    Ok(())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<SqliteConfig> {
        let mut endpoint = Endpoint::parse(url)?;
        let config = SqliteConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        Ok(config)
    }

    #[test]
    fn paths_and_options() {
        for (url, path) in [
            ("sqlite:/var/x.db", "/var/x.db"),
            ("sqlite:rel.db", "rel.db"),
            ("sqlite:dir/rel%20x.db", "dir/rel x.db"),
            ("sqlite:///var/x.db", "/var/x.db"),
        ] {
            assert_eq!(parse(url).unwrap().path(), Path::new(path), "{url}");
        }
        let config = parse("sqlite:x?synchronous=full&busy_timeout=50ms&push=false").unwrap();
        let expected = SqliteConfig::new("x").unwrap().synchronous(Synchronous::Full);
        let expected = expected.busy_timeout(Duration::from_millis(50)).unwrap();
        assert_eq!(config, expected.push(false));
    }

    #[test]
    fn bad_urls() {
        for url in [
            "sqlite:",
            "sqlite://",
            "sqlite::memory:",
            "sqlite:///:memory:",
            "sqlite:dir/",
            "sqlite://host/x.db",
            "sqlite:x%00.db",
            "sqlite:x?synchronous=off",
            "sqlite:x?busy_timeout=0s",
            "sqlite:x?push=perhaps",
            "sqlite:x?pushh=true",
            "other:x",
        ] {
            assert_eq!(parse(url).unwrap_err().kind(), ErrorKind::Invalid, "{url}");
        }
        let error = parse("sqlite::memory:").unwrap_err().to_string();
        assert!(error.contains("memory:"), "{error}");
    }
}
