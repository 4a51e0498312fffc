//! The queues that this process's waiters stand in, and what the watches tell about them.
//!
//! The server tells of deleted keys only. So a waiter knows how many come before it, but not when the first of a queue
//! has claimed a lock that became free. Those behind it look for themselves, one claim window after the other, and
//! remove who did not claim: that is what gets past a process that is dead or stopped while its session lives on. Who is
//! further behind than that is told of one key only, see [`far`].

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{AttemptId, DriverContext, Instant};
use tokio::sync::mpsc;

use crate::attempts::Attempts;
use crate::keys::LockKeys;

mod far;
mod place;

use far::{Far, Watched};
use place::Hint;
pub(crate) use place::{Named, Older, Place, windows};

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
    /// All keys of a lock, from now on.
    Watch(WatchId, LockKeys),
    /// One key, from this revision on.
    WatchKey(WatchId, String, i64),
    Cancel(WatchId),
}

/// A key is gone. What it was, the server does not say unless it is asked to, which costs it a look into the past for every
/// process that watches: we know it from the answers that named the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) attempt: AttemptId,
    /// The store's revision at which it was deleted.
    pub(crate) at: i64,
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
    far: HashMap<AttemptId, Far>,
    watches: HashMap<WatchId, Watched>,
    wishes: Option<mpsc::UnboundedSender<Wish>>,
}

struct Queue {
    watch: Watch,
    waiters: HashMap<AttemptId, Waiter>,
    /// Who was named by an answer and is there still.
    named: HashMap<AttemptId, Name>,
    /// The lock was seen free, with somebody in the queue, since.
    free: Option<Free>,
    used: Instant,
    /// Its last waiter came from far behind: the next one will too.
    crowded: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Watch {
    No,
    Wished(WatchId),
    /// It tells of all that comes after this revision.
    Live(WatchId, i64),
}

/// A key that an answer named.
#[derive(Clone, Copy)]
struct Name {
    /// When it was created.
    created: i64,
    /// The store's revision of the answer.
    seen: i64,
}

struct Free {
    /// Who is to claim it, by when its key was created, once somebody has seen it.
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
        table.watches.clear();
        table.wishes = Some(sender);
        table.all_come_near(self.context.env.now());
        let Table {
            queues,
            watches,
            wishes,
            ..
        } = &mut *table;
        queues.retain(|_, queue| !queue.waiters.is_empty());
        for (keys, queue) in queues {
            queue.watch = Watch::No;
            // What is deleted until the new watch is there is told by nobody.
            queue.named.clear();
            self.wish(keys, queue, watches, wishes.as_ref());
        }
        receiver
    }

    fn wish(
        &self,
        keys: &LockKeys,
        queue: &mut Queue,
        watches: &mut HashMap<WatchId, Watched>,
        wishes: Option<&mpsc::UnboundedSender<Wish>>,
    ) {
        if queue.watch == Watch::No {
            let id = self.next_watch();
            watches.insert(id, Watched::Lock(keys.clone()));
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
        let Table { queues, watches, .. } = &mut *table;
        let Some(Watched::Lock(keys)) = watches.get(&id) else {
            return;
        };
        let Some(queue) = queues.get_mut(keys) else {
            return;
        };
        queue.watch = Watch::Live(id, revision);
        queue.named.retain(|_, name| name.seen >= revision);
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

    /// It stands there, behind those who are `named`.
    pub(crate) fn waits(
        &self,
        keys: &LockKeys,
        (attempt, window): (AttemptId, Duration),
        place: Place,
        named: &Named,
    ) {
        let now = self.context.env.now();
        let mut table = self.table();
        if self.stays_far(&mut table, keys, (attempt, window), place, named) {
            return;
        }
        let Table {
            queues,
            watches,
            wishes,
            ..
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
        } else {
            queue.named.retain(|_, name| !named.all.contains(&name.created));
            let seen = place.seen;
            let names = named
                .keys
                .iter()
                .map(|&(attempt, created)| (attempt, Name { created, seen }));
            queue.named.extend(names);
        }
        let free = queue.free.is_some();
        for deleted in missed {
            let then = queue.named.remove(&deleted.attempt).map(|name| name.created);
            self.tell(attempt, &deleted, then, free, queue);
        }
    }

    /// It waits no longer, or has not begun to.
    pub(crate) fn leaves(&self, keys: &LockKeys, attempt: AttemptId) {
        let mut table = self.table();
        table.come_near(attempt);
        if let Some(queue) = table.queues.get_mut(keys) {
            queue.waiters.remove(&attempt);
            queue.used = self.context.env.now();
            if std::mem::take(&mut queue.crowded) {
                table.end_watch(keys);
            }
        }
    }

    /// Is it the turn of `attempt`, as far as we have been told? True when we have not.
    pub(crate) fn is_due(&self, keys: &LockKeys, attempt: AttemptId) -> bool {
        let table = self.table();
        if table.far.contains_key(&attempt) {
            return false;
        }
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

    /// A watch says that a key is gone.
    pub(crate) fn heard(&self, id: WatchId, keys: &LockKeys, deleted: &Deleted) {
        if !self.milestone_passed(id) {
            self.deleted(keys, deleted);
        }
    }

    fn deleted(&self, keys: &LockKeys, deleted: &Deleted) {
        let now = self.context.env.now();
        if self.attempts.holds(deleted.attempt) {
            // Somebody freed it by force.
            self.context.signals.wake(deleted.attempt);
        }
        let mut table = self.table();
        let Some(queue) = table.queues.get_mut(keys) else {
            return;
        };
        let then = queue.named.remove(&deleted.attempt).map(|name| name.created);
        let first = queue.named.values().map(|name| name.created).min();
        let next = match (&queue.free, then) {
            // Who held it, or was to claim it; or somebody further behind gave up.
            (Some(free), Some(then)) => free.first.is_none_or(|seen| seen == then),
            (None, Some(then)) => first.is_none_or(|first| then < first),
            // Where all have names that come before ours, it came behind them.
            (_, None) => queue.waiters.values().any(|waiter| {
                waiter
                    .place
                    .is_none_or(|place| place.older.least() > queue.named_before(&place))
            }),
        };
        if next {
            queue.free = Some(Free {
                first: None,
                since: now,
            });
        }
        let free = queue.free.is_some();
        let mut told = Vec::new();
        for (attempt, waiter) in &mut queue.waiters {
            match &mut waiter.missed {
                Some(missed) => missed.push(*deleted),
                None => told.push(*attempt),
            }
        }
        for attempt in told {
            self.tell(attempt, deleted, then, free, queue);
        }
    }

    fn tell(&self, attempt: AttemptId, deleted: &Deleted, then: Option<i64>, free: bool, queue: &mut Queue) {
        let Some(place) = queue.waiters.get(&attempt).and_then(|waiter| waiter.place) else {
            return;
        };
        if deleted.attempt == attempt && deleted.at > place.seen {
            return self.context.signals.wake(attempt);
        }
        let named = queue.named_before(&place);
        let Some(Waiter {
            window,
            place: Some(place),
            ..
        }) = queue.waiters.get_mut(&attempt)
        else {
            return;
        };
        match place.hear(deleted.at, then, named, free) {
            Hint::Nothing => {}
            Hint::Ask => self.context.signals.wake(attempt),
            Hint::StandBy(older) => self.context.signals.wake_in(attempt, windows(*window, older)),
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
            ..
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
    /// How many of those before `place` have a name.
    fn named_before(&self, place: &Place) -> usize {
        self.named
            .values()
            .filter(|name| name.created < place.created)
            .count()
    }

    fn new(now: Instant) -> Self {
        Self {
            watch: Watch::No,
            waiters: HashMap::new(),
            named: HashMap::new(),
            free: None,
            used: now,
            crowded: false,
        }
    }
}

#[cfg(test)]
mod tests;
