//! The connections to the file, and how a statement gets its turn.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use lockcore::{Env, Error, ErrorKind, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, Row as _, SqliteConnection};
use tokio::sync::Mutex;

use crate::boot::BootClock;
use crate::config::{SqliteConfig, Synchronous};
use crate::error::{classify, is_busy};
use crate::place;
use crate::schema::{self, Trouble};

/// How long SQLite itself waits for the write lock: in steps of 1 ms and 2 ms. Its later steps grow to 100 ms, in which
/// the processes that do not sleep get the lock again and again; so we start over instead. Of 32,000 requests of 8
/// processes that write without a pause, the slowest took 37 ms so, and 230 ms with SQLite's steps.
const NAP: Duration = Duration::from_millis(3);
/// Between two tries to open the file, for steps that SQLite does not wait for.
const OPEN_PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(5));
/// More than any answer of the writing connection has rows, so that its thread never waits for this process's runtime
/// while it holds the file's write lock.
const ROW_BUFFER: usize = 1024;
/// After so many writes the log is copied into the file, away from the requests.
const WRITES_PER_UPKEEP: u32 = 256;
/// A commit copies the log by itself only when it has grown to so many pages nevertheless.
const LONG_LOG: &str = "4000";
/// KiB of pages that a connection keeps, less than SQLite's 2,000: what is in use is small, and the system keeps the file.
const PAGE_CACHE: &str = "-512";
/// How long a row without use is kept.
const IDLE_US: u64 = 24 * 3_600_000_000;

const SWEEP: &str = include_str!("sql/sweep.sql");
const COPY_LOG: &str = "PRAGMA wal_checkpoint(PASSIVE)";
const RESTART_LOG: &str = "PRAGMA wal_checkpoint(RESTART)";
/// Writers that never pause keep the log from being copied to its end. At this many pages they are made to wait for it.
const TOO_LONG_LOG: i64 = 2000;

/// An argument of a statement.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(i64),
    Text(Arc<str>),
    Null,
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::Text(value.into())
    }
}

impl From<&Arc<str>> for Value {
    fn from(value: &Arc<str>) -> Self {
        Self::Text(Arc::clone(value))
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// What a statement gave, and the time that it went by.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) now: i64,
    pub(crate) rows: Vec<SqliteRow>,
}

/// An open connection, and the file that the path named then.
#[derive(Debug)]
struct Open {
    connection: SqliteConnection,
    file: Option<(u64, u64)>,
}

type Lane = Mutex<Option<Open>>;

/// The database of one driver: a connection that writes, in order of the calls, and one for long looks.
#[derive(Debug)]
pub(crate) struct Database {
    config: SqliteConfig,
    path: PathBuf,
    pub(crate) env: Env,
    pub(crate) clock: BootClock,
    writer: Lane,
    reader: Lane,
    writes: AtomicU32,
    closed: AtomicBool,
}

impl Database {
    /// Opens the file, and makes it when it is missing.
    pub(crate) async fn open(config: SqliteConfig, env: Env) -> Result<Self> {
        let path = prepare(config.path.clone(), &env).await?;
        let mut database = Self {
            config,
            path,
            env,
            clock: BootClock::detect(),
            writer: Lane::default(),
            reader: Lane::default(),
            writes: AtomicU32::new(0),
            closed: AtomicBool::new(false),
        };
        let open = database.connect(true).await?;
        *database.writer.get_mut() = Some(open);
        Ok(database)
    }

    /// The real path of the file.
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// Runs `sql` with the time as its parameter `$1` and `values` as `$2` and so on. (Not `?1`: where a statement of a
    /// script leaves numbers out, sqlx binds the wrong ones.) It is one transaction, or none when it fails. Calls take
    /// effect in the order in which they were first polled.
    ///
    /// A transaction goes to the connection's thread as one script, so that no process holds the file's write lock
    /// while its runtime is busy with something else.
    pub(crate) async fn write(self: &Arc<Self>, sql: &'static str, values: &[Value]) -> Result<Answer> {
        let answer = self.run(&self.writer, sql, values).await?;
        if self.writes.fetch_add(1, Ordering::Relaxed) + 1 == WRITES_PER_UPKEEP {
            let database = Arc::clone(self);
            self.env.spawn(async move { database.upkeep().await });
        }
        Ok(answer)
    }

    /// Runs a query beside the writes.
    pub(crate) async fn read(&self, sql: &'static str, values: &[Value]) -> Result<Answer> {
        self.run(&self.reader, sql, values).await
    }

    /// Microseconds of the wall clock, the floor of tokens.
    pub(crate) fn wall_micros(&self) -> i64 {
        i64::try_from(self.env.unix_micros()).unwrap_or(i64::MAX)
    }

    /// Clears up a little and closes the connections. The last process to do so removes the log.
    pub(crate) async fn close(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            return Ok(());
        }
        self.sweep().await;
        self.closed.store(true, Ordering::Release);
        for lane in [&self.reader, &self.writer] {
            if let Some(open) = lane.lock().await.take() {
                open.connection.close().await.map_err(classify)?;
            }
        }
        Ok(())
    }

    async fn run(&self, lane: &Lane, sql: &'static str, values: &[Value]) -> Result<Answer> {
        let started = self.env.now();
        let mut lane = lane.lock().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::Closed, "the database was closed"));
        }
        loop {
            // Out of its place while it is in use: one in an unknown state is closed, which undoes what it began.
            let mut open = match lane.take() {
                Some(open) if open.file == place::identity(&self.path) => open,
                // In a box: it is rare, and large.
                _ => Box::pin(self.connect(false)).await?,
            };
            // Read anew for each try, lest it be old by the time that the write lock is ours.
            let now = self.clock.now(&self.env);
            let mut query = sqlx::query(sql).bind(now);
            for value in values {
                query = match value {
                    Value::Int(value) => query.bind(*value),
                    Value::Text(value) => query.bind(value.as_ref()),
                    Value::Null => query.bind(None::<i64>),
                };
            }
            // To the end, not to the first row: an error of the commit comes last.
            match query.fetch_all(&mut open.connection).await {
                Ok(rows) => {
                    *lane = Some(open);
                    return Ok(Answer { now, rows });
                }
                Err(error) if is_busy(&error) => {
                    // Without a transaction this fails, which is as good.
                    open.connection.execute("ROLLBACK").await.ok();
                    *lane = Some(open);
                    if self.env.now().since(started) >= self.config.busy_timeout {
                        return Err(classify(error));
                    }
                }
                Err(error) => return Err(classify(error)),
            }
        }
    }

    /// A connection that is ready for use. `first` as for [`schema::ensure`].
    async fn connect(&self, first: bool) -> Result<Open> {
        let started = self.env.now();
        if !first {
            // The file was removed, perhaps with its folder.
            prepare(self.path.clone(), &self.env).await?;
        }
        let left = self
            .config
            .busy_timeout
            .saturating_sub(self.env.now().since(started));
        let busy = |trouble: &Trouble| matches!(trouble, Trouble::Sqlite(error) if is_busy(error));
        self.env
            .persist(left, OPEN_PAUSE, busy, || self.try_connect(first))
            .await
            .map_err(Error::from)
    }

    async fn try_connect(&self, first: bool) -> Result<Open, Trouble> {
        let file = place::identity(&self.path);
        let mut connection = SqliteConnectOptions::new()
            .filename(&self.path)
            .create_if_missing(true)
            .foreign_keys(false)
            .busy_timeout(NAP)
            .row_buffer_size(ROW_BUFFER)
            .synchronous(match self.config.synchronous {
                Synchronous::Normal => SqliteSynchronous::Normal,
                Synchronous::Full => SqliteSynchronous::Full,
            })
            .pragma("wal_autocheckpoint", LONG_LOG)
            .pragma("cache_size", PAGE_CACHE)
            .disable_statement_logging()
            .connect()
            .await?;
        schema::use_wal(&mut connection).await?;
        schema::ensure(&mut connection, &self.clock, first).await?;
        // Made by SQLite itself where `prepare` could not.
        let file = file.or_else(|| place::identity(&self.path));
        Ok(Open { connection, file })
    }

    async fn upkeep(&self) {
        // What fails here is done by a later upkeep, or by a commit that finds the log too long.
        let copied = self.read(COPY_LOG, &[]).await;
        let pages = copied
            .ok()
            .and_then(|copied| copied.rows.first()?.try_get(1).ok());
        if pages.is_some_and(|pages: i64| pages > TOO_LONG_LOG) {
            self.read(RESTART_LOG, &[]).await.ok();
        }
        self.sweep().await;
        self.writes.store(0, Ordering::Relaxed);
    }

    async fn sweep(&self) {
        let idle = i64::try_from(self.env.unix_micros().saturating_sub(IDLE_US)).unwrap_or(i64::MAX);
        let values = [idle.into(), self.clock.boot.as_str().into()];
        self.run(&self.writer, SWEEP, &values).await.ok();
    }
}

/// Touches the disk, on a thread that may wait for it.
async fn prepare(path: PathBuf, env: &Env) -> Result<PathBuf> {
    let env = env.clone();
    tokio::task::spawn_blocking(move || place::prepare(&path, &env))
        .await
        .map_err(|error| {
            Error::new(ErrorKind::Internal, "the file could not be prepared").with_source(error)
        })?
}
