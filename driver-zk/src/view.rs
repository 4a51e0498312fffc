//! What a waiter sees of those before it, and the watches that keep it up to date.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{AttemptId, Claim, DriverContext, Instant};
use tokio::task::AbortHandle;
use zookeeper_client::{EventType, OneshotWatcher};

/// How many of those before it a waiter watches. So as many dead ones in a row, less one, cost a claim window each: the
/// first live one behind them learns that the holder has gone.
pub(crate) const LOOK_AHEAD: usize = 4;

/// How much later than the first one behind a head that does not claim the ones after it look.
const STAGGER: Duration = Duration::from_millis(20);

/// One waiter's view of the queue before it. Its watches call it.
#[derive(Debug)]
pub(crate) struct View {
    context: DriverContext,
    attempt: AttemptId,
    claim_window: Duration,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// The names of the last few before it that are there, the first one first.
    ahead: Vec<String>,
    /// Are these all?
    complete: bool,
    /// Who has been the first without a claim, and since when.
    suspect: Option<(String, Instant)>,
}

/// What follows from a node's end.
#[derive(Debug, PartialEq, Eq)]
enum Consequence {
    Nothing,
    /// It may be our turn.
    Look,
    /// It is somebody else's turn: look whether they take it.
    LookIn(Duration),
}

impl View {
    pub(crate) fn new(context: &DriverContext, claim: &Claim) -> Self {
        Self {
            context: context.clone(),
            attempt: claim.attempt,
            claim_window: claim.claim_window,
            seen: Mutex::default(),
        }
    }

    /// These are before it, all of them if `complete`.
    pub(crate) fn set(&self, ahead: &[String], complete: bool) {
        let mut seen = self.seen();
        seen.ahead = ahead.to_vec();
        seen.complete = complete;
    }

    /// Is there nobody before it any more, for sure?
    pub(crate) fn is_first(&self) -> bool {
        let seen = self.seen();
        seen.complete && seen.ahead.is_empty()
    }

    /// `head` is the first and has not claimed its turn: for how long that is known.
    pub(crate) fn suspect(&self, head: &str) -> Duration {
        let now = self.context.env.now();
        let mut seen = self.seen();
        match &seen.suspect {
            Some((name, since)) if name == head => now.since(*since),
            _ => {
                seen.suspect = Some((head.to_owned(), now));
                Duration::ZERO
            }
        }
    }

    /// The node called `name` is gone.
    pub(crate) fn gone(&self, name: &str) {
        let consequence = self.seen().gone(name, self.claim_window, self.context.env.now());
        match consequence {
            Consequence::Nothing => {}
            Consequence::Look => self.context.signals.wake(self.attempt),
            Consequence::LookIn(delay) => self.context.signals.wake_in(self.attempt, delay),
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn watch(self: Arc<Self>, name: String, watcher: OneshotWatcher) {
        match watcher.changed().await.event_type {
            EventType::NodeDeleted => self.gone(&name),
            // The session has ended.
            _ => self.context.signals.wake(self.attempt),
        }
    }
}

impl Seen {
    fn gone(&mut self, name: &str, claim_window: Duration, now: Instant) -> Consequence {
        let Some(place) = self.ahead.iter().position(|ahead| ahead == name) else {
            return Consequence::Nothing;
        };
        self.ahead.remove(place);
        let Some(next) = self.ahead.first() else {
            return Consequence::Look;
        };
        if place > 0 {
            // It left the queue from its midst.
            return Consequence::Nothing;
        }
        if self.complete {
            self.suspect = Some((next.clone(), now));
        }
        let behind = u32::try_from(self.ahead.len() - 1).unwrap_or(u32::MAX);
        Consequence::LookIn(claim_window.saturating_add(STAGGER.saturating_mul(behind)))
    }
}

/// The watches of one waiter; dropped, they are removed from the server.
#[derive(Debug, Default)]
pub(crate) struct Watches(Vec<(String, AbortHandle)>);

impl Watches {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0
            .iter()
            .any(|(watched, task)| watched == name && !task.is_finished())
    }

    pub(crate) fn add(&mut self, view: &Arc<View>, name: String, watcher: OneshotWatcher) {
        let watching = Arc::clone(view).watch(name.clone(), watcher);
        let task = view.context.env.spawn(watching);
        self.0.push((name, task.abort_handle()));
    }

    /// Ends those that are of no more use.
    pub(crate) fn keep(&mut self, names: &[String]) {
        self.0.retain(|(name, task)| {
            let wanted = names.contains(name);
            if !wanted {
                task.abort();
            }
            wanted && !task.is_finished()
        });
    }
}

impl Drop for Watches {
    fn drop(&mut self) {
        for (_, task) in &self.0 {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(400);
    const NOW: Instant = Instant::from_nanos(7);

    fn seen(ahead: &[&str], complete: bool) -> Seen {
        Seen {
            ahead: ahead.iter().map(|name| (*name).to_owned()).collect(),
            complete,
            suspect: None,
        }
    }

    #[test]
    fn the_last_one_gone_is_a_turn() {
        let mut seen = seen(&["a"], true);
        assert_eq!(seen.gone("b", WINDOW, NOW), Consequence::Nothing);
        assert_eq!(seen.gone("a", WINDOW, NOW), Consequence::Look);
        assert_eq!(seen.gone("a", WINDOW, NOW), Consequence::Nothing);
    }

    #[test]
    fn the_first_one_gone_is_somebody_elses_turn() {
        let mut seen = seen(&["a", "b", "c"], true);
        assert_eq!(seen.gone("a", WINDOW, NOW), Consequence::LookIn(WINDOW + STAGGER));
        assert_eq!(seen.suspect, Some(("b".to_owned(), NOW)));
        assert_eq!(seen.gone("c", WINDOW, NOW), Consequence::Nothing);
        assert_eq!(seen.gone("b", WINDOW, NOW), Consequence::Look);
    }

    #[test]
    fn who_does_not_see_the_first_suspects_nobody() {
        let mut seen = seen(&["c", "d"], false);
        assert_eq!(seen.gone("c", WINDOW, NOW), Consequence::LookIn(WINDOW));
        assert_eq!(seen.suspect, None);
    }
}
