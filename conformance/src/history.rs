//! What happened in a scenario, to be judged afterwards: who was told to hold what, from when to when.
//!
//! Events come from tasks and from worker processes (as lines of JSON); their times are readings of
//! [`lockcore::Env::now`], a clock that all processes of a machine share.

mod check;
mod violation;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockcore::{Claim, Instant, Resource};
use serde::{Deserialize, Serialize};

pub use check::{Bounds, check};
pub use violation::Violation;

/// Something that happened. Times are nanoseconds of [`Instant`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// The backend told a waiter that it stands in the queue: the first such answer to an attempt.
    Queued {
        /// Which lock.
        key: String,
        /// Whose attempt.
        attempt: String,
        /// The claim's weight.
        weight: u32,
        /// When the attempt's first request was sent.
        sent: u64,
        /// When the answer came.
        acked: u64,
    },
    /// The backend granted a claim: the first such answer to an attempt.
    Granted {
        /// Which lock.
        key: String,
        /// Whose attempt.
        attempt: String,
        /// The fencing token.
        token: u64,
        /// The claim's weight.
        weight: u32,
        /// The claim's capacity.
        capacity: u32,
        /// When the attempt's first request was sent.
        first_sent: u64,
        /// When the request was sent that was answered.
        sent: u64,
        /// When the answer came.
        received: u64,
    },
    /// A release of an attempt: of its lock, or of its place in the queue.
    Released {
        /// Which lock.
        key: String,
        /// Whose attempt.
        attempt: String,
        /// When it was sent.
        sent: u64,
        /// When it was answered; `None` when it was not, or with an error.
        received: Option<u64>,
        /// Did it free a held lock?
        held: bool,
    },
    /// A user was told to hold a lock, from `at` to `until` at least, unless told otherwise before.
    Held {
        /// Which lock.
        key: String,
        /// The fencing token.
        token: u64,
        /// When the user was told.
        at: u64,
        /// The local deadline at that time.
        until: u64,
    },
    /// The user gave the lock back, or learned of its loss.
    Ended {
        /// Which lock.
        key: String,
        /// The fencing token.
        token: u64,
        /// When.
        at: u64,
    },
    /// Somebody outside the contract had a hand in it: deleted the data, freed by force, restarted an empty server.
    /// Whatever was held or queued before proves nothing about what comes after.
    Disturbed {
        /// Which lock; all for `None`.
        key: Option<String>,
        /// When.
        at: u64,
    },
}

impl Event {
    /// Which lock it is about; `None` for all.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::Queued { key, .. }
            | Self::Granted { key, .. }
            | Self::Released { key, .. }
            | Self::Held { key, .. }
            | Self::Ended { key, .. } => Some(key),
            Self::Disturbed { key, .. } => key.as_deref(),
        }
    }
}

/// What `resource` is called in a history.
#[must_use]
pub fn key(resource: &Resource) -> String {
    format!("{resource:?}")
}

#[derive(Default)]
struct Inner {
    events: Vec<Event>,
    file: Option<File>,
}

/// A history that is being written. Cheap to clone.
#[derive(Clone, Default)]
pub struct History(Arc<Mutex<Inner>>);

impl std::fmt::Debug for History {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("History")
            .field("events", &self.inner().events.len())
            .finish()
    }
}

impl History {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One that writes each event to the end of `path` at once, so that nothing is lost with the process.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn to_file(path: &Path) -> std::io::Result<Self> {
        let history = Self::new();
        history.inner().file = Some(OpenOptions::new().create(true).append(true).open(path)?);
        Ok(history)
    }

    /// Adds what another process wrote to `path`. A last line that was cut off by its end is left out.
    ///
    /// # Errors
    /// When the file cannot be read, or is no history.
    pub fn read(&self, path: &Path) -> std::io::Result<()> {
        let mut lines = BufReader::new(File::open(path)?).lines().peekable();
        let mut inner = self.inner();
        while let Some(line) = lines.next() {
            match serde_json::from_str(&line?) {
                Ok(event) => inner.events.push(event),
                Err(_) if lines.peek().is_none() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Adds an event.
    pub fn record(&self, event: Event) {
        let mut inner = self.inner();
        if let Some(file) = &mut inner.file
            && let Ok(mut line) = serde_json::to_vec(&event)
        {
            line.push(b'\n');
            // A full disk shows in the parent: what it expects is missing.
            file.write_all(&line).ok();
        }
        inner.events.push(event);
    }

    /// Somebody outside the contract had a hand in `key`, or in everything, now.
    pub fn disturbed(&self, key: Option<String>, now: Instant) {
        self.record(Event::Disturbed {
            key,
            at: now.as_nanos(),
        });
    }

    /// What happened so far.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.inner().events.clone()
    }

    pub(crate) fn granted(
        &self,
        claim: &Claim,
        token: lockcore::Token,
        (first_sent, sent, received): (Instant, Instant, Instant),
    ) {
        self.record(Event::Granted {
            key: key(&claim.resource),
            attempt: claim.attempt.to_hex(),
            token: token.get(),
            weight: claim.weight,
            capacity: claim.capacity,
            first_sent: first_sent.as_nanos(),
            sent: sent.as_nanos(),
            received: received.as_nanos(),
        });
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_process_and_a_cut_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history");
        let written = History::to_file(&path).unwrap();
        written.disturbed(None, Instant::from_nanos(7));
        written.disturbed(Some("k".into()), Instant::from_nanos(8));
        let read = History::new();
        read.read(&path).unwrap();
        assert_eq!(read.events(), written.events());
        // As when the process is killed in the middle of a line.
        written
            .inner()
            .file
            .as_ref()
            .unwrap()
            .write_all(b"{\"event\":\"dis")
            .unwrap();
        read.read(&path).unwrap();
        assert_eq!(read.events().len(), 4);
        // Anywhere else it is a damaged file.
        for at in [9, 10] {
            written.disturbed(None, Instant::from_nanos(at));
        }
        assert!(read.read(&path).is_err());
    }
}
