//! What each backend can do at best: its client, and the fewest requests that lock.
//!
//! `raw` excludes, and no more. `raw-fifo` serves its waiters in order and gives a fencing token with each grant, which
//! is what Leasehold does, without a care for clients that stop or die. Databases have `raw-session`, a lock of the
//! server's that lives as long as a connection, and `raw-table`, a row with a lease.

use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use leasehold_measure::Offers;

use crate::backend::Backend;
use crate::contender::Entry;
use crate::place::Place;

mod etcd;
mod etcd_fifo;
mod memory;
mod mysql;
mod pool;
mod postgres;
mod redis;
mod redis_fifo;
mod sqlite;
mod zookeeper;

/// How often somebody asks again who is not woken.
pub const POLL: Duration = Duration::from_millis(5);

/// The raw contenders at `place`.
#[must_use]
pub fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    match place.backend() {
        Backend::Redis | Backend::Valkey => vec![redis::contender(place), redis_fifo::contender(place)],
        Backend::Etcd => vec![etcd::contender(place), etcd_fifo::contender(place)],
        Backend::ZooKeeper => zookeeper::contenders(place),
        Backend::MySql | Backend::MariaDb => mysql::contenders(place),
        Backend::Postgres => postgres::contenders(place),
        Backend::Sqlite => vec![sqlite::contender(place)],
        Backend::Memory => vec![memory::contender(place)],
    }
}

/// It excludes, and no more.
const NOTHING: Offers = Offers {
    queue: false,
    tokens: false,
    renewal: false,
};

/// A lease with a token.
const TOKENS: Offers = Offers {
    tokens: true,
    ..NOTHING
};

/// An orderly queue, and tokens.
const FIFO: Offers = Offers {
    queue: true,
    ..TOKENS
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
