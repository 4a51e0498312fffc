//! What the lease engine costs by itself: on locks in memory, and on a driver that answers at once.
//!
//! All of it runs inside one task: between threads, a wake-up costs ten times as much as what is measured here.

#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    reason = "a benchmark takes real time, and ends when it cannot"
)]
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use lockcore::driver::{Acquired, Grant, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::memory::MemoryStore;
use lockcore::{
    Capabilities, Claim, Driver, DriverContext, Env, LockManager, Manager, Namespace, Resource, Result,
    Settings, Token,
};
use tokio::runtime::Builder;

/// Grants everything, with a larger token each time.
#[derive(Debug, Default)]
struct Null(AtomicU64);

impl Driver for Null {
    fn backend(&self) -> &'static str {
        "null"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::MUTEX
    }

    async fn acquire(&self, claim: &Claim, _: Intent) -> Result<Acquired> {
        let token = Token::new(self.0.fetch_add(1, Ordering::Relaxed) + 1);
        Ok(Acquired::Granted(Grant::lease(token, claim.ttl)))
    }

    async fn release(&self, _: &Claim) -> Result<Released> {
        Ok(Released::Released)
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        Ok(vec![Renewal::Renewed; leases.len()])
    }

    async fn inspect(&self, _: &Resource) -> Result<Inspection> {
        Ok(Inspection::default())
    }

    async fn list(&self, _: &Namespace, _: &str) -> Result<Vec<Listed>> {
        Ok(Vec::new())
    }

    async fn force_release(&self, _: &Resource) -> Result<bool> {
        Ok(false)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn pair(criterion: &mut Criterion, name: &str, manager: impl Fn() -> Result<Manager>) {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
    let made = runtime.block_on(async { manager() });
    let locks = made.unwrap_or_else(|error| panic!("no locks: {error}"));
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|times| {
            let locks = locks.clone();
            let task = runtime.spawn(async move {
                let begun = std::time::Instant::now();
                for _ in 0..times {
                    let guard = locks.lock("engine").acquire().await?;
                    black_box(guard.token());
                    guard.release().await?;
                }
                Ok::<_, lockcore::Error>(begun.elapsed())
            });
            match runtime.block_on(task) {
                Ok(Ok(time)) => time,
                failed => panic!("a lock failed: {failed:?}"),
            }
        });
    });
}

fn engine(criterion: &mut Criterion) {
    pair(criterion, "acquire and release, memory", || {
        MemoryStore::new(&Env::system()).manager(Settings::default())
    });
    pair(
        criterion,
        "acquire and release, a driver that answers at once",
        || {
            let context = DriverContext::new(Env::system());
            Manager::new(Null::default(), context, Settings::default())
        },
    );
}

criterion_group!(benches, engine);
criterion_main!(benches);
