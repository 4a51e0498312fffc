//! Which server, and from where.

use std::{fmt, path::PathBuf, str::FromStr};

use super::{
    engine::{Engine, Facts},
    etcd::Etcd,
    mysql::{MariaDb, MySql},
    postgres::Postgres,
    redis::{Redis, Valkey},
    zookeeper::ZooKeeper,
};

/// A server that tests can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerKind {
    /// Redis. Containers run version 8; a local process is what the machine has.
    Redis,
    /// Valkey. Containers run version 8.
    Valkey,
    /// etcd. Containers run version 3.5. Without a password it has no users; with one, `root` is the administrator.
    Etcd,
    /// ZooKeeper. Containers run version 3.9. Ticks last half a second, so sessions may be as short as one second, and
    /// all four letter words are allowed.
    ZooKeeper,
    /// MySQL. Containers run version 9. Tests use the database `leasehold` as its owner.
    MySql,
    /// MariaDB. Containers run version 11. Tests use the database `leasehold` as its owner.
    MariaDb,
    /// PostgreSQL. Containers run version 17. Tests use the database `leasehold` as its owner.
    Postgres,
}

/// Where a server comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// The first that has one: URL, container, local process.
    Any,
    /// The URL in [`ServerKind::url_variable`]. Such a server belongs to somebody else: it is not stopped,
    /// restarted or given arguments.
    Url,
    /// A container, run by testcontainers on the Docker engine of this machine.
    Container,
    /// The server's program on this machine.
    LocalProcess,
}

impl ServerKind {
    /// Every kind, in the order in which reports list them.
    pub const ALL: [Self; 7] = [
        Self::Redis,
        Self::Valkey,
        Self::Etcd,
        Self::ZooKeeper,
        Self::MySql,
        Self::MariaDb,
        Self::Postgres,
    ];

    pub(super) fn engine(self) -> &'static dyn Engine {
        match self {
            Self::Redis => &Redis,
            Self::Valkey => &Valkey,
            Self::Etcd => &Etcd,
            Self::ZooKeeper => &ZooKeeper,
            Self::MySql => &MySql,
            Self::MariaDb => &MariaDb,
            Self::Postgres => &Postgres,
        }
    }

    pub(super) fn facts(self) -> &'static Facts {
        self.engine().facts()
    }

    /// The lower-case name, as in `redis`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.facts().name
    }

    /// The environment variable that names a server of this kind which already runs.
    #[must_use]
    pub fn url_variable(self) -> &'static str {
        self.facts().url_variable
    }

    /// The name of the program that [`Origin::LocalProcess`] runs.
    #[must_use]
    pub fn program(self) -> &'static str {
        self.facts().program
    }

    /// That program's path, on `PATH` or where Debian puts it.
    ///
    /// # Errors
    /// What is missing, for a person.
    pub fn find_program(self) -> Result<PathBuf, String> {
        self.engine().find()
    }

    /// The package of Debian's that has the program.
    #[must_use]
    pub fn package(self) -> Option<&'static str> {
        self.facts().package
    }

    /// The image that the server's makers publish.
    #[must_use]
    pub fn official_image(self) -> String {
        joined(self.facts().official)
    }

    /// The image that `cargo xtask servers` builds where the official one cannot be pulled.
    #[must_use]
    pub fn built_image(self) -> String {
        joined(self.facts().built)
    }
}

fn joined((repository, tag): (&str, &str)) -> String {
    format!("{repository}:{tag}")
}

impl fmt::Display for ServerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ServerKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| format!("unknown server `{text}`"))
    }
}

impl Origin {
    const NAMED: [(Self, &'static str); 4] = [
        (Self::Any, "any"),
        (Self::Url, "url"),
        (Self::Container, "container"),
        (Self::LocalProcess, "process"),
    ];
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMED
            .iter()
            .find(|(origin, _)| origin == self)
            .map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::NAMED
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(origin, _)| *origin)
            .ok_or_else(|| format!("unknown origin `{text}`"))
    }
}
