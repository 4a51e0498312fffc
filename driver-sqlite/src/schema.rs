//! The tables, and what a process checks before it trusts them.

use lockcore::{Error, ErrorKind, Result};
use sqlx::{Executor as _, Row as _, SqliteConnection};

use crate::boot::BootClock;
use crate::error::classify;

/// Raised when a change to the tables would mislead an older version.
const LAYOUT: i64 = 1;

const CREATE: &str = include_str!("sql/create.sql");
const REBOOT: &str = include_str!("sql/reboot.sql");
const HAS_TABLES: &str = "SELECT count(*) FROM sqlite_schema WHERE name = 'leasehold_meta'";
const READ_META: &str = "SELECT layout, clock, boot FROM leasehold_meta";

/// What went wrong while a connection was prepared.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// SQLite's error: worth another try when another process is in the way.
    Sqlite(sqlx::Error),
    /// The file is not for us.
    Refused(Error),
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Sqlite(error) => classify(error),
            Trouble::Refused(error) => error,
        }
    }
}

/// Switches the file to write-ahead logging, which readers and the writer share. Once for the life of the file.
pub(crate) async fn use_wal(connection: &mut SqliteConnection) -> Result<(), Trouble> {
    let mut mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut *connection)
        .await?;
    if mode != "wal" {
        mode = sqlx::query_scalar("PRAGMA journal_mode = WAL")
            .fetch_one(&mut *connection)
            .await?;
    }
    if mode == "wal" {
        return Ok(());
    }
    Err(refused(
        ErrorKind::Unsupported,
        "the file system does not offer the shared memory that SQLite's write-ahead log needs: \
         name a file on a local disk",
    ))
}

/// Makes the tables where they are missing. `first` is true when this process opens the file for the first time: then
/// what another boot left is freed. Later, another boot's mark means that another machine uses the file.
pub(crate) async fn ensure(
    connection: &mut SqliteConnection,
    clock: &BootClock,
    first: bool,
) -> Result<(), Trouble> {
    let tables: i64 = sqlx::query_scalar(HAS_TABLES).fetch_one(&mut *connection).await?;
    if tables == 0 {
        let create = sqlx::query(CREATE)
            .bind(LAYOUT)
            .bind(clock.name())
            .bind(&clock.boot);
        script(connection, create).await?;
    }
    let meta = sqlx::query(READ_META).fetch_one(&mut *connection).await?;
    let (layout, name, boot): (i64, String, String) = (meta.try_get(0)?, meta.try_get(1)?, meta.try_get(2)?);
    if layout != LAYOUT {
        return Err(refused(
            ErrorKind::Unsupported,
            format!("the database has layout {layout}, this version knows {LAYOUT}: use another file"),
        ));
    }
    if name != clock.name() {
        return Err(refused(
            ErrorKind::Unsupported,
            "the database was made by a process that sees another clock: give all its users the same /proc, \
             or use another file",
        ));
    }
    if boot == clock.boot {
        return Ok(());
    }
    if !first {
        return Err(refused(ErrorKind::Unsupported, OTHER_MACHINE));
    }
    script(connection, sqlx::query(REBOOT).bind(&clock.boot)).await
}

pub(crate) const OTHER_MACHINE: &str =
    "another machine uses the database: share locks between machines through a server such as redis:";

/// Runs a script; nothing of it stays, and no transaction is left open, when it fails.
async fn script(
    connection: &mut SqliteConnection,
    script: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
) -> Result<(), Trouble> {
    match connection.execute(script).await {
        Ok(_) => Ok(()),
        Err(error) => {
            // Without a transaction this fails, which is as good.
            connection.execute("ROLLBACK").await.ok();
            Err(error.into())
        }
    }
}

fn refused(kind: ErrorKind, message: impl Into<String>) -> Trouble {
    Trouble::Refused(Error::new(kind, message))
}
