//! What people ask: who holds a lock, and which locks there are.

use std::collections::HashMap;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, GetOptions, SortOrder, SortTarget, Txn, TxnOp};
use futures_util::future::join_all;
use lockcore::driver::{Inspection, Listed, Occupant};
use lockcore::{Namespace, Result};

use crate::connection::Link;
use crate::keys::{self, LockKeys, State};
use crate::requests::Seen;
use crate::session;

/// How many keys are read for one page of a list.
const PAGE: i64 = 500;

/// For how many leases the server is asked what is left of them.
const LEASES: usize = 100;

async fn oldest(link: &Link, keys: &LockKeys) -> Result<(Option<Seen>, u64)> {
    let options = GetOptions::new()
        .with_range(keys.end())
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(1);
    let found = link.call(link.kv().get(keys.start(), Some(options))).await?;
    let count = u64::try_from(found.count()).unwrap_or(0);
    Ok((found.kvs().first().map(Seen::from), count))
}

pub(crate) async fn inspect(link: &Link, keys: &LockKeys) -> Result<Inspection> {
    let (oldest, count) = oldest(link, keys).await?;
    let Some(holder) = oldest.filter(|oldest| oldest.state() == State::Holds) else {
        return Ok(Inspection::new(Vec::new(), count));
    };
    // Other users' keys on the same lease may forbid the question.
    let left = session::remaining(link, holder.lease).await.ok();
    let occupant = keys::occupant(&holder.value, holder.created).remaining(left);
    Ok(Inspection::new(vec![occupant], count.saturating_sub(1)))
}

pub(crate) async fn list(link: &Link, namespace: &Namespace) -> Result<Vec<Listed>> {
    let (mut from, end) = keys::namespace(namespace);
    let mut locks: Vec<(Listed, i64)> = Vec::new();
    let mut current: Option<(LockKeys, Lock)> = None;
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE);
        let page = link.call(link.kv().get(from, Some(options))).await?;
        for key in page.kvs() {
            let Some(parsed) = keys::parse(key.key()) else {
                continue;
            };
            let same = current.as_ref().is_some_and(|(keys, _)| *keys == parsed.keys);
            if !same {
                locks.extend(current.take().and_then(|(_, lock)| lock.listed()));
            }
            let (_, lock) = current.get_or_insert_with(|| {
                let lock = Lock {
                    kind: parsed.kind,
                    key: parsed.name.to_owned(),
                    holder: None,
                    waiters: 0,
                };
                (parsed.keys, lock)
            });
            lock.add(Seen::from(key));
        }
        match page.kvs().last().filter(|_| page.more()) {
            Some(last) => from = format!("{}\0", String::from_utf8_lossy(last.key())),
            None => break,
        }
    }
    locks.extend(current.and_then(|(_, lock)| lock.listed()));
    let left = remaining(link, locks.iter().map(|(_, lease)| *lease)).await;
    for (lock, lease) in &mut locks {
        for holder in &mut lock.inspection.holders {
            holder.remaining = left.get(lease).copied();
        }
    }
    Ok(locks.into_iter().map(|(lock, _)| lock).collect())
}

/// A lock whose keys are being read, in no order of age.
struct Lock {
    kind: lockcore::Kind,
    key: String,
    holder: Option<Seen>,
    waiters: u64,
}

impl Lock {
    fn add(&mut self, seen: Seen) {
        match seen.state() {
            State::Waits => self.waiters += 1,
            State::Holds => self.holder = Some(seen),
        }
    }

    /// Held locks only, with the holder's lease.
    fn listed(self) -> Option<(Listed, i64)> {
        let holder = self.holder?;
        let holders: Vec<Occupant> = vec![keys::occupant(&holder.value, holder.created)];
        let inspection = Inspection::new(holders, self.waiters);
        Some((Listed::new(self.kind, self.key, inspection), holder.lease))
    }
}

async fn remaining(link: &Link, leases: impl Iterator<Item = i64>) -> HashMap<i64, Duration> {
    let mut leases: Vec<_> = leases.collect();
    leases.sort_unstable();
    leases.dedup();
    leases.truncate(LEASES);
    let asked = leases.into_iter().map(|lease| async move {
        let left = session::remaining(link, lease).await.ok()?;
        Some((lease, left))
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// Deletes the holder's key; its watchers are told by the server.
pub(crate) async fn force_release(link: &Link, keys: &LockKeys) -> Result<bool> {
    loop {
        let (oldest, _) = oldest(link, keys).await?;
        let Some(holder) = oldest.filter(|oldest| oldest.state() == State::Holds) else {
            return Ok(false);
        };
        let unchanged = Compare::mod_revision(holder.key.clone(), CompareOp::Equal, holder.modified);
        let removal = Txn::new()
            .when([unchanged])
            .and_then([TxnOp::delete(holder.key, None)]);
        // Otherwise somebody else holds it by now.
        if link.call(link.kv().txn(removal)).await?.succeeded() {
            return Ok(true);
        }
    }
}
