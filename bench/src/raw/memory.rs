//! The memory of this process: a mutex of tokio's for each name, which is fair, and a counter.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_measure::{Client, Failure, Hold, Offers};
use tokio::sync::OwnedMutexGuard;

use super::{FIFO, lock};
use crate::contender::Entry;
use crate::place::Place;

pub(super) fn contender(place: &Arc<Place>) -> Entry {
    let locks = Arc::new(Locks::default());
    let offers = Offers {
        renewal: true,
        ..FIFO
    };
    Entry::new(place, "raw-fifo", offers, move |_| {
        let client: Box<dyn Client> = Box::new(Tokio(Arc::clone(&locks)));
        async { Ok(client) }
    })
}

#[derive(Debug, Default)]
struct Locks {
    names: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    token: AtomicU64,
}

#[derive(Debug)]
struct Tokio(Arc<Locks>);

#[derive(Debug)]
struct Held {
    token: u64,
    guard: OwnedMutexGuard<()>,
}

#[async_trait]
impl Client for Tokio {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let mutex = {
            let mut names = lock(&self.0.names);
            match names.get(name) {
                Some(mutex) => Arc::clone(mutex),
                None => Arc::clone(names.entry(name.to_owned()).or_default()),
            }
        };
        let guard = mutex.lock_owned().await;
        let token = 1 + self.0.token.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Held { token, guard }))
    }
}

#[async_trait]
impl Hold for Held {
    fn token(&self) -> Option<u64> {
        Some(self.token)
    }

    async fn release(self: Box<Self>) -> Result<(), Failure> {
        drop(self.guard);
        Ok(())
    }
}
