//! What is risky about a server, for `leasehold doctor`.

use std::collections::HashMap;
use std::time::{Duration, UNIX_EPOCH};

use lockcore::{ClockReading, Diagnosis, Env, Error, Result};
use redis::{Value, cmd, pipe};

use crate::connection::Link;
use crate::reply;

/// The settings that INFO does not tell.
const SETTINGS: [&str; 3] = ["appendfsync", "save", "timeout"];

/// From this share of a limit on it is worth a warning, in percent.
const NEARLY_FULL: u64 = 90;

/// Looks at the server on `link`. `password` tells whether we logged in with one, where that is known.
pub(crate) async fn diagnose(link: &Link, env: &Env, password: Option<bool>) -> Result<Diagnosis> {
    let before = env.wall_clock();
    let time = link.send(&cmd("TIME")).await.map_err(Error::from)?;
    let after = env.wall_clock();
    let mut looks = pipe();
    looks.cmd("INFO");
    for setting in SETTINGS {
        looks.cmd("CONFIG").arg("GET").arg(setting);
    }
    let replies = link.send_all(&looks).await.map_err(Error::from)?;
    let facts = Facts::new(&replies);
    let mut diagnosis = facts.server();
    if let Some(server) = clock(&time) {
        diagnosis.set_clock(ClockReading::new(before, UNIX_EPOCH + server, after));
    }
    facts.judge(&mut diagnosis);
    if password == Some(false) {
        diagnosis.note(
            "requirepass",
            "nobody has to log in: whoever reaches the server can take locks away from their holders; give it a \
             password, or users with the rights that the driver's documentation lists",
        );
    }
    Ok(diagnosis)
}

/// TIME: seconds and microseconds.
fn clock(reply: &Value) -> Option<Duration> {
    let [secs, micros] = reply::array(reply)? else {
        return None;
    };
    let number = |value| reply::text(value)?.parse::<u64>().ok();
    Some(Duration::from_secs(number(secs)?) + Duration::from_micros(number(micros)?))
}

/// What the server told of itself, as far as we may ask.
#[derive(Debug, Default)]
struct Facts<'a> {
    info: HashMap<&'a str, &'a str>,
    settings: HashMap<&'a str, &'a str>,
}

impl<'a> Facts<'a> {
    /// From the replies to INFO and one CONFIG GET each for [`SETTINGS`].
    fn new(replies: &'a [Value]) -> Self {
        let info = replies.first().and_then(reply::text).unwrap_or_default();
        Self {
            info: info
                .lines()
                .filter_map(|line| line.trim().split_once(':'))
                .collect(),
            settings: replies.iter().skip(1).filter_map(setting).collect(),
        }
    }

    fn number(&self, field: &str) -> Option<u64> {
        self.info.get(field)?.parse().ok()
    }

    fn is_on(&self, field: &str) -> bool {
        self.info.get(field) == Some(&"1")
    }

    fn server(&self) -> Diagnosis {
        match self.info.get("valkey_version") {
            Some(version) => Diagnosis::new("Valkey", Some(*version)),
            None => Diagnosis::new("Redis", self.info.get("redis_version").copied()),
        }
    }

    fn judge(&self, diagnosis: &mut Diagnosis) {
        if self.info.is_empty() {
            diagnosis.note(
                "INFO",
                "the server does not tell us of its memory, its persistence and its replicas: grant +info to have them \
                 checked",
            );
            return;
        }
        self.judge_memory(diagnosis);
        self.judge_persistence(diagnosis);
        self.judge_replicas(diagnosis);
        self.judge_clients(diagnosis);
    }

    fn judge_memory(&self, diagnosis: &mut Diagnosis) {
        let limit = self.number("maxmemory").unwrap_or(0);
        match self.info.get("maxmemory_policy") {
            None => {}
            Some(&"noeviction") => {
                diagnosis.ok("maxmemory-policy", "noeviction: no lock is evicted");
            }
            Some(policy) if limit == 0 => diagnosis.warning(
                "maxmemory-policy",
                format!("{policy}: as soon as the memory has a limit, locks are evicted when it is full"),
                "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf",
            ),
            Some(policy) => diagnosis.error(
                "maxmemory-policy",
                format!("{policy}: locks are evicted when the memory is full, and granted to others while they are held"),
                "CONFIG SET maxmemory-policy noeviction, and the same in redis.conf; or a server for locks alone",
            ),
        }
        let used = self.number("used_memory").unwrap_or(0);
        match used.saturating_mul(100).checked_div(limit) {
            None => {}
            Some(share) if share >= NEARLY_FULL => diagnosis.warning(
                "maxmemory",
                format!("{share} % of the memory limit is used: a full server renews and releases, and takes no new locks"),
                "raise maxmemory, or make room",
            ),
            Some(share) => diagnosis.ok("maxmemory", format!("{share} % of the memory limit is used")),
        }
    }

    fn judge_persistence(&self, diagnosis: &mut Diagnosis) {
        let forgets = "a lock that is held can be granted again; tokens go on growing as long as the server's clock does";
        if self.is_on("aof_enabled") {
            match self.settings.get("appendfsync") {
                Some(&"always") => diagnosis.ok("appendonly", "yes, and every write reaches the disk"),
                Some(&"no") => diagnosis.warning(
                    "appendonly",
                    format!(
                        "yes, but the system decides when writes reach the disk (appendfsync no): after a crash of the \
                         machine {forgets}"
                    ),
                    "CONFIG SET appendfsync everysec, or always",
                ),
                Some(_) => diagnosis.note(
                    "appendonly",
                    format!(
                        "yes, and writes reach the disk within a second (appendfsync everysec): a crash of the server \
                         forgets nothing; after a crash of the machine {forgets}"
                    ),
                ),
                None => diagnosis.note(
                    "appendonly",
                    "yes; when writes reach the disk is not told: grant +config|get to have it checked",
                ),
            }
            if self
                .info
                .get("aof_last_write_status")
                .is_some_and(|status| *status != "ok")
            {
                diagnosis.error(
                    "aof_last_write_status",
                    "the server cannot write its file and takes no writes",
                    "look at its disk and its log",
                );
            }
        } else {
            let instead = match self.settings.get("save") {
                Some(&"") => "and no snapshots",
                Some(_) => "snapshots only",
                None => "snapshots at best",
            };
            diagnosis.warning(
                "appendonly",
                format!("no, {instead}: after a crash or a restart of the server {forgets}"),
                "CONFIG SET appendonly yes, and the same in redis.conf",
            );
            if self
                .info
                .get("rdb_last_bgsave_status")
                .is_some_and(|status| *status != "ok")
            {
                diagnosis.warning(
                    "rdb_last_bgsave_status",
                    "the last snapshot failed: unless stop-writes-on-bgsave-error is no, the server takes no writes",
                    "look at its disk and its log",
                );
            }
        }
    }

    fn judge_replicas(&self, diagnosis: &mut Diagnosis) {
        match self.info.get("role") {
            Some(&"master") => {}
            Some(role) => diagnosis.error(
                "role",
                format!("{role}: a replica takes no locks"),
                "connect to its primary",
            ),
            None => return,
        }
        match self.number("connected_slaves") {
            None | Some(0) => diagnosis.ok("connected_slaves", "0: nobody can take over with old data"),
            Some(replicas) => diagnosis.warning(
                "connected_slaves",
                format!(
                    "{replicas}: replication is asynchronous, so a replica that takes over may not know of the newest \
                     locks and grant them again"
                ),
                "let the resource check tokens; or use a backend that is replicated by consensus, such as etcd: or zk:",
            ),
        }
    }

    fn judge_clients(&self, diagnosis: &mut Diagnosis) {
        let clients = self.number("connected_clients").unwrap_or(0);
        // Redis before 7 tells it in its settings only.
        if let Some(limit) = self.number("maxclients").filter(|limit| *limit > 0) {
            let found = format!("{clients} of {limit} connections are taken");
            if clients.saturating_mul(100) / limit >= NEARLY_FULL {
                diagnosis.warning(
                    "maxclients",
                    format!(
                        "{found}: a client too many is refused, also one that reconnects to renew its locks"
                    ),
                    "raise maxclients, and the server's limit of open files",
                );
            } else {
                diagnosis.ok("maxclients", found);
            }
        }
        match self
            .settings
            .get("timeout")
            .and_then(|timeout| timeout.parse::<u64>().ok())
        {
            None => {}
            Some(0) => diagnosis.ok("timeout", "0: idle connections are kept"),
            // It spares those that subscribe, as ours do.
            Some(secs) => diagnosis.ok(
                "timeout",
                format!("{secs} s: ends idle connections, but not those that subscribe, as ours do"),
            ),
        }
    }
}

/// A reply of CONFIG GET; `None` when it was refused.
fn setting(reply: &Value) -> Option<(&str, &str)> {
    let (name, value) = match reply {
        Value::Map(entries) => entries.first().map(|(name, value)| (name, value))?,
        Value::Array(values) => (values.first()?, values.get(1)?),
        _ => return None,
    };
    Some((reply::text(name)?, reply::text(value)?))
}

#[cfg(test)]
mod tests {
    use lockcore::Severity::{self, Error, Note, Ok, Warning};

    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn setting_of(name: &str, value: &str) -> Value {
        Value::Map(vec![(text(name), text(value))])
    }

    fn judged(replies: &[Value]) -> Diagnosis {
        let facts = Facts::new(replies);
        let mut diagnosis = facts.server();
        facts.judge(&mut diagnosis);
        diagnosis
    }

    fn severity(diagnosis: &Diagnosis, subject: &str) -> Option<Severity> {
        let mut found = diagnosis.findings.iter();
        found
            .find(|finding| finding.subject == subject)
            .map(|finding| finding.severity)
    }

    const SOUND: &str = "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nconnected_slaves:0\r\naof_enabled:1\r\n\
                         aof_last_write_status:ok\r\nmaxmemory:0\r\nused_memory:1000\r\nmaxmemory_policy:noeviction\r\n\
                         connected_clients:5\r\nmaxclients:100\r\n";

    #[test]
    fn a_sound_server() {
        let replies = [
            text(SOUND),
            setting_of("appendfsync", "always"),
            setting_of("save", ""),
            setting_of("timeout", "0"),
        ];
        let diagnosis = judged(&replies);
        assert_eq!(
            (diagnosis.server.as_str(), diagnosis.version.as_deref()),
            ("Redis", Some("7.0.15"))
        );
        assert_eq!(diagnosis.severity(), Ok, "{diagnosis:?}");
        let valkey = format!("{SOUND}valkey_version:8.1.1\r\n");
        let diagnosis = judged(&[text(&valkey)]);
        assert_eq!(
            (diagnosis.server.as_str(), diagnosis.version.as_deref()),
            ("Valkey", Some("8.1.1"))
        );
    }

    #[test]
    fn risks() {
        for (from, to, subject, expected) in [
            ("noeviction", "allkeys-lru", "maxmemory-policy", Warning),
            (
                "maxmemory:0\r\nused_memory:1000\r\nmaxmemory_policy:noeviction",
                "maxmemory:5000\r\nused_memory:1\r\nmaxmemory_policy:volatile-ttl",
                "maxmemory-policy",
                Error,
            ),
            ("maxmemory:0", "maxmemory:1100", "maxmemory", Warning),
            ("maxmemory:0", "maxmemory:9000", "maxmemory", Ok),
            ("aof_enabled:1", "aof_enabled:0", "appendonly", Warning),
            ("status:ok", "status:err", "aof_last_write_status", Error),
            (
                "aof_enabled:1",
                "aof_enabled:0\r\nrdb_last_bgsave_status:err",
                "rdb_last_bgsave_status",
                Warning,
            ),
            ("role:master", "role:slave", "role", Error),
            (
                "connected_slaves:0",
                "connected_slaves:2",
                "connected_slaves",
                Warning,
            ),
            (
                "connected_clients:5",
                "connected_clients:90",
                "maxclients",
                Warning,
            ),
            ("x", "x", "appendonly", Note),
        ] {
            let diagnosis = judged(&[text(&SOUND.replace(from, to))]);
            assert_eq!(
                severity(&diagnosis, subject),
                Some(expected),
                "{to}: {diagnosis:?}"
            );
            let silent = diagnosis
                .findings
                .iter()
                .filter(|finding| finding.severity >= Warning);
            assert!(
                silent.clone().all(|finding| finding.remedy.is_some()),
                "{diagnosis:?}"
            );
        }
        let lazy = judged(&[text(SOUND), setting_of("appendfsync", "no")]);
        assert_eq!(severity(&lazy, "appendonly"), Some(Warning));
    }

    #[test]
    fn what_is_refused_is_a_note() {
        let diagnosis = judged(&[Value::Nil, Value::Nil, Value::Nil, Value::Nil]);
        assert_eq!(diagnosis.version, None);
        assert_eq!(severity(&diagnosis, "INFO"), Some(Note));
        assert_eq!(diagnosis.severity(), Note);
    }

    #[test]
    fn the_clock() {
        let time = Value::Array(vec![text("1700000000"), text("250000")]);
        assert_eq!(clock(&time), Some(Duration::from_millis(1_700_000_000_250)));
        assert_eq!(clock(&Value::Nil), None);
    }
}
