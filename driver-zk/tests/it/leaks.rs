//! What is dropped leaves nothing, and what waits costs the same however many wait.

use std::time::Duration;

use lockcore::driver::Driver;
use lockcore::{ErrorKind, LockManager};

use crate::support::{
    WAIT, acquire, admin, busy, claim, contenders, driver, eventually, granted, lock, manager, own, unique,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_cancelled_acquires_leave_nothing() {
    let server = own().await;
    let admin = admin(&server);
    let usage = || async {
        let mut usage = Vec::new();
        for name in [
            "zk_num_alive_connections",
            "zk_global_sessions",
            "zk_watch_count",
            "zk_ephemerals_count",
        ] {
            usage.push(admin.number(name).await.unwrap());
        }
        usage
    };
    let before = usage().await;
    let (locks, holder) = (manager(&server).await, manager(&server).await);
    let name = unique("cancelled");
    let held = holder.lock(&name).acquire().await.unwrap();
    locks
        .lock(&unique("session"))
        .acquire()
        .await
        .unwrap()
        .release()
        .await
        .unwrap();
    eventually("the questions' sessions are over", || async {
        usage().await[1] == 2
    })
    .await;
    let working = usage().await;
    for index in 0..1_000_u64 {
        // Until well into the queue, or not even sent.
        let patience = Duration::from_micros(index % 50 * 200);
        let acquiring = locks.lock(&name).wait(Duration::from_secs(30)).acquire();
        drop(tokio::time::timeout(patience, acquiring).await);
    }
    eventually("all are gone", || async { usage().await == working }).await;
    let client = admin.client().await.unwrap();
    assert_eq!(contenders(&client, &name).await.len(), 1);
    drop(client);
    let error = locks
        .lock(&name)
        .wait(Duration::from_millis(50))
        .acquire()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    held.release().await.unwrap();
    locks.close().await.unwrap();
    holder.close().await.unwrap();
    eventually("everything is gone", || async { usage().await == before }).await;
}

/// Each of the waiters is another client.
#[tokio::test(flavor = "multi_thread")]
async fn a_contended_acquisition_costs_the_same_with_any_number_of_waiters() {
    let server = own().await;
    let admin = admin(&server);
    for count in [2_u64, 16, 128] {
        let mut drivers = Vec::new();
        for _ in 0..count {
            drivers.push(driver(&server).await);
        }
        let name = unique("contended");
        let first = claim(&name);
        granted(drivers[0].acquire(&first, WAIT).await);
        // Every session is open before it counts.
        for driver in &drivers {
            let other = claim(&unique("open"));
            granted(driver.acquire(&other, WAIT).await);
            driver.release(&other).await.unwrap();
        }
        let before = admin.number("zk_packets_received").await.unwrap();
        let mut claims = Vec::new();
        for driver in &drivers {
            let claim = claim(&name);
            busy(driver.acquire(&claim, WAIT).await);
            claims.push(claim);
        }
        drivers[0].release(&first).await.unwrap();
        for (driver, claim) in drivers.iter().zip(&claims) {
            // It asks when it is woken, as a live client does.
            tokio::time::sleep(Duration::from_millis(5)).await;
            granted(driver.acquire(claim, WAIT).await);
            driver.release(claim).await.unwrap();
        }
        let used = admin.number("zk_packets_received").await.unwrap() - before;
        // In all this time there are pings and keep-alives besides.
        let each = used as f64 / count as f64;
        println!("{count} waiters: {each:.1} packets each");
        assert!(each <= 20.0, "{count} waiters: {each} packets each");
    }
}

/// A waiter costs a few watches, which end with it.
#[tokio::test]
async fn watches_end_with_their_waiter() {
    let server = own().await;
    let admin = admin(&server);
    let driver = driver(&server).await;
    let name = unique("watches");
    granted(driver.acquire(&claim(&name), WAIT).await);
    let claims = crate::support::enqueue(&driver, &name, 6).await;
    // One session watches each node but the last, however many of its waiters do.
    assert_eq!(admin.number("zk_watch_count").await.unwrap(), 6);
    let last = claims.last().unwrap();
    driver.release(last).await.unwrap();
    eventually("its watches are gone", || async {
        admin.number("zk_watch_count").await.unwrap() == 5
    })
    .await;
    let client = admin.client().await.unwrap();
    assert_eq!(client.list_children(&lock(&name)).await.unwrap().len(), 6);
}

/// A lock that is held for long is watched, so that its holder hears of an administrator at once.
#[tokio::test]
async fn a_deleted_node_is_noticed_at_once() {
    let server = own().await;
    let admin = admin(&server);
    let locks = manager(&server).await;
    let name = unique("deleted");
    let guard = locks
        .lock(&name)
        .ttl(Duration::from_secs(3))
        .acquire()
        .await
        .unwrap();
    eventually("it is watched", || async {
        admin.number("zk_watch_count").await.unwrap() == 1
    })
    .await;
    let client = admin.client().await.unwrap();
    let nodes = contenders(&client, &name).await;
    let start = std::time::Instant::now();
    client
        .delete(&format!("{}/{}", lock(&name), nodes[0]), None)
        .await
        .unwrap();
    assert_eq!(guard.lost().await, lockcore::LossReason::Revoked);
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
    drop(acquire(&locks, &name).await.unwrap());
}
