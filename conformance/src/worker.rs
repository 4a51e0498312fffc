//! Worker processes: this program once more, told what to do line by line, to be stopped and killed.
//!
//! The parent writes one JSON object per line to the worker's standard input, and the worker answers each with one
//! line on its standard output; requests run side by side. A worker ends when its input does, hence with its parent.

mod child;
mod parent;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub(crate) use child::run_if_asked;
pub use parent::{Grip, Worker};

/// The variable that makes this program a worker: an [`Assignment`] as JSON.
const ASSIGNMENT: &str = "LEASEHOLD_CONFORMANCE_WORKER";

/// What a worker is.
#[derive(Debug, Serialize, Deserialize)]
struct Assignment {
    /// The name of the backend among those that `main` was given.
    backend: String,
    /// Where its server is.
    url: String,
    namespace: String,
    claim_window_ms: u64,
    /// Where its history goes.
    history: PathBuf,
}

/// A lock to acquire, in a worker process.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Order {
    /// The mutex's name.
    pub name: String,
    /// Its TTL.
    pub ttl_ms: u64,
    /// How long to wait; for ever for `None`, not at all for zero.
    pub wait_ms: Option<u64>,
    /// Is it renewed?
    pub renew: bool,
}

impl Order {
    /// The mutex `name`, waited for without end, renewed, with this TTL.
    #[must_use]
    pub fn new(name: impl Into<String>, ttl: std::time::Duration) -> Self {
        Self {
            name: name.into(),
            ttl_ms: millis(ttl),
            wait_ms: None,
            renew: true,
        }
    }

    /// Waited for this long.
    #[must_use]
    pub fn wait(mut self, wait: std::time::Duration) -> Self {
        self.wait_ms = Some(millis(wait));
        self
    }

    /// Not renewed.
    #[must_use]
    pub fn unrenewed(mut self) -> Self {
        self.renew = false;
        self
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A line to a worker.
#[derive(Debug, Serialize, Deserialize)]
struct Line<T> {
    id: u64,
    #[serde(flatten)]
    body: T,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case")]
enum Command {
    /// Answers with `Held`, or `Busy` when the wait was over.
    Acquire { grip: u64, order: Order },
    /// Answers with `Released`.
    Release { grip: u64 },
    /// Answers with `State`.
    Check { grip: u64 },
    /// Answers with `Lost` when it is.
    AwaitLoss { grip: u64 },
    /// Takes turns at a lock: reads a number from a file, pauses, writes it plus one. Answers with `Done`.
    Count {
        order: Order,
        file: PathBuf,
        rounds: u32,
        pause_ms: u64,
    },
    /// Drops everything at once and ends the process, without a word to the backend.
    Exit,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
enum Answer {
    Ready,
    Held {
        token: u64,
    },
    Busy,
    /// `true` for a lock that was held to the end.
    Released {
        held: bool,
    },
    State {
        held: bool,
        remaining_ms: u64,
    },
    Lost {
        reason: String,
    },
    Done,
    Failed {
        message: String,
    },
}
