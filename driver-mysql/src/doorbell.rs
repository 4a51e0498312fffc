//! How this process is told that its waiters' turn has come: one connection that is blocked in a query, and is woken by
//! whoever kills that query.
//!
//! The connection holds a `GET_LOCK` on a random name, which stands in the rows of this process's waiters. From the name the
//! server tells which connection to wake, or that there is none: then the process is dead, and its waiters with it.
//!
//! What blocks it is the `GET_LOCK` of a second connection, which does nothing else. `SLEEP` would do without one, but in
//! MariaDB a kill that meets the end of a sleep makes every other sleep and kill on the server hang for two seconds.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{AttemptId, Connect, DriverContext, Error, ErrorKind, Instant, Result};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::connection::{Link, Opener};
use crate::error::{classify, is_interrupted, silent};
use crate::script::{Reply, Value, answer, fill, get, text};

const BELL: &str = include_str!("sql/bell.sql");
const CALLS: &str = include_str!("sql/calls.sql");

/// How long one query blocks. It is short, because it keeps those waiting who want to change or drop the table.
const NAP: Duration = Duration::from_secs(2);
/// While nobody waits here, the connection is asked this often whether it is alive.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// The server ends a doorbell whose process was silent for so long: it is dead, or its network is.
const DEAF: Duration = Duration::from_secs(60);
/// When a query is answered so much later than it should be, this process did not run.
const LATE: Duration = Duration::from_secs(1);
/// For how long a call is looked at. Longer than a commit takes: calls become visible in another order than they are
/// dated.
const MEMORY: Duration = Duration::from_secs(5);

/// What of the doorbell the rest of the driver sees.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    name: Mutex<Option<Arc<str>>>,
    /// Somebody waits now.
    waiting: Notify,
}

impl Bell {
    /// The name to write into a waiter's row; `None` while there is no doorbell.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        self.name.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Somebody is about to stand in a queue.
    pub(crate) fn listen(&self) {
        self.waiting.notify_one();
    }

    fn set(&self, name: Option<Arc<str>>) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = name;
    }
}

/// A doorbell's connection.
#[derive(Clone, Debug)]
pub(crate) struct Hung {
    pub(crate) name: Arc<str>,
    /// The server's number for its connection.
    pub(crate) id: u64,
    ended: CancellationToken,
}

/// Hangs up doorbells.
#[derive(Debug)]
pub(crate) struct Hanger {
    pub(crate) opener: Arc<Opener>,
    pub(crate) context: DriverContext,
    pub(crate) bell: Arc<Bell>,
}

#[async_trait]
impl Connect for Hanger {
    type Connection = Hung;

    async fn connect(&self) -> Result<Hung> {
        let name: Arc<str> = format!("leasehold-{:032x}", self.context.env.random_u128()?).into();
        let keeper = self.open(&format!("{name}-k")).await?;
        let link = self.open(&name).await?;
        let hung = Hung {
            name: Arc::clone(&name),
            id: link.id,
            ended: CancellationToken::new(),
        };
        self.bell.set(Some(Arc::clone(&name)));
        let listener = Listener {
            name,
            bell: Arc::clone(&self.bell),
            context: self.context.clone(),
            patience: self.opener.config.patience,
            keeper,
            kept: self.context.env.now(),
            told: HashSet::new(),
        };
        let ended = hung.ended.clone();
        self.context.env.spawn(async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                error = listener.listen(link) => {
                    tracing::debug!(%error, "the doorbell broke");
                    ended.cancel();
                }
            }
        });
        Ok(hung)
    }

    async fn broken(&self, hung: &Hung) {
        hung.ended.cancelled().await;
        self.bell.set(None);
    }

    async fn disconnect(&self, hung: Hung) {
        hung.ended.cancel();
    }
}

impl Hanger {
    /// A connection that holds the lock `name`.
    async fn open(&self, name: &str) -> Result<Link> {
        let mut link = self.opener.open().await?;
        // Dirty reads keep no old versions of rows alive while a query is blocked. They show a call before its commit at
        // worst, and whoever comes then waits for it.
        let limit = match link.version.mariadb {
            true => "max_statement_time",
            false => "max_execution_time",
        };
        let setup = format!(
            "SET SESSION wait_timeout = {}, {limit} = 0; \
             SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED; SELECT GET_LOCK('{name}', 0)",
            DEAF.as_secs()
        );
        let setup = Box::pin(link.run(setup));
        let setup = self.context.env.timeout(self.opener.config.patience, setup).await;
        let replies = setup.ok_or_else(silent)?.map_err(classify)?;
        if get::<Option<i64>>(answer(&replies)?, 0)? != Some(1) {
            return Err(Error::new(
                ErrorKind::Internal,
                "the server refused a lock that is new",
            ));
        }
        Ok(link)
    }
}

/// Hears one doorbell.
struct Listener {
    name: Arc<str>,
    bell: Arc<Bell>,
    context: DriverContext,
    patience: Duration,
    keeper: Link,
    /// When the keeper was last heard.
    kept: Instant,
    /// The calls that were passed on, as far as they are still there.
    told: HashSet<(AttemptId, u64)>,
}

impl Listener {
    /// Until the connection breaks.
    async fn listen(mut self, mut link: Link) -> Error {
        loop {
            let heard = if self.context.signals.waiters() == 0 {
                self.rest(&mut link).await
            } else {
                self.hear(&mut link).await
            };
            if let Err(error) = heard {
                return error;
            }
        }
    }

    /// Nobody waits: nobody calls.
    async fn rest(&mut self, link: &mut Link) -> Result<()> {
        let waiting = Box::pin(self.bell.waiting.notified());
        if self.context.env.timeout(KEEP_ALIVE, waiting).await.is_some() {
            return Ok(());
        }
        self.keep().await?;
        self.ask(link, "DO 0".to_owned()).await.map(drop)
    }

    /// A sign of life on the keeper's connection.
    async fn keep(&mut self) -> Result<()> {
        let now = self.context.env.now();
        if now.since(self.kept) < KEEP_ALIVE {
            return Ok(());
        }
        let ping = Box::pin(sqlx::Connection::ping(&mut self.keeper.wire));
        let alive = self.context.env.timeout(self.patience, ping).await;
        alive.ok_or_else(silent)?.map_err(classify)?;
        self.kept = now;
        Ok(())
    }

    async fn hear(&mut self, link: &mut Link) -> Result<()> {
        self.keep().await?;
        let mut told = String::new();
        for (attempt, called) in &self.told {
            write!(told, "(x'{}', {called}), ", attempt.to_hex()).unwrap_or_default();
        }
        // Never empty, which SQL does not know.
        told.push_str("(x'', 0)");
        let values = [
            ("wake", Value::Word(&self.name)),
            ("memory", Value::Micros(MEMORY)),
            ("told", Value::Sql(&told)),
            ("nap", Value::Number(NAP.as_secs())),
        ];
        let asked = self.context.env.now();
        // Not in one packet: a kill between two statements of one packet makes the server forget the second.
        if let Some(replies) = self.ask(link, fill(BELL, &values)).await?
            && get::<Option<i64>>(answer(&replies)?, 0)? == Some(1)
        {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "the keeper's connection is gone",
            ));
        }
        let calls = self.ask(link, fill(CALLS, &values)).await?;
        // Stopped, or starved: calls may have come and be forgotten.
        if self.context.env.now().since(asked) > NAP + LATE {
            self.context.signals.wake_all();
        }
        calls.map_or(Ok(()), |calls| self.pass_on(&calls))
    }

    /// One statement; `None` when somebody killed it, which they do to ring.
    async fn ask(&self, link: &mut Link, script: String) -> Result<Option<Vec<Reply>>> {
        let limit = NAP + self.patience;
        match self.context.env.timeout(limit, Box::pin(link.run(script))).await {
            Some(Ok(replies)) => Ok(Some(replies)),
            Some(Err(error)) if is_interrupted(&error) => Ok(None),
            Some(Err(error)) => Err(classify(error)),
            None => Err(silent()),
        }
    }

    fn pass_on(&mut self, replies: &[Reply]) -> Result<()> {
        let mut there = HashSet::new();
        for row in replies.iter().flat_map(|reply| &reply.rows) {
            let Some(attempt) = text(row, 0)?.as_deref().and_then(AttemptId::from_hex) else {
                continue;
            };
            let call = (attempt, get(row, 1)?);
            if !self.told.contains(&call) {
                match get::<u64>(row, 2)? {
                    0 => self.context.signals.wake(attempt),
                    micros => self
                        .context
                        .signals
                        .wake_in(attempt, Duration::from_micros(micros)),
                }
            }
            there.insert(call);
        }
        self.told = there;
        Ok(())
    }
}
