//! Any driver, behind one pointer.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use crate::capability::Capabilities;
use crate::claim::{Claim, SharedClaim};
use crate::diagnosis::Diagnosis;
use crate::driver::{Acquired, Driver, Inspection, Intent, Lease, Listed, Released, Renewal};
use crate::error::Result;
use crate::name::{Namespace, Resource};

/// A request that owns what it needs, so that it can go on without whoever sent it.
pub(crate) type Call<T> = BoxFuture<'static, Result<T>>;

/// A [`Driver`] of any type. Cheap to clone.
#[derive(Clone)]
pub struct DynDriver(Arc<dyn Erased>);

impl DynDriver {
    /// `driver`, whatever it is.
    #[must_use]
    pub fn new(driver: impl Driver) -> Self {
        Self(Arc::new(driver))
    }

    /// [`Driver::acquire`], in a single allocation.
    pub(crate) fn acquire_call(&self, claim: SharedClaim, intent: Intent) -> Call<Acquired> {
        Arc::clone(&self.0).acquire_call(claim, intent)
    }

    /// [`Driver::release`], in a single allocation.
    pub(crate) fn release_call(&self, claim: SharedClaim) -> Call<Released> {
        Arc::clone(&self.0).release_call(claim)
    }
}

impl<D: Driver> From<Arc<D>> for DynDriver {
    fn from(driver: Arc<D>) -> Self {
        Self(driver)
    }
}

impl fmt::Debug for DynDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// [`Driver`] with its calls boxed.
#[async_trait]
trait Erased: fmt::Debug + Send + Sync {
    fn backend(&self) -> &'static str;
    fn capabilities(&self) -> Capabilities;
    fn acquire_call(self: Arc<Self>, claim: SharedClaim, intent: Intent) -> Call<Acquired>;
    fn release_call(self: Arc<Self>, claim: SharedClaim) -> Call<Released>;
    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired>;
    async fn release(&self, claim: &Claim) -> Result<Released>;
    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>>;
    async fn inspect(&self, resource: &Resource) -> Result<Inspection>;
    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>>;
    async fn force_release(&self, resource: &Resource) -> Result<bool>;
    async fn ping(&self) -> Result<()>;
    async fn diagnose(&self) -> Result<Diagnosis>;
    async fn close(&self) -> Result<()>;
}

#[async_trait]
impl<D: Driver> Erased for D {
    fn backend(&self) -> &'static str {
        Driver::backend(self)
    }

    fn capabilities(&self) -> Capabilities {
        Driver::capabilities(self)
    }

    fn acquire_call(self: Arc<Self>, claim: SharedClaim, intent: Intent) -> Call<Acquired> {
        Box::pin(async move { Driver::acquire(&*self, &claim, intent).await })
    }

    fn release_call(self: Arc<Self>, claim: SharedClaim) -> Call<Released> {
        Box::pin(async move { Driver::release(&*self, &claim).await })
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        Driver::acquire(self, claim, intent).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        Driver::release(self, claim).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        Driver::renew(self, leases).await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        Driver::inspect(self, resource).await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        Driver::list(self, namespace, prefix).await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        Driver::force_release(self, resource).await
    }

    async fn ping(&self) -> Result<()> {
        Driver::ping(self).await
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        Driver::diagnose(self).await
    }

    async fn close(&self) -> Result<()> {
        Driver::close(self).await
    }
}

/// For layers around a driver.
impl Driver for DynDriver {
    fn backend(&self) -> &'static str {
        self.0.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        self.0.acquire(claim, intent).await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.0.release(claim).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
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

    async fn diagnose(&self) -> Result<Diagnosis> {
        self.0.diagnose().await
    }

    async fn close(&self) -> Result<()> {
        self.0.close().await
    }
}
