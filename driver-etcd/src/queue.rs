//! The queues that this process's waiters stand in, and what the watches tell about them.
//!
//! The server tells of deleted keys only. So a waiter knows how many come before it, but not when the first of a queue
//! has claimed a lock that became free. Those behind it look for themselves, one claim window after the other, and
//! remove who did not claim: that is what gets past a process that is dead or stopped while its session lives on.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{AttemptId, DriverContext, Instant};
use tokio::sync::mpsc;

use crate::attempts::Attempts;
use crate::keys::LockKeys;

/// How a watch is named on its stream.
pub(crate) type WatchId = i64;

/// How long a watch outlives its last waiter: the next one comes soon where there is contention.
const LINGER: Duration = Duration::from_secs(5);

/// So many of those behind the first look for themselves, one claim window after the other. A lock that is held for long
/// costs as many looks, however many wait.
pub(crate) const STAND_BY: usize = 16;

/// Who knows only that at least so many come before it counts again.
const COUNT_AGAIN: usize = STAND_BY / 2;

/// What the stream of watches is asked for.
#[derive(Debug)]
pub(crate) enum Wish {
    Watch(WatchId, LockKeys),
    Cancel(WatchId),
}

/// A key is gone.
#[derive(Clone, Debug)]
pub(crate) struct Deleted {
    pub(crate) attempt: AttemptId,
    /// The store's revision at which it was deleted.
    pub(crate) at: i64,
    /// When it was created, and whether it held the lock; `None` where the server has forgotten.
    pub(crate) created: Option<i64>,
    pub(crate) held: Option<bool>,
}

/// Where a waiter stands, as an answer of the server told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// When its key was created.
    pub(crate) created: i64,
    /// How many keys are older.
    pub(crate) older: Older,
    /// The store's revision of the answer.
    pub(crate) seen: i64,
}

/// How many keys are older than a waiter's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Older {
    Exactly(usize),
    AtLeast(usize),
}

impl Older {
    /// One of them is gone. Nothing when it is time to count again.
    const fn less(self) -> Option<Self> {
        match self {
            Self::Exactly(count) => Some(Self::Exactly(count.saturating_sub(1))),
            Self::AtLeast(count) if count > COUNT_AGAIN => Some(Self::AtLeast(count - 1)),
            Self::AtLeast(_) => None,
        }
    }
}

/// What a waiter does about a deletion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hint {
    Nothing,
    /// Asks now.
    Ask,
    /// Asks when as many as this had a claim window each.
    StandBy(usize),
}

impl Place {
    /// A key of the lock is gone; `free` when nobody is known to hold it.
    fn hear(&mut self, deleted: &Deleted, free: bool) -> Hint {
        if deleted.at <= self.seen {
            // The answer knew it already.
            return Hint::Nothing;
        }
        // Several keys may be gone with one revision: of dead waiters that somebody went past. Each counts.
        let older = match deleted.created {
            Some(created) if created > self.created => return Hint::Nothing,
            Some(created) if created < self.created => self.older.less(),
            // Its own key, or one that the server has forgotten.
            _ => return Hint::Ask,
        };
        self.older = older.unwrap_or(self.older);
        match older {
            None | Some(Older::Exactly(0)) => Hint::Ask,
            Some(Older::Exactly(count)) if free && count <= STAND_BY => Hint::StandBy(count),
            Some(_) => Hint::Nothing,
        }
    }
}

/// A claim window for each of `older`.
pub(crate) fn windows(window: Duration, older: usize) -> Duration {
    window.saturating_mul(u32::try_from(older).unwrap_or(u32::MAX))
}

/// The queues of one driver.
pub(crate) struct Queues {
    context: DriverContext,
    pub(crate) attempts: Attempts,
    ids: AtomicI64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    queues: HashMap<LockKeys, Queue>,
    watches: HashMap<WatchId, LockKeys>,
    wishes: Option<mpsc::UnboundedSender<Wish>>,
}

struct Queue {
    watch: Watch,
    waiters: HashMap<AttemptId, Waiter>,
    /// The lock was seen free, with somebody in the queue, since.
    free: Option<Free>,
    used: Instant,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    No,
    Wished(WatchId),
    /// It tells of all that comes after this revision.
    Live(WatchId, i64),
}

struct Free {
    /// Who is to claim it, once somebody has seen it.
    first: Option<i64>,
    since: Instant,
}

struct Waiter {
    window: Duration,
    place: Option<Place>,
    /// While a request is under way, what was deleted meanwhile.
    missed: Option<Vec<Deleted>>,
}

impl fmt::Debug for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.table();
        f.debug_struct("Queues")
            .field("queues", &table.queues.len())
            .field("watches", &table.watches.len())
            .finish_non_exhaustive()
    }
}

impl Queues {
    pub(crate) fn new(context: DriverContext) -> Arc<Self> {
        Arc::new(Self {
            context,
            attempts: Attempts::default(),
            ids: AtomicI64::new(1),
            table: Mutex::default(),
        })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn next_watch(&self) -> WatchId {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// For a new stream of watches: whatever is waited for is wished for again.
    pub(crate) fn attach(&self) -> mpsc::UnboundedReceiver<Wish> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut table = self.table();
        let Table {
            queues,
            watches,
            wishes,
        } = &mut *table;
        watches.clear();
        *wishes = Some(sender);
        queues.retain(|_, queue| !queue.waiters.is_empty());
        for (keys, queue) in queues {
            queue.watch = Watch::No;
            self.wish(keys, queue, watches, wishes.as_ref());
        }
        receiver
    }

    fn wish(
        &self,
        keys: &LockKeys,
        queue: &mut Queue,
        watches: &mut HashMap<WatchId, LockKeys>,
        wishes: Option<&mpsc::UnboundedSender<Wish>>,
    ) {
        if queue.watch == Watch::No {
            let id = self.next_watch();
            watches.insert(id, keys.clone());
            queue.watch = Watch::Wished(id);
            // Without a connection the next one asks for it.
            wishes.map(|wishes| wishes.send(Wish::Watch(id, keys.clone())));
        }
    }

    /// Is this watch one that somebody waits for?
    pub(crate) fn is_wanted(&self, id: WatchId) -> bool {
        self.table().watches.contains_key(&id)
    }

    /// The watch is there, and tells what comes after `revision`. Who was answered before that may have missed something.
    pub(crate) fn created(&self, id: WatchId, revision: i64) {
        let mut table = self.table();
        let Some(keys) = table.watches.get(&id).cloned() else {
            return;
        };
        let Some(queue) = table.queues.get_mut(&keys) else {
            return;
        };
        queue.watch = Watch::Live(id, revision);
        for (attempt, waiter) in &queue.waiters {
            if waiter.place.is_some_and(|place| place.seen < revision) {
                self.context.signals.wake(*attempt);
            }
        }
    }

    /// `attempt` asks where it stands: what is deleted from now on may not be in its answer.
    pub(crate) fn asks(&self, keys: &LockKeys, attempt: AttemptId, window: Duration) {
        if let Some(queue) = self.table().queues.get_mut(keys) {
            let waiter = queue.waiters.entry(attempt).or_insert(Waiter {
                window,
                place: None,
                missed: None,
            });
            waiter.missed.get_or_insert_default();
        }
    }

    /// It stands there.
    pub(crate) fn waits(&self, keys: &LockKeys, attempt: AttemptId, window: Duration, place: Place) {
        let now = self.context.env.now();
        let mut table = self.table();
        let Table {
            queues,
            watches,
            wishes,
        } = &mut *table;
        let queue = queues.entry(keys.clone()).or_insert_with(|| Queue::new(now));
        queue.used = now;
        self.wish(keys, queue, watches, wishes.as_ref());
        let waiter = queue.waiters.entry(attempt).or_insert(Waiter {
            window,
            place: None,
            missed: None,
        });
        let missed = waiter.missed.take().unwrap_or_default();
        waiter.place = Some(place);
        if let Watch::Live(_, from) = queue.watch
            && place.seen < from
        {
            self.context.signals.wake(attempt);
        }
        let free = queue.free.is_some();
        for deleted in &missed {
            self.tell(attempt, waiter, deleted, free);
        }
    }

    /// It waits no longer, or has not begun to.
    pub(crate) fn leaves(&self, keys: &LockKeys, attempt: AttemptId) {
        if let Some(queue) = self.table().queues.get_mut(keys) {
            queue.waiters.remove(&attempt);
            queue.used = self.context.env.now();
        }
    }

    /// Is it the turn of `attempt`, as far as we have been told? True when we have not.
    pub(crate) fn is_due(&self, keys: &LockKeys, attempt: AttemptId) -> bool {
        let table = self.table();
        let waiter = table
            .queues
            .get(keys)
            .and_then(|queue| queue.waiters.get(&attempt));
        let place = waiter.and_then(|waiter| waiter.place);
        place.is_none_or(|place| place.older == Older::Exactly(0))
    }

    /// An answer showed that the key of `first` is the oldest and does not hold the lock. Since when is that so, as far
    /// as we have seen?
    pub(crate) fn is_free(&self, keys: &LockKeys, first: i64) -> Duration {
        let now = self.context.env.now();
        let mut table = self.table();
        let queue = table
            .queues
            .entry(keys.clone())
            .or_insert_with(|| Queue::new(now));
        queue.used = now;
        let since = match &queue.free {
            Some(free) if free.first.is_none_or(|seen| seen == first) => free.since,
            _ => now,
        };
        queue.free = Some(Free {
            first: Some(first),
            since,
        });
        now.since(since)
    }

    /// An answer showed that somebody holds the lock.
    pub(crate) fn is_held(&self, keys: &LockKeys) {
        if let Some(queue) = self.table().queues.get_mut(keys) {
            queue.free = None;
        }
    }

    /// The server says that a key is gone.
    pub(crate) fn deleted(&self, keys: &LockKeys, deleted: &Deleted) {
        let now = self.context.env.now();
        if self.attempts.holds(deleted.attempt) {
            // Somebody freed it by force.
            self.context.signals.wake(deleted.attempt);
        }
        let mut table = self.table();
        let Some(queue) = table.queues.get_mut(keys) else {
            return;
        };
        let next = match (&queue.free, deleted.held) {
            // Somebody further behind gave up.
            (Some(free), Some(false)) => free.first.is_none() || free.first == deleted.created,
            (None, Some(false)) => false,
            (_, Some(true) | None) => true,
        };
        if next {
            queue.free = Some(Free {
                first: None,
                since: now,
            });
        }
        let free = queue.free.is_some();
        for (attempt, waiter) in &mut queue.waiters {
            match &mut waiter.missed {
                Some(missed) => missed.push(deleted.clone()),
                None => self.tell(*attempt, waiter, deleted, free),
            }
        }
    }

    fn tell(&self, attempt: AttemptId, waiter: &mut Waiter, deleted: &Deleted, free: bool) {
        let Some(place) = &mut waiter.place else {
            return;
        };
        match place.hear(deleted, free) {
            Hint::Nothing => {}
            Hint::Ask => self.context.signals.wake(attempt),
            Hint::StandBy(older) => self
                .context
                .signals
                .wake_in(attempt, windows(waiter.window, older)),
        }
    }

    /// Ends watches that nobody has needed for a while.
    pub(crate) fn sweep(&self) {
        let now = self.context.env.now();
        let mut table = self.table();
        let Table {
            queues,
            watches,
            wishes,
        } = &mut *table;
        queues.retain(|_, queue| {
            let kept = !queue.waiters.is_empty() || now.since(queue.used) < LINGER;
            match queue.watch {
                // Its creation is still under way.
                Watch::Wished(_) if !kept => return true,
                Watch::Live(id, _) if !kept => {
                    watches.remove(&id);
                    wishes.as_ref().map(|wishes| wishes.send(Wish::Cancel(id)));
                }
                _ => {}
            }
            kept
        });
    }
}

impl Queue {
    fn new(now: Instant) -> Self {
        Self {
            watch: Watch::No,
            waiters: HashMap::new(),
            free: None,
            used: now,
        }
    }
}

#[cfg(test)]
mod tests;
