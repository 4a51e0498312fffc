//! The servers that a suite has to be run on, one by one.

use std::{env, fmt, str::FromStr};

use super::{Origin, ServerError, ServerKind, ServerRequest};

/// The environment variable that lists targets to leave out, separated by commas: `redis/container,valkey/container`.
///
/// `cargo xtask test` sets it on a machine without Docker, after it has printed what will not run. Without it
/// a target whose server cannot be had is a failure.
pub const LEAVE_OUT: &str = "LEASEHOLD_TEST_LEAVE_OUT";

/// One server that a suite has to pass on: a kind and where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Target {
    /// Which server.
    pub kind: ServerKind,
    /// From where.
    pub origin: Origin,
}

/// What [`Target::plan`] decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Run the suite on each of these.
    pub run: Vec<Target>,
    /// Left out because [`LEAVE_OUT`] names them: to be printed.
    pub left_out: Vec<Target>,
}

impl Target {
    /// What a driver for Redis has to pass on: Redis 8 and Valkey 8 by container, and the Redis of the machine.
    pub const REDIS_LIKE: [Self; 3] = [
        Self::container(ServerKind::Redis),
        Self::container(ServerKind::Valkey),
        Self::process(ServerKind::Redis),
    ];

    /// What a driver for etcd has to pass on: etcd 3.5 by container, and the one of the machine.
    pub const ETCD: [Self; 2] = [Self::container(ServerKind::Etcd), Self::process(ServerKind::Etcd)];

    /// What a driver for ZooKeeper has to pass on: ZooKeeper 3.9 by container, and the one of the machine.
    pub const ZOOKEEPER: [Self; 2] = [
        Self::container(ServerKind::ZooKeeper),
        Self::process(ServerKind::ZooKeeper),
    ];

    /// What a driver for MySQL has to pass on: MySQL 9 and MariaDB 11 by container, and the MariaDB of the machine.
    pub const MYSQL_LIKE: [Self; 3] = [
        Self::container(ServerKind::MySql),
        Self::container(ServerKind::MariaDb),
        Self::process(ServerKind::MariaDb),
    ];

    /// What a driver for PostgreSQL has to pass on: PostgreSQL 17 by container, and the one of the machine.
    pub const POSTGRES: [Self; 2] = [
        Self::container(ServerKind::Postgres),
        Self::process(ServerKind::Postgres),
    ];

    /// What every driver together has to pass on.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let all = [
            &Self::REDIS_LIKE[..],
            &Self::ETCD,
            &Self::ZOOKEEPER,
            &Self::MYSQL_LIKE,
            &Self::POSTGRES,
        ];
        all.concat()
    }

    const fn container(kind: ServerKind) -> Self {
        Self {
            kind,
            origin: Origin::Container,
        }
    }

    const fn process(kind: ServerKind) -> Self {
        Self {
            kind,
            origin: Origin::LocalProcess,
        }
    }

    /// A request for this target's server.
    pub fn request(self) -> ServerRequest {
        ServerRequest::new(self.kind).origin(self.origin)
    }

    /// Decides which of `all` to run. Where the URL variable of a kind is set, that server stands in for all
    /// targets of the kind. What [`LEAVE_OUT`] names is left out; the program of this machine, if it has one,
    /// then takes the place of a container.
    ///
    /// # Errors
    /// [`ServerError::Variable`] when [`LEAVE_OUT`] names something that is no target.
    pub fn plan(all: &[Self]) -> Result<Plan, ServerError> {
        let leave_out = env::var(LEAVE_OUT).unwrap_or_default();
        let with_url: Vec<_> = ServerKind::ALL
            .into_iter()
            .filter(|kind| super::request::given_url(*kind).is_some())
            .collect();
        planned(all, &leave_out, &with_url, |kind| kind.find_program().is_ok())
    }
}

fn planned(
    all: &[Target],
    leave_out: &str,
    with_url: &[ServerKind],
    has_program: impl Fn(ServerKind) -> bool,
) -> Result<Plan, ServerError> {
    let unwanted = leave_out
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(Target::from_str)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|reason| ServerError::Variable {
            variable: LEAVE_OUT.into(),
            reason,
        })?;
    let mut plan = Plan {
        run: Vec::new(),
        left_out: Vec::new(),
    };
    for &target in all {
        let target = match with_url.contains(&target.kind) {
            true => Target {
                origin: Origin::Url,
                ..target
            },
            false => target,
        };
        let list = if unwanted.contains(&target) {
            &mut plan.left_out
        } else {
            &mut plan.run
        };
        if !list.contains(&target) {
            list.push(target);
        }
    }
    for &Target { kind, origin } in &plan.left_out {
        let local = Target {
            kind,
            origin: Origin::LocalProcess,
        };
        if origin == Origin::Container
            && !all.contains(&local)
            && !unwanted.contains(&local)
            && has_program(kind)
        {
            plan.run.push(local);
        }
    }
    Ok(plan)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind, self.origin)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, origin) = text
            .split_once('/')
            .ok_or_else(|| format!("`{text}` is not of the form kind/origin"))?;
        Ok(Self {
            kind: kind.parse()?,
            origin: origin.parse()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(targets: &[Target]) -> String {
        targets
            .iter()
            .map(Target::to_string)
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn everything_runs_unless_named() {
        let plan = planned(&Target::REDIS_LIKE, "", &[], |_| false).unwrap();
        assert_eq!(shown(&plan.run), "redis/container valkey/container redis/process");
        let plan = planned(
            &Target::REDIS_LIKE,
            "redis/container, valkey/container",
            &[],
            |_| false,
        )
        .unwrap();
        assert_eq!(shown(&plan.run), "redis/process");
        assert_eq!(shown(&plan.left_out), "redis/container valkey/container");
    }

    #[test]
    fn a_program_takes_the_place_of_a_container() {
        let plan = planned(
            &Target::REDIS_LIKE,
            "redis/container,valkey/container",
            &[],
            |_| true,
        )
        .unwrap();
        assert_eq!(shown(&plan.run), "redis/process valkey/process");
        let without = "valkey/container,valkey/process";
        let plan = planned(&Target::REDIS_LIKE, without, &[], |_| true).unwrap();
        assert_eq!(shown(&plan.run), "redis/container redis/process");
    }

    #[test]
    fn a_url_stands_in_for_its_kind() {
        let plan = planned(&Target::REDIS_LIKE, "", &[ServerKind::Redis], |_| false).unwrap();
        assert_eq!(shown(&plan.run), "redis/url valkey/container");
    }

    #[test]
    fn a_misspelt_target_is_refused() {
        for wrong in ["redis", "redis/docker", "radis/container"] {
            assert!(
                planned(&Target::REDIS_LIKE, wrong, &[], |_| false).is_err(),
                "{wrong}"
            );
        }
    }
}
