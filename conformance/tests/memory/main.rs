//! The suite on the reference model: on virtual time; once more on the real clock, where threads race; with locks that
//! live by sessions; with TTLs of whole seconds only; and declared as the least that a driver may be.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use leasehold_conformance::{Backend, Clock, MemoryBackend, main as conformance};
use lockcore::driver::{Acquired, Busy, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::memory::{CAPABILITIES, MemoryDriver};
use lockcore::{
    Capabilities, Claim, Driver, DynDriver, Error, ErrorKind, Namespace, Resource, Result, WakeUp,
};

fn main() -> ExitCode {
    let [virtual_time, real_time] = [Clock::Virtual, Clock::Real].map(MemoryBackend::new);
    let bare = MemoryBackend::new(Clock::Virtual)
        .wrapped("memory-bare", |driver, _| DynDriver::new(Bare(driver)))
        .declared(BARE);
    let sessions = MemoryBackend::new(Clock::Virtual).with_sessions("memory-session");
    let connections = MemoryBackend::new(Clock::Virtual).with_connections("memory-connection");
    let coarse = MemoryBackend::new(Clock::Virtual)
        .wrapped("memory-coarse", |driver, _| DynDriver::new(Coarse(driver)))
        .declared(COARSE);
    let coarse_sessions = MemoryBackend::new(Clock::Virtual)
        .declared(COARSE)
        .with_sessions("memory-session-coarse");
    let backends = [
        virtual_time,
        real_time,
        sessions,
        connections,
        coarse,
        coarse_sessions,
        bare,
    ];
    conformance(backends.map(|backend| Arc::new(backend) as Arc<dyn Backend>))
}

/// Whole seconds, from two to ten.
const COARSE: Capabilities = CAPABILITIES.with_ttl(
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_secs(1),
);

/// A driver that declares [`COARSE`].
#[derive(Debug)]
struct Coarse(MemoryDriver);

impl Driver for Coarse {
    fn backend(&self) -> &'static str {
        "coarse"
    }

    fn capabilities(&self) -> Capabilities {
        COARSE
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        whole_seconds(claim.ttl)?;
        self.0.acquire(claim, intent).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.0.release(claim).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        for lease in leases {
            whole_seconds(lease.ttl)?;
        }
        self.0.renew(leases).await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        self.0.inspect(resource).await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        self.0.list(namespace, prefix).await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        self.0.force_release(resource).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}

/// What a server answers that knows no other TTLs.
fn whole_seconds(ttl: Duration) -> Result<()> {
    if COARSE.effective_ttl(ttl) == ttl {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Invalid, format!("a TTL of {ttl:?}")))
}

/// No queue, no pushes, a coarse TTL, and nothing that an administrator would ask for.
const BARE: Capabilities = CAPABILITIES
    .with_ttl(
        Duration::from_millis(500),
        Duration::from_secs(4),
        Duration::from_millis(500),
    )
    .with_fifo(false)
    .with_wake_up(WakeUp::Poll {
        interval: Duration::from_millis(40),
    })
    .with_weighted(false)
    .with_administration(false, false, false)
    .with_renew_batch(7);

/// A driver that can just do the least.
#[derive(Debug)]
struct Bare(MemoryDriver);

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "the least"))
}

impl Driver for Bare {
    fn backend(&self) -> &'static str {
        "bare"
    }

    fn capabilities(&self) -> Capabilities {
        BARE
    }

    async fn acquire(&self, claim: &Claim, _: Intent) -> Result<Acquired> {
        // Whoever comes when it is free gets it.
        Ok(match self.0.acquire(claim, Intent::Try).await? {
            Acquired::Busy(_) => Acquired::Busy(Busy::default()),
            granted => granted,
        })
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.0.release(claim).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        self.0.renew(leases).await
    }

    async fn inspect(&self, _: &Resource) -> Result<Inspection> {
        unsupported()
    }

    async fn list(&self, _: &Namespace, _: &str) -> Result<Vec<Listed>> {
        unsupported()
    }

    async fn force_release(&self, _: &Resource) -> Result<bool> {
        unsupported()
    }

    async fn ping(&self) -> Result<()> {
        self.0.ping().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
