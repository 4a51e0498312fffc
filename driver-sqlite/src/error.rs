//! What SQLite and the file system say, as kinds of errors.

use std::io;
use std::path::Path;

use lockcore::{Error, ErrorKind};

/// SQLite's primary result codes, <https://www.sqlite.org/rescode.html>.
mod code {
    pub(super) const PERM: i32 = 3;
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const NOMEM: i32 = 7;
    pub(super) const READONLY: i32 = 8;
    pub(super) const IOERR: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANTOPEN: i32 = 14;
    pub(super) const PROTOCOL: i32 = 15;
    pub(super) const AUTH: i32 = 23;
    pub(super) const NOTADB: i32 = 26;
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let extended: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// Did another connection stand in the way, and nothing happen?
pub(crate) fn is_busy(error: &sqlx::Error) -> bool {
    matches!(
        primary_code(error),
        Some(code::BUSY | code::LOCKED | code::PROTOCOL)
    )
}

pub(crate) fn classify(error: sqlx::Error) -> Error {
    use ErrorKind::{Denied, Internal, Invalid, Unavailable};
    let (kind, message) = match primary_code(&error) {
        Some(code::BUSY | code::LOCKED | code::PROTOCOL) => (
            Unavailable,
            "other processes kept the database locked: one of them may be stopped in a write, \
             or use the file for long transactions of its own",
        ),
        Some(code::FULL) => (
            Unavailable,
            "no room to write to the database: free some on its disk",
        ),
        Some(code::PERM | code::READONLY | code::AUTH) => (
            Denied,
            "no right to write to the database: it takes the file, its -wal and -shm files and their folder",
        ),
        Some(code::CANTOPEN) => (
            Denied,
            "the database cannot be opened: check the rights of its folder",
        ),
        Some(code::NOTADB) => (Invalid, "the file is no SQLite database: name another one"),
        Some(code::CORRUPT) => (
            Internal,
            "the database is damaged: stop its users and remove it, locks are all it holds",
        ),
        Some(code::IOERR) => (Unavailable, "the disk below the database failed"),
        Some(code::NOMEM) => (Unavailable, "SQLite ran out of memory"),
        Some(_) => (Internal, "SQLite refused the request"),
        None if matches!(error, sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed) => {
            (Unavailable, "the connection to the database broke")
        }
        None => (Internal, "the database gave an answer that makes no sense"),
    };
    let outer = Error::new(kind, message);
    match error {
        // Without sqlx's wrapper, which says the same once more.
        sqlx::Error::Database(error) => outer.with_source(error.into_error()),
        error => outer.with_source(error),
    }
}

/// An error of the file system about `path`, in doing `what`.
pub(crate) fn classify_io(error: io::Error, what: &str, path: &Path) -> Error {
    use io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Denied,
        Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename | Io::InvalidInput | Io::AlreadyExists => {
            ErrorKind::Invalid
        }
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, format!("cannot {what} {}", path.display())).with_source(error)
}
