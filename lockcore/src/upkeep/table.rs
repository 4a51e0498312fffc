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
    /// Tells it from those that were in its place before.
    number: u32,
    /// Failed renewals in a row.
    pub(super) failures: u16,
    pub(super) in_flight: bool,
    /// Look at it again as soon as the call under way is answered.
    pub(super) check: bool,
}

/// Where a lease is in the table. Those that were tracked one after the other are beside each other, as they are in memory:
/// of thousands none is in a cache when its time comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    index: u32,
    number: u32,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    entries: Vec<Option<Entry>>,
    free: Vec<u32>,
    next_number: u32,
    places: AttemptMap<u32>,
    /// An entry counts while its lease is due just then.
    schedule: BinaryHeap<Reverse<(Instant, Place)>>,
    pub(super) drained: Vec<oneshot::Sender<()>>,
    /// When all leases were checked last, and when that is due again.
    pub(super) checked_all: Instant,
    pub(super) check_all: Option<Instant>,
    /// Until when the task sleeps.
    pub(super) asleep: Option<Instant>,
}

impl Table {
    pub(super) fn insert(&mut self, held: Held, due: Instant) {
        let attempt = held.claim().attempt;
        let number = self.next_number;
        self.next_number = number.wrapping_add(1);
        let entry = Some(Entry {
            held,
            due,
            number,
            failures: 0,
            in_flight: false,
            check: false,
        });
        let index = match self.free.pop() {
            Some(index) => {
                self.entries[index as usize] = entry;
                index
            }
            None => {
                self.entries.push(entry);
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "no memory has room for 2^32 held locks"
                )]
                let index = (self.entries.len() - 1) as u32;
                index
            }
        };
        self.places.insert(attempt, index);
        self.schedule.push(Reverse((due, Place { index, number })));
    }

    pub(super) fn find(&self, attempt: AttemptId) -> Option<Place> {
        self.place(*self.places.get(&attempt)?)
    }

    fn place(&self, index: u32) -> Option<Place> {
        let number = self.entries.get(index as usize)?.as_ref()?.number;
        Some(Place { index, number })
    }

    pub(super) fn get_mut(&mut self, place: Place) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(place.index as usize)?.as_mut();
        entry.filter(|entry| entry.number == place.number)
    }

    pub(super) fn reschedule(&mut self, place: Place, due: Instant) {
        if let Some(entry) = self.get_mut(place) {
            entry.due = due;
            self.schedule.push(Reverse((due, place)));
            self.compact();
        }
    }

    pub(super) fn remove(&mut self, attempt: AttemptId) -> Option<Held> {
        let index = self.places.remove(&attempt)?;
        let entry = self.entries[index as usize].take()?;
        self.free.push(index);
        self.compact();
        Some(entry.held)
    }

    /// The next one whose time has come, out of the schedule.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Place> {
        while self.next_due().is_some_and(|due| due <= now) {
            let Reverse((due, place)) = self.schedule.pop()?;
            if self.get_mut(place).is_some_and(|entry| entry.due == due) {
                return Some(place);
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
        let Self {
            entries,
            schedule,
            places,
            ..
        } = self;
        if schedule.len() > 2 * places.len() + MOST_OUT_OF_DATE {
            schedule.retain(|Reverse((due, place))| {
                let entry = entries[place.index as usize].as_ref();
                entry.is_some_and(|entry| entry.number == place.number && entry.due == *due)
            });
        }
    }

    pub(super) fn tell_drained(&mut self) {
        if self.places.is_empty() {
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
        for index in (0_u32..).take(self.entries.len()) {
            if let Some(place) = self.place(index) {
                self.check(place, now);
            }
        }
    }

    pub(super) fn check(&mut self, place: Place, now: Instant) {
        if let Some(entry) = self.get_mut(place) {
            entry.check = true;
            if !entry.in_flight {
                self.reschedule(place, now);
            }
        }
    }

    pub(super) fn attempts(&self) -> impl Iterator<Item = AttemptId> {
        let entries = self.entries.iter().flatten();
        entries.map(|entry| entry.held.claim().attempt)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::claim::{Claim, SharedClaim, Token};
    use crate::held::Plan;
    use crate::loss::LossReason;
    use crate::name::{Kind, LockName, Namespace, Resource};

    const DUE: Instant = Instant::from_nanos(1_000);

    fn held(attempt: u128) -> Held {
        let name = LockName::new("a").unwrap();
        let resource = Resource::new(Namespace::default(), Kind::Mutex, name);
        let claim = Claim::new(resource, AttemptId::from_bits(attempt), Duration::from_secs(1));
        let plan = Plan {
            renew: true,
            end: Instant::FAR_FUTURE,
            end_reason: LossReason::Expired,
        };
        let deadline = Instant::FAR_FUTURE;
        Held::new(SharedClaim::from(claim), Token::new(1), deadline, None, plan, 0)
    }

    fn attempt(table: &mut Table, place: Place) -> Option<u128> {
        let entry = table.get_mut(place)?;
        Some(entry.held.claim().attempt.bits())
    }

    #[test]
    fn who_is_due_at_one_time_comes_in_the_order_of_arrival() {
        let mut table = Table::default();
        let attempts = [5, 1, 9, 3, 7];
        for attempt in attempts {
            table.insert(held(attempt), DUE);
        }
        assert_eq!(table.pop_due(Instant::from_nanos(999)), None);
        for expected in attempts {
            let place = table.pop_due(DUE).unwrap();
            assert_eq!(attempt(&mut table, place), Some(expected));
        }
        assert_eq!(table.pop_due(DUE), None);
    }

    #[test]
    fn a_place_that_is_used_again_is_another() {
        let mut table = Table::default();
        table.insert(held(1), DUE);
        let first = table.find(AttemptId::from_bits(1)).unwrap();
        table.remove(AttemptId::from_bits(1)).unwrap();
        table.insert(held(2), DUE);
        let second = table.find(AttemptId::from_bits(2)).unwrap();
        assert_eq!((first.index, second.index), (0, 0));
        assert_eq!(attempt(&mut table, first), None);
        table.reschedule(first, Instant::from_nanos(1));
        assert_eq!(table.pop_due(DUE), Some(second));
        assert_eq!(table.pop_due(DUE), None, "what is out of date does not count");
    }

    #[test]
    fn the_schedule_stays_as_small_as_what_is_held() {
        let mut table = Table::default();
        table.insert(held(0), DUE);
        for attempt in 1..2_000 {
            table.insert(held(attempt), DUE);
            table.remove(AttemptId::from_bits(attempt)).unwrap();
        }
        assert!(
            table.schedule.len() <= 2 + MOST_OUT_OF_DATE + 1,
            "{}",
            table.schedule.len()
        );
        assert_eq!(table.entries.len(), 2);
        let place = table.pop_due(DUE).unwrap();
        assert_eq!(attempt(&mut table, place), Some(0));
        assert_eq!(table.pop_due(DUE), None);
    }
}
