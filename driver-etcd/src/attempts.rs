//! The attempts of this process that may have something at the server.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockcore::{AttemptId, Instant, PooledSession};

use crate::keys::LockKeys;
use crate::session::SharedLease;

/// From an attempt's first request until its release is over. A key of ours without an attempt here is a ghost: what a
/// request left behind that came through late.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<AttemptId, Entry>>);

struct Entry {
    keys: LockKeys,
    /// Kept open for as long as the attempt lives by it.
    session: Option<Arc<PooledSession<Arc<SharedLease>>>>,
    phase: Phase,
    /// Held by its release: a second one would take the answer from the first. Not there before there is one.
    turn: Option<Arc<tokio::sync::Mutex<()>>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Asks,
    /// It holds the lock by its session, as far as we were told, since then.
    Holds(Instant),
    /// Its release is under way: its key is about to go, and none may come.
    Ends,
}

impl Entry {
    fn is_held_by(&self, id: i64, now: Instant) -> bool {
        let lease = self.session.as_ref().map(|session| session.handle().id());
        lease == Some(id) && matches!(self.phase, Phase::Holds(since) if since < now)
    }
}

/// An attempt whose release is under way; forgotten when that is over.
pub(crate) struct Ending<'a> {
    attempts: &'a Attempts,
    attempt: AttemptId,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.attempts.leaves(self.attempt);
    }
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attempts").field(&self.entries().len()).finish()
    }
}

impl Attempts {
    fn entries(&self) -> MutexGuard<'_, HashMap<AttemptId, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request for `attempt` begins.
    pub(crate) fn begins(&self, attempt: AttemptId, keys: &LockKeys) {
        self.entries().entry(attempt).or_insert_with(|| Entry {
            keys: keys.clone(),
            session: None,
            phase: Phase::Asks,
            turn: None,
        });
    }

    /// It lives by `session`; false when it was given up meanwhile.
    pub(crate) fn lives_by(
        &self,
        attempt: AttemptId,
        session: &Arc<PooledSession<Arc<SharedLease>>>,
    ) -> bool {
        match self.entries().get_mut(&attempt) {
            Some(entry) if entry.phase != Phase::Ends => {
                entry.session = Some(Arc::clone(session));
                true
            }
            _ => false,
        }
    }

    /// It holds the lock by its session.
    pub(crate) fn has(&self, attempt: AttemptId, now: Instant) {
        if let Some(entry) = self.entries().get_mut(&attempt)
            && entry.phase == Phase::Asks
        {
            entry.phase = Phase::Holds(now);
        }
    }

    /// What its releases hold, one after the other; nothing when none is under way or to come.
    pub(crate) fn turn(&self, attempt: AttemptId) -> Option<Arc<tokio::sync::Mutex<()>>> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&attempt)?;
        Some(Arc::clone(entry.turn.get_or_insert_default()))
    }

    /// Its release begins. A request of it that is still under way sends nothing more.
    pub(crate) fn ends(&self, attempt: AttemptId) -> Ending<'_> {
        if let Some(entry) = self.entries().get_mut(&attempt) {
            entry.phase = Phase::Ends;
        }
        Ending {
            attempts: self,
            attempt,
        }
    }

    /// It has nothing.
    pub(crate) fn leaves(&self, attempt: AttemptId) {
        self.entries().remove(&attempt);
    }

    /// May requests be sent for it?
    pub(crate) fn is_wanted(&self, attempt: AttemptId) -> bool {
        self.entries()
            .get(&attempt)
            .is_some_and(|entry| entry.phase != Phase::Ends)
    }

    pub(crate) fn is_known(&self, attempt: AttemptId) -> bool {
        self.entries().contains_key(&attempt)
    }

    /// Does it hold a lock by a session?
    pub(crate) fn holds(&self, attempt: AttemptId) -> bool {
        self.entries()
            .get(&attempt)
            .is_some_and(|entry| matches!(entry.phase, Phase::Holds(_)))
    }

    /// Does anybody hold a lock by the lease `id` since before `now`?
    pub(crate) fn is_held_by(&self, id: i64, now: Instant) -> bool {
        self.entries().values().any(|entry| entry.is_held_by(id, now))
    }

    /// Those that do.
    pub(crate) fn held_by(&self, id: i64, now: Instant) -> Vec<AttemptId> {
        let mut held: Vec<_> = self
            .entries()
            .iter()
            .filter(|(_, entry)| entry.is_held_by(id, now))
            .map(|(attempt, _)| *attempt)
            .collect();
        held.sort_unstable();
        held
    }

    /// The folders of the locks that they hold: one for each namespace.
    pub(crate) fn folders_of(&self, id: i64, now: Instant) -> BTreeSet<String> {
        let mut folders = BTreeSet::new();
        for entry in self.entries().values().filter(|entry| entry.is_held_by(id, now)) {
            if let Some(folder) = entry.keys.folder()
                && !folders.contains(folder)
            {
                folders.insert(folder.to_owned());
            }
        }
        folders
    }
}
