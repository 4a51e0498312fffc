//! The task that keeps a manager's held leases: renews them in batches, and ends those that are over.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use crate::claim::AttemptId;
use crate::core::Shared;
use crate::driver::{Lease, Renewal};
use crate::env::Instant;
use crate::error::Result;
use crate::held::{Held, UnderWay};
use crate::lease_word::LeaseState;
use crate::loss::LossReason;
use crate::schedule::{RenewalGrid, next_retry};
use crate::settings::ttl_until;
use crate::signals::HeldSignal;

/// Reconnects that follow each other closely cause one check of all leases.
const CHECK_ALL_PAUSE: Duration = Duration::from_millis(100);

/// What the upkeep is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Look after this lease, granted by a request that was sent then.
    Track(Arc<Held>, Instant),
    /// Its TTL was changed, and a renewal for that sent then.
    Reschedule(AttemptId, Instant),
    /// It was released.
    Forget(AttemptId),
    /// Tells when nothing is held any more.
    Drained(oneshot::Sender<()>),
    /// The backend says that it is not ours any more.
    Lose(AttemptId, LossReason),
    /// End all that is held.
    LoseAll(LossReason),
    /// The outcome of a batch.
    Answered(Batch, Result<Vec<Renewal>>),
}

/// Leases that were renewed with one call.
#[derive(Debug)]
pub(crate) struct Batch {
    sent: Instant,
    leases: Vec<Lease>,
}

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

/// Runs until every handle and guard of the manager is gone.
pub(crate) struct Upkeep {
    shared: Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    /// For the answers of batches; weak, so that it does not keep this task alive.
    answers: mpsc::WeakUnboundedSender<Command>,
    signals: mpsc::UnboundedReceiver<HeldSignal>,
    grid: RenewalGrid,
    held: HashMap<AttemptId, Entry>,
    schedule: BTreeSet<(Instant, AttemptId)>,
    drained: Vec<oneshot::Sender<()>>,
    /// When all leases were checked last, and when that is due again.
    checked_all: Instant,
    check_all: Option<Instant>,
}

impl Upkeep {
    pub(crate) fn new(
        shared: Arc<Shared>,
        (sender, commands): (&mpsc::UnboundedSender<Command>, mpsc::UnboundedReceiver<Command>),
        signals: mpsc::UnboundedReceiver<HeldSignal>,
    ) -> Self {
        let grid = RenewalGrid::new(&shared.env);
        Self {
            shared,
            commands,
            answers: sender.downgrade(),
            signals,
            grid,
            held: HashMap::new(),
            schedule: BTreeSet::new(),
            drained: Vec::new(),
            checked_all: Instant::default(),
            check_all: None,
        }
    }

    pub(crate) async fn run(mut self) {
        loop {
            self.tell_drained();
            let scheduled = self.schedule.first().map(|(due, _)| *due);
            let next = scheduled.into_iter().chain(self.check_all).min();
            let env = self.shared.env.clone();
            // Before the commands: a busy manager must not keep its leases waiting.
            if next.is_some_and(|next| next <= env.now()) {
                self.work();
                continue;
            }
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(signal) = self.signals.recv() => self.hear(signal),
                () = env.sleep_until(next.unwrap_or(Instant::FAR_FUTURE)), if next.is_some() => {}
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Track(held, sent) => self.track(held, sent),
            Command::Reschedule(attempt, sent) => self.retime(attempt, sent),
            Command::Forget(attempt) => drop(self.remove(attempt)),
            Command::Drained(sender) => self.drained.push(sender),
            Command::Lose(attempt, reason) => self.lost(attempt, reason),
            Command::LoseAll(reason) => self.lose_all(reason),
            Command::Answered(batch, Ok(renewals)) => self.answered(&batch, &renewals),
            Command::Answered(batch, Err(error)) => {
                tracing::warn!(%error, leases = batch.leases.len(), "renewal failed");
                self.answered(&batch, &[]);
            }
        }
    }

    fn tell_drained(&mut self) {
        if self.held.is_empty() {
            for sender in self.drained.drain(..) {
                sender.send(()).ok();
            }
        }
    }

    fn track(&mut self, held: Arc<Held>, sent: Instant) {
        let attempt = held.claim.attempt;
        let due = self.due(&held, sent);
        self.schedule.insert((due, attempt));
        self.held.insert(
            attempt,
            Entry {
                held,
                due,
                in_flight: false,
                check: false,
                failures: 0,
            },
        );
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

    fn retime(&mut self, attempt: AttemptId, sent: Instant) {
        if let Some(entry) = self.held.get(&attempt).filter(|entry| !entry.in_flight) {
            let due = self.due(&entry.held, sent);
            self.reschedule(attempt, due);
        }
    }

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

    fn hear(&mut self, signal: HeldSignal) {
        let now = self.shared.env.now();
        match signal {
            HeldSignal::Check(attempt) => self.check(attempt, now),
            HeldSignal::CheckAll => {
                let due = now.max(self.checked_all.after(CHECK_ALL_PAUSE));
                self.check_all.get_or_insert(due);
            }
        }
    }

    fn check_all(&mut self, now: Instant) {
        if self.check_all.is_none_or(|due| due > now) {
            return;
        }
        self.check_all = None;
        self.checked_all = now;
        let attempts: Vec<_> = self.held.keys().copied().collect();
        for attempt in attempts {
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

    /// Ends what is over, renews what is due.
    fn work(&mut self) {
        let now = self.shared.env.now();
        self.check_all(now);
        let mut due_now = Vec::new();
        while let Some(&(due, attempt)) = self.schedule.first() {
            if due > now {
                break;
            }
            due_now.extend(self.attend(attempt, now));
        }
        while !due_now.is_empty() {
            let rest = due_now.split_off(due_now.len().min(self.shared.capabilities.renew_batch));
            let (leases, renewals) = due_now.into_iter().unzip();
            self.renew(Batch { sent: now, leases }, renewals);
            due_now = rest;
        }
    }

    /// One lease whose time has come; `Some` when it is to be renewed. It is scheduled anew or removed.
    fn attend(&mut self, attempt: AttemptId, now: Instant) -> Option<(Lease, UnderWay)> {
        let entry = self.held.get_mut(&attempt)?;
        let deadline = match entry.held.state(&self.shared.env) {
            LeaseState::Held(deadline) => deadline,
            LeaseState::Released => {
                self.remove(attempt);
                return None;
            }
            LeaseState::Lost(reason) => {
                self.lost(attempt, reason);
                return None;
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
        let renewal = renew.then(|| {
            entry.in_flight = true;
            let lease = Lease::new(Arc::clone(&entry.held.claim), entry.held.token, ttl);
            (lease, entry.held.renewing(ttl, now))
        });
        self.reschedule(attempt, deadline);
        renewal
    }

    fn renew(&self, batch: Batch, renewals: Vec<UnderWay>) {
        let (shared, answers) = (Arc::clone(&self.shared), self.answers.clone());
        let task = async move {
            let call = shared.renew_call(batch.leases.clone(), renewals);
            let answer = shared.bounded(call).await;
            tracing::debug!(
                leases = batch.leases.len(),
                ok = answer.is_ok(),
                "renewed a batch"
            );
            if let Some(answers) = answers.upgrade() {
                answers.send(Command::Answered(batch, answer)).ok();
            }
        };
        drop(self.shared.env.spawn(task));
    }

    fn answered(&mut self, batch: &Batch, renewals: &[Renewal]) {
        let now = self.shared.env.now();
        for (index, lease) in batch.leases.iter().enumerate() {
            let attempt = lease.claim.attempt;
            let Some(entry) = self.held.get_mut(&attempt) else {
                continue;
            };
            entry.in_flight = false;
            match renewals.get(index) {
                Some(Renewal::Renewed) => {
                    entry.failures = 0;
                    let (held, check) = (Arc::clone(&entry.held), entry.check);
                    let over = held.plan.renew && held.is_over(&self.shared.env);
                    // What is over is attended to at once.
                    let due = if over || check {
                        now
                    } else {
                        self.due(&held, batch.sent)
                    };
                    self.reschedule(attempt, due);
                }
                Some(Renewal::NotHeld) => self.lost(attempt, LossReason::Revoked),
                // A driver that answers for too few is as good as silent.
                Some(Renewal::Unknown) | None => {
                    entry.failures += 1;
                    entry.check |= !entry.held.plan.renew;
                    let due = next_retry(&self.shared.env, entry.held.ttl(), entry.failures);
                    self.reschedule(attempt, due);
                }
            }
        }
    }

    /// Makes a loss known and frees what may be left at the backend.
    fn lost(&mut self, attempt: AttemptId, reason: LossReason) {
        let Some(held) = self.remove(attempt) else { return };
        held.lose(reason);
        tracing::warn!(name = %held.claim.resource.name(), token = %held.token, %reason, "lock lost");
        self.shared.clean_up(Arc::clone(&held.claim), Vec::new());
    }

    fn lose_all(&mut self, reason: LossReason) {
        let mut attempts: Vec<_> = self.held.keys().copied().collect();
        // The map's order is random; under virtual time everything follows from the seed.
        attempts.sort_unstable();
        for attempt in attempts {
            self.lost(attempt, reason);
        }
    }
}
