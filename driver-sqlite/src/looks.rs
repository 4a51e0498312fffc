//! Renewals, and the questions and orders of administration.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use lockcore::driver::{Inspection, Lease, Listed, Released, Renewal};
use lockcore::{AttemptId, Kind, Namespace, Result};

use crate::claims::{Shared, get, key, nanos, occupant};
use crate::database::{Database, Value};
use crate::wake::Message;

const RENEW: &str = include_str!("sql/renew.sql");
const INSPECT: &str = include_str!("sql/inspect.sql");
const LIST: &str = include_str!("sql/list.sql");
const PING: &str = "SELECT layout FROM leasehold_meta WHERE $1";

/// How much of a long name stands in its key unhashed.
const READABLE_BYTES: usize = 100;

pub(crate) async fn renew(database: &Arc<Database>, leases: &[Lease]) -> Result<Vec<Renewal>> {
    // Keys and attempts are plain ASCII: nothing has to be escaped.
    let mut batch = String::with_capacity(leases.len() * 96 + 2);
    for lease in leases {
        let comma = if batch.is_empty() { "[" } else { "," };
        let (key, attempt) = (key(&lease.claim.resource), lease.claim.attempt.to_hex());
        let (token, ttl) = (lease.token.get(), nanos(lease.ttl));
        // Writing to a string does not fail.
        write!(batch, "{comma}[\"{key}\",\"{attempt}\",{token},{ttl}]").ok();
    }
    if batch.is_empty() {
        return Ok(Vec::new());
    }
    batch.push(']');
    let answer = database.write(RENEW, &[batch.into()]).await?;
    let mut renewed = HashSet::with_capacity(answer.rows.len());
    for row in &answer.rows {
        renewed.insert(AttemptId::from_hex(get(row, 0)?));
    }
    let outcome = |lease: &Lease| {
        if renewed.contains(&Some(lease.claim.attempt)) {
            Renewal::Renewed
        } else {
            Renewal::NotHeld
        }
    };
    Ok(leases.iter().map(outcome).collect())
}

pub(crate) async fn inspect(database: &Database, key: &Arc<str>) -> Result<Inspection> {
    let answer = database.read(INSPECT, &[key.into()]).await?;
    let mut holders = Vec::new();
    let mut waiters = 0;
    for row in &answer.rows {
        if get::<Option<&str>>(row, 4)?.is_some() {
            holders.push(occupant(row, answer.now, [0, 1, 2, 3])?);
        }
        waiters = count(get(row, 6)?);
    }
    Ok(Inspection::new(holders, waiters))
}

pub(crate) async fn list(database: &Database, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
    let mut listed = Vec::new();
    let readable = plain_head(prefix);
    for kind in Kind::ALL {
        let first = format!("{}/{}/{readable}", namespace.key(), kind.code());
        // Past every byte that a key may have.
        let last = format!("{first}\u{7f}");
        let answer = database.read(LIST, &[first.into(), last.into()]).await?;
        for row in &answer.rows {
            let key: &str = get(row, 0)?;
            let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
            let holder = occupant(row, answer.now, [1, 2, 3, 4])?;
            let inspection = Inspection::new(vec![holder], count(get(row, 5)?));
            listed.push(Listed::new(kind, name.to_owned(), inspection));
        }
    }
    Ok(listed)
}

/// The head of `prefix` that every key of a name with this prefix begins with: what the encoding leaves as it is.
fn plain_head(prefix: &str) -> &str {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    let length = prefix.bytes().take(READABLE_BYTES).take_while(plain).count();
    &prefix[..length]
}

pub(crate) async fn force_release(shared: &Shared, key: &Arc<str>, window: Duration) -> Result<bool> {
    loop {
        let answer = shared.database.read(INSPECT, &[Value::from(key)]).await?;
        let Some(row) = answer.rows.first() else {
            return Ok(false);
        };
        let Some(victim) = get::<Option<String>>(row, 4)? else {
            return Ok(false);
        };
        let wake: Option<String> = get(row, 5)?;
        // Another one may hold it by now: that is the one to take it from.
        if shared.give_up(key, &victim, window).await? == Released::Released {
            if let Some(victim) = AttemptId::from_hex(&victim) {
                shared.wake.send(wake.as_deref(), Message::Look(victim));
            }
            return Ok(true);
        }
    }
}

pub(crate) async fn ping(database: &Arc<Database>) -> Result<()> {
    database.write(PING, &[]).await.map(drop)
}

fn count(rows: i64) -> u64 {
    u64::try_from(rows).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use lockcore::{LockName, Resource};

    use super::*;

    #[test]
    fn keys_begin_with_the_plain_head_of_a_prefix() {
        for (prefix, rest) in [
            ("orders", "/42"),
            ("or/ders", ""),
            ("", "x"),
            ("\u{e9}a", "b"),
            ("a.", "."),
            ("..", "."),
        ] {
            let name = LockName::new(format!("{prefix}{rest}")).unwrap();
            let resource = Resource::new(Namespace::default(), Kind::Mutex, name);
            assert!(resource.key().starts_with(plain_head(prefix)), "{prefix:?}");
        }
        let long = "x".repeat(600);
        let name = LockName::new(format!("{long}y")).unwrap();
        let resource = Resource::new(Namespace::default(), Kind::Mutex, name);
        assert!(resource.key().starts_with(plain_head(&long)));
    }
}
