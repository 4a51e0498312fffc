//! Redis: `SET NX PX`, and a script that deletes what is ours.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use leasehold_measure::{Client, Failure, Hold};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, IntoConnectionInfo, ProtocolVersion, cmd};

use super::{NOTHING, POLL};
use crate::contender::Entry;
use crate::place::Place;

const RELEASE: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0";

pub(super) fn contender(place: &Arc<Place>) -> Entry {
    Entry::new(place, "raw", NOTHING, |place| async move {
        let connection = connect(place.url(), configuration()).await?;
        let release = load(&connection, RELEASE).await?;
        let client: Box<dyn Client> = Box::new(Raw {
            connection,
            release: release.into(),
        });
        Ok(client)
    })
    .commands(&["set", "eval", "evalsha"])
}

/// As the driver's: it waits for as long as it takes.
pub(super) fn configuration() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_response_timeout(None)
        .set_pipeline_buffer_size(1024)
}

/// With RESP3, and without delay of small packets.
pub(super) async fn connect(
    url: &str,
    configuration: AsyncConnectionConfig,
) -> Result<MultiplexedConnection, Failure> {
    let info = url.into_connection_info()?;
    let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let client = redis::Client::open(info.set_redis_settings(redis).set_tcp_settings(tcp))?;
    let connecting = client.get_multiplexed_async_connection_with_config(&configuration);
    Ok(connecting.await?)
}

/// The script's digest.
pub(super) async fn load(connection: &MultiplexedConnection, script: &str) -> Result<String, Failure> {
    let mut connection = connection.clone();
    let loading = cmd("SCRIPT")
        .arg("LOAD")
        .arg(script)
        .query_async(&mut connection)
        .await;
    Ok(loading?)
}

pub(super) async fn ping(connection: &MultiplexedConnection) -> Result<Option<Duration>, Failure> {
    let mut connection = connection.clone();
    let begun = Instant::now();
    cmd("PING").query_async::<()>(&mut connection).await?;
    Ok(Some(begun.elapsed()))
}

#[derive(Debug)]
struct Raw {
    connection: MultiplexedConnection,
    release: Arc<str>,
}

#[derive(Debug)]
struct Held {
    connection: MultiplexedConnection,
    release: Arc<str>,
    name: String,
    id: String,
}

#[async_trait]
impl Client for Raw {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let mut connection = self.connection.clone();
        let name = format!("raw:{name}");
        let id = format!("{:032x}", fastrand::u128(..));
        let ttl = u64::try_from(ttl.as_millis())?;
        let mut set = cmd("SET");
        set.arg(&name).arg(&id).arg("NX").arg("PX").arg(ttl);
        while set.query_async::<Option<()>>(&mut connection).await?.is_none() {
            tokio::time::sleep(POLL).await;
        }
        Ok(Box::new(Held {
            connection,
            release: Arc::clone(&self.release),
            name,
            id,
        }))
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        ping(&self.connection).await
    }
}

#[async_trait]
impl Hold for Held {
    async fn release(mut self: Box<Self>) -> Result<(), Failure> {
        let mut release = cmd("EVALSHA");
        release.arg(&*self.release).arg(1).arg(&self.name).arg(&self.id);
        match release.query_async::<u64>(&mut self.connection).await? {
            1 => Ok(()),
            _ => Err("the lock was lost while it was held".into()),
        }
    }
}
