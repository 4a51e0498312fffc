//! Renewals, and the questions and orders of administration.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::Arc;

use lockcore::driver::{Inspection, Lease, Listed, Released, Renewal};
use lockcore::{AttemptId, DEFAULT_CLAIM_WINDOW, Kind, Namespace, Resource, Result};

use crate::claims::{Leases, key, occupant};
use crate::pool::Pool;
use crate::script::{NOW, Value, fill, get, hex, micros, text};

const INSPECT: &str = include_str!("sql/inspect.sql");
const LIST: &str = include_str!("sql/list.sql");

/// How much of a long name stands in its key unhashed.
const READABLE_BYTES: usize = 100;

/// The rows of `leases`, in the order of the table, so that two renewals never wait for each other in a circle.
struct Rows {
    names: String,
    rows: String,
    ends: String,
}

impl Rows {
    fn of(leases: &[Lease]) -> Self {
        let mut sorted: Vec<_> = leases
            .iter()
            .map(|lease| (key(&lease.claim.resource), lease))
            .collect();
        sorted.sort_by(|a, b| a.0.cmp(&b.0));
        let (mut names, mut rows) = (String::new(), String::new());
        let mut owners: BTreeMap<u64, String> = BTreeMap::new();
        for (at, (key, lease)) in sorted.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            names.push_str(comma);
            hex(key.as_bytes(), &mut names);
            write!(rows, "{comma}(").unwrap_or_default();
            hex(key.as_bytes(), &mut rows);
            let (owner, token) = (lease.claim.attempt.to_hex(), lease.token);
            write!(rows, ",x'{owner}',{token})").unwrap_or_default();
            let owners = owners.entry(micros(lease.ttl)).or_default();
            let comma = if owners.is_empty() { "" } else { "," };
            write!(owners, "{comma}x'{owner}'").unwrap_or_default();
        }
        let ends = match owners.len() {
            0 | 1 => owners.keys().next().copied().unwrap_or(0).to_string(),
            _ => {
                let mut ends = "CASE".to_owned();
                for (ttl, owners) in &owners {
                    write!(ends, " WHEN owner IN ({owners}) THEN {ttl}").unwrap_or_default();
                }
                ends + " ELSE 0 END"
            }
        };
        Self { names, rows, ends }
    }

    /// Those that are held now.
    fn held(&self) -> String {
        let Self { names, rows, .. } = self;
        format!("name IN ({names}) AND (name, owner, token) IN ({rows}) AND held = 1 AND expires > {NOW}")
    }
}

/// One statement, and another one when some were lost.
pub(crate) async fn renew(pool: &Pool, leases: &[Lease]) -> Result<Vec<Renewal>> {
    if leases.is_empty() {
        return Ok(Vec::new());
    }
    let rows = Rows::of(leases);
    let script = format!(
        "UPDATE leasehold_lock SET expires = {NOW} + {} WHERE {}",
        rows.ends,
        rows.held()
    );
    let replies = pool.run(script).await?;
    let matched: u64 = replies.iter().map(|reply| reply.matched).sum();
    if usize::try_from(matched) == Ok(leases.len()) {
        return Ok(vec![Renewal::Renewed; leases.len()]);
    }
    // What is held still was held then, and renewed.
    let script = format!("SELECT HEX(owner) FROM leasehold_lock WHERE {}", rows.held());
    let replies = pool.run(script).await?;
    let mut held = HashSet::new();
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        held.extend(text(row, 0)?.as_deref().and_then(AttemptId::from_hex));
    }
    let renewal = |lease: &Lease| match held.contains(&lease.claim.attempt) {
        true => Renewal::Renewed,
        false => Renewal::NotHeld,
    };
    Ok(leases.iter().map(renewal).collect())
}

pub(crate) async fn inspect(pool: &Pool, resource: &Resource) -> Result<Inspection> {
    Ok(look(pool, &key(resource)).await?.0)
}

/// With the attempt that holds it.
async fn look(pool: &Pool, key: &str) -> Result<(Inspection, Option<AttemptId>)> {
    let replies = pool
        .run(fill(INSPECT, &[("key", Value::Bytes(key.as_bytes()))]))
        .await?;
    let Some(row) = replies.first().and_then(|reply| reply.rows.first()) else {
        return Ok((Inspection::default(), None));
    };
    let owner = text(row, 4)?.as_deref().and_then(AttemptId::from_hex);
    let holders = match owner {
        Some(_) => vec![occupant(row, [0, 1, 2, 3])?],
        None => Vec::new(),
    };
    Ok((Inspection::new(holders, get(row, 5)?), owner))
}

pub(crate) async fn list(pool: &Pool, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
    let readable = plain_head(prefix);
    let kind = Kind::Mutex;
    let first = format!("{}/{}/{readable}", namespace.key(), kind.code());
    // Past every byte that a key may have.
    let last = format!("{first}\u{7f}");
    let values = [
        ("first", Value::Bytes(first.as_bytes())),
        ("last", Value::Bytes(last.as_bytes())),
    ];
    let replies = pool.run(fill(LIST, &values)).await?;
    let mut listed = Vec::new();
    for row in replies.iter().flat_map(|reply| &reply.rows) {
        let key = text(row, 4)?.unwrap_or_default();
        let name = key.rsplit_once('/').map_or(key.as_str(), |(_, name)| name);
        let inspection = Inspection::new(vec![occupant(row, [0, 1, 2, 3])?], get(row, 5)?);
        listed.push(Listed::new(kind, name.to_owned(), inspection));
    }
    Ok(listed)
}

/// The head of `prefix` that every key of a name with this prefix begins with: what the encoding leaves as it is.
fn plain_head(prefix: &str) -> &str {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    let length = prefix.bytes().take(READABLE_BYTES).take_while(plain).count();
    &prefix[..length]
}

pub(crate) async fn force_release(leases: &Arc<Leases>, resource: &Resource) -> Result<bool> {
    let key = key(resource);
    loop {
        let (_, Some(victim)) = look(&leases.pool, &key).await? else {
            return Ok(false);
        };
        // Another one may hold it by now: that is the one to take it from. Nobody told the window of those who wait.
        let released = leases.give_up(&key, Some(victim), DEFAULT_CLAIM_WINDOW).await?;
        if released == Released::Released {
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lockcore::{Claim, LockName, Token};

    use super::*;

    fn lease(name: &str, ttl: u64) -> Lease {
        let name = LockName::new(name).unwrap();
        let resource = Resource::new(Namespace::default(), Kind::Mutex, name);
        let claim = Claim::new(
            resource,
            AttemptId::from_bits(ttl.into()),
            Duration::from_secs(30),
        );
        Lease::new(claim.into(), Token::new(ttl), Duration::from_micros(ttl))
    }

    #[test]
    fn rows_are_sorted_and_ttls_are_shared() {
        let rows = Rows::of(&[lease("b", 7), lease("a", 7)]);
        assert_eq!(rows.ends, "7");
        let (a, b) = (rows.names.find("2f61'"), rows.names.find("2f62'"));
        assert!(a.is_some() && a < b, "{}", rows.names);
        let rows = Rows::of(&[lease("b", 7), lease("a", 8)]);
        assert!(
            rows.ends.contains("THEN 7 ") && rows.ends.contains("THEN 8 "),
            "{}",
            rows.ends
        );
    }

    #[test]
    fn keys_begin_with_the_plain_head_of_a_prefix() {
        for (prefix, rest) in [
            ("orders", "/42"),
            ("or/ders", ""),
            ("", "x"),
            ("\u{e9}a", "b"),
            ("a.", "."),
        ] {
            let name = LockName::new(format!("{prefix}{rest}")).unwrap();
            let resource = Resource::new(Namespace::default(), Kind::Mutex, name);
            assert!(resource.key().starts_with(plain_head(prefix)), "{prefix:?}");
        }
    }
}
