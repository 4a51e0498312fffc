//! `distributed-lock`, the one other library for several backends.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use distributed_lock_core::traits::{DistributedLock, LockHandle, LockProvider};
use distributed_lock_mysql::MySqlLockProvider;
use distributed_lock_postgres::PostgresLockProvider;
use distributed_lock_redis::RedisLockProvider;
use leasehold_bench::backend::Backend;
use leasehold_bench::contender::Entry;
use leasehold_bench::place::Place;
use leasehold_bench::raw::POLL;
use leasehold_measure::{Client, Failure, Hold, Offers};
use std::sync::Arc;

/// It has a connection for each lock that is held or waited for: more than are ever needed, but for what servers allow.
const CONNECTIONS: u32 = 1000;
/// Longer than any run. Without a limit it fails at once on MariaDB.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What it has for a backend.
pub(crate) fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    let name = "distributed-lock";
    // Its waiters on Redis ask again and again, and its own `acquire` does not wait at all.
    let polls = Offers {
        renewal: true,
        ..Offers::default()
    };
    let queues = Offers { queue: true, ..polls };
    let entry = match place.backend() {
        Backend::Redis | Backend::Valkey => Entry::new(place, name, polls, |place| async move {
            let client: Box<dyn Client> = Box::new(OnRedis {
                url: place.url().to_owned(),
                providers: Mutex::default(),
            });
            Ok(client)
        })
        .commands(&["set", "eval", "evalsha"]),
        Backend::MySql | Backend::MariaDb => Entry::new(place, name, queues, |place| async move {
            let pool = sqlx::mysql::MySqlPoolOptions::new().max_connections(CONNECTIONS);
            let pool = pool.connect(place.url()).await?;
            let provider = MySqlLockProvider::builder().pool(pool).build().await?;
            let client: Box<dyn Client> = Box::new(OnDatabase(provider));
            Ok(client)
        }),
        Backend::Postgres => Entry::new(place, name, queues, |place| async move {
            let pool = sqlx::postgres::PgPoolOptions::new().max_connections(CONNECTIONS);
            let pool = pool.connect(place.url()).await?;
            let provider = PostgresLockProvider::builder().pool(pool).build().await?;
            let client: Box<dyn Client> = Box::new(OnDatabase(provider));
            Ok(client)
        }),
        _ => return Vec::new(),
    };
    vec![entry]
}

/// The expiry belongs to a provider, so there is one for each that is asked for.
struct OnRedis {
    url: String,
    providers: Mutex<HashMap<Duration, Arc<RedisLockProvider>>>,
}

impl OnRedis {
    async fn provider(&self, ttl: Duration) -> Result<Arc<RedisLockProvider>, Failure> {
        let known = self.providers().get(&ttl).map(Arc::clone);
        if let Some(provider) = known {
            return Ok(provider);
        }
        // As its defaults, which are for 30 s.
        let provider = RedisLockProvider::builder()
            .url(&self.url)
            .expiry(ttl)
            .extension_cadence(ttl / 3)
            .min_validity(ttl.mul_f64(0.9))
            .build()
            .await?;
        let mut providers = self.providers();
        Ok(Arc::clone(
            providers.entry(ttl).or_insert_with(|| Arc::new(provider)),
        ))
    }

    fn providers(&self) -> std::sync::MutexGuard<'_, HashMap<Duration, Arc<RedisLockProvider>>> {
        self.providers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for OnRedis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnRedis")
    }
}

#[async_trait]
impl Client for OnRedis {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let lock = self.provider(ttl).await?.create_lock(name);
        loop {
            if let Some(handle) = lock.try_acquire().await? {
                return Ok(Box::new(Held(handle)));
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

struct OnDatabase<P>(P);

impl<P> fmt::Debug for OnDatabase<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDatabase")
    }
}

#[async_trait]
impl<P> Client for OnDatabase<P>
where
    P: LockProvider,
    <P::Lock as DistributedLock>::Handle: 'static,
{
    async fn acquire(&self, name: &str, _: Duration) -> Result<Box<dyn Hold>, Failure> {
        let lock = self.0.create_lock(name);
        Ok(Box::new(Held(lock.acquire(Some(PATIENCE)).await?)))
    }
}

struct Held<H>(H);

impl<H> fmt::Debug for Held<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Held")
    }
}

#[async_trait]
impl<H: LockHandle + Send> Hold for Held<H> {
    fn is_held(&self) -> bool {
        !*self.0.lost_token().borrow()
    }

    async fn release(self: Box<Self>) -> Result<(), Failure> {
        Ok(self.0.release().await?)
    }
}
