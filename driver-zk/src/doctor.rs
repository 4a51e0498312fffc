//! What is risky about an ensemble, for `leasehold doctor`.

use std::time::Duration;

use futures_util::future::join_all;
use lockcore::{Diagnosis, Env};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::config::ZkConfig;
use crate::session::Bounds;

/// How long a server may take to answer one of its four-letter words.
const PATIENCE: Duration = Duration::from_secs(1);

/// More than any answer has that is meant for us.
const LONGEST_ANSWER: u64 = 64 * 1024;

/// What a lock gets unless it says otherwise.
const DEFAULT_TTL: Duration = lockcore::DEFAULT_TTL;

/// Asks every server of the URL. Their four-letter words are for people, so nothing depends on what they say.
pub(crate) async fn diagnose(env: &Env, config: &ZkConfig, bounds: Bounds) -> Diagnosis {
    let looks = config.servers.iter().map(|(host, port)| async move {
        let address = (host.as_str(), *port);
        if config.tls.is_some() {
            return Look::default();
        }
        Look {
            srvr: ask(env, address, "srvr").await,
            conf: ask(env, address, "conf").await,
        }
    });
    let looks = join_all(looks).await;
    let version = looks.iter().find_map(|look| look.field("Zookeeper version: "));
    let mut diagnosis = Diagnosis::new(
        "ZooKeeper",
        version.and_then(|text| text.split(['-', ',']).next()),
    );
    judge_sessions(&mut diagnosis, bounds);
    if config.tls.is_some() {
        diagnosis.note("srvr", "servers are not asked for their state through TLS");
    } else {
        judge_servers(&mut diagnosis, config, &looks);
    }
    if config.login.is_none() {
        diagnosis.note(
            "acl",
            "nodes are open to everybody: whoever reaches the servers can take locks away from their holders; give the URL \
             a user and a password",
        );
    }
    diagnosis
}

/// What a server said; empty for what it did not.
#[derive(Debug, Default)]
struct Look {
    srvr: Answer,
    conf: Answer,
}

#[derive(Debug, Default)]
enum Answer {
    /// It cannot be reached, or is silent.
    #[default]
    None,
    /// Only some words are allowed.
    Refused,
    Text(String),
}

impl Look {
    /// What stands after `start` in a line.
    fn field(&self, start: &str) -> Option<&str> {
        [&self.srvr, &self.conf]
            .into_iter()
            .find_map(|answer| match answer {
                Answer::Text(text) => text
                    .lines()
                    .find_map(|line| line.strip_prefix(start))
                    .map(str::trim),
                _ => None,
            })
    }
}

async fn ask(env: &Env, address: (&str, u16), word: &str) -> Answer {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(LONGEST_ANSWER).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    match env.timeout(PATIENCE, Box::pin(asking)).await {
        Some(Ok(text)) if text.contains("not in the whitelist") => Answer::Refused,
        Some(Ok(text)) if !text.trim().is_empty() => Answer::Text(text),
        _ => Answer::None,
    }
}

fn judge_sessions(diagnosis: &mut Diagnosis, bounds: Bounds) {
    let Bounds {
        shortest,
        longest,
        tick,
    } = bounds;
    let found = format!("{shortest:?} to {longest:?}, looked at every {tick:?}");
    if longest < DEFAULT_TTL {
        diagnosis.note(
            "maxSessionTimeout",
            format!("sessions are {found}: a lock of 30 s, the default, is renewed sooner than it asks for"),
        );
    } else {
        diagnosis.ok("maxSessionTimeout", format!("sessions are {found}"));
    }
    if shortest > Duration::from_secs(10) {
        diagnosis.note(
            "minSessionTimeout",
            format!("a dead holder's lock is free after {shortest:?} at the soonest"),
        );
    }
}

fn judge_servers(diagnosis: &mut Diagnosis, config: &ZkConfig, looks: &[Look]) {
    let (mut told, mut unknown) = (0, 0);
    for ((host, port), look) in config.servers.iter().zip(looks) {
        let at = format!("{host}:{port}");
        match &look.srvr {
            Answer::None => diagnosis.warning(
                "srvr",
                format!("{at} does not answer: the others of the URL have to do without it"),
                "see whether it runs, and whether something between us holds connections up",
            ),
            Answer::Refused => unknown += 1,
            Answer::Text(_) => told += usize::from(judge_server(diagnosis, &at, look)),
        }
    }
    if unknown > 0 {
        diagnosis.note(
            "4lw.commands.whitelist",
            format!(
                "{unknown} of the servers do not tell their state: allow srvr and conf to have it checked"
            ),
        );
    }
    if told == 1 && config.servers.len() > 1 {
        diagnosis.note("mode", "the servers of the URL do not belong to one ensemble");
    }
}

/// True for a server that stands alone.
fn judge_server(diagnosis: &mut Diagnosis, at: &str, look: &Look) -> bool {
    const SUBJECT: &str = "mode";
    let mode = look.field("Mode: ").unwrap_or("unknown");
    match mode {
        "leader" | "follower" | "observer" => diagnosis.ok(SUBJECT, format!("{at} is a {mode}")),
        "standalone" => diagnosis.note(
            SUBJECT,
            format!("{at} stands alone: while it is down there are no locks"),
        ),
        "read-only" => diagnosis.error(
            SUBJECT,
            format!("{at} is cut off from the ensemble and only reads"),
            "see to it that a majority of the servers runs",
        ),
        _ => diagnosis.warning(
            SUBJECT,
            format!("{at} serves nobody at the moment"),
            "see to it that a majority of the servers runs",
        ),
    }
    // For each address; a process has a connection for each TTL that its locks have.
    match look.field("maxClientCnxns=").and_then(|limit| limit.parse::<u32>().ok()) {
        None => {}
        Some(0) => diagnosis.ok("maxClientCnxns", format!("{at} takes any number of connections")),
        Some(limit) => diagnosis.note(
            "maxClientCnxns",
            format!(
                "{at} takes {limit} connections from one address: a process needs one, and one more for each TTL that \
                 its locks have"
            ),
        ),
    }
    mode == "standalone"
}

#[cfg(test)]
mod tests {
    use lockcore::Severity::{self, Error, Note, Ok, Warning};

    use super::*;

    fn look(mode: &str, clients: &str) -> Look {
        Look {
            srvr: Answer::Text(format!(
                "Zookeeper version: 3.9.3-abc, built on 2024\nLatency min/avg/max: 0/0.0/0\nMode: {mode}\nNode count: 5\n"
            )),
            conf: Answer::Text(format!("clientPort=2181\nmaxClientCnxns={clients}\n")),
        }
    }

    fn severity(judge: impl FnOnce(&mut Diagnosis)) -> Severity {
        let mut diagnosis = Diagnosis::new("ZooKeeper", None::<String>);
        judge(&mut diagnosis);
        diagnosis.severity()
    }

    #[test]
    fn servers() {
        let refused = || Look {
            srvr: Answer::Refused,
            conf: Answer::Refused,
        };
        for (looks, expected) in [
            (vec![look("leader", "0"), look("follower", "0")], Ok),
            (vec![look("leader", "60")], Note),
            (vec![look("standalone", "0")], Note),
            (vec![look("read-only", "0")], Error),
            (vec![look("nothing", "0")], Warning),
            (vec![look("leader", "0"), Look::default()], Warning),
            (vec![refused()], Note),
        ] {
            let config = ZkConfig::new(vec![("h".to_owned(), 2181); looks.len()]);
            let found = severity(|diagnosis| judge_servers(diagnosis, &config, &looks));
            assert_eq!(found, expected, "{looks:?}");
        }
        assert_eq!(
            look("leader", "0").field("Zookeeper version: "),
            Some("3.9.3-abc, built on 2024")
        );
    }

    #[test]
    fn sessions() {
        let bounds = |shortest, longest| Bounds {
            shortest: Duration::from_secs(shortest),
            longest: Duration::from_secs(longest),
            tick: Duration::from_secs(2),
        };
        for (shortest, longest, expected) in [(4, 40, Ok), (4, 20, Note), (20, 40, Note)] {
            let found = severity(|diagnosis| judge_sessions(diagnosis, bounds(shortest, longest)));
            assert_eq!(found, expected);
        }
    }
}
