//! What an administrator does with the server, and counts at it.

use leasehold_conformance::{Budget, Counters};
use leasehold_driver_redis::redis::aio::MultiplexedConnection;
use leasehold_driver_redis::redis::{FromRedisValue, RedisError, cmd};
use lockcore::{Error, ErrorKind, Resource, Result};

/// An acquire writes the lease and the fencing state, a release deletes the lease; a wait adds its place, its sign of life
/// and the terms of both, and takes them away.
pub(crate) const BUDGET: Budget = Budget::LEASES
    .with_acquire(1, 2)
    .with_release(1, 1)
    .with_contended(4, 12);

/// Removes the fencing state of each name that nobody holds or waits for, as a day without use does.
const CLEAN_UP: &str = "local removed = 0 \
     for _, key in ipairs(redis.call('KEYS', ARGV[1])) do \
       local base = string.sub(key, 1, -2) \
       if redis.call('EXISTS', base .. 'L', base .. 'W', base .. 'Q') == 0 then \
         removed = removed + redis.call('DEL', key) \
       end \
     end \
     return removed";

/// Whether a disk can be mounted.
#[cfg(unix)]
pub(crate) fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(not(unix))]
pub(crate) const fn is_root() -> bool {
    false
}

pub(crate) async fn run<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &[&str],
) -> Result<T> {
    let (name, arguments) = command.split_first().unwrap_or((&"PING", &[]));
    let answer = cmd(name).arg(arguments).query_async(connection).await;
    answer.map_err(failed)
}

pub(crate) fn failed(error: RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "the administrator's command failed").with_source(error)
}

/// What the keys of `resource` begin with.
pub(crate) fn base(resource: &Resource) -> String {
    let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
    format!("leasehold:1:{namespace}:{kind}:{{{}}}:", resource.key())
}

/// The ids of all clients but this one, the oldest first.
async fn clients(connection: &mut MultiplexedConnection) -> Result<Vec<u64>> {
    let own: u64 = run(connection, &["CLIENT", "ID"]).await?;
    let list: String = run(connection, &["CLIENT", "LIST"]).await?;
    let id = |line: &str| line.split(' ').next()?.strip_prefix("id=")?.parse().ok();
    let mut ids: Vec<u64> = list.lines().filter_map(id).collect();
    ids.retain(|id| *id != own);
    ids.sort_unstable();
    Ok(ids)
}

pub(crate) async fn kill(connection: &mut MultiplexedConnection, nth: usize) -> Result<bool> {
    let Some(id) = clients(connection).await?.get(nth).copied() else {
        return Ok(false);
    };
    // It may be gone by itself.
    run::<u64>(connection, &["CLIENT", "KILL", "ID", &id.to_string()]).await?;
    Ok(true)
}

pub(crate) async fn clean_up(connection: &mut MultiplexedConnection, pattern: &str) -> Result<()> {
    run::<u64>(connection, &["EVAL", CLEAN_UP, "0", pattern])
        .await
        .map(drop)
}

pub(crate) async fn usage(connection: &mut MultiplexedConnection) -> Result<Vec<(&'static str, u64)>> {
    let clients = clients(connection).await?.len();
    let channels: Vec<String> = run(connection, &["PUBSUB", "CHANNELS"]).await?;
    let mut keys: Vec<String> = run(connection, &["KEYS", "*"]).await?;
    // The fencing state stays for a day.
    keys.retain(|key| !key.ends_with(":F"));
    let counts = [clients, channels.len(), keys.len()].map(|count| u64::try_from(count).unwrap_or(u64::MAX));
    Ok(["connections", "channels", "keys"]
        .into_iter()
        .zip(counts)
        .collect())
}

/// Commands as the server counts them: what drivers send, and what their scripts write.
pub(crate) async fn counters(connection: &mut MultiplexedConnection) -> Result<Counters> {
    // Not PING: it is sent when a connection was quiet for a while, however many locks there are.
    const REQUESTS: [&str; 3] = ["eval", "evalsha", "script|load"];
    const WRITES: [&str; 8] = ["set", "del", "zadd", "zrem", "hset", "hdel", "pexpire", "incr"];
    let stats: String = run(connection, &["INFO", "commandstats"]).await?;
    let calls = |names: &[&str]| {
        let calls = stats.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            let calls: u64 = rest.split(',').next()?.parse().ok()?;
            names.contains(&name).then_some(calls)
        });
        calls.sum()
    };
    Ok(Counters::new(calls(&REQUESTS), calls(&WRITES)))
}
