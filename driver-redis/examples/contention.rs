//! What contention and renewal cost on a Redis server, beside raw round trips measured in the same run.
//!
//! `cargo run --release -p leasehold-driver-redis --example contention -- redis://127.0.0.1:6379 [held locks]`
//!
//! It prints, and judges nothing: hand-off after a 10 ms hold for 2, 16 and 128 clients (each a manager with a connection
//! of its own) in raw round trips, the server's commands per acquisition, and what it takes to keep many locks for 60 s.
#![expect(clippy::print_stdout, reason = "this is what it is for")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use leasehold_driver_redis::RedisLockManager;
use lockcore::{Env, Guard, LockManager};
use redis::aio::MultiplexedConnection;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const HOLD: Duration = Duration::from_millis(10);

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments
        .next()
        .ok_or("say which server: redis://127.0.0.1:6379")?;
    let held: usize = arguments.next().map_or(Ok(10_000), |number| number.parse())?;
    let mut raw = redis::Client::open(&*url)?
        .get_multiplexed_async_connection()
        .await?;
    let env = Env::system();
    for clients in [2, 16, 128] {
        let before = commands(&mut raw).await?;
        let handoffs = contend(&url, clients, &env).await?;
        let spent = commands(&mut raw).await? - before;
        let trip = round_trip(&mut raw, &env, HOLD).await?;
        let busy_trip = round_trip(&mut raw, &env, Duration::ZERO).await?;
        let acquisitions = handoffs.len() + 1;
        println!(
            "{clients:3} clients: {acquisitions} acquisitions, hand-off p50 {:?} p99 {:?} = {:.2} and {:.2} raw round \
             trips of {trip:?} ({busy_trip:?} without pauses), {:.2} script calls per acquisition",
            percentile(&handoffs, 50),
            percentile(&handoffs, 99),
            percentile(&handoffs, 50).as_secs_f64() / trip.as_secs_f64(),
            percentile(&handoffs, 99).as_secs_f64() / trip.as_secs_f64(),
            spent as f64 / acquisitions as f64,
        );
    }
    if held == 0 {
        return Ok(());
    }
    hold(&url, held, &mut raw, &env).await
}

/// Each client takes the lock again and again for three seconds; the times from a release's start to the next grant.
async fn contend(url: &str, clients: usize, env: &Env) -> Result<Vec<Duration>, Failure> {
    let name = format!("contention-{:x}", env.random_u128()?);
    let (released, stop) = (
        Arc::new(AtomicU64::new(0)),
        env.now().after(Duration::from_secs(3)),
    );
    let mut tasks = Vec::new();
    for _ in 0..clients {
        let manager = RedisLockManager::connect(url).await?;
        let (released, env) = (Arc::clone(&released), env.clone());
        let lock = manager.lock(&name).build()?;
        tasks.push(env.clone().spawn(async move {
            let mut handoffs = Vec::new();
            while env.now() < stop {
                let guard = lock.acquire().await?;
                let now = env.now().as_nanos();
                let from = released.swap(0, Ordering::SeqCst);
                if from > 0 {
                    handoffs.push(Duration::from_nanos(now.saturating_sub(from)));
                }
                env.sleep(HOLD).await;
                released.store(env.now().as_nanos(), Ordering::SeqCst);
                guard.release().await?;
            }
            drop(manager);
            Ok::<_, Failure>(handoffs)
        }));
    }
    let mut handoffs = Vec::new();
    for task in tasks {
        handoffs.extend(task.await??);
    }
    handoffs.sort();
    Ok(handoffs)
}

/// The median of PINGs with a pause between them: a client and a server that slept answer later.
async fn round_trip(
    raw: &mut MultiplexedConnection,
    env: &Env,
    pause: Duration,
) -> Result<Duration, Failure> {
    let mut trips = Vec::new();
    for _ in 0..300 {
        env.sleep(pause).await;
        let sent = env.now();
        redis::cmd("PING").query_async::<String>(raw).await?;
        trips.push(env.now().since(sent));
    }
    trips.sort();
    Ok(percentile(&trips, 50))
}

async fn hold(url: &str, count: usize, raw: &mut MultiplexedConnection, env: &Env) -> Result<(), Failure> {
    let manager = RedisLockManager::connect(url).await?;
    let ttl = Duration::from_secs(10);
    let mut guards: Vec<Guard> = Vec::with_capacity(count);
    let started = env.now();
    for i in 0..count {
        guards.push(manager.lock(&format!("held-{i}")).ttl(ttl).acquire().await?);
    }
    println!(
        "{count} locks taken in {:?}, one after the other",
        env.now().since(started)
    );
    let before = commands(raw).await?;
    let period = Duration::from_secs(60);
    env.sleep(period).await;
    let calls = commands(raw).await? - before;
    let lost = guards.iter().filter(|guard| !guard.is_held()).count();
    let periods = period.as_secs_f64() / (ttl / 3).as_secs_f64();
    println!(
        "{lost} lost in {period:?}, {:.1} script calls per renewal period of {:?}",
        calls as f64 / periods,
        ttl / 3
    );
    drop(guards);
    manager.close().await?;
    Ok(())
}

/// How many scripts the server has run.
async fn commands(raw: &mut MultiplexedConnection) -> Result<i64, Failure> {
    let info: String = redis::cmd("INFO").arg("commandstats").query_async(raw).await?;
    let calls: BTreeMap<&str, i64> = info
        .lines()
        .filter_map(|line| {
            let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((command, rest.split(',').next()?.parse().ok()?))
        })
        .collect();
    Ok(["evalsha", "eval"]
        .iter()
        .filter_map(|command| calls.get(command))
        .sum())
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get(sorted.len() * percent / 100)
        .copied()
        .unwrap_or_default()
}
