//! Distributed locks with one API and one written contract over many backends.
//!
//! A backend is a Cargo feature and a URL: an application that keeps an `Arc<dyn LockManager>` moves from SQLite to
//! Redis without a change. Every grant has a fencing token, every guard knows when it was lost, and nothing that is
//! dropped or cancelled stays locked.
//!
//! ```
//! use std::time::Duration;
//! use leasehold::Result;
//!
//! #[tokio::main]
//! async fn main() -> Result<()> {
//!     // or redis://host, sqlite:/path/locks.db, ...
//!     let locks = leasehold::connect("memory:").await?;
//!
//!     let guard = locks
//!         .lock("reports/nightly")
//!         .ttl(Duration::from_secs(30)) // how long it outlives us if we die
//!         .wait(Duration::from_secs(5))
//!         .acquire()
//!         .await?;
//!     println!("token {}", guard.token()); // the guarded store refuses a smaller one
//!
//!     guard.protect(work()).await?; // stops the work when the lock is lost
//!     let _freed = guard.release().await?; // or just drop it
//!     locks.close().await
//! }
//!
//! async fn work() {}
//! ```
//!
//! # Where to look
//! - [`connect`]: the URLs; [`Connector`] for passwords and settings that do not belong into one.
//! - [`LockManager`]: hands out locks by name, tells who holds them, frees them by force.
//! - [`LockBuilder`]: TTL, wait, retry, label; [`try_acquire`](LockBuilder::try_acquire),
//!   [`acquire`](LockBuilder::acquire), [`with_lock`](LockBuilder::with_lock).
//! - [`Guard`]: the held lock, its [token](Guard::token), its [loss](Guard::lost), its [release](Guard::release).
//! - [`Error`] and its [`ErrorKind`], which tells what to do.
//! - [`memory`]: the backend for tests of your own, with virtual time and scripted faults.
//!
//! # Features
//! `memory:` is always there; nothing is on by default, and each feature builds alone.
//!
//! | feature | backend |
//! |---|---|
//! | `redis` | Redis and Valkey: `redis:`, `rediss:`, `redis+unix:` |
//! | `postgres` | PostgreSQL: `postgres:`, `postgresql:` |
//! | `mysql` | MySQL and MariaDB: `mysql:`, `mysqls:`, `mariadb:` |
//! | `etcd` | etcd: `etcd:`, `etcds:` |
//! | `zk` | ZooKeeper: `zk:`, `zks:` |
//! | `sqlite` | SQLite, for the processes of one machine: `sqlite:` |
//! | `full` | all of them |
//!
//! # What no lock can do
//! Stop an effect that is under way when the lock is lost. A process may be paused between its last look at the lock
//! and its write; only the store that it writes to can refuse it, by the token. See the example `fencing`.

mod connect;
mod drivers;

pub use connect::{Connector, connect};
#[doc(inline)]
pub use drivers::*;
/// The core below: the driver interface, for drivers of your own.
pub use lockcore as core;
#[doc(inline)]
pub use lockcore::{
    Capabilities, ClockReading, Diagnosis, DistributedLock, Endpoint, Env, Error, ErrorKind, ExpiryClock,
    Failover, FencingSource, Finding, Guard, Holder, Instant, Kind, Lock, LockBuilder, LockManager, LockName,
    LockStatus, LossReason, Manager, Namespace, Owner, Release, ReleaseError, Result, Retry, Secret,
    Settings, Severity, Token, Wait, WakeUp,
};
#[doc(inline)]
pub use lockcore::{MAX_LABEL_BYTES, MAX_NAME_BYTES, MAX_TTL};

/// The README's examples compile and run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
