//! The recipe of `zookeeper-client`, with Curator's names.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_bench::backend::Backend;
use leasehold_bench::contender::Entry;
use leasehold_bench::place::Place;
use leasehold_measure::{Client, Failure, Hold, Offers};
use zookeeper_client::{Acls, Client as Zk, CreateMode, LockOptions, LockPrefix, OwnedLockClient};

pub(crate) fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    if place.backend() != Backend::ZooKeeper {
        return Vec::new();
    }
    let offers = Offers {
        queue: true,
        renewal: true,
        ..Offers::default()
    };
    vec![Entry::new(
        place,
        "zookeeper-client",
        offers,
        |place| async move {
            let connector = Zk::connector().with_session_timeout(Duration::from_secs(30));
            let client: Box<dyn Client> = Box::new(Recipe(connector.connect(place.address()).await?));
            Ok(client)
        },
    )]
}

#[derive(Debug)]
struct Recipe(Zk);

struct Held(OwnedLockClient);

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[async_trait]
impl Client for Recipe {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let folder = format!("/rivals/{}", name.replace('/', "_"));
        let prefix = LockPrefix::new_curator(&folder, "lock-")?;
        let parents = CreateMode::Persistent.with_acls(Acls::anyone_all());
        let options = LockOptions::new(Acls::anyone_all()).with_ancestor_options(parents)?;
        let held = self.0.lock(prefix, b"", options).await?;
        Ok(Box::new(Held(held.into_owned())))
    }
}

#[async_trait]
impl Hold for Held {
    /// It has no other way: the node is deleted in the background, which nobody can wait for. What that costs shows in the
    /// next acquire.
    async fn release(self: Box<Self>) -> Result<(), Failure> {
        drop(self.0);
        Ok(())
    }
}
