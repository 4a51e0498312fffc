//! Which leases are held, and when each is looked at next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tokio::sync::oneshot;

use crate::claim::{AttemptId, AttemptMap};
use crate::env::Instant;
use crate::held::Held;

/// So many entries of the schedule may be out of date whatever is held.
const MOST_OUT_OF_DATE: usize = 64;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) held: Held,
    /// Its place in the schedule.
    due: Instant,
    /// Failed renewals in a row.
    pub(super) failures: u32,
    pub(super) in_flight: bool,
    /// Look at it again as soon as the call under way is answered.
    pub(super) check: bool,
}

impl Entry {
    pub(super) const fn new(held: Held, due: Instant) -> Self {
        Self {
            held,
            due,
            failures: 0,
            in_flight: false,
            check: false,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) held: AttemptMap<Entry>,
    /// An entry counts while its lease is due just then.
    schedule: BinaryHeap<Reverse<(Instant, AttemptId)>>,
    pub(super) drained: Vec<oneshot::Sender<()>>,
    /// When all leases were checked last, and when that is due again.
    pub(super) checked_all: Instant,
    pub(super) check_all: Option<Instant>,
    /// Until when the task sleeps.
    pub(super) asleep: Option<Instant>,
}

impl Table {
    pub(super) fn insert(&mut self, entry: Entry) {
        let (attempt, due) = (entry.held.claim().attempt, entry.due);
        self.held.insert(attempt, entry);
        self.schedule.push(Reverse((due, attempt)));
    }

    pub(super) fn reschedule(&mut self, attempt: AttemptId, due: Instant) {
        if let Some(entry) = self.held.get_mut(&attempt) {
            entry.due = due;
            self.schedule.push(Reverse((due, attempt)));
            self.compact();
        }
    }

    pub(super) fn remove(&mut self, attempt: AttemptId) -> Option<Held> {
        let entry = self.held.remove(&attempt)?;
        self.compact();
        Some(entry.held)
    }

    /// The next one whose time has come, out of the schedule.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<AttemptId> {
        while self.next_due().is_some_and(|due| due <= now) {
            let Reverse((due, attempt)) = self.schedule.pop()?;
            if self.held.get(&attempt).is_some_and(|entry| entry.due == due) {
                return Some(attempt);
            }
        }
        None
    }

    /// When to look again: not later than the first one is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.schedule.peek().map(|Reverse((due, _))| *due)
    }

    /// Entries that are out of date stay in the schedule until they are most of it: that needs no allocation, and the
    /// task goes on sleeping until the time of a lease that was released, which is mostly that of the next one too.
    fn compact(&mut self) {
        let Self { held, schedule, .. } = self;
        if schedule.len() > 2 * held.len() + MOST_OUT_OF_DATE {
            schedule
                .retain(|Reverse((due, attempt))| held.get(attempt).is_some_and(|entry| entry.due == *due));
        }
    }

    pub(super) fn tell_drained(&mut self) {
        if self.held.is_empty() {
            for sender in self.drained.drain(..) {
                sender.send(()).ok();
            }
        }
    }

    pub(super) fn check_all(&mut self, now: Instant) {
        if self.check_all.is_none_or(|due| due > now) {
            return;
        }
        self.check_all = None;
        self.checked_all = now;
        for attempt in self.attempts() {
            self.check(attempt, now);
        }
    }

    pub(super) fn check(&mut self, attempt: AttemptId, now: Instant) {
        let Some(entry) = self.held.get_mut(&attempt) else {
            return;
        };
        entry.check = true;
        if !entry.in_flight {
            self.reschedule(attempt, now);
        }
    }

    /// All of them. The map's order is arbitrary; under virtual time everything follows from the seed.
    pub(super) fn attempts(&self) -> Vec<AttemptId> {
        let mut attempts: Vec<_> = self.held.keys().copied().collect();
        attempts.sort_unstable();
        attempts
    }
}
