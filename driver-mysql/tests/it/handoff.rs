//! Queues: who is woken, what it costs, what is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_driver_mysql::MysqlLockManager;
use lockcore::LockManager as _;
use lockcore::driver::{Driver as _, Intent, Released};

use crate::support::{
    CONNECTIONS, WAIT, admin, busy, claim, driver, eventually, granted, numbers, own, questions,
};

/// Waiters whose processes are gone are passed over in one release.
#[tokio::test(flavor = "multi_thread")]
async fn three_dead_waiters_cost_no_window() {
    let server = own().await;
    let (a, b) = (driver(&server).await, driver(&server).await);
    let held = claim("a");
    granted(a.acquire(&held, Intent::Try).await);
    for _ in 0..3 {
        let dead = driver(&server).await;
        busy(dead.acquire(&claim("a"), WAIT).await);
        dead.close().await.unwrap();
    }
    let live = claim("a");
    let ahead = busy(b.acquire(&live, WAIT).await).ahead;
    assert_eq!(ahead, Some(3));
    // The server notices a closed connection in its own time.
    eventually("the dead have no doorbell", Duration::from_secs(5), async || {
        let bells = "SELECT COUNT(*) FROM leasehold_waiter WHERE IS_USED_LOCK(wake) IS NOT NULL";
        let bells = bells
            .replace("COUNT(*)", "CAST(COUNT(*) AS CHAR)")
            .replace("leasehold_waiter", "leasehold.leasehold_waiter");
        numbers(&server, &bells).await == [1]
    })
    .await;
    assert_eq!(a.release(&held).await.unwrap(), Released::Released);
    granted(b.acquire(&live, WAIT).await);
    let left = "SELECT CAST(COUNT(*) AS CHAR) FROM leasehold.leasehold_waiter";
    assert_eq!(numbers(&server, left).await, [0]);
}

/// One statement to take a lock that nobody wants, one to release it, one to renew five hundred.
#[tokio::test(flavor = "multi_thread")]
async fn statements_are_counted() {
    let server = own().await;
    let driver = driver(&server).await;
    let mut admin = admin(&server).await;
    let warm = claim("warm");
    granted(driver.acquire(&warm, Intent::Try).await);
    driver.release(&warm).await.unwrap();
    let before = questions(&mut admin).await;
    let (mut claims, mut leases) = (Vec::new(), Vec::new());
    for at in 0..500 {
        let claim = claim(&format!("n{at}"));
        let token = granted(driver.acquire(&claim, Intent::Try).await);
        leases.push(lockcore::driver::Lease::new(
            claim.clone().into(),
            token,
            claim.ttl,
        ));
        claims.push(claim);
    }
    let acquired = questions(&mut admin).await;
    driver.renew(&leases).await.unwrap();
    let renewed = questions(&mut admin).await;
    for claim in &claims {
        assert_eq!(driver.release(claim).await.unwrap(), Released::Released);
    }
    let released = questions(&mut admin).await;
    // Each look of ours counts as one. A sweep or two ask three times.
    let near = |found: u64, expected: u64| found >= expected && found <= expected + 10;
    assert!(near(acquired - before - 1, 500), "{}", acquired - before);
    assert_eq!(renewed - acquired - 1, 1);
    assert!(near(released - renewed - 1, 500), "{}", released - renewed);
}

/// A contended acquisition takes as many statements with many waiters as with a few. Prints how long a hand-off takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_hand_off_costs_the_same_for_any_number_of_waiters() {
    let server = own().await;
    let mut admin = admin(&server).await;
    let mut each = Vec::new();
    for waiters in [2_usize, 16, 64] {
        let mut tasks = Vec::new();
        let mut managers = Vec::new();
        for _ in 0..waiters {
            managers.push(MysqlLockManager::connect(server.url()).await.unwrap());
        }
        let name = format!("hand-off-{waiters}");
        let before = questions(&mut admin).await;
        let rounds = 128 / waiters;
        let last = Arc::new(std::sync::Mutex::new((None::<Instant>, Vec::new())));
        for manager in &managers {
            let (manager, name, last) = (manager.clone(), name.clone(), Arc::clone(&last));
            tasks.push(tokio::spawn(async move {
                for _ in 0..rounds {
                    let guard = manager.lock(&name).acquire().await.unwrap();
                    {
                        let mut last = last.lock().unwrap();
                        if let Some(released) = last.0.take() {
                            last.1.push(released.elapsed());
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    last.lock().unwrap().0 = Some(Instant::now());
                    guard.release().await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let total = u64::try_from(waiters * rounds).unwrap();
        each.push((questions(&mut admin).await - before) / total);
        let mut times = std::mem::take(&mut last.lock().unwrap().1);
        times.sort_unstable();
        println!("{waiters} waiters: hand-off p50 {:?}", times.get(times.len() / 2));
        for manager in managers {
            manager.close().await.unwrap();
        }
    }
    println!("statements for each acquisition: {each:?}");
    assert!(each.iter().all(|each| *each <= 90), "{each:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_acquires_leave_nothing() {
    let server = own().await;
    let manager = MysqlLockManager::connect(server.url()).await.unwrap();
    let other = MysqlLockManager::connect(server.url()).await.unwrap();
    let held = other.lock("a").acquire().await.unwrap();
    for round in 0..200_u64 {
        let wait = Duration::from_micros(round * 20);
        manager.lock("a").wait(wait).acquire().await.unwrap_err();
    }
    let rows = "SELECT CAST(COUNT(*) AS CHAR) FROM leasehold.leasehold_waiter";
    eventually("no rows", Duration::from_secs(10), async || {
        numbers(&server, rows).await == [0]
    })
    .await;
    // Two doorbells of two, and a connection or two of each.
    eventually("few connections", Duration::from_secs(10), async || {
        numbers(&server, CONNECTIONS).await.len() <= 6
    })
    .await;
    held.release().await.unwrap();
}
