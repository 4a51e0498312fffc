//! The server goes, connections go, rows go.

use std::time::Duration;

use leasehold_driver_postgres::PostgresLockManager;
use lockcore::driver::{Driver, Intent, Lease, Released, Renewal};
use lockcore::{Env, LockManager};

use crate::support::{Admin, WAIT, busy, claim, driver, enqueue, eventually, granted, own};

#[tokio::test]
async fn locks_outlive_a_killed_server() {
    let server = own().await;
    let driver = driver(&server).await;
    let holder = claim("lives");
    let token = granted(driver.acquire(&holder, Intent::Try).await);
    server.stop().await.unwrap();
    let error = driver.acquire(&claim("lives"), Intent::Try).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    server.start_again().await.unwrap();
    eventually("the server answers", async || driver.ping().await.is_ok()).await;
    busy(driver.acquire(&claim("lives"), Intent::Try).await);
    let lease = Lease::new(holder.clone().into(), token, holder.ttl);
    assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::Renewed]);
    driver.release(&holder).await.unwrap();
    assert!(granted(driver.acquire(&claim("lives"), Intent::Try).await) > token);
    driver.close().await.unwrap();
}

#[tokio::test]
async fn a_connection_that_was_cut_is_replaced_unseen() {
    let server = own().await;
    let driver = driver(&server).await;
    let mut admin = Admin::new(&server).await;
    let mut last = None;
    for _ in 0..3 {
        let holder = claim("cut");
        let token = granted(driver.acquire(&holder, Intent::Try).await);
        assert!(Some(token) > last);
        last = Some(token);
        admin
            .run(
                "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity \
                 WHERE application_name = 'leasehold' AND query NOT LIKE '%LISTEN%'",
            )
            .await;
        assert_eq!(driver.release(&holder).await.unwrap(), Released::Released);
    }
    driver.close().await.unwrap();
}

#[tokio::test]
async fn waiters_are_told_after_the_listener_was_cut() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    let holding = driver(&server).await;
    let holder = claim("told");
    granted(holding.acquire(&holder, Intent::Try).await);
    let manager = PostgresLockManager::connect(server.url()).await.unwrap();
    let lock = manager.lock("told").wait(Duration::from_secs(10));
    let waits = tokio::spawn(async move { lock.acquire().await });
    eventually("it waits", async || {
        holding.inspect(&holder.resource).await.unwrap().waiters == 1
    })
    .await;
    let wake = admin.number("SELECT wake FROM leasehold.waiter").await;
    admin
        .run("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted")
        .await;
    eventually("it can be reached again", async || {
        let again = format!("SELECT count(*) FROM leasehold.waiter WHERE wake <> {wake}");
        admin.number(&again).await == 1
    })
    .await;
    holding.release(&holder).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(300), waits).await;
    waited.unwrap().unwrap().unwrap().release().await.unwrap();
    manager.close().await.unwrap();
    holding.close().await.unwrap();
}

#[tokio::test]
async fn a_deleted_row_is_a_loss_and_the_next_one_goes_on() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    let driver = driver(&server).await;
    let holder = claim("gone");
    let token = granted(driver.acquire(&holder, Intent::Try).await);
    let waiter = enqueue(&driver, "gone", 1).await;
    admin.run("DELETE FROM leasehold.lock").await;
    let lease = Lease::new(holder.clone().into(), token, holder.ttl);
    assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::NotHeld]);
    // The waiters are not forgotten, and nobody overtakes them.
    assert_eq!(driver.release(&holder).await.unwrap(), Released::NotHeld);
    busy(driver.acquire(&claim("gone"), Intent::Try).await);
    assert!(granted(driver.acquire(&waiter[0], WAIT).await) > token);
    driver.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cancelled_acquires_leave_nothing() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    let manager = PostgresLockManager::connect(server.url()).await.unwrap();
    let env = Env::system();
    let held = manager.lock("busy").acquire().await.unwrap();
    for round in 0..1_000_u64 {
        let name = if round % 2 == 0 { "busy" } else { "free" };
        let lock = manager.lock(name).wait(Duration::from_secs(9));
        let acquires = tokio::spawn(async move { lock.acquire().await });
        env.sleep(env.jitter(Duration::ZERO, Duration::from_millis(2)))
            .await;
        acquires.abort();
        if let Ok(Ok(guard)) = acquires.await {
            guard.release().await.unwrap();
        }
    }
    eventually("nothing is left", async || {
        let rows = "SELECT (SELECT count(*) FROM leasehold.waiter) \
             + (SELECT count(*) FROM leasehold.lock WHERE owner IS NOT NULL)";
        admin.number(rows).await == 1
    })
    .await;
    assert!(admin.connections().await <= 5);
    held.release().await.unwrap();
    manager.close().await.unwrap();
    eventually("the connections are closed", async || {
        admin.connections().await == 0
    })
    .await;
}

#[tokio::test]
async fn an_administrators_lock_on_a_row_blocks_nobody_else() {
    let server = own().await;
    let driver = driver(&server).await;
    let mut admin = Admin::new(&server).await;
    let holder = claim("blocked");
    granted(driver.acquire(&holder, Intent::Try).await);
    admin.run("BEGIN").await;
    admin.run("SELECT * FROM leasehold.lock FOR UPDATE").await;
    let error = driver.release(&holder).await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    granted(driver.acquire(&claim("other"), Intent::Try).await);
    admin.run("ROLLBACK").await;
    assert_eq!(driver.release(&holder).await.unwrap(), Released::Released);
    driver.close().await.unwrap();
}
