//! Redis with a queue in a list: one script takes the lock or a place, the other hands the lock, with its token, to the
//! next, and tells it by one message.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_measure::{Client, Failure, Hold};
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, Value, cmd};
use tokio::sync::oneshot;

use super::redis::{configuration, connect, load, ping};
use super::{FIFO, lock};
use crate::contender::Entry;
use crate::place::Place;

/// KEYS: lease, fence, queue. ARGV: id, TTL in ms, channel. The token, or 0 for a place in the queue.
const ACQUIRE: &str = "\
    if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return redis.call('INCR', KEYS[2]) end \
    redis.call('RPUSH', KEYS[3], ARGV[1] .. '|' .. ARGV[2] .. '|' .. ARGV[3]) \
    return 0";

/// KEYS: as those. ARGV: id.
const RELEASE: &str = "\
    if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end \
    local next = redis.call('LPOP', KEYS[3]) \
    if not next then return redis.call('DEL', KEYS[1]) end \
    local id, ttl, channel = string.match(next, '^([^|]+)|([^|]+)|(.+)$') \
    redis.call('SET', KEYS[1], id, 'PX', ttl) \
    redis.call('PUBLISH', channel, id .. '|' .. redis.call('INCR', KEYS[2])) \
    return 1";

pub(super) fn contender(place: &Arc<Place>) -> Entry {
    Entry::new(place, "raw-fifo", FIFO, |place| async move {
        let waiters = Arc::new(Waiters::default());
        let hearing = Arc::clone(&waiters);
        let configuration = configuration().set_push_sender(move |push| {
            hear(&hearing, &push);
            Ok::<_, Infallible>(())
        });
        let mut connection = connect(place.url(), configuration).await?;
        let channel = format!("raw-fifo:{:032x}", fastrand::u128(..));
        connection.subscribe(&channel).await?;
        let client: Box<dyn Client> = Box::new(Fifo {
            acquire: load(&connection, ACQUIRE).await?,
            release: load(&connection, RELEASE).await?.into(),
            connection,
            channel,
            waiters,
        });
        Ok(client)
    })
}

type Waiters = Mutex<HashMap<String, oneshot::Sender<u64>>>;

fn hear(waiters: &Waiters, push: &PushInfo) {
    if push.kind == PushKind::Message
        && let [_, Value::BulkString(message)] = push.data.as_slice()
        && let Some((id, token)) = std::str::from_utf8(message)
            .ok()
            .and_then(|text| text.split_once('|'))
        && let (Some(waiter), Ok(token)) = (lock(waiters).remove(id), token.parse())
    {
        // Who does not wait any more does not hear it.
        waiter.send(token).ok();
    }
}

#[derive(Debug)]
struct Fifo {
    connection: MultiplexedConnection,
    acquire: String,
    release: Arc<str>,
    channel: String,
    waiters: Arc<Waiters>,
}

#[derive(Debug)]
struct Held {
    connection: MultiplexedConnection,
    release: Arc<str>,
    keys: [String; 3],
    id: String,
    token: u64,
}

#[async_trait]
impl Client for Fifo {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let mut connection = self.connection.clone();
        let keys = ["L", "F", "Q"].map(|part| format!("raw-fifo:{{{name}}}:{part}"));
        let id = format!("{:032x}", fastrand::u128(..));
        let (sender, told) = oneshot::channel();
        lock(&self.waiters).insert(id.clone(), sender);
        let mut acquire = cmd("EVALSHA");
        acquire.arg(&self.acquire).arg(3).arg(&keys).arg(&id);
        acquire.arg(u64::try_from(ttl.as_millis())?).arg(&self.channel);
        let token = match acquire.query_async(&mut connection).await? {
            0 => told.await?,
            token => {
                lock(&self.waiters).remove(&id);
                token
            }
        };
        Ok(Box::new(Held {
            connection,
            release: Arc::clone(&self.release),
            keys,
            id,
            token,
        }))
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        ping(&self.connection).await
    }
}

#[async_trait]
impl Hold for Held {
    fn token(&self) -> Option<u64> {
        Some(self.token)
    }

    async fn release(mut self: Box<Self>) -> Result<(), Failure> {
        let mut release = cmd("EVALSHA");
        release.arg(&*self.release).arg(3).arg(&self.keys).arg(&self.id);
        match release.query_async::<u64>(&mut self.connection).await? {
            1 => Ok(()),
            _ => Err("the lock was lost while it was held".into()),
        }
    }
}
