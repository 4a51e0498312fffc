//! `rslock`: one key for each lock; waiters ask again after a random time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_bench::backend::Backend;
use leasehold_bench::contender::Entry;
use leasehold_bench::place::Place;
use leasehold_measure::{Client, Failure, Hold, Offers};
use rslock::{Lock, LockManager};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    if !matches!(place.backend(), Backend::Redis | Backend::Valkey) {
        return Vec::new();
    }
    let commands = &["set", "eval", "evalsha"];
    // It renews in `using` alone, which is another way to lock.
    let renews = Offers {
        renewal: true,
        ..Offers::default()
    };
    let plain = Entry::new(place, "rslock", Offers::default(), |place| async move {
        let client: Box<dyn Client> = Box::new(Plain(LockManager::new(vec![place.url()])));
        Ok(client)
    });
    let using = Entry::new(place, "rslock-using", renews, |place| async move {
        let client: Box<dyn Client> = Box::new(Using(LockManager::new(vec![place.url()])));
        Ok(client)
    });
    vec![plain.commands(commands), using.commands(commands)]
}

#[derive(Debug)]
struct Plain(LockManager);

#[async_trait]
impl Client for Plain {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let lock = self.0.acquire_no_guard(name.as_bytes(), ttl).await?;
        Ok(Box::new(Held(lock)))
    }
}

struct Held(Lock);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[async_trait]
impl Hold for Held {
    async fn release(self: Box<Self>) -> Result<(), Failure> {
        self.0.release().await;
        Ok(())
    }
}

#[derive(Debug)]
struct Using(LockManager);

#[async_trait]
impl Client for Using {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let (manager, name) = (self.0.clone(), name.to_owned());
        let (granted, is_granted) = oneshot::channel();
        let (release, released) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            let routine = async move || {
                // Who asked may be gone: then so is the release, and this ends at once.
                granted.send(()).ok();
                released.await.ok();
            };
            manager
                .using(name.as_bytes(), ttl, routine)
                .await
                .map_err(Failure::from)
        });
        match is_granted.await {
            Ok(()) => Ok(Box::new(InUse { release, task })),
            Err(_) => match task.await? {
                Ok(()) => Err("it ended before it was granted".into()),
                Err(failure) => Err(failure),
            },
        }
    }
}

#[derive(Debug)]
struct InUse {
    release: oneshot::Sender<()>,
    task: JoinHandle<Result<(), Failure>>,
}

#[async_trait]
impl Hold for InUse {
    fn is_held(&self) -> bool {
        !self.task.is_finished()
    }

    async fn release(self: Box<Self>) -> Result<(), Failure> {
        // When it has ended already, its result says why.
        self.release.send(()).ok();
        self.task.await?
    }
}
