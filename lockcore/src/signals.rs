//! What a backend pushed, on its way from a driver to whoever waits for it.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};

use crate::claim::{AttemptId, AttemptMap, SharedClaim};

/// A power of two, so that the shard is a mask of the attempt's bits.
const SHARDS: usize = 16;

/// Something that lockcore's upkeep of held leases has to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeldSignal {
    /// This lease may be gone.
    Check(AttemptId),
    /// Every lease may be gone.
    CheckAll,
}

/// What was signalled to a waiter since it last looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signalled {
    /// Ask again now.
    pub(crate) now: bool,
    /// Ask again after this long; the shortest one that was signalled.
    pub(crate) after: Option<Duration>,
}

/// How one waiter is woken.
#[derive(Debug, Default)]
pub(crate) struct WaiterSlot {
    notify: Notify,
    signalled: Mutex<Signalled>,
}

impl WaiterSlot {
    fn signal(&self, change: impl FnOnce(&mut Signalled)) {
        change(&mut lock(&self.signalled));
        self.notify.notify_one();
    }

    /// Waits until something was signalled, and takes it. Cancel safe: nothing is taken before it is returned.
    pub(crate) async fn signalled(&self) -> Signalled {
        loop {
            let signalled = std::mem::take(&mut *lock(&self.signalled));
            if signalled != Signalled::default() {
                return signalled;
            }
            self.notify.notified().await;
        }
    }
}

type Shard = AttemptMap<SharedClaim>;

struct Inner {
    shards: [Mutex<Shard>; SHARDS],
    held: mpsc::UnboundedSender<HeldSignal>,
    held_receiver: Mutex<Option<mpsc::UnboundedReceiver<HeldSignal>>>,
}

/// The registry in which drivers report pushes. Cheap to clone, never blocks.
///
/// A wake-up too many costs one request; one that is lost is made up for by lockcore's timers. So a driver that is
/// in doubt wakes.
#[derive(Clone)]
pub struct Signals(Arc<Inner>);

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals")
            .field("waiters", &self.waiters())
            .finish()
    }
}

impl Signals {
    pub(crate) fn new() -> Self {
        let (held, held_receiver) = mpsc::unbounded_channel();
        Self(Arc::new(Inner {
            shards: std::array::from_fn(|_| Mutex::default()),
            held,
            held_receiver: Mutex::new(Some(held_receiver)),
        }))
    }

    /// Something changed for `attempt`: if it waits, its turn may have come; if it holds, its lease may be gone.
    pub fn wake(&self, attempt: AttemptId) {
        match self.waiter(attempt) {
            Some(claim) => claim.waiter().signal(|signalled| signalled.now = true),
            None => self.tell_held(HeldSignal::Check(attempt)),
        }
    }

    /// `attempt` is next after a waiter that was just woken: it asks again after `delay` unless something else
    /// happens to it first. That bounds what a stopped waiter costs the queue.
    pub fn wake_in(&self, attempt: AttemptId, delay: Duration) {
        if let Some(claim) = self.waiter(attempt) {
            claim.waiter().signal(|signalled| {
                signalled.after = Some(signalled.after.map_or(delay, |earlier| earlier.min(delay)));
            });
        }
    }

    /// Pushes may have been missed, or the backend may have forgotten everything: call it after every reconnect.
    pub fn wake_all(&self) {
        let mut waiters: Vec<_> = Vec::new();
        for shard in &self.0.shards {
            waiters.extend(lock(shard).values().cloned());
        }
        // The map's order is arbitrary; under virtual time everything follows from the seed.
        waiters.sort_unstable_by_key(|claim| claim.attempt);
        for claim in waiters {
            claim.waiter().signal(|signalled| signalled.now = true);
        }
        self.tell_held(HeldSignal::CheckAll);
    }

    /// How many attempts wait at the backend.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.0.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Makes the attempt of `claim` reachable, until [`leave`](Self::leave).
    pub(crate) fn enter(&self, claim: &SharedClaim) {
        lock(self.shard(claim.attempt)).insert(claim.attempt, claim.clone());
    }

    pub(crate) fn leave(&self, attempt: AttemptId) {
        let left = lock(self.shard(attempt)).remove(&attempt);
        // Not under the lock: it may be the last one.
        drop(left);
    }

    /// The receiving end for held leases; `None` the second time.
    pub(crate) fn take_held(&self) -> Option<mpsc::UnboundedReceiver<HeldSignal>> {
        lock(&self.0.held_receiver).take()
    }

    fn tell_held(&self, signal: HeldSignal) {
        // Without a receiver there is no manager, hence nothing held.
        self.0.held.send(signal).ok();
    }

    fn waiter(&self, attempt: AttemptId) -> Option<SharedClaim> {
        lock(self.shard(attempt)).get(&attempt).cloned()
    }

    fn shard(&self, attempt: AttemptId) -> &Mutex<Shard> {
        let index = attempt.bits() as usize & (SHARDS - 1);
        &self.0.shards[index]
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;
    use crate::name::{Kind, LockName, Namespace, Resource};

    #[tokio::test]
    async fn a_wake_up_before_the_wait_is_kept() {
        let signals = Signals::new();
        let attempt = AttemptId::from_bits(1);
        let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new("a").unwrap());
        let claim = SharedClaim::from(Claim::new(resource, attempt, Duration::from_secs(30)));
        signals.enter(&claim);
        signals.wake_in(attempt, Duration::from_secs(2));
        signals.wake_in(attempt, Duration::from_secs(1));
        let after = Some(Duration::from_secs(1));
        assert_eq!(claim.waiter().signalled().await, Signalled { now: false, after });
        signals.wake(attempt);
        signals.wake_in(attempt, Duration::from_secs(1));
        assert_eq!(claim.waiter().signalled().await, Signalled { now: true, after });
        signals.leave(attempt);
        assert_eq!(signals.waiters(), 0);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_goes_to_the_upkeep() {
        let signals = Signals::new();
        let mut held = signals.take_held().unwrap();
        signals.wake(AttemptId::from_bits(1));
        signals.wake_all();
        assert_eq!(
            held.recv().await,
            Some(HeldSignal::Check(AttemptId::from_bits(1)))
        );
        assert_eq!(held.recv().await, Some(HeldSignal::CheckAll));
    }
}
