//! What keeps a manager's held leases: renews them in batches, and ends those that are over.
//!
//! One table under a lock, and one task that sleeps until the first lease is due. Taking and releasing a lock write to
//! the table without waking the task, unless the new lease is due before all others.

mod table;

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
use table::{Place, Table};

/// Reconnects that follow each other closely cause one check of all leases.
const CHECK_ALL_PAUSE: Duration = Duration::from_millis(100);

/// Leases that are renewed with one call.
#[derive(Default)]
struct Batch {
    places: Vec<Place>,
    leases: Vec<Lease>,
    renewals: Vec<UnderWay>,
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

    /// Looks after a lease that was granted by a request sent at `sent`, which was answered by `now`.
    pub(crate) fn track(&self, held: Held, [sent, now]: [Instant; 2]) {
        let due = self.due(&held, [sent, now]);
        let mut table = self.table();
        table.insert(held, due);
        self.wake_by(&table, due);
    }

    /// Ends `held` as released, and looks after the same lease with its next token instead. `None`, and nothing is
    /// changed, when that is not safe: see [`Held::succeed`].
    pub(crate) fn hand_over(&self, held: &Held) -> Option<Held> {
        let mut table = self.table();
        let place = table.find(held.claim().attempt)?;
        let entry = table.get_mut(place)?;
        if entry.in_flight || entry.check || entry.failures > 0 {
            return None;
        }
        let next = held.succeed(self.shared.env.now())?;
        entry.held = next.clone();
        Some(next)
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
        let Some(place) = table.find(attempt) else {
            return;
        };
        if let Some(entry) = table.get_mut(place).filter(|entry| !entry.in_flight) {
            let due = self.due(&entry.held, [sent, self.shared.env.now()]);
            table.reschedule(place, due);
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
        let attempts: Vec<_> = self.table().attempts().collect();
        for attempt in attempts {
            self.lose(attempt, reason);
        }
    }

    /// For leases that were taken out of the table. Nobody is told that it is empty before their clean-up has begun.
    fn lost(&self, leases: impl IntoIterator<Item = (Held, LossReason)>) {
        for (held, reason) in leases {
            held.lose(reason);
            tracing::warn!(name = %held.claim().resource.name(), token = %held.token, %reason, "lock lost");
            self.shared.clean_up(held.claim().clone(), Vec::new());
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

    /// When a lease that was confirmed by a request sent at `sent`, and answered by `now`, has to be looked at next.
    fn due(&self, held: &Held, [sent, now]: [Instant; 2]) -> Instant {
        let LeaseState::Held(deadline) = held.state_at(now) else {
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
            HeldSignal::Check(attempt) => {
                if let Some(place) = table.find(attempt) {
                    table.check(place, now);
                }
            }
            HeldSignal::CheckAll => {
                let due = now.max(table.checked_all.after(CHECK_ALL_PAUSE));
                table.check_all.get_or_insert(due);
            }
        }
    }

    /// Ends what is over and renews what is due, up to a batch of it; when there is more to do.
    fn work(self: &Arc<Self>) -> Instant {
        let now = self.shared.env.now();
        let mut table = self.table();
        table.check_all(now);
        let (mut batch, mut lost) = (Batch::default(), Vec::new());
        // Whoever takes or releases a lock meanwhile waits for the table.
        for _ in 0..self.shared.capabilities.renew_batch.max(1) {
            let Some(place) = table.pop_due(now) else { break };
            match self.attend(&mut table, place, now) {
                Attended::Renew(lease, renewal) => {
                    batch.places.push(place);
                    batch.leases.push(lease);
                    batch.renewals.push(renewal);
                }
                Attended::Lost(held, reason) => lost.push((held, reason)),
                Attended::Nothing => {}
            }
        }
        let next = table.next_due().into_iter().chain(table.check_all).min();
        let next = next.unwrap_or(Instant::FAR_FUTURE);
        table.asleep = Some(next);
        drop(table);
        self.lost(lost);
        if !batch.places.is_empty() {
            self.renew(batch, now);
        }
        next
    }

    /// One lease whose time has come. It is scheduled anew or removed.
    fn attend(&self, table: &mut Table, place: Place, now: Instant) -> Attended {
        let Some(entry) = table.get_mut(place) else {
            return Attended::Nothing;
        };
        let deadline = match entry.held.state_at(now) {
            LeaseState::Held(deadline) => deadline,
            LeaseState::Released => {
                let attempt = entry.held.claim().attempt;
                table.remove(attempt);
                return Attended::Nothing;
            }
            LeaseState::Lost(reason) => {
                let attempt = entry.held.claim().attempt;
                let lost = table.remove(attempt);
                return lost.map_or(Attended::Nothing, |held| Attended::Lost(held, reason));
            }
        };
        let check = std::mem::take(&mut entry.check);
        let by_session = entry.held.is_session_bound();
        // A session is kept alive by the driver, which tells us when one of its locks has to be looked at.
        let renew = !entry.in_flight && (check || entry.held.plan.renew && !by_session);
        // A lease without renewal is only looked at: it is asked to last as long as it would anyhow.
        let ttl = if entry.held.plan.renew {
            entry.held.ttl()
        } else {
            ttl_until(now, deadline)
        };
        let attended = if renew {
            entry.in_flight = true;
            let lease = Lease::new(entry.held.claim().clone(), entry.held.grant, ttl);
            let under_way = if by_session {
                entry.held.checking(now)
            } else {
                entry.held.renewing(ttl, now)
            };
            Attended::Renew(lease, under_way)
        } else {
            Attended::Nothing
        };
        table.reschedule(place, deadline);
        attended
    }

    fn renew(self: &Arc<Self>, batch: Batch, sent: Instant) {
        let upkeep = Arc::clone(self);
        drop(self.shared.env.spawn(async move {
            let places = batch.places;
            let call = upkeep.shared.renew_call(batch.leases, batch.renewals);
            let answer = upkeep.shared.bounded(call).await;
            match &answer {
                Ok(_) => tracing::debug!(leases = places.len(), "renewed a batch"),
                Err(error) => tracing::warn!(%error, leases = places.len(), "renewal failed"),
            }
            upkeep.answered(&places, &answer.unwrap_or_default(), sent);
        }));
    }

    /// What became of a batch that was sent at `sent`.
    fn answered(&self, places: &[Place], renewals: &[Renewal], sent: Instant) {
        let now = self.shared.env.now();
        let mut gone = Vec::new();
        let mut table = self.table();
        let mut soonest = Instant::FAR_FUTURE;
        for (index, &place) in places.iter().enumerate() {
            let Some(entry) = table.get_mut(place) else {
                continue;
            };
            entry.in_flight = false;
            let due = match renewals.get(index) {
                Some(Renewal::Renewed) => {
                    entry.failures = 0;
                    let over =
                        entry.held.plan.renew && !matches!(entry.held.state_at(now), LeaseState::Held(_));
                    // What is over is attended to at once.
                    if over || entry.check {
                        now
                    } else {
                        self.due(&entry.held, [sent, now])
                    }
                }
                Some(Renewal::NotHeld) => {
                    let attempt = entry.held.claim().attempt;
                    gone.extend(table.remove(attempt));
                    continue;
                }
                // A driver that answers for too few is as good as silent.
                Some(Renewal::Unknown) | None => {
                    entry.failures = entry.failures.saturating_add(1);
                    entry.check |= !entry.held.plan.renew || entry.held.is_session_bound();
                    next_retry(&self.shared.env, entry.held.ttl(), entry.failures.into())
                }
            };
            table.reschedule(place, due);
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
    Lost(Held, LossReason),
}
