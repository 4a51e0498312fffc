//! The one stream of watches of a connection: which locks' deletions the server tells us.

use std::future::ready;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{
    EventType, WatchFilterType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
    WatchStream,
};
use lockcore::DriverContext;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::keys;
use crate::queue::{Deleted, Queues, WatchId, Wish};

/// How often watches that nobody needs any more are looked for.
const SWEEP: Duration = Duration::from_secs(1);

pub(crate) struct Watcher {
    queues: Arc<Queues>,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    wishes: mpsc::UnboundedReceiver<Wish>,
    ended: CancellationToken,
}

impl Watcher {
    /// On a stream that was just opened. The watches of earlier ones are wished for again.
    pub(crate) fn new(queues: &Arc<Queues>, stream: WatchStream, ended: CancellationToken) -> Self {
        let (requests, responses) = stream.split();
        Self {
            wishes: queues.attach(),
            queues: Arc::clone(queues),
            requests,
            responses,
            ended,
        }
    }
}

/// Until the connection ends; its end ends the connection.
pub(crate) async fn run(mut watcher: Watcher, context: DriverContext) {
    let _ended = watcher.ended.clone().drop_guard();
    let queues = Arc::clone(&watcher.queues);
    let mut sweeping = Box::pin(context.env.every(SWEEP, || {
        queues.sweep();
        ready(ControlFlow::Continue(()))
    }));
    loop {
        tokio::select! {
            () = watcher.ended.cancelled() => return,
            response = watcher.responses.message() => match response {
                Ok(Some(response)) => {
                    if !hear(&watcher.queues, &response) {
                        return;
                    }
                }
                Ok(None) => return tracing::debug!("the server ended the stream of watches"),
                Err(error) => return tracing::debug!(%error, "the stream of watches broke"),
            },
            Some(wish) = watcher.wishes.recv() => {
                if grant(&mut watcher.requests, wish).await.is_err() {
                    return;
                }
            }
            () = &mut sweeping => {}
        }
    }
}

async fn grant(requests: &mut WatchRequestSender, wish: Wish) -> Result<(), etcd_client::Error> {
    match wish {
        Wish::Watch(id, keys) => {
            // From now on, and no earlier: the server is slow to serve a watch that begins in the past.
            let options = WatchOptions::new()
                .with_watch_id(id)
                .with_range(keys.end())
                .with_filters([WatchFilterType::NoPut]);
            requests.watch(keys.start(), Some(options)).await
        }
        Wish::WatchKey(id, key, from) => {
            let options = WatchOptions::new()
                .with_watch_id(id)
                .with_start_revision(from)
                .with_filters([WatchFilterType::NoPut]);
            requests.watch(key, Some(options)).await
        }
        Wish::Cancel(id) => requests.cancel(id).await,
    }
}

/// False when the stream is of no more use.
fn hear(queues: &Queues, response: &WatchResponse) -> bool {
    let id: WatchId = response.watch_id();
    if response.canceled() {
        // The store has forgotten what was before, most likely.
        if queues.milestone_passed(id) {
            return true;
        }
        // A login that has run out, most likely: a new connection logs in anew.
        let wanted = queues.is_wanted(id);
        if wanted {
            tracing::warn!(reason = response.cancel_reason(), "the server ended a watch");
        }
        return !wanted;
    }
    if response.created() {
        let revision = response
            .header()
            .map_or(i64::MAX, etcd_client::ResponseHeader::revision);
        queues.created(id, revision);
    }
    for event in response.events() {
        let (EventType::Delete, Some(key)) = (event.event_type(), event.kv()) else {
            continue;
        };
        let Some(parsed) = keys::parse(key.key()) else {
            continue;
        };
        let at = key.mod_revision();
        queues.heard(
            id,
            &parsed.keys,
            &Deleted {
                attempt: parsed.attempt,
                at,
            },
        );
    }
    true
}
