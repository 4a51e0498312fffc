//! etcd: a transaction that creates a key unless it is there, and one that deletes it if it is ours, on one lease.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use etcd_client::{Client as Etcd, Compare, CompareOp, GetOptions, KvClient, PutOptions, Txn, TxnOp};
use leasehold_measure::{Client, Failure, Hold, Offers};
use tokio::task::JoinHandle;

use super::{POLL, TOKENS};
use crate::contender::Entry;
use crate::place::Place;

/// Of the lease, in seconds. What locks and what recovers is compared, not how long it takes to expire.
const TTL: i64 = 60;

pub(super) fn contender(place: &Arc<Place>) -> Entry {
    let offers = Offers {
        renewal: true,
        ..TOKENS
    };
    Entry::new(place, "raw", offers, |place| async move {
        let client: Box<dyn Client> = Box::new(Raw(Session::open(place.address()).await?));
        Ok(client)
    })
}

/// A connection, and a lease that is kept for as long as this is there.
pub(super) struct Session {
    pub(super) etcd: Etcd,
    pub(super) lease: i64,
    keeper: JoinHandle<()>,
}

impl Session {
    pub(super) async fn open(address: &str) -> Result<Self, Failure> {
        let mut etcd = Etcd::connect([address], None).await?;
        let lease = etcd.lease_grant(TTL, None).await?.id();
        let (mut keeper, mut kept) = etcd.lease_keep_alive(lease).await?;
        let pause = Duration::from_secs(TTL.unsigned_abs() / 3);
        let keeper = tokio::spawn(async move {
            // A lease that cannot be kept shows in what is done with it.
            while keeper.keep_alive().await.is_ok() && matches!(kept.message().await, Ok(Some(_))) {
                tokio::time::sleep(pause).await;
            }
        });
        Ok(Self { etcd, lease, keeper })
    }

    pub(super) fn kv(&self) -> KvClient {
        self.etcd.kv_client()
    }

    pub(super) fn put(&self, key: &str) -> TxnOp {
        TxnOp::put(key, "", Some(PutOptions::new().with_lease(self.lease)))
    }

    /// A read that takes no word with other members.
    pub(super) async fn ping(&self) -> Result<Option<Duration>, Failure> {
        let mut kv = self.kv();
        let options = GetOptions::new().with_serializable().with_keys_only();
        let begun = Instant::now();
        kv.get("raw", Some(options)).await?;
        Ok(Some(begun.elapsed()))
    }

    pub(super) async fn close(&self) -> Result<(), Failure> {
        self.etcd.lease_client().revoke(self.lease).await?;
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// A key of ours, created at revision `token`.
pub(super) struct Held {
    pub(super) kv: KvClient,
    pub(super) key: String,
    pub(super) token: i64,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Hold for Held {
    fn token(&self) -> Option<u64> {
        u64::try_from(self.token).ok()
    }

    async fn release(mut self: Box<Self>) -> Result<(), Failure> {
        let ours = Compare::create_revision(self.key.as_str(), CompareOp::Equal, self.token);
        let delete = TxnOp::delete(self.key.as_str(), None);
        let released = self.kv.txn(Txn::new().when([ours]).and_then([delete])).await?;
        match released.succeeded() {
            true => Ok(()),
            false => Err("the lock was lost while it was held".into()),
        }
    }
}

#[derive(Debug)]
struct Raw(Session);

#[async_trait]
impl Client for Raw {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let mut kv = self.0.kv();
        let key = format!("raw/{name}");
        loop {
            let absent = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
            let taken = kv
                .txn(Txn::new().when([absent]).and_then([self.0.put(&key)]))
                .await?;
            if taken.succeeded() {
                let token = taken.header().map_or(0, etcd_client::ResponseHeader::revision);
                return Ok(Box::new(Held { kv, key, token }));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        self.0.ping().await
    }

    async fn close(self: Box<Self>) -> Result<(), Failure> {
        self.0.close().await
    }
}
