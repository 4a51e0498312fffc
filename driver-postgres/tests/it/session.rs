//! Locks that live by a connection.

use std::time::{Duration, Instant};

use leasehold_conformance::servers::Server;
use leasehold_driver_postgres::{PostgresDriver, PostgresLockManager};
use lockcore::driver::{Driver, Intent, Lease, Released, Renewal};
use lockcore::{ErrorKind, LockManager};

use crate::support::{Admin, WAIT, busy, claim, claim_for, connect, eventually, granted, own, resource};

fn url(server: &Server) -> String {
    format!("{}?mode=session", server.url())
}

async fn driver(server: &Server) -> PostgresDriver {
    connect(&url(server)).await.unwrap()
}

#[tokio::test]
async fn a_lock_is_taken_replayed_renewed_and_freed() {
    let server = own().await;
    let driver = driver(&server).await;
    let first = claim_for("one", Duration::from_secs(2));
    let token = granted(driver.acquire(&first, Intent::Try).await);
    assert_eq!(granted(driver.acquire(&first, WAIT).await), token);
    let other = busy(driver.acquire(&claim("one"), Intent::Try).await);
    assert_eq!(&*other.holder.unwrap().details, &*first.details);
    let lease = |claim: &lockcore::Claim, token| Lease::new(claim.clone().into(), token, claim.ttl);
    // The driver keeps it alive.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let looked = driver.renew(&[lease(&first, token)]).await.unwrap();
    assert_eq!(looked, [Renewal::Renewed]);
    let found = driver.inspect(&resource("one")).await.unwrap();
    assert_eq!((found.holders.len(), found.waiters), (1, 0));
    assert_eq!(
        driver.list(first.resource.namespace(), "o").await.unwrap().len(),
        1
    );
    assert_eq!(driver.release(&first).await.unwrap(), Released::Released);
    assert_eq!(driver.release(&first).await.unwrap(), Released::NotHeld);
    assert!(granted(driver.acquire(&claim("one"), Intent::Try).await) > token);
    driver.close().await.unwrap();
}

#[tokio::test]
async fn a_forced_release_is_told() {
    let server = own().await;
    let (one, two) = (driver(&server).await, driver(&server).await);
    let manager = PostgresLockManager::connect(&url(&server)).await.unwrap();
    let held = manager.lock("forced").acquire().await.unwrap();
    assert!(one.force_release(&resource("forced")).await.unwrap());
    assert!(!one.force_release(&resource("forced")).await.unwrap());
    tokio::time::timeout(Duration::from_secs(1), held.lost())
        .await
        .unwrap();
    granted(two.acquire(&claim("forced"), Intent::Try).await);
    manager.close().await.unwrap();
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn waiters_are_served_in_order_and_stopped_ones_are_cut_off() {
    let server = own().await;
    let (one, two) = (driver(&server).await, driver(&server).await);
    let holder = claim("line");
    let mut last = granted(one.acquire(&holder, Intent::Try).await);
    let stopped = claim("line");
    busy(two.acquire(&stopped, WAIT).await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let manager = PostgresLockManager::connect(&url(&server)).await.unwrap();
    let mut waiters = Vec::new();
    for _ in 0..3 {
        // Each as of another process.
        let manager = PostgresLockManager::connect(&url(&server)).await.unwrap();
        let lock = manager.lock("line").wait(Duration::from_secs(20));
        waiters.push(tokio::spawn(async move { (lock.acquire().await, manager) }));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually("all wait", async || {
        one.inspect(&resource("line")).await.unwrap().waiters == 4
    })
    .await;
    let error = manager.lock("line").try_acquire().await.unwrap();
    assert!(error.is_none());
    let start = Instant::now();
    one.release(&holder).await.unwrap();
    for waiter in waiters {
        let (guard, _manager) = waiter.await.unwrap();
        let guard = guard.unwrap();
        assert!(guard.token() > last);
        last = guard.token();
        guard.release().await.unwrap();
    }
    let took = start.elapsed();
    assert!(
        (Duration::from_millis(390)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn a_restart_gives_nobody_a_lock_whose_holder_does_not_know() {
    let server = own().await;
    let (one, two) = (driver(&server).await, driver(&server).await);
    let (held, freed) = (claim_for("held", Duration::from_secs(4)), claim("freed"));
    let token = granted(one.acquire(&held, Intent::Try).await);
    granted(one.acquire(&freed, Intent::Try).await);
    one.release(&freed).await.unwrap();
    // Grants and releases of this mode are on the disk after three times wal_writer_delay.
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
    let start = Instant::now();
    eventually("the server answers", async || two.ping().await.is_ok()).await;
    granted(two.acquire(&claim("freed"), Intent::Try).await);
    let next = claim("held");
    let answer = busy(two.acquire(&next, Intent::Try).await);
    assert!(answer.free_in.unwrap() > Duration::from_secs(1), "{answer:?}");
    let lease = Lease::new(held.clone().into(), token, held.ttl);
    assert_eq!(one.renew(&[lease]).await.unwrap(), [Renewal::NotHeld]);
    eventually("its TTL has passed", async || {
        matches!(
            two.acquire(&next, Intent::Try).await,
            Ok(lockcore::driver::Acquired::Granted(_))
        )
    })
    .await;
    assert!(start.elapsed() > Duration::from_secs(2));
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn connections_are_bounded_and_given_back() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    let driver = connect(&format!("{}&connections=2", url(&server))).await.unwrap();
    let (one, two, three) = (claim("a"), claim("a"), claim("b"));
    granted(driver.acquire(&one, Intent::Try).await);
    busy(driver.acquire(&two, WAIT).await);
    let error = driver.acquire(&three, Intent::Try).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("connections"), "{error}");
    // A wait that is given up ends at the server.
    driver.release(&two).await.unwrap();
    eventually("nobody waits", async || {
        admin
            .number("SELECT count(*) FROM pg_locks WHERE NOT granted")
            .await
            == 0
    })
    .await;
    for _ in 0..100 {
        busy(driver.acquire(&claim("a"), Intent::Try).await);
        let waiter = claim("a");
        busy(driver.acquire(&waiter, WAIT).await);
        driver.release(&waiter).await.unwrap();
    }
    driver.release(&one).await.unwrap();
    granted(driver.acquire(&three, Intent::Try).await);
    // Two for locks, two for all else, one that listens.
    eventually("no connection is left over", async || {
        admin.connections().await <= 5
    })
    .await;
    driver.close().await.unwrap();
    eventually("all are closed", async || admin.connections().await == 0).await;
}

#[tokio::test]
async fn a_lock_has_one_mode() {
    let server = own().await;
    let lease = crate::support::driver(&server).await;
    let session = driver(&server).await;
    granted(lease.acquire(&claim("l"), Intent::Try).await);
    granted(session.acquire(&claim("s"), Intent::Try).await);
    for error in [
        session.acquire(&claim("l"), Intent::Try).await.unwrap_err(),
        lease.acquire(&claim("s"), Intent::Try).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    // What was refused holds nothing.
    let mut admin = Admin::new(&server).await;
    eventually("one lock and two listeners", async || {
        admin
            .number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            .await
            == 3
    })
    .await;
    lease.close().await.unwrap();
    session.close().await.unwrap();
}
