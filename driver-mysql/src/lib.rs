//! Leasehold on MySQL (8.0 or newer) and MariaDB (10.6 or newer).
//!
//! [`MysqlLockManager`] is what an application uses; [`MysqlDriver`] is the driver below it. There are two modes, which do
//! not know of each other's locks: everybody who shares a lock uses the same one.
//!
//! # Mode `lease`
//! The default. A lock is a row with an end on the server's clock, in a table that this driver makes on its first
//! connection if the user may ([`MIGRATION`] is for those who give no such right). Each operation is one round trip, and a
//! lock that nobody else wants takes one statement to take and one to release; what is more goes to the server as one
//! script, so that a process which is stopped in the middle keeps no row locked.
//!
//! - **Acquire** takes the lock, or stands in the queue, or gives a sign of life, or claims the turn. The token is the
//!   greater of the last one plus one and the server's clock in microseconds.
//! - **Release** reserves the lock for the first waiter for its claim window, and rings at that waiter's process. The two
//!   behind it are told to look when the reservation ends, so a stopped process costs the queue one claim window. A
//!   process whose doorbell is gone is known to be dead, and passed over at once.
//! - Acquires and releases that come while others are under way go out as one script for up to 64 locks, which does what
//!   nobody else is concerned with; what it leaves is sent by itself.
//! - **Renew** compares and extends, 500 leases in one statement; it creates nothing.
//! - Rows of locks that were not used for a day are removed a few at a time.
//!
//! The **doorbell** is a connection that is blocked in a query; `KILL QUERY` rings it, for which nobody needs a right as
//! long as the processes log in as the same user. Where that cannot work, waiters ask every 50 ms instead, and the
//! capabilities say so: with `wake=poll`, in Galera and in multi-primary Group Replication, behind a proxy that gives
//! connections other numbers or hands them out by the statement.
//!
//! A process uses up to four connections (option `connections`) and two for its doorbell, for any number of locks and
//! waiters.
//!
//! Leases end by the server's wall clock: a step of it shortens or lengthens them. Locks are as durable as the server's
//! commits: `innodb_flush_log_at_trx_commit=1`. With asynchronous replication an acknowledged lock can be lost in a
//! failover; tokens go on growing as long as the new primary's clock is not behind by more than the outage. The server
//! must not log statements (`binlog_format=STATEMENT`), and the driver needs the primary.
//!
//! # Mode `session`
//! `mode=session`: a lock is the server's `GET_LOCK` on a connection of its own, and needs no table and no write. It ends
//! with its connection: at once when the process dies, and after its TTL (`wait_timeout`, whole seconds) when the process
//! or the network is silent. See [`session_lock_name`] for its name. What it cannot do:
//!
//! - Each lock that is held or waited for takes a connection, 16 at most (option `connections`); one more is
//!   [`Unavailable`](lockcore::ErrorKind::Unavailable).
//! - Tokens are the server's clock at the grant (`fence=clock`): they go back when that clock is set back. `fence=table`
//!   takes a table and one write for each lock, and has tokens grow always.
//! - `GET_LOCK` is of one server: it does not exclude in Galera or Group Replication, nor after a failover, and not behind
//!   proxies that share connections. Locks are gone after a restart.
//! - Nobody can be asked who holds a lock, and locks cannot be listed.
//! - A stopped process at the head of the queue gets its turn, and loses it again after one to two seconds.
//!
//! # Rights
//! `SELECT`, `INSERT`, `UPDATE` and `DELETE` on `leasehold_meta`, `leasehold_lock` and `leasehold_waiter`, and `CREATE` for
//! the first connection; none of them in the mode `session` with `fence=clock`. All processes log in as one user, or ring
//! at each other in vain.

mod batch;
mod claims;
mod config;
mod connection;
mod doctor;
mod doorbell;
mod driver;
mod error;
mod keeper;
mod looks;
mod manager;
mod pool;
mod probe;
mod schema;
mod script;
mod session;
mod sweep;

pub use config::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_CONNECTIONS, DEFAULT_PATIENCE, DEFAULT_SESSIONS, Fence, MAX_CONNECTIONS,
    Mode, MysqlConfig, Tls, Wake,
};
pub use driver::{CAPABILITIES, MysqlDriver, POLL_CAPABILITIES, SESSION_CAPABILITIES};
pub use manager::MysqlLockManager;
pub use schema::MIGRATION;
pub use session::session_lock_name;
