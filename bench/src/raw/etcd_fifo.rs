//! etcd with a queue of keys: one transaction takes the lock or a place and tells who comes before; one long-lived watch
//! for each client says who has left, to whoever waits for that.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Compare, CompareOp, EventType, GetOptions, ResponseHeader, SortOrder, SortTarget, Txn, TxnOp,
    TxnOpResponse, WatchFilterType, WatchOptions, WatchResponse, WatchStream,
};
use leasehold_measure::{Client, Failure, Hold, Offers};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::etcd::{Held, Session};
use super::{FIFO, lock};
use crate::contender::Entry;
use crate::place::Place;

const ROOT: &str = "raw-fifo/";
/// So many of those who left last are remembered: an event may come before the reply that says whom to wait for.
const MEMORY: usize = 8192;

pub(super) fn contender(place: &Arc<Place>) -> Entry {
    let offers = Offers {
        renewal: true,
        ..FIFO
    };
    Entry::new(place, "raw-fifo", offers, |place| async move {
        let mut session = Session::open(place.address()).await?;
        let options = WatchOptions::new()
            .with_prefix()
            .with_filters([WatchFilterType::NoPut]);
        let stream = session.etcd.watch(ROOT, Some(options)).await?;
        let left = Arc::new(Mutex::new(Left::default()));
        let client: Box<dyn Client> = Box::new(Fifo {
            session,
            watcher: tokio::spawn(watch(stream, Arc::clone(&left))),
            left,
        });
        Ok(client)
    })
}

/// Who has left, and who waits for that.
#[derive(Debug, Default)]
struct Left {
    waiters: HashMap<Vec<u8>, oneshot::Sender<()>>,
    known: HashSet<Vec<u8>>,
    order: VecDeque<Vec<u8>>,
}

impl Left {
    /// `None` when it has left already.
    fn wait_for(&mut self, key: &[u8]) -> Option<oneshot::Receiver<()>> {
        if self.known.contains(key) {
            return None;
        }
        let (sender, told) = oneshot::channel();
        self.waiters.insert(key.to_vec(), sender);
        Some(told)
    }

    fn hear(&mut self, response: &WatchResponse) {
        let deleted = response
            .events()
            .iter()
            .filter(|event| event.event_type() == EventType::Delete);
        for key in deleted.filter_map(etcd_client::Event::kv) {
            let key = key.key().to_vec();
            if let Some(waiter) = self.waiters.remove(&key) {
                // It may have given up.
                waiter.send(()).ok();
            }
            self.known.insert(key.clone());
            self.order.push_back(key);
            if self.order.len() > MEMORY
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }
}

/// Until the stream ends: those who wait then are told by the end of their channels.
async fn watch(mut stream: WatchStream, left: Arc<Mutex<Left>>) {
    while let Ok(Some(response)) = stream.message().await {
        lock(&left).hear(&response);
    }
    lock(&left).waiters.clear();
}

#[derive(Debug)]
struct Fifo {
    session: Session,
    left: Arc<Mutex<Left>>,
    watcher: JoinHandle<()>,
}

impl Drop for Fifo {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

#[async_trait]
impl Client for Fifo {
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let mut kv = self.session.kv();
        let queue = format!("{ROOT}{name}/");
        let key = format!("{queue}{:032x}", fastrand::u128(..));
        let empty = Compare::create_revision(queue.as_str(), CompareOp::Equal, 0).with_prefix();
        let youngest = GetOptions::new()
            .with_prefix()
            .with_sort(SortTarget::Create, SortOrder::Descend)
            .with_keys_only();
        let last_two = TxnOp::get(queue.as_str(), Some(youngest.clone().with_limit(2)));
        let txn = Txn::new()
            .when([empty])
            .and_then([self.session.put(&key)])
            .or_else([self.session.put(&key), last_two]);
        let entered = kv.txn(txn).await?;
        let token = entered.header().map_or(0, ResponseHeader::revision);
        let before = entered
            .op_responses()
            .into_iter()
            .find_map(|answer| match answer {
                TxnOpResponse::Get(found) => found.kvs().get(1).map(|before| before.key().to_vec()),
                _ => None,
            });
        // Who comes before may be a waiter that gave up, so its end has to be looked into.
        let mut before = before;
        while let Some(earlier) = before.take() {
            let told = lock(&self.left).wait_for(&earlier);
            if let Some(told) = told {
                told.await?;
            }
            let nearest = youngest.clone().with_max_create_revision(token - 1).with_limit(1);
            let found = kv.get(queue.as_str(), Some(nearest)).await?;
            before = found.kvs().first().map(|before| before.key().to_vec());
        }
        Ok(Box::new(Held { kv, key, token }))
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        self.session.ping().await
    }

    async fn close(self: Box<Self>) -> Result<(), Failure> {
        self.session.close().await
    }
}
