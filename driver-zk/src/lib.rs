//! Leasehold on ZooKeeper (3.5.3 or newer).
//!
//! [`ZkLockManager`] is what an application uses; [`ZkDriver`] is the driver below it.
//!
//! # Protocol
//! A lock is a container node, `<root>/leasehold/1/<namespace>/m/<name>`, and its contenders are ephemeral sequential
//! nodes in it, called `_c_<attempt>-lock-<number>` as those of Curator's `InterProcessMutex`. They live by the session
//! that all locks of one TTL share. The token is the transaction that created the contender (`czxid`), times 256 with room
//! for spare ones: it grows over release, expiry, deletion and restart, and is lost with the data directory only.
//!
//! - **Acquire** creates the contender and lists the queue, sent at once: one round trip and one write. Who was the first
//!   when it was created holds the lock.
//! - **Waiting.** Who was not writes into its node that it waits, watches up to four nodes right before it, and does not
//!   ask again until they go. The first one then *claims* its turn, by a write that takes its node at the version that
//!   it knows: one event and one round trip after the release. A waiter is never a holder by being the first alone.
//! - **Dead waiters.** A first one that waits and has not claimed for the claim window is removed by those behind it,
//!   at the version that they have seen: the claim and the removal exclude each other, whatever the clocks say. Four
//!   watches let three dead or stopped ones in a row cost a window each, though their sessions live on; behind a longer
//!   row the next one looks after a third of `waiter_ttl`. Who was removed stands in the queue anew.
//! - **Release** deletes the contender: one write.
//! - A contended acquisition takes about ten requests and four writes, with two waiters as with a hundred.
//! - **Keeping.** One request per session and third of its TTL. Locks that are held for longer are watched besides, so that
//!   a holder whose node was deleted is told at once.
//!
//! # Time
//! A session's timeout is the TTL of its locks. The servers agree to two to twenty of their ticks unless
//! `minSessionTimeout` and `maxSessionTimeout` say otherwise: 4 s to 40 s by default. Shorter TTLs are rounded up,
//! longer ones are bridged by keep-alives. A server that hears a client tells the others within a tick, so a lock counts
//! as held for its TTL less one tick after the last answer; the tick is found out when connecting, or told by `tick`.
//! The server ends a session up to two ticks late. It counts on a clock that cannot be stepped.
//!
//! A connection that breaks is no loss: the client connects to another server, and the session goes on.
//!
//! # Curator
//! Java services and this driver exclude each other on `InterProcessMutex` locks with the same path, as they are:
//!
//! ```java
//! // What ZkLockManager::lock_path("nightly") says.
//! new InterProcessMutex(client, "/leasehold/1/default/m/nightly")
//! ```
//!
//! or, where the services have their locks already, with `zk://host/?curator=/locks` and the name `nightly`:
//!
//! ```java
//! new InterProcessMutex(client, "/locks/nightly")
//! ```
//!
//! A name is percent-encoded there, so that `orders/42` is the node `orders%2F42`. Everybody stands in one queue. A node
//! of another recipe is never removed, and holds when it is the first. Of a Java service that holds a lock no owner is
//! known; it has no use for a fencing token, and is told nothing by a forced release.
//!
//! # The servers
//! - `maxClientCnxns` counts the connections of one address: each manager has one for each TTL that it uses.
//! - Unused locks are removed by the server, which looks for them every minute (`znode.container.checkIntervalMs`).
//! - `inspect` and `list` read from any server of the ensemble and may be a moment late. No grant rests on such a read: a
//!   listing that has our node has every one before it that is still there, and a claim is a write.
//!
//! # Rights
//! Without a login the nodes are open to everybody. With one (`zk://user:password@host`, scheme `digest`), locks and
//! contenders belong to it, and the parents down to `leasehold/1` can be built upon by all; `acl=open` leaves everything
//! open. The server takes any name and password, and a wrong one shows as a lack of rights. On nodes that somebody else
//! has made, the driver needs CREATE on the parent of the first one that is missing, and CREATE, READ, WRITE and DELETE
//! on locks.
//!
//! # TLS
//! `zks://` trusts the operating system's certificates, or `tls_ca`. The client library takes the process's default
//! `rustls` provider: where there is none, the driver installs `ring`'s. It does not say why a handshake failed:
//! that is [`Unavailable`](lockcore::ErrorKind::Unavailable).

mod config;
mod doctor;
mod driver;
mod error;
mod head;
mod layout;
mod manager;
mod nodes;
mod place;
mod queue;
mod recover;
mod session;
mod tls;
mod view;

pub use config::{
    Access, DEFAULT_CONNECT_TIMEOUT, DEFAULT_QUEUE, DEFAULT_SILENCE, MAX_QUEUE, TlsConfig, ZkConfig,
};
pub use driver::{CAPABILITIES, ZkDriver};
pub use manager::ZkLockManager;
/// The client library, for [`ZkDriver::from_connector`].
pub use zookeeper_client;
