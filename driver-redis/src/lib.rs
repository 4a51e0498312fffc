//! Leasehold on one Redis (6.2 or newer) or Valkey server.
//!
//! [`RedisLockManager`] is what an application uses; [`RedisDriver`] is the driver below it.
//!
//! # Protocol
//! A lock is four keys in one slot, `leasehold:1:<namespace>:m:{<name>}:` and a letter: `L`, the lease, a string that
//! expires with it; `F`, the last token, kept for a day; `W` and `Q`, the waiters and their order, which are there
//! only while somebody waits. Every operation is one Lua script and one round trip:
//!
//! - **Acquire** takes the lock, or stands in the queue, or gives a sign of life, or claims the turn. The token is the
//!   greater of the last one plus one and the server's clock in microseconds: it grows even when the server has lost
//!   its data, as long as its clock was not set back by more than the time in between.
//! - **Release** reserves the lock for the first waiter for its claim window and publishes to the one channel that
//!   this driver has. A publish that nobody hears tells that the waiter's process is dead, and the next one gets the
//!   turn at once. The two behind it are told to look again when the reservation ends, so a stopped process costs the
//!   queue one claim window.
//! - Acquires and releases that come while others are under way go out as one script for up to 64 locks, which does what
//!   nobody else is concerned with; what it leaves is sent by itself.
//! - **Renew** compares and extends, up to 1,000 leases in one script; it creates nothing.
//! - A forced release tells the holder through its channel.
//!
//! Expiry follows the server's wall clock: a step of it shortens or lengthens leases.
//!
//! # The server
//! - `maxmemory-policy` must be `noeviction`: others evict locks. The driver warns when it connects. A full server
//!   still renews and releases, and refuses new locks with [`Unavailable`](lockcore::ErrorKind::Unavailable).
//! - A replica is refused, also when a primary becomes one. With asynchronous replication an acknowledged lock can be
//!   lost in a failover; tokens go on growing.
//! - Cluster and Sentinel are refused for now, and so are reader-writer locks and semaphores.
//!
//! # Rights
//! The least that an ACL user needs, with layout and channels under `leasehold:`:
//!
//! ```text
//! ACL SETUSER locks on >password ~leasehold:* &leasehold:* +ping +subscribe +script|load +evalsha +eval
//!   +time +get +mget +getrange +set +del +pexpire +pttl +hget +hmget +hset +hdel +hvals
//!   +zadd +zcard +zrange +zrank +zrem +publish
//! ```
//!
//! `+select` for a database other than 0, `+scan` to list locks, `+info` to have the eviction policy checked, that and
//! `+config|get` for `leasehold doctor`, `+client|setinfo` to be called `leasehold` in the server's list of clients. Whoever may write these keys can break
//! the locks: tenants who do not trust each other need users with patterns of their own, such as
//! `~leasehold:1:shop:*`.

mod batch;
mod calls;
mod config;
mod connection;
mod doctor;
mod driver;
mod error;
mod keys;
mod manager;
mod push;
mod reply;
mod scripts;
mod transport;

pub use config::{
    Address, DEFAULT_CONNECT_TIMEOUT, DEFAULT_KEEP_ALIVE, DEFAULT_QUEUE, KEEP_ALIVE_PATIENCE, MAX_QUEUE,
    RedisConfig, TlsConfig,
};
pub use driver::{CAPABILITIES, RedisDriver};
pub use manager::RedisLockManager;
/// The client library, for [`RedisDriver::from_client`].
pub use redis;
