//! A driver that grants everything at once, so that what is left is the engine.

use std::sync::atomic::{AtomicU64, Ordering};

use lockcore::driver::{Acquired, Grant, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    Capabilities, Claim, Driver, DriverContext, Env, Manager, Namespace, Resource, Result, Settings, Token,
};

#[derive(Debug, Default)]
pub(crate) struct NullDriver {
    last: AtomicU64,
}

/// A manager on a null driver.
pub(crate) fn manager(env: Env) -> Result<Manager> {
    Manager::new(
        NullDriver::default(),
        DriverContext::new(env),
        Settings::default(),
    )
}

impl Driver for NullDriver {
    fn backend(&self) -> &'static str {
        "null"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::MUTEX.with_renew_batch(1000)
    }

    async fn acquire(&self, claim: &Claim, _: Intent) -> Result<Acquired> {
        let token = Token::new(self.last.fetch_add(1, Ordering::Relaxed) + 1);
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
