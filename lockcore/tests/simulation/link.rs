//! The way from a node to the store: it can be cut for one node alone, and it can carry a bug.

use std::sync::Arc;
use std::time::Duration;

use lockcore::driver::{Acquired, Bound, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::memory::MemoryDriver;
use lockcore::{Capabilities, Claim, Driver, Env, Error, ErrorKind, Namespace, Resource, Result};
use tokio::sync::Notify;

/// What a broken driver does; the simulation has to notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Frees the lock whoever has it.
    BlindRelease,
    /// Says that it released what it only forgot.
    NoRelease,
    /// Leaves waiters that gave up in the queue.
    AbandonedWaiter,
    /// A grant that lasts longer here than in the store.
    LongGrant,
    /// A renewal that the store refused is reported as done.
    RenewalNeverFails,
    /// A lease that ended is taken again by its renewal.
    Resurrection,
    /// The newest waiter is served first.
    LastInFirstOut,
}

impl Bug {
    pub(crate) const ALL: [Self; 7] = [
        Self::BlindRelease,
        Self::NoRelease,
        Self::AbandonedWaiter,
        Self::LongGrant,
        Self::RenewalNeverFails,
        Self::Resurrection,
        Self::LastInFirstOut,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Up,
    /// Requests wait; when it is up again some arrive late, the others are lost.
    Down,
    /// For good: the process is gone or stopped.
    Dead,
}

/// One node's driver.
#[derive(Debug)]
pub(crate) struct Link {
    env: Env,
    line: std::sync::Mutex<Line>,
    /// Not a `watch`: that one wakes in random order.
    changed: Notify,
    /// Taken when the process is killed: the store sees the connection go.
    driver: std::sync::Mutex<Option<Arc<MemoryDriver>>>,
    bug: Option<Bug>,
}

impl Link {
    pub(crate) fn new(env: Env, driver: MemoryDriver, bug: Option<Bug>) -> Self {
        Self {
            env,
            line: std::sync::Mutex::new(Line::Up),
            changed: Notify::new(),
            driver: std::sync::Mutex::new(Some(Arc::new(driver))),
            bug,
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        let mut line = self.line.lock().unwrap();
        if *line != Line::Dead {
            *line = if down { Line::Down } else { Line::Up };
        }
        self.changed.notify_waiters();
    }

    /// The process ends; `seen` when the store notices.
    pub(crate) fn die(&self, seen: bool) {
        *self.line.lock().unwrap() = Line::Dead;
        self.changed.notify_waiters();
        if seen {
            drop(self.driver.lock().unwrap().take());
        }
    }

    fn line(&self) -> Line {
        *self.line.lock().unwrap()
    }

    /// The driver, as soon as a request gets through.
    async fn up(&self) -> Result<Arc<MemoryDriver>> {
        let mut waited = false;
        loop {
            let changed = self.changed.notified();
            match self.line() {
                Line::Up => break,
                Line::Down => waited = true,
                Line::Dead => std::future::pending().await,
            }
            changed.await;
        }
        if waited && self.env.random_u128()? % 2 == 0 {
            return Err(broken());
        }
        let driver = self.driver.lock().unwrap().clone();
        driver.ok_or_else(broken)
    }

    /// The answer, if the line is still up when it comes.
    async fn back<T>(&self, answer: Result<T>) -> Result<T> {
        if self.line() != Line::Up {
            self.up().await?;
            return Err(broken());
        }
        answer
    }
}

fn broken() -> Error {
    Error::new(ErrorKind::Unavailable, "the line was cut")
}

impl Driver for Link {
    fn backend(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        lockcore::memory::CAPABILITIES
    }

    async fn acquire(&self, claim: &Claim, mut intent: Intent) -> Result<Acquired> {
        let driver = self.up().await?;
        if let (Some(Bug::LastInFirstOut), Intent::Wait { ticket: None }) = (self.bug, intent) {
            let ticket = Some(u64::MAX / 2 - self.env.now().as_nanos());
            intent = Intent::Wait { ticket };
        }
        let mut answer = driver.acquire(claim, intent).await;
        if let (Some(Bug::LongGrant), Ok(Acquired::Granted(grant))) = (self.bug, &mut answer)
            && let Bound::Lease(ttl) = &mut grant.bound
        {
            *ttl += Duration::from_millis(100);
        }
        self.back(answer).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let driver = self.up().await?;
        match self.bug {
            Some(Bug::NoRelease) => return Ok(Released::NotHeld),
            Some(Bug::AbandonedWaiter) => {
                let lease = Lease::new(claim.clone().into(), token(), claim.ttl);
                if driver.renew(&[lease]).await?.contains(&Renewal::NotHeld) {
                    return Ok(Released::NotHeld);
                }
            }
            Some(Bug::BlindRelease) => drop(driver.force_release(&claim.resource).await?),
            _ => {}
        }
        self.back(driver.release(claim).await).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let driver = self.up().await?;
        let mut answers = driver.renew(leases).await?;
        for (lease, answer) in leases.iter().zip(&mut answers) {
            if *answer == Renewal::NotHeld {
                match self.bug {
                    Some(Bug::RenewalNeverFails) => *answer = Renewal::Renewed,
                    Some(Bug::Resurrection) => {
                        let again = driver.acquire(&lease.claim, Intent::Try).await?;
                        if matches!(again, Acquired::Granted(_)) {
                            *answer = Renewal::Renewed;
                        }
                    }
                    _ => {}
                }
            }
        }
        self.back(Ok(answers)).await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        let answer = self.up().await?.inspect(resource).await;
        self.back(answer).await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        let answer = self.up().await?.list(namespace, prefix).await;
        self.back(answer).await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        let answer = self.up().await?.force_release(resource).await;
        self.back(answer).await
    }

    async fn ping(&self) -> Result<()> {
        let answer = self.up().await?.ping().await;
        self.back(answer).await
    }

    async fn close(&self) -> Result<()> {
        self.up().await?.close().await
    }
}

/// The store does not look at it.
fn token() -> lockcore::Token {
    lockcore::Token::new(0)
}
