//! The queue of one process: of its waiters for one name, one at a time stands in the backend's queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::driver::Occupant;
use crate::name::Resource;

/// One name's queue. tokio's mutex is fair, and a waiter that is dropped leaves it.
#[derive(Debug, Default)]
struct Gate {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// How many found the lock taken or stand behind somebody here.
    waiting: AtomicUsize,
    /// Whom the backend named last, for the error of a waiter whose turn never came.
    holder: Mutex<Option<Occupant>>,
}

/// The gates of all names that somebody is acquiring.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<Resource, Arc<Gate>>>);

impl Gates {
    /// Stands in line for `resource`; the line is left when the visit is dropped.
    pub(crate) fn enter(self: &Arc<Self>, resource: &Resource) -> Visit {
        let gate = Arc::clone(lock(&self.0).entry(resource.clone()).or_default());
        Visit {
            gates: Arc::clone(self),
            resource: resource.clone(),
            gate,
            turn: None,
            waits: false,
        }
    }

    /// `Some` when somebody here waits for `resource`, so that a try must not overtake; with the holder, if known.
    pub(crate) fn waited_for(&self, resource: &Resource) -> Option<Option<Occupant>> {
        let gates = lock(&self.0);
        let gate = gates.get(resource)?;
        let waited_for = gate.waiting.load(Ordering::Relaxed) > 0;
        waited_for.then(|| lock(&gate.holder).clone())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

/// One acquire in the line of its name.
#[derive(Debug)]
pub(crate) struct Visit {
    gates: Arc<Gates>,
    resource: Resource,
    gate: Arc<Gate>,
    turn: Option<OwnedMutexGuard<()>>,
    waits: bool,
}

impl Visit {
    /// Waits for the turn. Cancel safe: the place is kept as long as the returned future is polled.
    pub(crate) async fn turn(&mut self) {
        self.turn = match Arc::clone(&self.gate.turn).try_lock_owned() {
            Ok(turn) => Some(turn),
            Err(_) => {
                self.found_busy();
                Some(Arc::clone(&self.gate.turn).lock_owned().await)
            }
        };
    }

    /// The lock is taken: from now on a try of this process does not overtake.
    pub(crate) fn found_busy(&mut self) {
        if !std::mem::replace(&mut self.waits, true) {
            self.gate.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Remembers whom the backend named.
    pub(crate) fn saw_holder(&self, holder: Option<Occupant>) {
        if holder.is_some() {
            *lock(&self.gate.holder) = holder;
        }
    }

    /// Whom the backend named last.
    pub(crate) fn last_holder(&self) -> Option<Occupant> {
        lock(&self.gate.holder).clone()
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.waits {
            self.gate.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        let mut gates = lock(&self.gates.0);
        self.turn = None;
        // The map's and ours: clones are made under the map's lock only, so nobody else can come in between. The
        // guard of a turn holds the inner mutex, not the gate.
        if Arc::strong_count(&self.gate) == 2 {
            gates.remove(&self.resource);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{Kind, LockName, Namespace};

    #[tokio::test]
    async fn first_in_first_out_and_nothing_left() {
        let gates = Arc::<Gates>::default();
        let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new("a").unwrap());
        let mut first = gates.enter(&resource);
        first.turn().await;
        assert!(gates.waited_for(&resource).is_none());
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..5)
            .map(|i| {
                let mut visit = gates.enter(&resource);
                let order = Arc::clone(&order);
                async move {
                    visit.turn().await;
                    lock(&order).push(i);
                }
            })
            .collect();
        let all = futures_util::future::join_all(tasks);
        tokio::pin!(all);
        assert!(futures_util::poll!(&mut all).is_pending());
        assert!(gates.waited_for(&resource).is_some());
        drop(first);
        all.await;
        assert_eq!(*lock(&order), [0, 1, 2, 3, 4]);
        assert_eq!(gates.len(), 0);
    }
}
