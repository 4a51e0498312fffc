//! The transactions, and what their answers say.

use std::ops::Range;

use etcd_client::{
    Compare, CompareOp, GetOptions, GetResponse, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, TxnResponse,
};
use lockcore::{Error, ErrorKind, Result};

use crate::keys::{self, LockKeys, State};
use crate::queue::{Named, Older, STAND_BY};

/// A key of a lock, as an answer showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) key: Vec<u8>,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    pub(crate) lease: i64,
    pub(crate) value: Vec<u8>,
}

impl Seen {
    pub(crate) fn state(&self) -> State {
        keys::state(&self.value)
    }
}

impl From<&KeyValue> for Seen {
    fn from(found: &KeyValue) -> Self {
        Self {
            key: found.key().to_vec(),
            created: found.create_revision(),
            modified: found.mod_revision(),
            lease: found.lease(),
            value: found.value().to_vec(),
        }
    }
}

/// What an answer showed of a lock that could not be taken.
#[derive(Clone, Debug)]
pub(crate) struct Look {
    /// The store's revision of the answer.
    pub(crate) revision: i64,
    /// The key that was asked for, if it is there.
    pub(crate) mine: Option<Seen>,
    /// The oldest key of the lock, with its value.
    pub(crate) oldest: Option<Seen>,
    /// How many keys the lock has, the asker's included.
    pub(crate) count: usize,
    /// The oldest of those before the asker's key, without their values, and how many there are. Empty where it was not
    /// asked for.
    pub(crate) before: Vec<Seen>,
    pub(crate) older: Older,
    /// Who is older: the oldest of them, or for a key that was just created the youngest.
    pub(crate) named: Named,
}

/// The answer to a request for the lock.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is held now, by a key that was created or claimed at this revision.
    Taken {
        revision: i64,
        /// Nobody else has a key.
        alone: bool,
    },
    /// A key that waits was created at the revision of the look.
    Queued(Look),
    /// Nothing was written.
    Refused(Look),
}

/// What goes into a key: its value, and the lease that it hangs on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored<'a> {
    pub(crate) value: &'a str,
    pub(crate) lease: i64,
}

fn put(key: &str, stored: Stored<'_>) -> TxnOp {
    TxnOp::put(
        key,
        stored.value,
        Some(PutOptions::new().with_lease(stored.lease)),
    )
}

fn oldest(keys: &LockKeys) -> TxnOp {
    let options = GetOptions::new()
        .with_range(keys.end())
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(1);
    TxnOp::get(keys.start(), Some(options))
}

/// The last to come: the asker, and those right before it.
fn latest(keys: &LockKeys) -> TxnOp {
    let options = GetOptions::new()
        .with_range(keys.end())
        .with_sort(SortTarget::Create, SortOrder::Descend)
        .with_limit(1 + NAMED)
        .with_keys_only();
    TxnOp::get(keys.start(), Some(options))
}

/// How many of the older keys an answer names: those that the asker may find dead, and whose end concerns it.
#[expect(clippy::cast_possible_wrap, reason = "it is small")]
const NAMED: i64 = STAND_BY as i64;

fn before(keys: &LockKeys, created: i64) -> TxnOp {
    let options = GetOptions::new()
        .with_range(keys.end())
        .with_max_create_revision(created - 1)
        .with_sort(SortTarget::Create, SortOrder::Ascend)
        .with_limit(NAMED)
        .with_keys_only();
    TxnOp::get(keys.start(), Some(options))
}

/// How many of the younger keys an answer names, to count those that are older.
const YOUNGER: i64 = 1024;

fn behind(keys: &LockKeys, created: i64) -> TxnOp {
    let options = GetOptions::new()
        .with_range(keys.end())
        .with_min_create_revision(created + 1)
        .with_limit(YOUNGER)
        .with_keys_only();
    TxnOp::get(keys.start(), Some(options))
}

fn nobody(keys: &LockKeys) -> Compare {
    Compare::create_revision(keys.start(), CompareOp::Equal, 0).with_range(keys.end())
}

fn there(key: &str, created: i64) -> Compare {
    Compare::create_revision(key, CompareOp::Equal, created)
}

/// Takes the lock if nobody has a key.
pub(crate) fn try_take(keys: &LockKeys, mine: &str, holds: Stored<'_>) -> Txn {
    Txn::new()
        .when([nobody(keys)])
        .and_then([put(mine, holds)])
        .or_else([TxnOp::get(mine, None), oldest(keys)])
}

/// Takes the lock if nobody has a key; else stands in the queue, unless it does already.
pub(crate) fn enqueue(keys: &LockKeys, mine: &str, holds: Stored<'_>, waits: Stored<'_>) -> Txn {
    let stand = Txn::new()
        .when([there(mine, 0)])
        .and_then([
            put(mine, waits),
            TxnOp::get(mine, None),
            oldest(keys),
            latest(keys),
        ])
        .or_else([TxnOp::get(mine, None), oldest(keys)]);
    Txn::new()
        .when([nobody(keys)])
        .and_then([put(mine, holds)])
        .or_else([TxnOp::txn(stand)])
}

/// How many keys there are, and nothing of them.
fn how_many(keys: &LockKeys) -> TxnOp {
    let options = GetOptions::new().with_range(keys.end()).with_count_only();
    TxnOp::get(keys.start(), Some(options))
}

/// Claims the turn of the key that was created at `created`, if no key is older. Without anything to store it only looks.
/// With `count`, it tells whether somebody is behind.
pub(crate) fn claim(
    keys: &LockKeys,
    mine: &str,
    created: i64,
    holds: Option<Stored<'_>>,
    count: bool,
) -> Txn {
    let first =
        Compare::create_revision(keys.start(), CompareOp::Greater, created - 1).with_range(keys.end());
    let count = count.then(|| how_many(keys));
    let claimed: Vec<_> = holds
        .map(|holds| put(mine, holds))
        .into_iter()
        .chain(count)
        .collect();
    Txn::new()
        .when([there(mine, created), first])
        .and_then(claimed)
        .or_else([
            TxnOp::get(mine, None),
            oldest(keys),
            before(keys, created),
            behind(keys, created),
        ])
}

/// Removes `dead` if they are as they were seen and the asker's own key is there; with something to store, claims the
/// turn with it.
pub(crate) fn remove(dead: &[Seen], mine: Option<(&str, i64)>, holds: Option<Stored<'_>>) -> Txn {
    let mut unchanged: Vec<_> = dead
        .iter()
        .map(|seen| Compare::mod_revision(seen.key.clone(), CompareOp::Equal, seen.modified))
        .collect();
    unchanged.extend(mine.map(|(mine, created)| there(mine, created)));
    let mut gone: Vec<_> = dead
        .iter()
        .map(|seen| TxnOp::delete(seen.key.clone(), None))
        .collect();
    if let (Some((mine, _)), Some(holds)) = (mine, holds) {
        gone.push(put(mine, holds));
    }
    Txn::new().when(unchanged).and_then(gone)
}

/// Writes a key anew that is as it was seen: hangs it on another lease.
pub(crate) fn rewrite(seen: &Seen, stored: Stored<'_>) -> Txn {
    let key = String::from_utf8_lossy(&seen.key);
    let unchanged = Compare::mod_revision(seen.key.clone(), CompareOp::Equal, seen.modified);
    Txn::new().when([unchanged]).and_then([put(&key, stored)])
}

/// What became of [`try_take`], [`enqueue`] or [`claim`].
pub(crate) fn answer(response: &TxnResponse) -> Result<Answer> {
    let revision = revision(response)?;
    if response.succeeded() {
        return Ok(Answer::Taken {
            revision,
            alone: response.op_responses().iter().all(is_alone),
        });
    }
    let operations = response.op_responses();
    match operations.as_slice() {
        [TxnOpResponse::Txn(stand)] => {
            let inner = stand.op_responses();
            let look = look(&inner, revision)?;
            Ok(match stand.succeeded() {
                true => Answer::Queued(look),
                false => Answer::Refused(look),
            })
        }
        operations => Ok(Answer::Refused(look(operations, revision)?)),
    }
}

/// Does this part of a grant's answer say so? Whoever creates the first key is alone without asking.
fn is_alone(part: &TxnOpResponse) -> bool {
    match part {
        TxnOpResponse::Get(get) => get.count() <= 1,
        _ => true,
    }
}

pub(crate) fn revision(response: &TxnResponse) -> Result<i64> {
    response
        .header()
        .map(etcd_client::ResponseHeader::revision)
        .ok_or_else(broken)
}

fn look(operations: &[TxnOpResponse], revision: i64) -> Result<Look> {
    let mut gets = operations.iter().filter_map(|operation| match operation {
        TxnOpResponse::Get(get) => Some(get),
        _ => None,
    });
    let (mine, oldest) = (gets.next().ok_or_else(broken)?, gets.next().ok_or_else(broken)?);
    let first = |get: &GetResponse| get.kvs().first().map(Seen::from);
    let count = usize::try_from(oldest.count()).unwrap_or(0);
    let mine = first(mine);
    let everybody_else = Older::Exactly(count.saturating_sub(1));
    let (before, older, named) = match (gets.next(), gets.next()) {
        (Some(before), Some(behind)) => {
            let named: Vec<_> = before.kvs().iter().map(Seen::from).collect();
            let younger = Some(behind.kvs().len()).filter(|_| !behind.more());
            let older = match (before.more(), younger) {
                (false, _) => Older::Exactly(named.len()),
                (true, Some(younger)) => Older::Exactly(count.saturating_sub(1 + younger)),
                (true, None) => Older::AtLeast(named.len()),
            };
            let names = names(before, mine.as_ref(), |last| 0..last + 1);
            (named, older, names)
        }
        (Some(latest), None) => {
            let names = names(latest, mine.as_ref(), |last| last..i64::MAX);
            (Vec::new(), everybody_else, names)
        }
        (None, _) => (Vec::new(), everybody_else, Named::default()),
    };
    Ok(Look {
        revision,
        mine,
        oldest: first(oldest),
        count,
        before,
        older,
        named,
    })
}

/// Who of the keys of an answer is older than `mine`. Where the answer has `more`, it ends with the last of them.
fn names(found: &GetResponse, mine: Option<&Seen>, all: impl Fn(i64) -> Range<i64>) -> Named {
    let own = mine.map_or(i64::MAX, |mine| mine.created);
    let keys: Vec<_> = found
        .kvs()
        .iter()
        .filter(|key| key.create_revision() < own)
        .filter_map(|key| Some((keys::parse(key.key())?.attempt, key.create_revision())))
        .collect();
    let all = match keys.last() {
        Some((_, last)) if found.more() => all(*last),
        _ => 0..own,
    };
    Named {
        keys,
        all: all.start..all.end.min(own),
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Internal, "the server's answer lacks a part")
}
