//! Those who are far behind. To tell every waiter of every release costs the server as much as they are, so these are told
//! of one key only: of a milestone, the last one before those who come right before them. When that is gone they are near,
//! watch the lock as the others do, and ask where they stand.

use std::time::Duration;

use lockcore::{AttemptId, Instant};

use super::{LockKeys, Named, Older, Place, Queue, Queues, STAND_BY, Table, Waiter, Watch, WatchId, Wish};

/// From so many before it on a waiter is far behind. The two watches cost four messages and a look, which a smaller crowd
/// is not worth.
const FAR: usize = 128;

/// A waiter that watches its milestone.
pub(super) struct Far {
    watch: WatchId,
    keys: LockKeys,
    window: Duration,
    place: Place,
}

/// What a watch is for.
pub(super) enum Watched {
    Lock(LockKeys),
    /// The milestone of this waiter.
    Milestone(AttemptId),
}

/// The milestone of a waiter, where an answer named those right before it, and there are enough of them.
fn milestone(place: &Place, named: &Named) -> Option<AttemptId> {
    let is_right_before = named.all.end == place.created && named.keys.len() >= STAND_BY;
    let (attempt, _) = named.keys.iter().min_by_key(|(_, created)| *created)?;
    (is_right_before && place.older.least() > FAR).then_some(*attempt)
}

impl Table {
    /// `attempt` watches no milestone any more, if it did.
    pub(super) fn come_near(&mut self, attempt: AttemptId) -> Option<Far> {
        let far = self.far.remove(&attempt)?;
        self.end(far.watch);
        Some(far)
    }

    /// On a new connection those who were far behind watch their locks: how far they have come meanwhile, they ask then.
    pub(super) fn all_come_near(&mut self, now: Instant) {
        for (attempt, far) in std::mem::take(&mut self.far) {
            self.stand(attempt, far, now);
        }
    }

    fn stand(&mut self, attempt: AttemptId, far: Far, now: Instant) -> &mut Queue {
        let queue = self.queues.entry(far.keys).or_insert_with(|| Queue::new(now));
        queue.used = now;
        let waiter = queue.waiters.entry(attempt).or_insert(Waiter {
            window: far.window,
            place: None,
            missed: None,
        });
        waiter.place = Some(far.place);
        queue
    }

    /// The lock is not watched any more, unless others of this process wait for it.
    pub(super) fn end_watch(&mut self, keys: &LockKeys) {
        let Some(queue) = self.queues.get_mut(keys).filter(|queue| queue.waiters.is_empty()) else {
            return;
        };
        if let Watch::Wished(id) | Watch::Live(id, _) = std::mem::replace(&mut queue.watch, Watch::No) {
            queue.named.clear();
            queue.free = None;
            self.end(id);
        }
    }

    fn end(&mut self, id: WatchId) {
        if self.watches.remove(&id).is_some() {
            self.wishes.as_ref().map(|wishes| wishes.send(Wish::Cancel(id)));
        }
    }
}

impl Queues {
    /// Is the waiter far behind? Then it watches its milestone and nothing else.
    pub(super) fn stays_far(
        &self,
        table: &mut Table,
        keys: &LockKeys,
        (attempt, window): (AttemptId, Duration),
        place: Place,
        named: &Named,
    ) -> bool {
        if let Some(far) = table.far.get_mut(&attempt) {
            if matches!(place.older, Older::Exactly(count) if count <= STAND_BY) {
                table.come_near(attempt);
                return false;
            }
            far.place = place;
        } else {
            let Some(milestone) = milestone(&place, named) else {
                return false;
            };
            let watch = self.next_watch();
            let keys_of_its_own = keys.clone();
            let far = Far {
                watch,
                keys: keys_of_its_own,
                window,
                place,
            };
            table.far.insert(attempt, far);
            table.watches.insert(watch, Watched::Milestone(attempt));
            // The server is slow to tell what is past already. There is time for that.
            let wish = Wish::WatchKey(watch, keys.of(milestone), place.seen + 1);
            table.wishes.as_ref().map(|wishes| wishes.send(wish));
        }
        if let Some(queue) = table.queues.get_mut(keys) {
            queue.waiters.remove(&attempt);
            table.end_watch(keys);
        }
        true
    }

    /// Was `id` for a milestone, which is gone or cannot be watched? Then its waiter watches the lock, and asks where it
    /// stands as soon as it does.
    pub(crate) fn milestone_passed(&self, id: WatchId) -> bool {
        let now = self.context.env.now();
        let mut table = self.table();
        let Some(Watched::Milestone(attempt)) = table.watches.get(&id) else {
            return false;
        };
        let attempt = *attempt;
        let Some(far) = table.come_near(attempt) else {
            return true;
        };
        let keys = far.keys.clone();
        table.stand(attempt, far, now).crowded = true;
        let Table {
            queues,
            watches,
            wishes,
            ..
        } = &mut *table;
        if let Some(queue) = queues.get_mut(&keys) {
            match queue.watch {
                // It did not tell this one of anything so far.
                Watch::Live(..) => self.context.signals.wake(attempt),
                Watch::No | Watch::Wished(_) => self.wish(&keys, queue, watches, wishes.as_ref()),
            }
        }
        true
    }
}
