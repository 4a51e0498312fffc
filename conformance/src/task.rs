//! What a scenario does beside itself.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

use crate::failure::{Checked, Failure};

/// A task of a scenario. Dropping it lets the task go on.
#[derive(Debug)]
#[must_use = "a task that nobody waits for may fail unseen"]
pub struct Task<T>(JoinHandle<T>);

impl<T> Task<T> {
    pub(crate) const fn new(handle: JoinHandle<T>) -> Self {
        Self(handle)
    }

    /// Ends it at its next await point.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Has it ended?
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = Checked<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Checked<T>> {
        Pin::new(&mut self.0)
            .poll(cx)
            .map(|joined| joined.map_err(Failure::from))
    }
}
