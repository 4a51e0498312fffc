//! The queue of one process: of its waiters for one name, one at a time stands in the backend's queue, and a lock that
//! nobody elsewhere waits for passes from one to the next without a request.
//!
//! The second is what Dice, Marathe and Shavit call lock cohorting (Lock Cohorting, `PPoPP` 2012), bounded by time and by
//! the tokens that came with the grant.

use std::collections::hash_map::{Entry, OccupiedEntry};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::claim::{AttemptId, Claim};
use crate::core::Core;
use crate::driver::Occupant;
use crate::env::Instant;
use crate::guard::Guard;
use crate::held::Held;
use crate::name::Resource;

/// One name's queue, for as long as somebody has the turn. Without a line it needs no allocation of its own.
#[derive(Debug, Default)]
struct Gate {
    /// Who comes next, in order of arrival.
    line: VecDeque<Arc<Place>>,
    arrivals: u64,
    /// How many found the lock taken or stand behind somebody here.
    waiting: usize,
    /// Whom the backend named last, for the error of a waiter whose turn never came.
    holder: Option<Occupant>,
    /// While it lasts nobody has the turn to ask: the lease of this attempt passes along the line.
    tenure: Option<Tenure>,
}

#[derive(Debug)]
struct Tenure {
    attempt: AttemptId,
    until: Instant,
}

#[derive(Debug)]
struct Place {
    number: u64,
    wish: Wish,
    turn: Notify,
    /// What came with the turn: without it, it is the turn to ask the backend.
    handed: Mutex<Option<Guard>>,
}

/// What a lease has to be like for somebody to take it over.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) ttl: Duration,
    pub(crate) details: Arc<str>,
    /// A mutex, renewed to the end.
    pub(crate) takes_over: bool,
}

impl Wish {
    fn is_met_by(&self, claim: &Claim) -> bool {
        self.takes_over && self.ttl == claim.ttl && self.details == claim.details
    }
}

/// The gates of all names that somebody is acquiring.
#[derive(Debug, Default)]
pub(crate) struct Gates(Mutex<HashMap<Resource, Gate>>);

impl Gates {
    /// Stands in line for `resource`; the line is left when the visit is dropped.
    pub(crate) fn enter<'a>(&'a self, resource: &'a Resource, wish: impl FnOnce() -> Wish) -> Visit<'a> {
        let mut gates = lock(&self.0);
        let at = match gates.entry(resource.clone()) {
            Entry::Vacant(entry) => {
                entry.insert(Gate::default());
                At::Turn
            }
            Entry::Occupied(entry) => {
                let gate = entry.into_mut();
                gate.arrivals += 1;
                gate.waiting += 1;
                let place = Arc::new(Place {
                    number: gate.arrivals,
                    wish: wish(),
                    turn: Notify::new(),
                    handed: Mutex::default(),
                });
                gate.line.push_back(Arc::clone(&place));
                At::Place(place)
            }
        };
        Visit {
            gates: self,
            resource,
            waits: matches!(at, At::Place(_)),
            at,
        }
    }

    /// `Some` when somebody here waits for `resource`, so that a try must not overtake; with the holder, if known.
    pub(crate) fn waited_for(&self, resource: &Resource) -> Option<Option<Occupant>> {
        let gates = lock(&self.0);
        let gate = gates.get(resource).filter(|gate| gate.waiting > 0)?;
        Some(gate.holder.clone())
    }

    /// Gives the lease of `held` with its next token to the first in line; false, and `held` is what it was, when there
    /// is nobody, or the tenure is over, or the lease is not good for it.
    pub(crate) fn hand_over(&self, core: &Arc<Core>, held: &Held) -> bool {
        let claim = held.claim();
        let mut gates = lock(&self.0);
        let Some(gate) = gates.get_mut(&claim.resource) else {
            return false;
        };
        let now = core.shared.env.now();
        let in_time = |tenure: &&Tenure| tenure.attempt == claim.attempt && now < tenure.until;
        if gate.tenure.as_ref().filter(in_time).is_none() {
            return false;
        }
        let first = gate.line.front().filter(|first| first.wish.is_met_by(claim));
        let (Some(first), Some(next)) = (first.cloned(), first.and_then(|_| core.upkeep.hand_over(held)))
        else {
            return false;
        };
        gate.line.pop_front();
        // It has what it waited for.
        gate.waiting -= 1;
        *lock(&first.handed) = Some(Guard::new(Arc::clone(core), next, true));
        drop(gates);
        first.turn.notify_one();
        true
    }

    /// The lease of `attempt` is not passed on any more: the next one in line asks the backend. Nothing when that was
    /// so already.
    pub(crate) fn end_tenure(&self, resource: &Resource, attempt: AttemptId) {
        let mut gates = lock(&self.0);
        let Entry::Occupied(mut entry) = gates.entry(resource.clone()) else {
            return;
        };
        if entry
            .get_mut()
            .tenure
            .take_if(|tenure| tenure.attempt == attempt)
            .is_some()
        {
            pass_turn(entry);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        lock(&self.0).len()
    }
}

/// Where a visit stands.
#[derive(Debug)]
enum At {
    Place(Arc<Place>),
    /// It asks the backend.
    Turn,
    /// It has what it came for, and the gate may be another one by now.
    Out,
}

/// One acquire in the line of its name.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    gates: &'a Gates,
    resource: &'a Resource,
    at: At,
    waits: bool,
}

impl Visit<'_> {
    pub(crate) const fn has_turn(&self) -> bool {
        matches!(self.at, At::Turn)
    }

    /// Waits for the turn to ask, or for a lease that is handed over. Cancel safe: the place is kept until the visit is
    /// dropped.
    pub(crate) async fn turn(&mut self) -> Option<Guard> {
        let At::Place(place) = &self.at else {
            return None;
        };
        place.turn.notified().await;
        let handed = lock(&place.handed).take();
        self.at = if handed.is_some() { At::Out } else { At::Turn };
        handed
    }

    /// How many stand in line behind one that had to wait itself.
    pub(crate) fn behind(&self) -> usize {
        if self.waits {
            self.look(|gate| gate.line.len()).unwrap_or_default()
        } else {
            0
        }
    }

    /// Keeps the turn to ask from those in line until `until`, or `Gates::end_tenure`: they are given the lease of
    /// `attempt` meanwhile. False when there is nobody.
    pub(crate) fn begin_tenure(&mut self, attempt: AttemptId, until: Instant) -> bool {
        let waits = usize::from(self.waits);
        let begun = self.look(|gate| {
            if gate.line.is_empty() {
                return false;
            }
            gate.waiting -= waits;
            gate.tenure = Some(Tenure { attempt, until });
            true
        });
        let begun = begun == Some(true);
        if begun {
            self.at = At::Out;
        }
        begun
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
        if matches!(self.at, At::Out) {
            return;
        }
        let mut gates = lock(&self.gates.0);
        let Entry::Occupied(mut entry) = gates.entry(self.resource.clone()) else {
            return;
        };
        if let At::Place(place) = &self.at {
            let unwanted = lock(&place.handed).take();
            if unwanted.is_some() {
                drop(gates);
                // Its drop comes back here.
                drop(unwanted);
                return;
            }
        }
        let gate = entry.get_mut();
        gate.waiting -= usize::from(self.waits);
        // Who has a place and is not in the line any more was given the turn just now.
        let standing = match &self.at {
            At::Place(place) => gate
                .line
                .binary_search_by_key(&place.number, |other| other.number)
                .ok(),
            At::Turn | At::Out => None,
        };
        match standing {
            Some(index) => drop(gate.line.remove(index)),
            None => pass_turn(entry),
        }
    }
}

/// The next one in line asks the backend; the gate goes when there is none.
fn pass_turn(mut entry: OccupiedEntry<'_, Resource, Gate>) {
    match entry.get_mut().line.pop_front() {
        Some(next) => next.turn.notify_one(),
        None => drop(entry.remove()),
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

    fn wish() -> Wish {
        Wish {
            ttl: Duration::from_secs(30),
            details: "".into(),
            takes_over: true,
        }
    }

    #[tokio::test]
    async fn first_in_first_out_and_nothing_left() {
        let gates = Gates::default();
        let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new("a").unwrap());
        let mut first = gates.enter(&resource, wish);
        assert!(first.turn().await.is_none());
        assert!(gates.waited_for(&resource).is_none());
        let order = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..5)
            .map(|i| {
                let mut visit = gates.enter(&resource, wish);
                let order = Arc::clone(&order);
                async move {
                    assert!(visit.turn().await.is_none());
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
        let first = gates.enter(&resource, wish);
        let [mut second, mut third, mut fourth] = [(); 3].map(|()| gates.enter(&resource, wish));
        // One leaves the line, one has been given the turn and does not know it yet.
        assert!(third.turn().now_or_never().is_none());
        drop(third);
        assert!(second.turn().now_or_never().is_none());
        drop(first);
        assert!(fourth.turn().now_or_never().is_none());
        drop(second);
        assert!(fourth.turn().now_or_never().unwrap().is_none());
        assert!(fourth.has_turn() && gates.waited_for(&resource).is_some());
        drop(fourth);
        assert_eq!(gates.len(), 0);
    }
}
