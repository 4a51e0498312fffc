//! Which server, and from where.

use std::{fmt, str::FromStr};

/// A server that tests can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerKind {
    /// Redis. Containers run version 8; a local process is what the machine has.
    Redis,
    /// Valkey. Containers run version 8.
    Valkey,
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

/// What is known about a kind before it runs.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) name: &'static str,
    pub(super) url_variable: &'static str,
    /// The program on `PATH`, which is also the command inside the images.
    pub(super) program: &'static str,
    /// Repository and tag of the image its makers publish.
    pub(super) official: (&'static str, &'static str),
    /// Repository and tag of the image that `cargo xtask servers` builds.
    pub(super) built: (&'static str, &'static str),
}

impl ServerKind {
    /// Every kind, in the order in which reports list them.
    pub const ALL: [Self; 2] = [Self::Redis, Self::Valkey];

    pub(super) fn facts(self) -> &'static Facts {
        match self {
            Self::Redis => &Facts {
                name: "redis",
                url_variable: "LEASEHOLD_TEST_REDIS_URL",
                program: "redis-server",
                official: ("redis", "8"),
                built: ("leasehold-test/redis", "8"),
            },
            Self::Valkey => &Facts {
                name: "valkey",
                url_variable: "LEASEHOLD_TEST_VALKEY_URL",
                program: "valkey-server",
                official: ("valkey/valkey", "8"),
                built: ("leasehold-test/valkey", "8"),
            },
        }
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

    /// The program that [`Origin::LocalProcess`] looks for on `PATH`.
    #[must_use]
    pub fn program(self) -> &'static str {
        self.facts().program
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
