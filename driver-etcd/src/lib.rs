//! Leasehold on etcd (3.4 or newer).
//!
//! [`EtcdLockManager`] is what an application uses; [`EtcdDriver`] is the driver below it.
//!
//! # Protocol
//! A lock is the keys under `leasehold/1/<namespace>/m/<name>/`, one for each attempt that holds it or waits for it. The
//! oldest key is the holder's, or that of the one whose turn it is. A key's create revision is the attempt's place in the
//! queue, and, times 256 with room for spare ones, its fencing token: the store raises it with every write, and keeps it as
//! safely as the data.
//!
//! - **Acquire** is one transaction, and one write: if nobody has a key, put ours as the holder's, else put it as a
//!   waiter's and tell who comes before it. The key hangs on a lease that all locks of this process with the same TTL
//!   share, so that one message keeps all of them.
//! - **Release** deletes the key. The server tells those who watch the lock: one watch for each process and lock that it
//!   waits for, on one stream. Who has more than 128 before it watches one key until it is near, the sixteenth before its
//!   own, so that a release is not told to a thousand.
//! - **The next one claims** the lock with one more transaction. A waiter that is dead or stopped does not: the one behind
//!   it removes it after a claim window, and comes first itself; up to sixteen such in a row cost a window each. Who was
//!   removed and is alive goes to the end of the queue.
//! - **A lease of its own** has a lock that is not renewed (`auto_renew(false)`), for one more request.
//! - Locks that somebody deleted are found when the shared lease is renewed: the server is asked for its keys.
//!
//! # Time
//! Leases are whole seconds and end by a clock that nobody can step. The server is asked for one second more than locks
//! count on, because a leader that was deposed may confirm a lease without knowing it, for up to an election timeout: 1 s
//! by default; a cluster with a longer one is guarded less against that. A leader that is new, and a server that was
//! restarted, give every lease its whole TTL again.
//!
//! # To build it
//! The client library needs `protoc` and its include files: on Debian `protobuf-compiler` and `libprotobuf-dev`.
//!
//! # The cluster
//! One member is used at a time. One that does not answer, or is cut off from the majority, is left for the next one in
//! the URL; sessions go on. Locks survive whatever etcd survives. After a restore from a backup tokens go on growing only
//! with `etcdutl snapshot restore --bump-revision --mark-compacted`.
//!
//! # Rights
//! With authentication switched on, a user needs a role with `readwrite` on the prefix:
//!
//! ```text
//! etcdctl role add locks
//! etcdctl role grant-permission --prefix locks readwrite leasehold/1/
//! etcdctl user add locks && etcdctl user grant-role locks locks
//! ```
//!
//! `leasehold/1/shop/` is enough for an application with the namespace `shop`. Whoever may write these keys can break the
//! locks.

mod acquire;
mod attempts;
mod config;
mod connection;
mod doctor;
mod driver;
mod error;
mod keys;
mod look;
mod manager;
mod queue;
mod requests;
mod session;
mod watch;

pub use config::{
    DEFAULT_CONNECT_TIMEOUT, DEFAULT_KEEP_ALIVE, DEFAULT_QUEUE, EtcdConfig, KEEP_ALIVE_PATIENCE, MAX_QUEUE,
    TlsConfig,
};
pub use driver::{CAPABILITIES, EtcdDriver};
/// The client library, for [`EtcdDriver::from_client`].
pub use etcd_client;
pub use manager::EtcdLockManager;
