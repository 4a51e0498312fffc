//! What is risky about a server, for `leasehold doctor`.

use std::time::{Duration, UNIX_EPOCH};

use lockcore::{ClockReading, Diagnosis, Error, ErrorKind, Result};
use sqlx::postgres::PgRow;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use crate::error::classify;
use crate::pool::Access;

/// All that is looked at, as texts: one round trip. What the user may not see of others is counted all the same.
const LOOK: &str = "SELECT \
     current_setting('server_version') AS version, \
     (extract(epoch FROM clock_timestamp()) * 1000000)::bigint::text AS clock, \
     current_setting('fsync') AS fsync, \
     current_setting('full_page_writes') AS full_page_writes, \
     current_setting('synchronous_commit') AS synchronous_commit, \
     current_setting('synchronous_standby_names') AS synchronous_standby_names, \
     (SELECT count(*) FROM pg_catalog.pg_stat_replication)::text AS standbys, \
     pg_catalog.pg_is_in_recovery()::text AS recovery, \
     current_setting('max_connections') AS max_connections, \
     (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE backend_type = 'client backend')::text AS clients, \
     COALESCE((SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()), false)::text AS encrypted, \
     COALESCE(inet_client_addr() <<= '127.0.0.0/8' OR inet_client_addr() = '::1', true)::text AS local, \
     current_setting('is_superuser') AS superuser";

/// From this share of the connections on it is worth a warning, in percent.
const NEARLY_FULL: u64 = 90;

/// Looks at the server on a connection as others have it, without our own settings.
pub(crate) async fn diagnose(access: &Access) -> Result<Diagnosis> {
    let located = |error| access.at(classify(error));
    let mut connection = access.options().connect().await.map_err(located)?;
    let before = access.env.wall_clock();
    let row = sqlx::raw_sql(LOOK)
        .fetch_one(&mut connection)
        .await
        .map_err(located)?;
    let after = access.env.wall_clock();
    // It is looked at, and of no other use.
    connection.close().await.ok();
    let facts = Facts::new(&row)?;
    let mut diagnosis = Diagnosis::new("PostgreSQL", facts.version.split(' ').next());
    if let Some(server) = facts.clock {
        diagnosis.set_clock(ClockReading::new(before, UNIX_EPOCH + server, after));
    }
    facts.judge(&mut diagnosis);
    Ok(diagnosis)
}

#[derive(Clone, Debug, Default)]
struct Facts {
    version: String,
    clock: Option<Duration>,
    fsync: String,
    full_page_writes: String,
    synchronous_commit: String,
    synchronous_standby_names: String,
    standbys: u64,
    recovery: bool,
    max_connections: u64,
    clients: u64,
    encrypted: bool,
    local: bool,
    superuser: bool,
}

impl Facts {
    fn new(row: &PgRow) -> Result<Self> {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(classify);
        let number = |column: &str| -> Result<u64> {
            text(column)?
                .parse()
                .map_err(|_| Error::new(ErrorKind::Internal, format!("the server's {column} is no number")))
        };
        let yes = |column: &str| text(column).map(|value| value == "true" || value == "on");
        Ok(Self {
            version: text("version")?,
            clock: text("clock")?.parse().ok().map(Duration::from_micros),
            fsync: text("fsync")?,
            full_page_writes: text("full_page_writes")?,
            synchronous_commit: text("synchronous_commit")?,
            synchronous_standby_names: text("synchronous_standby_names")?,
            standbys: number("standbys")?,
            recovery: yes("recovery")?,
            max_connections: number("max_connections")?,
            clients: number("clients")?,
            encrypted: yes("encrypted")?,
            local: yes("local")?,
            superuser: yes("superuser")?,
        })
    }

    fn judge(&self, diagnosis: &mut Diagnosis) {
        self.judge_durability(diagnosis);
        self.judge_standbys(diagnosis);
        self.judge_clients(diagnosis);
        if self.encrypted {
            diagnosis.ok("ssl", "the connection is encrypted");
        } else if self.local {
            diagnosis.ok("ssl", "off, within this machine");
        } else {
            diagnosis.note(
                "ssl",
                "off: who listens on the network sees the names of locks and their holders; use sslmode=verify-full",
            );
        }
        if self.superuser {
            diagnosis.note(
                "superuser",
                "we are logged in as a superuser: a user with the rights in SECURITY.md is enough",
            );
        }
    }

    fn judge_durability(&self, diagnosis: &mut Diagnosis) {
        match self.fsync.as_str() {
            "off" => diagnosis.warning(
                "fsync",
                "off: after a crash of the machine a lock that is held can be granted again, or the database is damaged",
                "set fsync = on in postgresql.conf",
            ),
            _ => diagnosis.ok("fsync", "on: commits reach the disk"),
        }
        if self.full_page_writes == "off" {
            diagnosis.warning(
                "full_page_writes",
                "off: a crash of the machine can damage the database, locks and tokens included",
                "set full_page_writes = on in postgresql.conf, unless the file system writes whole pages by itself",
            );
        }
        match self.synchronous_commit.as_str() {
            "off" => diagnosis.ok(
                "synchronous_commit",
                "off, and set to local on our own connections: a crash forgets no lock",
            ),
            other => diagnosis.ok("synchronous_commit", format!("{other}: a crash forgets no lock")),
        }
    }

    fn judge_standbys(&self, diagnosis: &mut Diagnosis) {
        const SUBJECT: &str = "standbys";
        if self.recovery {
            return diagnosis.error(
                SUBJECT,
                "the server is a standby, and takes no locks",
                "connect to its primary",
            );
        }
        let waits = ["on", "remote_write", "remote_apply"].contains(&self.synchronous_commit.as_str());
        match (self.standbys, self.synchronous_standby_names.as_str()) {
            (0, "") => diagnosis.ok(SUBJECT, "none: nobody can take over with old data"),
            (_, "") => diagnosis.warning(
                SUBJECT,
                format!(
                    "{} are asynchronous: one that takes over may not know of the newest locks and grant them again",
                    self.standbys
                ),
                "name them in synchronous_standby_names, or let the resource check tokens",
            ),
            (_, names) if waits => diagnosis.ok(SUBJECT, format!("a commit waits for {names}")),
            (_, names) => diagnosis.warning(
                SUBJECT,
                format!(
                    "synchronous_standby_names is {names}, but a commit waits for none of them (synchronous_commit = {}): \
                     one that takes over may not know of the newest locks",
                    self.synchronous_commit
                ),
                "set synchronous_commit = on, at least for the user of the locks: ALTER ROLE .. SET synchronous_commit = on",
            ),
        }
    }

    fn judge_clients(&self, diagnosis: &mut Diagnosis) {
        let found = format!(
            "{} of {} connections are taken",
            self.clients, self.max_connections
        );
        if self.clients.saturating_mul(100) >= self.max_connections.saturating_mul(NEARLY_FULL) {
            diagnosis.warning(
                "max_connections",
                format!("{found}: a client too many is refused, also one that reconnects to renew its locks"),
                "raise max_connections, or set the URL's option connections lower",
            );
        } else {
            diagnosis.ok("max_connections", found);
        }
    }
}

#[cfg(test)]
mod tests {
    use lockcore::Severity::{self, Error, Note, Ok, Warning};

    use super::*;

    fn sound() -> Facts {
        Facts {
            version: "17.2 (Debian)".into(),
            fsync: "on".into(),
            full_page_writes: "on".into(),
            synchronous_commit: "on".into(),
            max_connections: 100,
            clients: 5,
            encrypted: true,
            ..Facts::default()
        }
    }

    fn severity(facts: &Facts) -> Severity {
        let mut diagnosis = Diagnosis::new("PostgreSQL", None::<String>);
        facts.judge(&mut diagnosis);
        for finding in &diagnosis.findings {
            assert_eq!(
                finding.remedy.is_some(),
                finding.severity >= Warning,
                "{finding:?}"
            );
        }
        diagnosis.severity()
    }

    #[test]
    fn risks() {
        type Change = fn(&mut Facts);
        let table: [(Change, Severity); 12] = [
            (|_| {}, Ok),
            (|facts| facts.fsync = "off".into(), Warning),
            (|facts| facts.full_page_writes = "off".into(), Warning),
            // Our connections do not go by it.
            (|facts| facts.synchronous_commit = "off".into(), Ok),
            (|facts| facts.standbys = 1, Warning),
            (|facts| facts.synchronous_standby_names = "s1".into(), Ok),
            (
                |facts| {
                    facts.synchronous_standby_names = "s1".into();
                    facts.synchronous_commit = "local".into();
                },
                Warning,
            ),
            (|facts| facts.recovery = true, Error),
            (|facts| facts.clients = 90, Warning),
            (|facts| facts.encrypted = false, Note),
            (
                |facts| {
                    facts.encrypted = false;
                    facts.local = true;
                },
                Ok,
            ),
            (|facts| facts.superuser = true, Note),
        ];
        for (at, (change, expected)) in table.into_iter().enumerate() {
            let mut facts = sound();
            change(&mut facts);
            assert_eq!(severity(&facts), expected, "{at}: {facts:?}");
        }
    }
}
