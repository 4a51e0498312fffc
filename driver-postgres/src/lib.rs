//! Leasehold on PostgreSQL 12 or newer.
//!
//! [`PostgresLockManager`] is what an application uses; [`PostgresDriver`] is the driver below it.
//!
//! # Locks by leases
//! The default. The schema `leasehold` has a row for each lock (its last token, who holds it, until when) and one for each
//! waiter, and functions that work on them: every operation is one statement, one round trip and at most one commit.
//!
//! - **Acquire** takes the lock, or stands in the queue, or gives a sign of life, or claims the turn. The lock's row
//!   serialises all that concerns the lock. The token is the greater of the last one plus one and the server's clock in
//!   microseconds: it grows even when the row is lost, as long as the clock was not set back by more than the time in
//!   between. A refused try writes nothing, nor does a sign of life soon after another one.
//! - **Release** reserves the lock for the first waiter for its claim window and tells its process with NOTIFY, which is
//!   sent only when somebody waits in another process: every NOTIFY of a server takes a lock of all its databases when it
//!   commits. Processes whose listening connection is gone are skipped at once; the three behind the first one are told
//!   to look again when the reservation ends, so a stopped process costs the queue one claim window. The disk is not
//!   waited for: a server that crashes in the moment after a release may leave the lock to the end of its lease.
//! - Acquires and releases that come while others are under way go out as one statement for up to 64 locks, which does
//!   what nobody else is concerned with; what it leaves is sent by itself.
//! - **Renew** compares and extends, 500 leases in one statement; it creates nothing.
//! - A forced release tells the holder through its listener.
//! - Rows of locks that were not used for a day are removed a few at a time.
//!
//! Leases end by the server's wall clock: a step of it shortens or lengthens every lease. Requests share four connections,
//! and one more listens, however many locks and waiters there are. A request that was begun is always driven to its end,
//! so that no connection is left in the middle of an answer.
//!
//! # Locks by sessions
//! With `mode=session` (PostgreSQL 14 or newer) a lock is an advisory lock of a connection that it has for itself, held or
//! waited for: the default of 16 such connections is the most that a process can hold and wait for at a time, see
//! [`PostgresConfig::connections`]. What changes:
//!
//! - The server frees the lock of a dead process as soon as its connection is gone. A process that hangs is cut off after
//!   the lock's TTL (`idle_session_timeout`), one that is granted the lock and does not come for it after the claim window.
//! - Each lock's connection gets a sign of life every third of its TTL, which writes nothing; acquire and release write
//!   the token and the holder, a commit each that the disk is not waited for. The TTL of a lock cannot be changed while it is held.
//! - The server's own queue serves the waiters. Each of them keeps a snapshot open while it waits, which keeps VACUUM
//!   of the whole database from removing newer dead rows: not for waits of hours in a busy database.
//! - **A lock ends with its connection**, whoever cut it: an administrator, a proxy, the network. The server gives it to the
//!   next one as soon as it sees the end, and this driver reports the loss as soon as it does; where the server sees it
//!   first, two processes believe in the lock for that time. Only fencing helps there, or the mode `lease`.
//! - A restart of the server frees all locks; one that was held is given to nobody before its TTL has passed, unless the
//!   server crashed in the moment after the grant (three times its `wal_writer_delay`).
//! - A lock's number is a hash of 64 bits. Two names with the same number, or an application's own advisory lock with it,
//!   block each other; they never both hold.
//!
//! One lock is used in one mode by all its users; who uses the other one is refused.
//!
//! # The server
//! - Connections are sessions. A pooler that shares them between transactions (PgBouncer's `pool_mode=transaction`) is
//!   refused when connecting; `pool_mode=session` will do.
//! - A standby is refused. With asynchronous replication an acknowledged lock can be lost in a failover; tokens go on
//!   growing. `synchronous_commit = off` is turned to `local` for the sessions of this driver.
//! - Tables and functions are made with the first connection. Where the user has no right to, the error has the SQL for
//!   an administrator, and so has [`PostgresConfig::migration`].
//! - Long transactions in the same database keep dead versions of rows alive, which makes busy locks slower.
//!
//! # Rights
//! ```sql
//! GRANT USAGE ON SCHEMA leasehold TO app;
//! GRANT SELECT, INSERT, UPDATE, DELETE ON leasehold.lock, leasehold.waiter TO app;
//! ```
//! The functions run with the rights of their caller. Whoever may write these tables can break the locks: tenants who do
//! not trust each other need schemas of their own.

mod batch;
mod claims;
mod config;
mod doctor;
mod driver;
mod error;
mod lease;
mod listener;
mod looks;
mod manager;
mod pool;
mod push;
mod schema;
mod session;

pub use config::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_CONNECTIONS, DEFAULT_KEEP_ALIVE, DEFAULT_QUEUE, DEFAULT_SCHEMA,
    DEFAULT_SESSION_CONNECTIONS, KEEP_ALIVE_PATIENCE, MAX_CONNECTIONS, MAX_QUEUE, Mode, PostgresConfig,
};
pub use driver::{CAPABILITIES, PostgresDriver, SESSION_CAPABILITIES};
pub use manager::PostgresLockManager;
/// The client library, for [`PostgresConfig::new`].
pub use sqlx;
