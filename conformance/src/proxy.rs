//! A TCP proxy between a client and a server, for the faults of a network.
//!
//! It listens on a free loopback port and carries every connection to the server, until told otherwise: connections
//! can be cut (in order or with a reset, on one side or on both), stalled (nothing is forwarded, the sockets stay
//! open), delayed, or refused, all of them at once or one by one. A [`Trap`] strikes at one request: it swallows the
//! request, or lets the server have it and swallows the answer.
//!
//! Dropping the [`Proxy`] ends every connection and task.
//!
//! ```no_run
//! # async fn demo() -> std::io::Result<()> {
//! use leasehold_conformance::proxy::{Cut, Proxy, Side, Then, Trap};
//!
//! let proxy = Proxy::start("127.0.0.1:6379").await?;
//! let url = proxy.url("redis://127.0.0.1:6379/0").expect("a URL with a host");
//! // .. connect to `url`, then:
//! proxy.set_trap(Trap::reply(Then::Cut(Cut::Reset))); // the next request takes effect, its answer is lost
//! proxy.stall(true); // a black hole
//! proxy.cut(Side::Both, Cut::Close);
//! # Ok(())
//! # }
//! ```
#![expect(clippy::disallowed_methods, reason = "sockets live in real time")]

mod carry;
mod chaos;
mod link;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use url::Url;

pub use chaos::{Chaos, Disturbance, Storm};
pub use link::Connection;
pub use rules::{Cut, Direction, Entrance, Side, Then, Traffic, Trap};

use link::{Link, Shared};

/// Connections beyond this many are refused.
const MOST_CONNECTIONS: usize = 2048;

/// A running proxy.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .field("server", &self.shared.server)
            .field("traffic", &self.traffic())
            .finish()
    }
}

impl Proxy {
    /// Starts a proxy to `server`, a `host:port`, on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(server: impl Into<String>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::new(server.into()));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            address,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url` with its host and port replaced by the proxy's; `None` when it is no URL with a host.
    #[must_use]
    pub fn url(&self, url: &str) -> Option<String> {
        let mut url = Url::parse(url).ok()?;
        url.host()?;
        url.set_host(Some(&self.address.ip().to_string())).ok()?;
        url.set_port(Some(self.address.port())).ok()?;
        Some(url.into())
    }

    /// What becomes of new connections from now on.
    pub fn set_entrance(&self, entrance: Entrance) {
        self.shared.rules.send_modify(|rules| rules.entrance = entrance);
    }

    /// Stops (or goes on) forwarding, both ways. What was sent meanwhile is forwarded then.
    pub fn stall(&self, on: bool) {
        self.shared.rules.send_modify(|rules| rules.stalled = [on; 2]);
    }

    /// Stops (or goes on) forwarding in one direction.
    pub fn stall_one_way(&self, direction: Direction, on: bool) {
        self.shared
            .rules
            .send_modify(|rules| rules.stalled[direction as usize] = on);
    }

    /// Delays what is sent in `direction` from now on.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.shared
            .rules
            .send_modify(|rules| rules.delay[direction as usize] = delay);
    }

    /// Ends every open connection, on one side or on both.
    pub fn cut(&self, side: Side, how: Cut) {
        self.shared.cut_all(side, how);
    }

    /// Has `told` called each time before a connection is cut on the server's side, by [`cut`](Self::cut), a trap or
    /// [`chaos`](Self::chaos). Of several, the first one stays.
    pub fn on_cut(&self, told: impl Fn() + Send + Sync + 'static) {
        self.shared.set_on_cut(Box::new(told));
    }

    /// Strikes once, at the next request on any connection that the trap waits for. It replaces one that is set.
    pub fn set_trap(&self, trap: Trap) {
        self.shared.set_trap(Some(trap));
    }

    /// Takes the trap away that has not struck yet; true when there was one.
    pub fn disarm(&self) -> bool {
        self.shared.set_trap(None).is_some()
    }

    /// How many traps have struck.
    #[must_use]
    pub fn struck(&self) -> u64 {
        *self.shared.struck.borrow()
    }

    /// Waits until `times` traps have struck since the start.
    pub async fn until_struck(&self, times: u64) {
        let mut struck = self.shared.struck.subscribe();
        // The sender lives in `self`: the wait cannot fail.
        struck.wait_for(|struck| *struck >= times).await.ok();
    }

    /// Forwards everything at once again, accepts connections, and disarms the trap. What was cut stays cut, and a
    /// connection that a trap has stalled stays stalled.
    pub fn heal(&self) {
        self.disarm();
        self.shared.rules.send_replace(rules::Rules::default());
    }

    /// The open connections, oldest first.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.shared.connections()
    }

    /// What has come through so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        self.shared.traffic()
    }

    /// Disturbs the traffic at random, as `storm` says, until the [`Chaos`] is dropped; then [`heal`](Self::heal)s.
    #[must_use = "the chaos ends when this is dropped"]
    pub fn chaos(&self, storm: Storm) -> Chaos {
        Chaos::start(Arc::clone(&self.shared), storm)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The task owns the listener and all connections.
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = carried.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    if shared.rules.borrow().entrance == Entrance::Refuse || carried.len() >= MOST_CONNECTIONS {
                        shared.count_refused();
                        reset(client);
                    } else {
                        carried.spawn(carry::carry(client, Link::new(&shared)));
                    }
                }
                // Out of file descriptors: some may come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

/// Closes with RST instead of FIN.
fn reset(stream: TcpStream) {
    // Fails only where the socket is gone already.
    stream.set_zero_linger().ok();
}
