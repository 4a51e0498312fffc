//! What keeps a manager's held leases: renews them in batches, and ends those that are over.
//!
//! One table under a lock, and one task that sleeps until the first lease is due. Taking and releasing a lock write to
//! the table without waking the task, unless the new lease is due before all others.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::claim::AttemptId;
use crate::core::Shared;
use crate::driver::{Lease, Renewal};
use crate::env::Instant;
use crate::held::{Held, UnderWay};
use crate::lease_word::LeaseState;
use crate::loss::LossReason;
use crate::schedule::{RenewalGrid, next_retry};
use crate::settings::ttl_until;
use crate::signals::HeldSignal;

/// Reconnects that follow each other closely cause one check of all leases.
const CHECK_ALL_PAUSE: Duration = Duration::from_millis(100);

/// Leases that are renewed with one call.
type Batch = (Vec<Lease>, Vec<UnderWay>);

#[derive(Debug)]
struct Entry {
    held: Arc<Held>,
    /// Its place in the schedule.
    due: Instant,
    in_flight: bool,
    /// Look at it again as soon as the call under way is answered.
    check: bool,
    /// Failed renewals in a row.
    failures: u32,
}

/// The held leases of one manager.
#[derive(Debug)]
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    grid: RenewalGrid,
    table: Mutex<Table>,
    /// Something is due sooner than the task expects.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Table {
    held: HashMap<AttemptId, Entry>,
    schedule: BTreeSet<(Instant, AttemptId)>,
    drained: Vec<oneshot::Sender<()>>,
    /// When all leases were checked last, and when that is due again.
    checked_all: Instant,
    check_all: Option<Instant>,
    /// Until when the task sleeps.
    asleep: Option<Instant>,
}

impl Upkeep {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let grid = RenewalGrid::new(&shared.env);
        Self {
            shared,
            grid,
            table: Mutex::default(),
            sooner: Notify::new(),
        }
    }

    /// Looks after the leases until `gone`, when every handle and guard of the manager is.
    pub(crate) async fn run(
        self: Arc<Self>,
        mut signals: mpsc::UnboundedReceiver<HeldSignal>,
        gone: CancellationToken,
    ) {
        let env = self.shared.env.clone();
        loop {
            let next = self.work();
            tokio::select! {
                biased;
                () = gone.cancelled() => return,
                Some(signal) = signals.recv() => self.hear(signal),
                () = self.sooner.notified() => {}
                () = env.sleep_until(next), if next < Instant::FAR_FUTURE => {}
            }
        }
    }

    /// Looks after a lease that was granted by a request sent at `sent`.
    pub(crate) fn track(&self, held: Arc<Held>, sent: Instant) {
        let attempt = held.claim.attempt;
        let due = self.due(&held, sent);
        let mut table = self.table();
        table.schedule.insert((due, attempt));
        table.held.insert(
            attempt,
            Entry {
                held,
                due,
                in_flight: false,
                check: false,
                failures: 0,
            },
        );
        self.wake_by(&table, due);
    }

    /// A lease was released. The task finds nothing when its time comes.
    pub(crate) fn forget(&self, attempt: AttemptId) {
        let mut table = self.table();
        table.remove(attempt);
        table.tell_drained();
    }

    /// The TTL of a lease was changed, and a renewal for that sent at `sent`.
    pub(crate) fn retime(&self, attempt: AttemptId, sent: Instant) {
        let mut table = self.table();
        if let Some(entry) = table.held.get(&attempt).filter(|entry| !entry.in_flight) {
            let due = self.due(&entry.held, sent);
            table.reschedule(attempt, due);
            self.wake_by(&table, due);
        }
    }

    /// Tells when nothing is held any more.
    pub(crate) fn drained(&self) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        table.drained.push(sender);
        table.tell_drained();
        receiver
    }

    /// Makes a loss known and frees what may be left at the backend.
    pub(crate) fn lose(&self, attempt: AttemptId, reason: LossReason) {
        let removed = self.table().remove(attempt);
        self.lost(removed.map(|held| (held, reason)));
    }

    /// Ends all that is held.
    pub(crate) fn lose_all(&self, reason: LossReason) {
        let attempts = self.table().attempts();
        for attempt in attempts {
            self.lose(attempt, reason);
        }
    }

    /// For leases that were taken out of the table. Nobody is told that it is empty before their clean-up has begun.
    fn lost(&self, leases: impl IntoIterator<Item = (Arc<Held>, LossReason)>) {
        for (held, reason) in leases {
            held.lose(reason);
            tracing::warn!(name = %held.claim.resource.name(), token = %held.token, %reason, "lock lost");
            self.shared.clean_up(Arc::clone(&held.claim), Vec::new());
        }
        self.table().tell_drained();
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the task if it sleeps for longer than until `due`.
    fn wake_by(&self, table: &Table, due: Instant) {
        if table.asleep.is_some_and(|until| due < until) {
            self.sooner.notify_one();
        }
    }

    /// When a lease that was confirmed by a request sent at `sent` has to be looked at next.
    fn due(&self, held: &Held, sent: Instant) -> Instant {
        let LeaseState::Held(deadline) = held.state(&self.shared.env) else {
            return sent;
        };
        if held.plan.renew && !held.is_session_bound() {
            // It may be sure to last for less than the TTL, see `Held::renewing`.
            let ttl = if deadline < held.plan.end {
                held.ttl().min(deadline.since(sent))
            } else {
                held.ttl()
            };
            self.grid.due(sent, ttl).min(deadline)
        } else {
            deadline
        }
    }

    fn hear(&self, signal: HeldSignal) {
        let now = self.shared.env.now();
        let mut table = self.table();
        match signal {
            HeldSignal::Check(attempt) => table.check(attempt, now),
            HeldSignal::CheckAll => {
                let due = now.max(table.checked_all.after(CHECK_ALL_PAUSE));
                table.check_all.get_or_insert(due);
            }
        }
    }

    /// Ends what is over, renews what is due; when there is more to do.
    fn work(self: &Arc<Self>) -> Instant {
        let now = self.shared.env.now();
        let mut table = self.table();
        table.check_all(now);
        let (mut due_now, mut lost) = (Vec::new(), Vec::new());
        while let Some(&(due, attempt)) = table.schedule.first() {
            if due > now {
                break;
            }
            match self.attend(&mut table, attempt, now) {
                Attended::Renew(lease, renewal) => due_now.push((lease, renewal)),
                Attended::Lost(held, reason) => lost.push((held, reason)),
                Attended::Nothing => {}
            }
        }
        let scheduled = table.schedule.first().map(|(due, _)| *due);
        let next = scheduled.into_iter().chain(table.check_all).min();
        let next = next.unwrap_or(Instant::FAR_FUTURE);
        table.asleep = Some(next);
        drop(table);
        self.lost(lost);
        while !due_now.is_empty() {
            let rest = due_now.split_off(due_now.len().min(self.shared.capabilities.renew_batch));
            self.renew(due_now.into_iter().unzip(), now);
            due_now = rest;
        }
        next
    }

    /// One lease whose time has come. It is scheduled anew or removed.
    fn attend(&self, table: &mut Table, attempt: AttemptId, now: Instant) -> Attended {
        let Some(entry) = table.held.get_mut(&attempt) else {
            return Attended::Nothing;
        };
        let deadline = match entry.held.state(&self.shared.env) {
            LeaseState::Held(deadline) => deadline,
            LeaseState::Released => {
                table.remove(attempt);
                return Attended::Nothing;
            }
            LeaseState::Lost(reason) => {
                let lost = table.remove(attempt);
                return lost.map_or(Attended::Nothing, |held| Attended::Lost(held, reason));
            }
        };
        let check = std::mem::take(&mut entry.check);
        let renew = !entry.in_flight && !entry.held.is_session_bound() && (entry.held.plan.renew || check);
        // A lease without renewal is only looked at: it is asked to last as long as it would anyhow.
        let ttl = if entry.held.plan.renew {
            entry.held.ttl()
        } else {
            ttl_until(now, deadline)
        };
        let attended = if renew {
            entry.in_flight = true;
            let lease = Lease::new(Arc::clone(&entry.held.claim), entry.held.token, ttl);
            Attended::Renew(lease, entry.held.renewing(ttl, now))
        } else {
            Attended::Nothing
        };
        table.reschedule(attempt, deadline);
        attended
    }

    fn renew(self: &Arc<Self>, (leases, renewals): Batch, sent: Instant) {
        let upkeep = Arc::clone(self);
        drop(self.shared.env.spawn(async move {
            let call = upkeep.shared.renew_call(leases.clone(), renewals);
            let answer = upkeep.shared.bounded(call).await;
            match &answer {
                Ok(_) => tracing::debug!(leases = leases.len(), "renewed a batch"),
                Err(error) => tracing::warn!(%error, leases = leases.len(), "renewal failed"),
            }
            upkeep.answered(&leases, &answer.unwrap_or_default(), sent);
        }));
    }

    /// What became of a batch that was sent at `sent`.
    fn answered(&self, leases: &[Lease], renewals: &[Renewal], sent: Instant) {
        let now = self.shared.env.now();
        let mut gone = Vec::new();
        let mut table = self.table();
        let mut soonest = Instant::FAR_FUTURE;
        for (index, lease) in leases.iter().enumerate() {
            let attempt = lease.claim.attempt;
            let Some(entry) = table.held.get_mut(&attempt) else {
                continue;
            };
            entry.in_flight = false;
            let due = match renewals.get(index) {
                Some(Renewal::Renewed) => {
                    entry.failures = 0;
                    let over = entry.held.plan.renew && entry.held.is_over(&self.shared.env);
                    // What is over is attended to at once.
                    if over || entry.check {
                        now
                    } else {
                        self.due(&entry.held, sent)
                    }
                }
                Some(Renewal::NotHeld) => {
                    gone.extend(table.remove(attempt));
                    continue;
                }
                // A driver that answers for too few is as good as silent.
                Some(Renewal::Unknown) | None => {
                    entry.failures += 1;
                    entry.check |= !entry.held.plan.renew;
                    next_retry(&self.shared.env, entry.held.ttl(), entry.failures)
                }
            };
            table.reschedule(attempt, due);
            soonest = soonest.min(due);
        }
        self.wake_by(&table, soonest);
        drop(table);
        self.lost(gone.into_iter().map(|held| (held, LossReason::Revoked)));
    }
}

/// What is to be done with a lease whose time has come.
enum Attended {
    Nothing,
    Renew(Lease, UnderWay),
    Lost(Arc<Held>, LossReason),
}

impl Table {
    fn reschedule(&mut self, attempt: AttemptId, due: Instant) {
        if let Some(entry) = self.held.get_mut(&attempt) {
            self.schedule.remove(&(entry.due, attempt));
            entry.due = due;
            self.schedule.insert((due, attempt));
        }
    }

    fn remove(&mut self, attempt: AttemptId) -> Option<Arc<Held>> {
        let entry = self.held.remove(&attempt)?;
        self.schedule.remove(&(entry.due, attempt));
        Some(entry.held)
    }

    fn tell_drained(&mut self) {
        if self.held.is_empty() {
            for sender in self.drained.drain(..) {
                sender.send(()).ok();
            }
        }
    }

    fn check_all(&mut self, now: Instant) {
        if self.check_all.is_none_or(|due| due > now) {
            return;
        }
        self.check_all = None;
        self.checked_all = now;
        for attempt in self.attempts() {
            self.check(attempt, now);
        }
    }

    fn check(&mut self, attempt: AttemptId, now: Instant) {
        let Some(entry) = self.held.get_mut(&attempt) else {
            return;
        };
        entry.check = true;
        if !entry.in_flight {
            self.reschedule(attempt, now);
        }
    }

    /// All of them. The map's order is random; under virtual time everything follows from the seed.
    fn attempts(&self) -> Vec<AttemptId> {
        let mut attempts: Vec<_> = self.held.keys().copied().collect();
        attempts.sort_unstable();
        attempts
    }
}
