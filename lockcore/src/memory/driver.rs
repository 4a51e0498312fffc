//! The driver: requests to the store, with what goes wrong on the way.

use std::future::pending;
use std::time::Duration;

use super::faults::{Call, Fault};
use super::model::{ClientId, Model, Now, WakeUp};
use super::store::MemoryStore;
use crate::capability::{Capabilities, ExpiryClock, Failover, FencingSource};
use crate::claim::Claim;
use crate::diagnosis::Diagnosis;
use crate::driver::{Acquired, Driver, Inspection, Intent, Lease, Listed, Released, Renewal};
use crate::error::{Error, ErrorKind, Result};
use crate::name::{Namespace, Resource};

/// What the memory backend can do: everything, inside one process.
pub const CAPABILITIES: Capabilities = Capabilities::MUTEX
    .with_ttl(
        Duration::from_nanos(1),
        crate::settings::MAX_TTL,
        Duration::from_nanos(1),
    )
    .with_expiry(ExpiryClock::Process, Duration::ZERO)
    .with_fencing(FencingSource::Process)
    .with_failover(Failover::Process)
    .with_weighted(true)
    .with_cross_process(false)
    .with_renew_batch(1000);

/// A connection to a [`MemoryStore`]. Dropped, it is gone like a process that died: its locks stay for their TTL.
#[derive(Debug)]
pub struct MemoryDriver {
    store: MemoryStore,
    client: ClientId,
}

impl MemoryDriver {
    pub(super) const fn new(store: MemoryStore, client: ClientId) -> Self {
        Self { store, client }
    }

    async fn request<T>(
        &self,
        call: Call,
        apply: impl FnOnce(&mut Model, Now, &mut Vec<WakeUp>) -> T + Send,
    ) -> Result<T>
    where
        T: Send,
    {
        let env = self.store.env();
        let (fault, (request, reply), partitioned) = self
            .store
            .with_faults(|faults| (faults.strike(call), faults.latency, faults.partitioned));
        if partitioned {
            self.store.healed().await;
            return Err(broken());
        }
        match fault {
            Some(Fault::Refuse(kind)) => return Err(Error::new(kind, "refused by the script of faults")),
            Some(Fault::SwallowRequest) => pending().await,
            Some(Fault::DelayRequest(delay)) => env.sleep(delay).await,
            _ => {}
        }
        if !request.is_zero() {
            env.sleep(env.jitter(Duration::ZERO, request)).await;
        }
        let answer = self.store.apply(apply);
        match fault {
            Some(Fault::LoseReply) => return Err(broken()),
            Some(Fault::SwallowReply) => pending().await,
            Some(Fault::DelayReply(delay)) => env.sleep(delay).await,
            _ => {}
        }
        if !reply.is_zero() {
            env.sleep(env.jitter(Duration::ZERO, reply)).await;
        }
        if self.store.with_faults(|faults| faults.partitioned) {
            self.store.healed().await;
            return Err(broken());
        }
        Ok(answer)
    }
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the connection broke before the answer came",
    )
}

impl Drop for MemoryDriver {
    fn drop(&mut self) {
        self.store.disconnect(self.client);
    }
}

impl Driver for MemoryDriver {
    fn backend(&self) -> &'static str {
        "memory"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let client = self.client;
        self.request(Call::Acquire, |model, now, wakes| {
            model.acquire(now, (client, claim, intent), wakes)
        })
        .await?
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.request(Call::Release, |model, now, wakes| {
            model.release(now, claim, wakes)
        })
        .await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        self.request(Call::Renew, |model, now, _| {
            leases
                .iter()
                .map(|lease| model.renew(now, &lease.claim, lease.ttl))
                .collect()
        })
        .await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        self.request(Call::Other, |model, now, _| model.inspect(now, resource))
            .await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        self.request(Call::Other, |model, now, _| model.list(now, namespace, prefix))
            .await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        self.request(Call::Other, |model, now, wakes| {
            model.force_release(now, resource, wakes)
        })
        .await
    }

    async fn ping(&self) -> Result<()> {
        self.request(Call::Other, |_, _, _| ()).await
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        self.request(Call::Other, |_, _, _| {
            let mut diagnosis = Diagnosis::new("memory", Some(env!("CARGO_PKG_VERSION")));
            diagnosis.note(
                "process",
                "locks live in this process and end with it: other processes have locks of their own",
            );
            diagnosis
        })
        .await
    }

    async fn close(&self) -> Result<()> {
        self.store.disconnect(self.client);
        Ok(())
    }
}
