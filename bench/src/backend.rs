//! What is compared: the backends, and the servers that they run on here.

use std::fmt;
use std::str::FromStr;

use leasehold_conformance::servers::ServerKind;

/// A backend of Leasehold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Backend {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
    /// etcd.
    Etcd,
    /// ZooKeeper.
    ZooKeeper,
    /// MySQL.
    MySql,
    /// MariaDB.
    MariaDb,
    /// PostgreSQL.
    Postgres,
    /// SQLite, in a file of its own.
    Sqlite,
    /// The memory of this process.
    Memory,
}

impl Backend {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Redis,
        Self::Valkey,
        Self::Etcd,
        Self::ZooKeeper,
        Self::MySql,
        Self::MariaDb,
        Self::Postgres,
        Self::Sqlite,
        Self::Memory,
    ];

    /// Its name on the command line and in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::Valkey => "valkey",
            Self::Etcd => "etcd",
            Self::ZooKeeper => "zk",
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
            Self::Postgres => "postgres",
            Self::Sqlite => "sqlite",
            Self::Memory => "memory",
        }
    }

    /// Its server, where it has one.
    #[must_use]
    pub const fn server(self) -> Option<ServerKind> {
        match self {
            Self::Redis => Some(ServerKind::Redis),
            Self::Valkey => Some(ServerKind::Valkey),
            Self::Etcd => Some(ServerKind::Etcd),
            Self::ZooKeeper => Some(ServerKind::ZooKeeper),
            Self::MySql => Some(ServerKind::MySql),
            Self::MariaDb => Some(ServerKind::MariaDb),
            Self::Postgres => Some(ServerKind::Postgres),
            Self::Sqlite | Self::Memory => None,
        }
    }

    /// More arguments for its server: as an operator runs it who does not want to lose acknowledged locks, but for
    /// Redis, which has its own defaults, and with what counting takes.
    #[must_use]
    pub const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Redis | Self::Valkey => &["--appendonly", "no", "--maxclients", "10000"],
            Self::Etcd => &[
                "--quota-backend-bytes=4294967296",
                "--auto-compaction-retention=5m",
            ],
            Self::ZooKeeper => &["forceSync=yes"],
            Self::MySql | Self::MariaDb => &[
                "--innodb-flush-log-at-trx-commit=1",
                "--innodb-buffer-pool-size=256M",
                "--max-connections=4000",
            ],
            Self::Postgres => &[
                "-c",
                "fsync=on",
                "-c",
                "synchronous_commit=on",
                "-c",
                "max_connections=2500",
                "-c",
                "shared_preload_libraries=pg_stat_statements,plpgsql",
            ],
            Self::Sqlite | Self::Memory => &[],
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Backend {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|backend| backend.name() == text)
            .ok_or_else(|| format!("unknown backend `{text}`"))
    }
}
