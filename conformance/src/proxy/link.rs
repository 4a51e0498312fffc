//! What is known about connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::rules::{Cut, Direction, Prey, Rules, Side, Then, Traffic, Trap};

/// What the proxy's tasks share.
pub(super) struct Shared {
    pub(super) server: String,
    pub(super) rules: watch::Sender<Rules>,
    pub(super) struck: watch::Sender<u64>,
    trap: Mutex<Option<Trap>>,
    links: Mutex<BTreeMap<u64, Weak<Link>>>,
    on_cut: OnceLock<Box<dyn Fn() + Send + Sync>>,
    accepted: AtomicU64,
    refused: AtomicU64,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    bytes: [AtomicU64; 2],
}

impl Counts {
    fn add(&self, direction: Direction, bytes: usize) {
        if direction == Direction::ToServer {
            self.requests.fetch_add(1, Ordering::Relaxed);
        }
        self.bytes[direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Shared {
    pub(super) fn new(server: String) -> Self {
        Self {
            server,
            rules: watch::Sender::default(),
            struck: watch::Sender::default(),
            trap: Mutex::default(),
            links: Mutex::default(),
            on_cut: OnceLock::new(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            counts: Counts::default(),
        }
    }

    pub(super) fn set_trap(&self, trap: Option<Trap>) -> Option<Trap> {
        std::mem::replace(&mut *lock(&self.trap), trap)
    }

    /// Takes the trap if it strikes at `request`.
    fn strike(&self, request: &[u8]) -> Option<Trap> {
        let mut set = lock(&self.trap);
        let trap = set.as_mut().filter(|trap| trap.wants(request))?;
        if trap.pass > 0 {
            trap.pass -= 1;
            return None;
        }
        set.take()
    }

    pub(super) fn set_on_cut(&self, told: Box<dyn Fn() + Send + Sync>) {
        // Whoever is told already stays.
        self.on_cut.set(told).ok();
    }

    fn tell_of_cut(&self, side: Side) {
        if let Some(told) = self.on_cut.get().filter(|_| side != Side::Client) {
            told();
        }
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connections(&self) -> Vec<Connection> {
        let links = lock(&self.links);
        links.values().filter_map(Weak::upgrade).map(Connection).collect()
    }

    pub(super) fn cut_all(&self, side: Side, how: Cut) {
        for connection in self.connections() {
            connection.cut(side, how);
        }
    }

    pub(super) fn traffic(&self) -> Traffic {
        Traffic {
            accepted: self.accepted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            open: lock(&self.links).len() as u64,
            ..self.counts.traffic()
        }
    }
}

impl Counts {
    fn traffic(&self) -> Traffic {
        let [to_server, to_client] = &self.bytes;
        Traffic {
            requests: self.requests.load(Ordering::Relaxed),
            to_server: to_server.load(Ordering::Relaxed),
            to_client: to_client.load(Ordering::Relaxed),
            ..Traffic::default()
        }
    }
}

/// One connection; owned by the task that carries it.
pub(super) struct Link {
    id: u64,
    pub(super) shared: Arc<Shared>,
    pub(super) rules: watch::Sender<Rules>,
    /// The next thing that the server says is swallowed.
    swallow: Mutex<Option<Then>>,
    counts: Counts,
}

impl Link {
    pub(super) fn new(shared: &Arc<Shared>) -> Arc<Self> {
        let link = Arc::new(Self {
            id: shared.accepted.fetch_add(1, Ordering::Relaxed),
            shared: Arc::clone(shared),
            rules: watch::Sender::default(),
            swallow: Mutex::default(),
            counts: Counts::default(),
        });
        lock(&shared.links).insert(link.id, Arc::downgrade(&link));
        link
    }

    /// May what is sent in `direction` pass, and how much later?
    pub(super) fn lane(&self, direction: Direction) -> (bool, Duration) {
        let lane = |rules: &Rules| (rules.stalled[direction as usize], rules.delay[direction as usize]);
        let (all, one) = (lane(&self.shared.rules.borrow()), lane(&self.rules.borrow()));
        (all.0 || one.0, all.1.max(one.1))
    }

    /// Waits until the connection is to be cut.
    pub(super) async fn cut(&self) -> (Side, Cut) {
        let mut rules = self.rules.subscribe();
        loop {
            let cut = rules.borrow_and_update().cut;
            if let Some((side, how)) = cut {
                self.shared.tell_of_cut(side);
                return (side, how);
            }
            if rules.changed().await.is_err() {
                return (Side::Both, Cut::Close);
            }
        }
    }

    /// Whether `chunk` may be forwarded in `direction`; springs the trap.
    pub(super) fn lets_pass(&self, direction: Direction, chunk: &[u8]) -> bool {
        let then = match direction {
            Direction::ToServer => match self.shared.strike(chunk) {
                Some(trap) if trap.prey == Prey::Request => trap.then,
                Some(trap) => {
                    *lock(&self.swallow) = Some(trap.then);
                    return true;
                }
                None => return true,
            },
            Direction::ToClient => match lock(&self.swallow).take() {
                Some(then) => then,
                None => return true,
            },
        };
        self.rules.send_modify(|rules| match then {
            Then::Cut(how) => rules.cut = Some((Side::Both, how)),
            Then::Stall => rules.stalled = [true; 2],
        });
        self.shared.struck.send_modify(|struck| *struck += 1);
        false
    }

    pub(super) fn count(&self, direction: Direction, bytes: usize) {
        self.counts.add(direction, bytes);
        self.shared.counts.add(direction, bytes);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        lock(&self.shared.links).remove(&self.id);
    }
}

/// An open connection through the proxy. Holding it does not keep the connection open.
#[derive(Clone)]
pub struct Connection(Arc<Link>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id())
            .field("traffic", &self.traffic())
            .finish()
    }
}

impl Connection {
    /// The number of the connection, in order of acceptance, from 0.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// Ends it, on one side or on both.
    pub fn cut(&self, side: Side, how: Cut) {
        self.0.rules.send_modify(|rules| rules.cut = Some((side, how)));
    }

    /// Stops (or goes on) forwarding in one direction.
    pub fn stall_one_way(&self, direction: Direction, on: bool) {
        self.0
            .rules
            .send_modify(|rules| rules.stalled[direction as usize] = on);
    }

    /// Stops (or goes on) forwarding, both ways.
    pub fn stall(&self, on: bool) {
        self.0.rules.send_modify(|rules| rules.stalled = [on; 2]);
    }

    /// Delays what is sent in `direction` from now on. The longer one of this and the proxy's counts.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.0
            .rules
            .send_modify(|rules| rules.delay[direction as usize] = delay);
    }

    /// What has come through it.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        Traffic {
            accepted: 1,
            open: 1,
            ..self.0.counts.traffic()
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
