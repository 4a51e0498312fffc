//! Rows that nobody needs any more are removed a few at a time, beside the requests.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use lockcore::Result;

use crate::pool::Pool;
use crate::script::{Value, fill, get, hex};

/// After so many writes there is a look at a few rows.
const WRITES_PER_SWEEP: u32 = 256;

/// Rows from a name on, each with whether it was without use for a day. A later grant starts from the clock, which is past
/// the token that goes with the row.
const WINDOW: &str = "SELECT name, expires <= :now AND token < :now - 86400000000 FROM leasehold_lock \
     WHERE name > :after ORDER BY name LIMIT 256; \
     SELECT attempt FROM leasehold_waiter WHERE deadline < :now - 86400000000 LIMIT 256";

/// The end of a statement that removes rows of locks: nothing has happened to them since.
const STILL_IDLE: &str = ") AND expires <= :now AND token < :now - 86400000000 AND (queued = 0 OR NOT EXISTS (\
     SELECT 1 FROM leasehold_waiter AS waiter WHERE waiter.name = leasehold_lock.name))";

const STILL_DEAD: &str = ") AND deadline < :now - 86400000000";

/// Where the next look begins.
#[derive(Debug, Default)]
pub(crate) struct Sweep {
    writes: AtomicU32,
    /// `None` before the first one: at the name at hand, so that processes do not all begin at the same row.
    after: Mutex<Option<Vec<u8>>>,
}

impl Sweep {
    /// Counts a write.
    pub(crate) fn is_due(&self) -> bool {
        (self.writes.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(WRITES_PER_SWEEP)
    }

    pub(crate) async fn run(&self, pool: &Pool, key: &str) {
        // What fails here is done by a later one.
        self.try_run(pool, key).await.ok();
    }

    async fn try_run(&self, pool: &Pool, key: &str) -> Result<()> {
        let after = self.after().clone().unwrap_or_else(|| key.as_bytes().to_vec());
        let replies = pool.run(fill(WINDOW, &[("after", Value::Bytes(&after))])).await?;
        let (mut last, mut idle) = (Vec::new(), Vec::new());
        let mut replies = replies.into_iter();
        for row in replies.next().iter().flat_map(|reply| &reply.rows) {
            last = get::<&[u8]>(row, 0)?.to_vec();
            if get::<i64>(row, 1)? == 1 {
                idle.push(last.clone());
            }
        }
        // At the end of the table it goes back to the beginning.
        *self.after() = Some(last);
        let mut dead = Vec::new();
        for row in replies.next().iter().flat_map(|reply| &reply.rows) {
            dead.push(get::<&[u8]>(row, 0)?.to_vec());
        }
        for (begin, rows, end) in [
            ("DELETE FROM leasehold_lock WHERE name IN (", idle, STILL_IDLE),
            (
                "DELETE FROM leasehold_waiter WHERE attempt IN (",
                dead,
                STILL_DEAD,
            ),
        ] {
            if rows.is_empty() {
                continue;
            }
            let mut script = begin.to_owned();
            for (at, row) in rows.iter().enumerate() {
                write!(script, "{}", if at == 0 { "" } else { ", " }).unwrap_or_default();
                hex(row, &mut script);
            }
            script.push_str(&fill(end, &[]));
            pool.run(script).await?;
        }
        Ok(())
    }

    fn after(&self) -> std::sync::MutexGuard<'_, Option<Vec<u8>>> {
        self.after.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
