//! The queue of one process: of its waiters for one name, one at a time stands in the backend's queue.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::driver::Occupant;
use crate::name::Resource;

/// One name's queue, for as long as somebody has the turn. Without a line it needs no allocation of its own.
#[derive(Debug, Default)]
struct Gate {
    /// Who comes next, in order of arrival.
    line: VecDeque<Place>,
    arrivals: u64,
    /// How many found the lock taken or stand behind somebody here.
    waiting: usize,
    /// Whom the backend named last, for the error of a waiter whose turn never came.
    holder: Option<Occupant>,
}

#[derive(Clone, Debug)]
struct Place {
    number: u64,
    turn: Arc<Notify>,
}

/// The gates of all names that somebody is acquiring.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<Resource, Gate>>);

impl Gates {
    /// Stands in line for `resource`; the line is left when the visit is dropped.
    pub(crate) fn enter<'a>(&'a self, resource: &'a Resource) -> Visit<'a> {
        let mut gates = lock(&self.0);
        let place = match gates.entry(resource.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Gate::default());
                None
            }
            Entry::Occupied(entry) => {
                let gate = entry.into_mut();
                gate.arrivals += 1;
                gate.waiting += 1;
                let place = Place {
                    number: gate.arrivals,
                    turn: Arc::default(),
                };
                gate.line.push_back(place.clone());
                Some(place)
            }
        };
        Visit {
            gates: self,
            resource,
            waits: place.is_some(),
            place,
        }
    }

    /// `Some` when somebody here waits for `resource`, so that a try must not overtake; with the holder, if known.
    pub(crate) fn waited_for(&self, resource: &Resource) -> Option<Option<Occupant>> {
        let gates = lock(&self.0);
        let gate = gates.get(resource).filter(|gate| gate.waiting > 0)?;
        Some(gate.holder.clone())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

/// One acquire in the line of its name.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    gates: &'a Gates,
    resource: &'a Resource,
    /// Where it stands; `None` once it has the turn.
    place: Option<Place>,
    waits: bool,
}

impl Visit<'_> {
    pub(crate) const fn has_turn(&self) -> bool {
        self.place.is_none()
    }

    /// Waits for the turn. Cancel safe: the place is kept until the visit is dropped.
    pub(crate) async fn turn(&mut self) {
        if let Some(place) = &self.place {
            place.turn.notified().await;
            self.place = None;
        }
    }

    /// The lock is taken: from now on a try of this process does not overtake.
    pub(crate) fn found_busy(&mut self) {
        if !std::mem::replace(&mut self.waits, true) {
            self.look(|gate| gate.waiting += 1);
        }
    }

    /// Remembers whom the backend named.
    pub(crate) fn saw_holder(&self, holder: Option<Occupant>) {
        if holder.is_some() {
            self.look(|gate| gate.holder = holder);
        }
    }

    /// Whom the backend named last.
    pub(crate) fn last_holder(&self) -> Option<Occupant> {
        self.look(|gate| gate.holder.clone()).flatten()
    }

    fn look<T>(&self, look: impl FnOnce(&mut Gate) -> T) -> Option<T> {
        lock(&self.gates.0).get_mut(self.resource).map(look)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        let mut gates = lock(&self.gates.0);
        let Entry::Occupied(mut entry) = gates.entry(self.resource.clone()) else {
            return;
        };
        let gate = entry.get_mut();
        gate.waiting -= usize::from(self.waits);
        // Who has a place and is not in the line any more was given the turn just now.
        let standing = self.place.as_ref().and_then(|place| {
            gate.line
                .binary_search_by_key(&place.number, |other| other.number)
                .ok()
        });
        if let Some(index) = standing {
            gate.line.remove(index);
        } else if let Some(next) = gate.line.pop_front() {
            drop(gates);
            next.turn.notify_one();
        } else {
            entry.remove();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::name::{Kind, LockName, Namespace};

    #[tokio::test]
    async fn first_in_first_out_and_nothing_left() {
        let gates = Gates::default();
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

    #[tokio::test]
    async fn who_leaves_passes_the_turn_on() {
        let gates = Gates::default();
        let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new("a").unwrap());
        let first = gates.enter(&resource);
        let [mut second, mut third, mut fourth] = [(); 3].map(|()| gates.enter(&resource));
        // One leaves the line, one has been given the turn and does not know it yet.
        assert!(third.turn().now_or_never().is_none());
        drop(third);
        assert!(second.turn().now_or_never().is_none());
        drop(first);
        assert!(fourth.turn().now_or_never().is_none());
        drop(second);
        fourth.turn().now_or_never().unwrap();
        assert!(fourth.has_turn() && gates.waited_for(&resource).is_some());
        drop(fourth);
        assert_eq!(gates.len(), 0);
    }
}
