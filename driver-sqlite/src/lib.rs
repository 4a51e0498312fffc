//! Leasehold on SQLite: locks for the processes of one machine, in one file, with no server.
//!
//! [`SqliteLockManager`] is what an application uses; [`SqliteDriver`] is the driver below it.
//!
//! # Protocol
//! The file has a row for each lock (its last token, who holds it, until when) and one for each waiter. Every operation
//! is one transaction, which goes to SQLite as one script; a lock that nobody else wants takes one statement to take
//! and one to release.
//!
//! - **Acquire** takes the lock, or stands in the queue, or gives a sign of life, or claims the turn. The token is the
//!   greater of the last one plus one and the wall clock in microseconds: it grows even when the file was lost, as long
//!   as the clock was not set back by more than the time in between.
//! - **Release** reserves the lock for the first waiter for its claim window and, after the commit, sends a datagram to
//!   the Unix socket that this waiter's process has in the folder `<database>-wake`. A socket that refuses tells that
//!   the process is dead, and the next one gets the turn at once. The three behind it are told to look again when the
//!   reservation ends, one after the other, so a stopped process costs the queue one claim window.
//! - **Renew** compares and extends, 500 leases in one statement; it creates nothing.
//! - A forced release tells the holder through its socket.
//! - Rows of locks that were not used for a day are removed a few at a time.
//!
//! Leases end by the time since boot, which goes on in suspend and which nobody can step; the first process after a
//! reboot frees everything. Where the system names no boot (anything but Linux and macOS) it is the wall clock, and
//! the capabilities say so.
//!
//! Where there are no Unix sockets, or none can be made, waiters ask every 10 ms at most instead, and the capabilities
//! say so. A process that cannot reach a waiter's socket for lack of rights leaves it to that waiter to find its turn.
//!
//! # The file
//! - It is for locks alone: a long transaction of something else on it blocks every lock.
//! - It lies on a local disk. Network file systems are refused where they can be told (on Linux); a second machine
//!   that uses the file all the same is refused by its boot.
//! - It is made with the rights 0600, its folders with 0700. To share it with other users, make an empty file and a
//!   folder with the rights and the group that they need beforehand (2770 and 660, say): SQLite gives its `-wal` and
//!   `-shm` files the rights of the database, and this driver gives them to the sockets and their folder.
//! - When it is removed while it is in use, a new one is made with the next request. Whoever held a lock in the old one
//!   loses it with the next renewal.
//! - A crash of a process loses nothing. What a crash of the machine loses is the subject of [`Synchronous`].
//! - A process that is stopped (`SIGSTOP`, a frozen container) in the microseconds of a write keeps everybody from
//!   writing until it goes on or dies, as with every SQLite database: requests fail as
//!   [`Unavailable`](lockcore::ErrorKind::Unavailable).

mod boot;
mod claims;
mod config;
mod database;
mod doctor;
mod driver;
mod error;
mod looks;
mod manager;
mod place;
mod schema;
#[cfg(unix)]
mod socket;
mod wake;

pub use config::{SqliteConfig, Synchronous};
pub use driver::{CAPABILITIES, SqliteDriver};
pub use manager::SqliteLockManager;
