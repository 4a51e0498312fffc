//! The recipe of etcd's servers, by `LockClient` of `etcd-client`: with a lease for each lock, and with one for all.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{Client as Etcd, LockOptions};
use leasehold_bench::backend::Backend;
use leasehold_bench::contender::Entry;
use leasehold_bench::place::Place;
use leasehold_measure::{Client, Failure, Hold, Offers};
use tokio::task::JoinHandle;

/// Of the lease that all locks of a client share, in seconds.
const SHARED_TTL: i64 = 60;

pub(crate) fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    if place.backend() != Backend::Etcd {
        return Vec::new();
    }
    let queue = Offers {
        queue: true,
        ..Offers::default()
    };
    let shared = Offers {
        renewal: true,
        ..queue
    };
    vec![
        Entry::new(place, "lock-client", queue, |place| async move {
            let client: Box<dyn Client> = Box::new(Own(Etcd::connect([place.address()], None).await?));
            Ok(client)
        }),
        Entry::new(place, "lock-client-shared", shared, |place| async move {
            let client: Box<dyn Client> = Box::new(Shared::open(place.address()).await?);
            Ok(client)
        }),
    ]
}

struct Own(Etcd);

struct Shared {
    etcd: Etcd,
    lease: i64,
    keeper: JoinHandle<()>,
}

impl Shared {
    async fn open(address: &str) -> Result<Self, Failure> {
        let mut etcd = Etcd::connect([address], None).await?;
        let lease = etcd.lease_grant(SHARED_TTL, None).await?.id();
        let (mut keeper, mut kept) = etcd.lease_keep_alive(lease).await?;
        let pause = Duration::from_secs(SHARED_TTL.unsigned_abs() / 3);
        let keeper = tokio::spawn(async move {
            while keeper.keep_alive().await.is_ok() && matches!(kept.message().await, Ok(Some(_))) {
                tokio::time::sleep(pause).await;
            }
        });
        Ok(Self { etcd, lease, keeper })
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

struct Held {
    etcd: Etcd,
    key: Vec<u8>,
    /// To be revoked with it.
    lease: Option<i64>,
}

macro_rules! opaque {
    ($($name:ident),*) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )*};
}

opaque!(Own, Shared, Held);

async fn lock(etcd: &Etcd, name: &str, lease: i64) -> Result<Vec<u8>, Failure> {
    let options = LockOptions::new().with_lease(lease);
    let locked = etcd.lock_client().lock(name, Some(options)).await?;
    Ok(locked.key().to_vec())
}

#[async_trait]
impl Client for Own {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let etcd = self.0.clone();
        let seconds = i64::try_from(ttl.as_secs().max(1))?;
        let lease = etcd.lease_client().grant(seconds, None).await?.id();
        let key = lock(&etcd, name, lease).await?;
        Ok(Box::new(Held {
            etcd,
            key,
            lease: Some(lease),
        }))
    }
}

#[async_trait]
impl Client for Shared {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let etcd = self.etcd.clone();
        let key = lock(&etcd, name, self.lease).await?;
        Ok(Box::new(Held {
            etcd,
            key,
            lease: None,
        }))
    }
}

#[async_trait]
impl Hold for Held {
    async fn release(self: Box<Self>) -> Result<(), Failure> {
        self.etcd.lock_client().unlock(self.key).await?;
        if let Some(lease) = self.lease {
            self.etcd.lease_client().revoke(lease).await?;
        }
        Ok(())
    }
}
