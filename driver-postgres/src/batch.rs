//! Locks that nobody else has or wants, taken and freed many at a time.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use lockcore::driver::{Acquired, Grant, Released};
use lockcore::{AttemptId, Batch, Claim, Result};
use sqlx::postgres::PgRow;

use crate::claims::{get, key, micros, token_of};
use crate::pool::{Pool, Statement, statement};

/// How many locks one statement takes or frees. The statement holds their rows to its end.
pub(crate) const MOST: usize = 64;

/// One statement for many locks.
#[derive(Debug)]
pub(crate) struct Batched {
    pub(crate) pool: Arc<Pool>,
    pub(crate) take: Arc<str>,
    pub(crate) free: Arc<str>,
    pub(crate) wake: Arc<AtomicI64>,
}

impl Batch for Batched {
    async fn take(&self, claims: &[Claim]) -> Result<Vec<Option<Acquired>>> {
        let (mut keys, mut attempts, mut ttls, mut details, mut spare) =
            (vec![], vec![], vec![], vec![], vec![]);
        for claim in claims {
            keys.push(key(&claim.resource));
            attempts.push(claim.attempt.to_hex());
            ttls.push(micros(claim.ttl));
            details.push(claim.details.as_bytes());
            spare.push(i64::from(claim.spare_tokens));
        }
        let wake = Some(self.wake.load(Ordering::Acquire)).filter(|wake| *wake != 0);
        let statement = || {
            statement(&self.take)
                .bind(&keys)
                .bind(&attempts)
                .bind(&ttls)
                .bind(&details)
                .bind(&spare)
                .bind(wake)
        };
        let taken = run(&self.pool, statement, |row| Ok(token_of(get(row, "token")?))).await?;
        let granted = |claim: &Claim| {
            let token = *taken.get(&claim.attempt)?;
            let grant = Grant::lease(token, claim.ttl).with_spare(claim.spare_tokens);
            Some(Acquired::Granted(grant))
        };
        Ok(claims.iter().map(granted).collect())
    }

    async fn free(&self, claims: &[Claim]) -> Result<Vec<Option<Released>>> {
        let keys: Vec<_> = claims.iter().map(|claim| key(&claim.resource)).collect();
        let attempts: Vec<_> = claims.iter().map(|claim| claim.attempt.to_hex()).collect();
        let statement = || statement(&self.free).bind(&keys).bind(&attempts);
        let was_held = |row: &PgRow| {
            Ok(match get(row, "was_held")? {
                true => Released::Released,
                false => Released::NotHeld,
            })
        };
        let freed = run(&self.pool, statement, was_held).await?;
        Ok(claims
            .iter()
            .map(|claim| freed.get(&claim.attempt).copied())
            .collect())
    }
}

/// What each of the attempts got. What the server refuses, it refuses each of them alone, and says why.
async fn run<'q, T>(
    pool: &Pool,
    statement: impl Fn() -> Statement<'q>,
    outcome: impl Fn(&PgRow) -> Result<T>,
) -> Result<HashMap<AttemptId, T>> {
    let rows = pool.try_run(statement).await?.unwrap_or_default();
    let mut outcomes = HashMap::with_capacity(rows.len());
    for row in &rows {
        if let Some(attempt) = AttemptId::from_hex(get(row, "owner")?) {
            outcomes.insert(attempt, outcome(row)?);
        }
    }
    Ok(outcomes)
}
