//! Locks that nobody else has or wants, taken and freed many at a time.

use std::collections::{HashMap, HashSet};

use lockcore::driver::{Acquired, Released};
use lockcore::{AttemptId, Batch, Claim, Result};
use sqlx::mysql::MySqlRow;

use crate::claims::{granted, key};
use crate::pool::Pool;
use crate::script::{Reply, Value, fill, get};

const TAKES: &str = include_str!("sql/takes.sql");
const FREES: &str = include_str!("sql/frees.sql");

/// How many locks one script takes or frees. Its statements hold their rows to their ends.
pub(crate) const MOST: usize = 64;

/// One script for many locks.
#[derive(Debug)]
pub(crate) struct Scripted(pub(crate) Pool);

impl Batch for Scripted {
    async fn take(&self, claims: &[Claim]) -> Result<Vec<Option<Acquired>>> {
        let keys: Vec<_> = claims.iter().map(|claim| key(&claim.resource)).collect();
        let mut rows = Vec::with_capacity(claims.len());
        for (key, claim) in keys.iter().zip(claims) {
            let words = [
                ("key", Value::Bytes(key.as_bytes())),
                ("me", Value::Attempt(claim.attempt)),
                ("ttl", Value::Micros(claim.ttl)),
                ("details", Value::Bytes(claim.details.as_bytes())),
                ("spare", Value::Number(claim.spare_tokens.into())),
            ];
            let row = "(:key, @lh_now + :spare, :me, 1, 0, @lh_now + :ttl, @lh_now, :details)";
            rows.push((key, fill(row, &words)));
        }
        // In one order everywhere: scripts that have rows in common do not deadlock.
        rows.sort_unstable();
        let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
        let keys = list(keys.iter().map(|key| Value::Bytes(key.as_bytes())));
        let words = [("rows", Value::Sql(&rows.join(","))), ("keys", Value::Sql(&keys))];
        let replies = run(&self.0, fill(TAKES, &words)).await?;
        let mut tokens = HashMap::new();
        for row in rows_of(&replies, 2) {
            if let Some(attempt) = owner(row)? {
                tokens.insert(attempt, get::<u64>(row, 1)?);
            }
        }
        let answer = |claim: &Claim| {
            let token = tokens.get(&claim.attempt)?;
            Some(granted(*token, claim.ttl, claim.spare_tokens))
        };
        Ok(claims.iter().map(answer).collect())
    }

    async fn free(&self, claims: &[Claim]) -> Result<Vec<Option<Released>>> {
        let keys: Vec<_> = claims.iter().map(|claim| key(&claim.resource)).collect();
        let keys = list(keys.iter().map(|key| Value::Bytes(key.as_bytes())));
        let attempts = list(claims.iter().map(|claim| Value::Attempt(claim.attempt)));
        let words = [("keys", Value::Sql(&keys)), ("attempts", Value::Sql(&attempts))];
        let replies = run(&self.0, fill(FREES, &words)).await?;
        let mut found = HashMap::new();
        for row in rows_of(&replies, 1) {
            if let Some(attempt) = owner(row)? {
                found.insert(attempt, get::<i64>(row, 1)? == 1);
            }
        }
        let mut left = HashSet::new();
        for row in rows_of(&replies, 3) {
            left.extend(owner(row)?);
        }
        let answer = |claim: &Claim| {
            let held = found
                .get(&claim.attempt)
                .filter(|_| !left.contains(&claim.attempt))?;
            Some(match held {
                true => Released::Released,
                false => Released::NotHeld,
            })
        };
        Ok(claims.iter().map(answer).collect())
    }
}

/// What the server refuses, it refuses each of them alone, and says why.
async fn run(pool: &Pool, script: String) -> Result<Vec<Reply>> {
    Ok(pool.try_run(script).await?.unwrap_or_default())
}

fn list<'a>(values: impl Iterator<Item = Value<'a>>) -> String {
    let mut list = String::new();
    for value in values {
        if !list.is_empty() {
            list.push(',');
        }
        value.write(&mut list);
    }
    list
}

/// Those that the statement at this place gave.
fn rows_of(replies: &[Reply], place: usize) -> impl Iterator<Item = &MySqlRow> {
    replies.get(place).into_iter().flat_map(|reply| &reply.rows)
}

fn owner(row: &MySqlRow) -> Result<Option<AttemptId>> {
    let bytes: Option<&[u8]> = get(row, 0)?;
    let bits = bytes
        .and_then(|bytes| bytes.try_into().ok())
        .map(u128::from_be_bytes);
    Ok(bits.map(AttemptId::from_bits))
}
