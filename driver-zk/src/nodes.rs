//! Nodes: how they are made, found and looked at.

use futures_util::future::join_all;
use lockcore::driver::Inspection;
use lockcore::{AttemptId, Result};
use zookeeper_client::{Acls, Client, CreateMode, Error as ZkError};

use crate::config::Access;
use crate::driver::ZkDriver;
use crate::error::from_client;
use crate::head::Head;
use crate::layout::{in_order, prefix};

impl ZkDriver {
    /// Of locks and contenders.
    pub(crate) fn acls(&self) -> Acls<'static> {
        match self.access {
            Access::Open => Acls::anyone_all(),
            Access::Creator => Acls::creator_all(),
        }
    }

    /// Creates the parent of contenders, which the server removes some time after the last of them has left.
    pub(crate) fn make_lock<'a>(
        &'a self,
        client: &'a Client,
        lock: &'a str,
    ) -> impl Future<Output = Result<(), ZkError>> + Send + 'a {
        let making = client.create(lock, b"", &CreateMode::Container.with_acls(self.acls()));
        async move {
            match making.await {
                // Older servers know no containers.
                Err(ZkError::Unimplemented) => {
                    let options = CreateMode::Persistent.with_acls(self.acls());
                    client.create(lock, b"", &options).await.map(drop)
                }
                made => made.map(drop),
            }
        }
    }

    /// Creates what is above `lock`, in one round trip.
    pub(crate) async fn make_parents(&self, client: &Client, lock: &str) -> Result<(), ZkError> {
        let parents: Vec<_> = lock
            .match_indices('/')
            .map(|(at, _)| &lock[..at])
            .filter(|path| !path.is_empty())
            .collect();
        let making = parents.iter().map(|path| {
            // What belongs to everybody can be built upon by everybody.
            let shared = path.len() <= self.layout.shared();
            let acls = match self.access {
                Access::Creator if shared => Acls::new(&self.parents),
                _ => self.acls(),
            };
            client.create(path, b"", &CreateMode::Persistent.with_acls(acls))
        });
        let made = join_all(making.collect::<Vec<_>>()).await;
        for (path, made) in parents.iter().zip(made) {
            match made {
                Ok(_) | Err(ZkError::NodeExists) => {}
                // A root that somebody else owns is no failure as long as it is there.
                Err(ZkError::NoAuth) if client.check_stat(path).await?.is_some() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The names of an attempt's nodes, of whatever session, that there are and ever will be of requests sent so far.
    pub(crate) async fn nodes_of(
        &self,
        client: &Client,
        lock: &str,
        attempt: AttemptId,
    ) -> Result<Vec<String>, ZkError> {
        let syncing = client.sync(lock);
        let listing = client.list_children(lock);
        let (synced, listed) = tokio::join!(syncing, listing);
        let children = match listed {
            Err(ZkError::NoNode) => return Ok(Vec::new()),
            children => children?,
        };
        synced?;
        let own = prefix(attempt);
        let mut nodes = in_order(children);
        nodes.retain(|name| name.starts_with(&own));
        Ok(nodes)
    }

    /// Is the node called `name` the first, and did it not say that it waits?
    pub(crate) async fn is_holder(&self, client: &Client, lock: &str, name: &str) -> Result<bool> {
        Ok(self
            .look(client, lock)
            .await?
            .is_some_and(|(head, _)| head.is_called(name) && head.holds()))
    }

    /// The first of the queue, and how many come after it.
    pub(crate) async fn look(&self, client: &Client, lock: &str) -> Result<Option<(Head, u64)>> {
        loop {
            let queue = match client.list_children(lock).await {
                Ok(children) => in_order(children),
                Err(ZkError::NoNode) => return Ok(None),
                Err(error) => return Err(from_client(error)),
            };
            let Some(first) = queue.first() else {
                return Ok(None);
            };
            match client.get_data(&format!("{lock}/{first}")).await {
                Ok((data, stat)) => {
                    let behind = u64::try_from(queue.len() - 1).unwrap_or(u64::MAX);
                    return Ok(Some((Head::new(first, &data, stat), behind)));
                }
                // It has just left.
                Err(ZkError::NoNode) => {}
                Err(error) => return Err(from_client(error)),
            }
        }
    }
}

pub(crate) fn inspection(found: Option<(Head, u64)>) -> Inspection {
    match found {
        None => Inspection::default(),
        Some((head, behind)) if head.holds() => Inspection::new(vec![head.occupant()], behind),
        Some((_, behind)) => Inspection::new(Vec::new(), behind + 1),
    }
}
