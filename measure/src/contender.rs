//! What is measured: a way to lock on one backend.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

/// What goes wrong in a contender: its text is shown, and ends its part of the run.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A way to lock on one backend: Leasehold, another library, or a raw client that does the least that can be done.
#[async_trait]
pub trait Contender: fmt::Debug + Send + Sync + 'static {
    /// One word that tells it from the others on its backend: `leasehold`, `raw`, `rslock`.
    fn name(&self) -> &str;

    /// Whom it is compared with: contenders on the same backend, such as `redis`.
    fn backend(&self) -> &str;

    /// What a user of it gets.
    fn offers(&self) -> Offers;

    /// A client with connections of its own, as a process of an application would have.
    async fn client(&self) -> Result<Box<dyn Client>, Failure>;

    /// What the server has used since it was started, as far as it can be told.
    async fn server_use(&self) -> Result<ServerUse, Failure> {
        Ok(ServerUse::default())
    }
}

/// What a contender does for its users, for the notes of a report: speed is compared among those that offer the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offers {
    /// Waiters are served in order, and woken: nobody polls.
    pub queue: bool,
    /// Every grant has a fencing token.
    pub tokens: bool,
    /// A held lock is kept for longer than its TTL.
    pub renewal: bool,
}

/// A client of a contender.
#[async_trait]
pub trait Client: fmt::Debug + Send + Sync {
    /// Takes the lock, waiting for as long as it takes; its TTL is `ttl`, where the contender has one.
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure>;

    /// How long the least request takes to the server and back, where the contender can send one.
    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        Ok(None)
    }

    /// Ends its connections.
    async fn close(self: Box<Self>) -> Result<(), Failure> {
        Ok(())
    }
}

/// A lock that is held. What is dropped may stay locked until its TTL is over.
#[async_trait]
pub trait Hold: fmt::Debug + Send {
    /// The fencing token, where there is one.
    fn token(&self) -> Option<u64> {
        None
    }

    /// The TTL that it was given, where that is known; what was asked for may have been rounded.
    fn ttl(&self) -> Option<Duration> {
        None
    }

    /// Whether it is still held, as far as the contender can tell without asking the server.
    fn is_held(&self) -> bool {
        true
    }

    /// Frees it. The release counts as done when this is.
    async fn release(self: Box<Self>) -> Result<(), Failure>;
}

/// What a server has used since it was started. `None` is what cannot be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerUse {
    /// Requests that it got.
    pub requests: Option<u64>,
    /// Durable changes that it made.
    pub writes: Option<u64>,
    /// Time of its processes on a processor.
    pub cpu: Option<Duration>,
}

impl ServerUse {
    /// What was used since `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        let number = |now: Option<u64>, then: Option<u64>| Some(now?.saturating_sub(then?));
        Self {
            requests: number(self.requests, before.requests),
            writes: number(self.writes, before.writes),
            cpu: self
                .cpu
                .zip(before.cpu)
                .map(|(now, then)| now.saturating_sub(then)),
        }
    }
}
