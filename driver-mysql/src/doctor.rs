//! What is risky about a server, for `leasehold doctor`.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use lockcore::{ClockReading, Diagnosis, Result};

use crate::connection::{Link, Opener};
use crate::error::classify;
use crate::script::{Reply, answer, fill, get, text};

/// Everybody may see these. What a server does not have it leaves out.
const LOOK: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('innodb_flush_log_at_trx_commit', 'sync_binlog', \
     'log_bin', 'innodb_doublewrite', 'read_only', 'super_read_only', 'innodb_read_only', 'wait_timeout', \
     'max_connections', 'wsrep_on', 'group_replication_group_name', 'group_replication_single_primary_mode', \
     'rpl_semi_sync_master_enabled', 'rpl_semi_sync_source_enabled'); \
     SHOW GLOBAL STATUS LIKE 'Threads_connected'; \
     SHOW SESSION STATUS LIKE 'Ssl_cipher'";

/// From this share of the connections on it is worth a warning, in percent.
const NEARLY_FULL: u64 = 90;

/// Connections that are idle for less are used without a question.
const IDLE: u64 = 30;

/// Looks at the server on a connection of its own.
pub(crate) async fn diagnose(opener: &Opener) -> Result<Diagnosis> {
    let mut link = opener.open().await?;
    let looked = look(&mut link, opener).await;
    link.close().await;
    looked
}

async fn look(link: &mut Link, opener: &Opener) -> Result<Diagnosis> {
    let before = opener.env.wall_clock();
    let now = link.run(fill("SELECT :now", &[])).await.map_err(classify)?;
    let after = opener.env.wall_clock();
    let replies = link.run(LOOK.to_owned()).await.map_err(classify)?;
    let facts = Facts(facts(&replies)?);
    let name = if link.version.mariadb { "MariaDB" } else { "MySQL" };
    let version = link.version.text.trim_start_matches("5.5.5-");
    let version = version.split("-MariaDB").next().unwrap_or(version);
    let mut diagnosis = Diagnosis::new(name, Some(version));
    let server = Duration::from_micros(get(answer(&now)?, 0)?);
    diagnosis.set_clock(ClockReading::new(before, UNIX_EPOCH + server, after));
    facts.judge(&mut diagnosis);
    Ok(diagnosis)
}

fn facts(replies: &[Reply]) -> Result<HashMap<String, String>> {
    let mut facts = HashMap::new();
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        if let (Some(name), Some(value)) = (text(row, 0)?, text(row, 1)?) {
            facts.insert(name.to_ascii_lowercase(), value);
        }
    }
    Ok(facts)
}

/// Variables and counters by their names in lower case.
#[derive(Clone, Debug, Default)]
struct Facts(HashMap<String, String>);

impl Facts {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }

    fn is_on(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1")
    }

    fn judge(&self, diagnosis: &mut Diagnosis) {
        self.judge_durability(diagnosis);
        self.judge_writes(diagnosis);
        self.judge_copies(diagnosis);
        self.judge_connections(diagnosis);
    }

    fn judge_durability(&self, diagnosis: &mut Diagnosis) {
        const FORGETS: &str = "a lock that is held can be granted again";
        match self.get("innodb_flush_log_at_trx_commit") {
            Some("1") => diagnosis.ok("innodb_flush_log_at_trx_commit", "1: commits reach the disk"),
            Some("2") => diagnosis.warning(
                "innodb_flush_log_at_trx_commit",
                format!("2: commits reach the disk within a second: after a crash of the machine {FORGETS}"),
                "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and the same in the server's configuration",
            ),
            Some(other) => diagnosis.warning(
                "innodb_flush_log_at_trx_commit",
                format!(
                    "{other}: commits are written within a second: after a crash of the server {FORGETS}"
                ),
                "SET GLOBAL innodb_flush_log_at_trx_commit = 1, and the same in the server's configuration",
            ),
            None => diagnosis.note(
                "innodb_flush_log_at_trx_commit",
                "not told: see to it that it is 1",
            ),
        }
        if self.is_on("log_bin") {
            match self.number("sync_binlog") {
                Some(1) => diagnosis.ok("sync_binlog", "1: the binary log reaches the disk with each commit"),
                _ => diagnosis.warning(
                    "sync_binlog",
                    format!("not 1: a commit that the binary log lost is undone after a crash of the machine: {FORGETS}"),
                    "SET GLOBAL sync_binlog = 1, and the same in the server's configuration",
                ),
            }
        }
        if self
            .get("innodb_doublewrite")
            .is_some_and(|value| value.eq_ignore_ascii_case("off"))
        {
            diagnosis.warning(
                "innodb_doublewrite",
                "off: a crash of the machine can damage the tables, locks and tokens included",
                "set innodb_doublewrite = ON, unless the file system writes whole pages by itself",
            );
        }
    }

    fn judge_writes(&self, diagnosis: &mut Diagnosis) {
        let names = ["innodb_read_only", "super_read_only", "read_only"];
        match names.into_iter().find(|name| self.is_on(name)) {
            None => diagnosis.ok("read_only", "off"),
            // A user with special rights may write all the same.
            Some("read_only") => diagnosis.warning(
                "read_only",
                "on: the server is a replica, or is about to be one; without special rights no lock can be taken",
                "connect to the primary",
            ),
            Some(name) => diagnosis.error(
                "read_only",
                format!("{name} is on: no lock can be taken"),
                "connect to the primary",
            ),
        }
    }

    fn judge_copies(&self, diagnosis: &mut Diagnosis) {
        const SUBJECT: &str = "replication";
        let single = self.is_on("group_replication_single_primary_mode");
        if self.is_on("wsrep_on") {
            diagnosis.warning(
                SUBJECT,
                "Galera: leases end by the clock of the node that looks at them, and waiters ask again and again",
                "let every client use the same node, and keep the nodes' clocks right with NTP",
            );
        } else if self
            .get("group_replication_group_name")
            .is_some_and(|name| !name.is_empty())
        {
            if single {
                diagnosis.note(
                    SUBJECT,
                    "Group Replication with one primary: a commit is known to a majority; see to it that clients find \
                     the primary",
                );
            } else {
                diagnosis.warning(
                    SUBJECT,
                    "Group Replication with several primaries: leases end by the clock of the one that looks at them, and \
                     waiters ask again and again",
                    "use a single primary, or let every client use the same one",
                );
            }
        } else if self.is_on("rpl_semi_sync_master_enabled") || self.is_on("rpl_semi_sync_source_enabled") {
            diagnosis.note(
                SUBJECT,
                "semi-synchronous: a replica that takes over knows of every lock, unless the primary has given up \
                 waiting for one",
            );
        } else if self.is_on("log_bin") {
            diagnosis.note(
                SUBJECT,
                "a replica, if there is one, is asynchronous: when it takes over it may not know of the newest locks, and \
                 grant them again",
            );
        } else {
            diagnosis.ok(SUBJECT, "none: nobody can take over with old data");
        }
    }

    fn judge_connections(&self, diagnosis: &mut Diagnosis) {
        if let (Some(limit), Some(taken)) = (self.number("max_connections"), self.number("threads_connected"))
        {
            let found = format!("{taken} of {limit} connections are taken");
            if taken.saturating_mul(100) >= limit.saturating_mul(NEARLY_FULL) {
                diagnosis.warning(
                    "max_connections",
                    format!(
                        "{found}: a client too many is refused, also one that reconnects to renew its locks"
                    ),
                    "raise max_connections, or set the URL's option connections lower",
                );
            } else {
                diagnosis.ok("max_connections", found);
            }
        }
        match self.number("wait_timeout") {
            None => {}
            Some(secs) if secs < IDLE => diagnosis.warning(
                "wait_timeout",
                format!(
                    "{secs} s: connections are cut off between two uses, so requests fail and are repeated"
                ),
                "SET GLOBAL wait_timeout = 600, or more",
            ),
            Some(secs) => diagnosis.ok(
                "wait_timeout",
                format!("{secs} s: a connection that it ends is opened again"),
            ),
        }
        if self.get("ssl_cipher").is_some_and(str::is_empty) {
            diagnosis.note(
                "ssl",
                "off: who listens on the network sees the names of locks and their holders; see the URL's option tls",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use lockcore::Severity::{self, Error, Note, Ok, Warning};

    use super::*;

    fn sound() -> Facts {
        let facts = [
            ("innodb_flush_log_at_trx_commit", "1"),
            ("sync_binlog", "1"),
            ("log_bin", "OFF"),
            ("innodb_doublewrite", "ON"),
            ("read_only", "OFF"),
            ("wait_timeout", "28800"),
            ("max_connections", "151"),
            ("threads_connected", "3"),
            ("wsrep_on", "OFF"),
            ("ssl_cipher", "TLS_AES_256_GCM_SHA384"),
        ];
        Facts(facts.map(|(name, value)| (name.into(), value.into())).into())
    }

    fn severity(facts: &Facts) -> Severity {
        let mut diagnosis = Diagnosis::new("MySQL", None::<String>);
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
        assert_eq!(severity(&sound()), Ok);
        for (changes, expected) in [
            (&[("innodb_flush_log_at_trx_commit", "2")][..], Warning),
            (&[("innodb_flush_log_at_trx_commit", "0")], Warning),
            (&[("log_bin", "ON")], Note),
            (&[("log_bin", "ON"), ("sync_binlog", "0")], Warning),
            (&[("innodb_doublewrite", "OFF")], Warning),
            (&[("innodb_doublewrite", "DETECT_ONLY")], Ok),
            (&[("read_only", "ON")], Warning),
            (&[("read_only", "ON"), ("super_read_only", "ON")], Error),
            (&[("innodb_read_only", "ON")], Error),
            (&[("wsrep_on", "ON")], Warning),
            (&[("group_replication_group_name", "g")], Warning),
            (
                &[
                    ("group_replication_group_name", "g"),
                    ("group_replication_single_primary_mode", "ON"),
                ],
                Note,
            ),
            (&[("log_bin", "1"), ("rpl_semi_sync_source_enabled", "ON")], Note),
            (&[("threads_connected", "150")], Warning),
            (&[("wait_timeout", "10")], Warning),
            (&[("ssl_cipher", "")], Note),
        ] {
            let mut facts = sound();
            for (name, value) in changes {
                facts.0.insert((*name).to_owned(), (*value).to_owned());
            }
            assert_eq!(severity(&facts), expected, "{changes:?}");
        }
        assert_eq!(severity(&Facts::default()), Note);
    }
}
