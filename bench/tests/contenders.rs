//! Every contender locks: what does not exclude need not be compared.
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use leasehold_bench::backend::Backend;
use leasehold_bench::ours;
use leasehold_bench::place::Place;
use leasehold_conformance::servers::Origin;
use leasehold_measure::Contender;

const TTL: Duration = Duration::from_secs(10);
const CLIENTS: usize = 3;
const TURNS: u64 = 20;

async fn all_of(backend: Backend) {
    let place = Place::start(backend, Origin::Any).await.unwrap();
    for contender in ours::all(&place, Vec::new()) {
        let what = format!("{}/{}", contender.backend(), contender.name());
        excludes(&*contender, &what).await;
        if backend.server().is_some() {
            counts(&*contender, &what).await;
        }
    }
}

async fn excludes(contender: &dyn Contender, what: &str) {
    let held = Arc::new(AtomicBool::new(false));
    let last = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let client = contender.client().await.unwrap();
        let (held, last, what) = (Arc::clone(&held), Arc::clone(&last), what.to_owned());
        tasks.spawn(async move {
            for _ in 0..TURNS {
                let hold = client.acquire("one", TTL).await.unwrap();
                assert!(!held.swap(true, Ordering::SeqCst), "{what}: two have it");
                assert!(hold.is_held(), "{what}");
                let token = hold.token().unwrap_or(u64::MAX);
                let before = last.swap(token, Ordering::SeqCst);
                assert!(
                    token > before || token == u64::MAX,
                    "{what}: {token} after {before}"
                );
                held.store(false, Ordering::SeqCst);
                hold.release().await.unwrap();
            }
            client.ping().await.unwrap();
            client.close().await.unwrap();
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
}

/// An acquire and a release are two requests, but where a session or its watch asks for more.
async fn counts(contender: &dyn Contender, what: &str) {
    let client = contender.client().await.unwrap();
    client.acquire("two", TTL).await.unwrap().release().await.unwrap();
    let before = contender.server_use().await.unwrap();
    for _ in 0..TURNS {
        client.acquire("two", TTL).await.unwrap().release().await.unwrap();
    }
    let used = contender.server_use().await.unwrap().since(before);
    let requests = used.requests.unwrap();
    assert!(
        (2 * TURNS..5 * TURNS).contains(&requests),
        "{what}: {requests} requests"
    );
    assert!(used.writes.is_some(), "{what}");
    client.close().await.unwrap();
}

macro_rules! backends {
    ($($name:ident: $backend:ident),*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            all_of(Backend::$backend).await;
        }
    )*};
}

backends! {
    redis: Redis,
    etcd: Etcd,
    zookeeper: ZooKeeper,
    mariadb: MariaDb,
    postgres: Postgres,
    sqlite: Sqlite,
    memory: Memory
}
