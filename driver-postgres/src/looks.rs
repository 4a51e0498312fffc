//! The questions and orders of administration.

use lockcore::driver::{Inspection, Listed};
use lockcore::{Kind, Namespace, Result};
use sqlx::postgres::PgRow;

use crate::claims::{Shared, count, get, occupant};
use crate::pool::statement;

/// How much of a long name stands in its key unhashed.
const READABLE_BYTES: usize = 100;

impl Shared {
    pub(crate) async fn inspect(&self, key: &str) -> Result<Inspection> {
        let rows = self
            .pool
            .run(|| statement(&self.statements.inspect).bind(key))
            .await?;
        let mut holders = Vec::new();
        let mut waiters = 0;
        for row in &rows {
            if get::<Option<&str>>(row, "owner")?.is_some() {
                holders.push(occupant(row)?);
            }
            waiters = count(get(row, "waiters")?);
        }
        Ok(Inspection::new(holders, waiters))
    }

    pub(crate) async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        let (first, last) = range(namespace, Kind::Mutex, prefix);
        let rows = self
            .pool
            .run(|| statement(&self.statements.list).bind(&first).bind(&last))
            .await?;
        listed(&rows)
    }

    pub(crate) async fn ping(&self) -> Result<()> {
        self.pool.run(|| statement(&self.statements.ping)).await.map(drop)
    }
}

pub(crate) fn listed(rows: &[PgRow]) -> Result<Vec<Listed>> {
    let mut listed = Vec::with_capacity(rows.len());
    for row in rows {
        let key: &str = get(row, "key")?;
        let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
        let inspection = Inspection::new(vec![occupant(row)?], count(get(row, "waiters")?));
        listed.push(Listed::new(Kind::Mutex, name.to_owned(), inspection));
    }
    Ok(listed)
}

/// From where to where the keys of names with `prefix` lie.
pub(crate) fn range(namespace: &Namespace, kind: Kind, prefix: &str) -> (String, String) {
    let first = format!("{}/{}/{}", namespace.key(), kind.code(), plain_head(prefix));
    // Past every byte that a key may have.
    let last = format!("{first}\u{7f}");
    (first, last)
}

/// The head of `prefix` that every key of a name with this prefix begins with: what the encoding leaves as it is.
fn plain_head(prefix: &str) -> &str {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_' || *byte == b'-';
    let length = prefix.bytes().take(READABLE_BYTES).take_while(plain).count();
    &prefix[..length]
}

#[cfg(test)]
mod tests {
    use lockcore::{LockName, Resource};

    use super::*;
    use crate::claims::key;

    #[test]
    fn keys_lie_in_the_range_of_their_prefix() {
        for (prefix, rest) in [
            ("orders", "/42"),
            ("or/ders", ""),
            ("", "x"),
            ("\u{e9}a", "b"),
            ("a.", "."),
            ("..", "."),
            (&"x".repeat(600), "y"),
        ] {
            let name = LockName::new(format!("{prefix}{rest}")).unwrap();
            let resource = Resource::new(Namespace::default(), Kind::Mutex, name);
            let (first, last) = range(&Namespace::default(), Kind::Mutex, prefix);
            assert!((first..last).contains(&key(&resource)), "{prefix:?}");
        }
    }
}
