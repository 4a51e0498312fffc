//! ZooKeeper: an ephemeral node that is created and deleted; and a queue of such nodes, where creating one and listing
//! all takes one round trip.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use leasehold_measure::{Client, Failure, Hold, Offers};
use zookeeper_client::{Acls, Client as Zk, CreateMode, CreateSequence, Error, Stat};

use super::{FIFO, POLL, TOKENS};
use crate::contender::Entry;
use crate::place::Place;

/// What is compared is how fast it locks, not how long a session lasts.
const SESSION: Duration = Duration::from_secs(30);

pub(super) fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    let renewed = |offers| Offers {
        renewal: true,
        ..offers
    };
    vec![
        Entry::new(place, "raw", renewed(TOKENS), |place| async move {
            let client: Box<dyn Client> = Box::new(Raw(connect(place.address(), "/raw").await?));
            Ok(client)
        }),
        Entry::new(place, "raw-fifo", renewed(FIFO), |place| async move {
            let client: Box<dyn Client> = Box::new(Fifo(connect(place.address(), "/raw-fifo").await?));
            Ok(client)
        }),
    ]
}

async fn connect(address: &str, root: &str) -> Result<Zk, Failure> {
    let client = Zk::connector()
        .with_session_timeout(SESSION)
        .connect(address)
        .await?;
    make(&client, root).await?;
    Ok(client)
}

async fn make(client: &Zk, path: &str) -> Result<(), Error> {
    let options = CreateMode::Persistent.with_acls(Acls::anyone_all());
    match client.create(path, b"", &options).await {
        Ok(_) | Err(Error::NodeExists) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn ping(client: &Zk) -> Result<Option<Duration>, Failure> {
    let begun = Instant::now();
    client.check_stat("/").await?;
    Ok(Some(begun.elapsed()))
}

/// A node of ours.
#[derive(Debug)]
struct Held {
    client: Zk,
    path: String,
    created: i64,
}

#[async_trait]
impl Hold for Held {
    fn token(&self) -> Option<u64> {
        u64::try_from(self.created).ok()
    }

    async fn release(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.client.delete(&self.path, None).await?)
    }
}

#[derive(Debug)]
struct Raw(Zk);

#[async_trait]
impl Client for Raw {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let path = format!("/raw/{}", name.replace('/', "_"));
        let options = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
        loop {
            match self.0.create(&path, b"", &options).await {
                Ok((Stat { czxid, .. }, _)) => {
                    return Ok(Box::new(Held {
                        client: self.0.clone(),
                        path,
                        created: czxid,
                    }));
                }
                Err(Error::NodeExists) => tokio::time::sleep(POLL).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        ping(&self.0).await
    }
}

#[derive(Debug)]
struct Fifo(Zk);

impl Fifo {
    /// Both requests leave at once, and are answered in order.
    async fn enter(&self, lock: &str) -> Result<(Stat, CreateSequence, Vec<String>), Error> {
        let path = format!("{lock}/n-");
        let options = CreateMode::EphemeralSequential.with_acls(Acls::anyone_all());
        let creating = self.0.create(&path, b"", &options);
        let listing = self.0.list_children(lock);
        let (created, listed) = tokio::join!(creating, listing);
        let (stat, number) = created?;
        Ok((stat, number, listed?))
    }
}

#[async_trait]
impl Client for Fifo {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let lock = format!("/raw-fifo/{}", name.replace('/', "_"));
        let (stat, number, mut children) = match self.enter(&lock).await {
            Err(Error::NoNode) => {
                make(&self.0, &lock).await?;
                self.enter(&lock).await?
            }
            entered => entered?,
        };
        let own = format!("n-{number}");
        loop {
            // Of the same length, so that the order of the names is that of the numbers.
            let before = children.iter().filter(|child| **child < own).max();
            let Some(before) = before else {
                return Ok(Box::new(Held {
                    client: self.0.clone(),
                    path: format!("{lock}/{own}"),
                    created: stat.czxid,
                }));
            };
            match self.0.get_and_watch_data(&format!("{lock}/{before}")).await {
                Ok((.., watcher)) => {
                    watcher.changed().await;
                }
                Err(Error::NoNode) => {}
                Err(error) => return Err(error.into()),
            }
            children = self.0.list_children(&lock).await?;
        }
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        ping(&self.0).await
    }
}
