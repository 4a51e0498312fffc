//! Locks that nobody else has or wants, taken and freed many at a time.

use std::sync::Arc;

use lockcore::driver::{Acquired, Released};
use lockcore::{Batch, Claim, ErrorKind, Result};
use redis::{Cmd, Value};

use crate::calls::Calls;
use crate::driver::millis;
use crate::keys::Keys;
use crate::reply;
use crate::scripts::Program;

/// How many go out one by one before there are batches.
pub(crate) const ALONE: usize = 2;
/// How many locks one script takes or frees: it holds up the server's other clients for less than half a millisecond.
pub(crate) const MOST: usize = 64;

/// One script for many locks.
#[derive(Debug)]
pub(crate) struct Scripted(pub(crate) Arc<Calls>);

impl Batch for Scripted {
    async fn take(&self, claims: &[Claim]) -> Result<Vec<Option<Acquired>>> {
        let arguments = |call: &mut Cmd| {
            call.arg(3 * claims.len());
            for claim in claims {
                Keys::new(&claim.resource).add(call, "LFQ");
            }
            call.arg(&*self.0.channel);
            for claim in claims {
                call.arg(claim.attempt.to_hex())
                    .arg(millis(claim.ttl))
                    .arg(&*claim.details)
                    .arg(claim.spare_tokens);
            }
        };
        let reply = run(&self.0, &self.0.scripts.takes, arguments).await?;
        let answer = |(at, claim)| reply::taken(&reply, at, claim);
        Ok(claims.iter().enumerate().map(answer).collect())
    }

    async fn free(&self, claims: &[Claim]) -> Result<Vec<Option<Released>>> {
        let arguments = |call: &mut Cmd| {
            call.arg(2 * claims.len());
            for claim in claims {
                Keys::new(&claim.resource).add(call, "LF");
            }
            for claim in claims {
                call.arg(claim.attempt.to_hex());
            }
        };
        let reply = run(&self.0, &self.0.scripts.frees, arguments).await?;
        let answer = |at| (reply::number(&reply, at) == Some(1)).then_some(Released::Released);
        Ok((0..claims.len()).map(answer).collect())
    }
}

/// What the server refuses, it refuses each of them alone, and says why.
async fn run(calls: &Calls, program: &Program, arguments: impl Fn(&mut Cmd) + Send + Sync) -> Result<Value> {
    let link = calls.link().await?;
    match calls.run(&link, program, arguments).await {
        Err(error) if error.kind() != ErrorKind::Unavailable => Ok(Value::Nil),
        reply => reply,
    }
}
