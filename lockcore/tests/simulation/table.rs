//! Who holds what, as the guards themselves tell it, and what has to be true of that.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::{Guard, Instant, LossReason};

/// What can be locked in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Mutex,
    ReadWrite,
    Semaphore,
}

/// The size of every semaphore.
pub(crate) const PERMITS: u32 = 3;

/// The store lost a lease, or may have: it does not count for exclusion any more.
#[derive(Clone, Copy, Debug)]
struct Taint {
    at: Instant,
    certain: bool,
}

/// A guard that an actor was given.
#[derive(Debug)]
pub(crate) struct Given {
    guard: Mutex<Option<Arc<Guard>>>,
    pub(crate) token: u64,
    weight: u32,
    ttl: Duration,
    taint: Mutex<Option<Taint>>,
    lost: Mutex<Option<LossReason>>,
    /// Released while it was held: `lost` must never fire.
    released: AtomicBool,
}

impl Given {
    pub(crate) fn guard(&self) -> Option<Arc<Guard>> {
        self.guard.lock().unwrap().clone()
    }

    fn is_held(&self) -> bool {
        self.guard().is_some_and(|guard| guard.is_held())
    }

    fn taint(&self) -> Option<Taint> {
        *self.taint.lock().unwrap()
    }

    /// Takes the guard out, to release or drop it, and says whether it was held up to here.
    pub(crate) fn take(&self) -> Option<(Guard, bool)> {
        // Whoever else had it in hand was dropped.
        let guard = Arc::into_inner(self.guard.lock().unwrap().take()?)?;
        let held = guard.is_held();
        self.released.store(held, Ordering::Relaxed);
        Some((guard, held))
    }

    /// `lost` has fired; what is wrong with that.
    pub(crate) fn lost(&self, reason: LossReason) -> Option<String> {
        *self.lost.lock().unwrap() = Some(reason);
        let token = self.token;
        if self.released.load(Ordering::Relaxed) {
            return Some(format!("token {token} was lost after its release: {reason}"));
        }
        self.is_held()
            .then(|| format!("token {token} is held after its loss: {reason}"))
    }

    /// The store lost it for sure before this moment.
    pub(crate) fn is_gone(&self, now: Instant) -> bool {
        self.taint().is_some_and(|taint| taint.certain && taint.at < now)
    }

    fn was_lost(&self) -> bool {
        self.lost.lock().unwrap().is_some()
    }
}

/// One resource.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    given: Vec<Arc<Given>>,
    tokens: BTreeSet<u64>,
    tainted: Option<Instant>,
    /// Requests under way that may make the store lose a lease at any moment.
    threats: u32,
    /// When the last one let go of it, or lost it.
    busy_until: Instant,
}

/// An acquire under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    at: Instant,
    last_token: u64,
}

impl Row {
    pub(crate) fn new(name: String, shape: Shape) -> Self {
        Self {
            name,
            shape,
            given: Vec::new(),
            tokens: BTreeSet::new(),
            tainted: None,
            threats: 0,
            busy_until: Instant::default(),
        }
    }

    pub(crate) fn start(&self, at: Instant) -> Start {
        let last_token = self.tokens.last().copied().unwrap_or(0);
        Start { at, last_token }
    }

    /// An acquire that started at `start` has given `guard`.
    pub(crate) fn give(&mut self, start: Start, guard: Guard) -> (Arc<Given>, Vec<String>) {
        let mut wrong = Vec::new();
        let token = guard.token().get();
        // A grant under way at the moment of a theft may be the stolen one.
        let tainted = self
            .tainted
            .filter(|taint| *taint >= start.at || self.threats > 0);
        if !guard.is_held() {
            wrong.push(format!("token {token} was not held when it was given"));
        }
        let last = self.tokens.last().copied().unwrap_or(0);
        let in_order = self.shape == Shape::Mutex && tainted.is_none();
        let floor = if in_order { last } else { start.last_token };
        if token <= floor {
            wrong.push(format!("token {token} was given after {floor}"));
        }
        if !self.tokens.insert(token) {
            wrong.push(format!("token {token} was given twice"));
        }
        if tainted.is_none() {
            wrong.extend(self.check_room(token, guard.weight()));
        }
        let given = Arc::new(Given {
            token,
            weight: guard.weight(),
            ttl: guard.ttl(),
            guard: Mutex::new(Some(Arc::new(guard))),
            taint: Mutex::new(tainted.map(|at| Taint { at, certain: false })),
            lost: Mutex::default(),
            released: AtomicBool::new(false),
        });
        self.given.push(Arc::clone(&given));
        (given, wrong)
    }

    fn check_room(&self, token: u64, weight: u32) -> Vec<String> {
        let mut wrong = Vec::new();
        let others = self.given.iter().filter(|other| other.taint().is_none());
        let (held, over): (Vec<_>, Vec<_>) = others.partition(|other| other.is_held());
        let taken: u64 = held.iter().map(|other| u64::from(other.weight)).sum();
        let size = match self.shape {
            Shape::Mutex => 1,
            // A writer's weight is the size; it is held or asked for, if any is.
            Shape::ReadWrite => held
                .iter()
                .map(|other| other.weight)
                .max()
                .unwrap_or(0)
                .max(weight)
                .max(100),
            Shape::Semaphore => PERMITS,
        };
        if taken + u64::from(weight) > u64::from(size) {
            let held: Vec<_> = held.iter().map(|other| other.token).collect();
            wrong.push(format!("token {token} was given while {held:?} were held"));
        }
        for other in over {
            if other.guard().is_some() && !other.was_lost() {
                let other = other.token;
                wrong.push(format!(
                    "token {token} was given before the loss of {other} was told"
                ));
            }
        }
        wrong
    }

    /// The store has lost every lease at `now`; or it may have, at some moment up to `now`.
    pub(crate) fn taint(&mut self, now: Instant, certain: bool) {
        self.tainted = Some(now);
        for given in &self.given {
            let taint = Taint { at: now, certain };
            given.taint.lock().unwrap().get_or_insert(taint);
        }
    }

    /// From now on the store may lose a lease at any moment.
    pub(crate) fn threaten(&mut self, now: Instant) {
        self.threats += 1;
        self.taint(now, false);
    }

    pub(crate) fn threat_is_over(&mut self, now: Instant) {
        self.threats -= 1;
        self.taint(now, false);
    }

    /// What has to be true at any time.
    pub(crate) fn check(&self, now: Instant) -> Vec<String> {
        let overdue = self.given.iter().filter(|given| {
            let since = given
                .taint()
                .filter(|taint| taint.certain)
                .map_or(now, |taint| taint.at);
            given.guard().is_some_and(|guard| {
                guard.is_held() && now.since(since) > given.ttl.max(guard.ttl()) + crate::ms(1)
            })
        });
        overdue
            .map(|given| format!("token {} is held long after the store lost it", given.token))
            .collect()
    }

    /// Forgets what is in nobody's hands any more.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.busy_until = now;
        self.given.retain(|given| given.guard().is_some());
    }

    /// How long nobody has held it, at `now`, for somebody who waits since `start`.
    pub(crate) fn idle(&self, start: Start, now: Instant) -> Duration {
        now.since(self.busy_until.max(start.at))
    }
}
