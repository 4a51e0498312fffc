//! The mode `session`.

use std::time::Duration;

use leasehold_driver_mysql::{MysqlLockManager, session_lock_name};
use lockcore::driver::{Driver as _, Intent, Released};
use lockcore::{ErrorKind, LockManager as _};

use crate::support::{
    CONNECTIONS, admin, busy, claim, connect, eventually, granted, numbers, own, questions, resource,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_a_lock_of_the_server() {
    let server = own().await;
    let url = format!(
        "mysql://leasehold:leasehold@{}?mode=session&connections=2",
        server.address()
    );
    let driver = connect(&url).await.unwrap();
    let (one, two) = (claim("a"), claim("b"));
    let first = granted(driver.acquire(&one, Intent::Try).await);
    granted(driver.acquire(&two, Intent::Try).await);
    let used = format!(
        "SELECT CAST(IS_USED_LOCK('{}') AS CHAR)",
        session_lock_name(&resource("a"))
    );
    assert_eq!(numbers(&server, &used).await.len(), 1);
    // Two connections are all there are.
    let error = driver.acquire(&claim("c"), Intent::Try).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("connections"), "{error}");
    assert_eq!(driver.release(&one).await.unwrap(), Released::Released);
    assert_eq!(driver.release(&one).await.unwrap(), Released::NotHeld);
    let mut counter = admin(&server).await;
    let before = questions(&mut counter).await;
    let again = claim("a");
    assert!(granted(driver.acquire(&again, Intent::Try).await) > first);
    assert_eq!(driver.release(&again).await.unwrap(), Released::Released);
    // One statement each, and our own look.
    assert!(questions(&mut counter).await - before <= 3);
    driver.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn waiters_are_served_and_leave_no_connection() {
    let server = own().await;
    let url = format!("{}?mode=session&fence=table", server.url());
    let (a, b) = (
        MysqlLockManager::connect(&url).await.unwrap(),
        MysqlLockManager::connect(&url).await.unwrap(),
    );
    let held = a.lock("x").acquire().await.unwrap();
    for _ in 0..50 {
        let wait = Duration::from_millis(2);
        b.lock("x").wait(wait).acquire().await.unwrap_err();
    }
    let waiter = tokio::spawn({
        let b = b.clone();
        async move { b.lock("x").acquire().await }
    });
    eventually("somebody waits", Duration::from_secs(5), async || {
        let waits =
            "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.processlist WHERE state = 'User lock'";
        numbers(&server, waits).await == [1]
    })
    .await;
    let token = held.token();
    held.release().await.unwrap();
    let next = waiter.await.unwrap().unwrap();
    assert!(next.token() > token);
    next.release().await.unwrap();
    a.close().await.unwrap();
    b.close().await.unwrap();
    eventually("no connections", Duration::from_secs(10), async || {
        numbers(&server, CONNECTIONS).await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_try_of_a_held_lock_is_refused() {
    let server = own().await;
    let url = format!("{}?mode=session", server.url());
    let (a, b) = (connect(&url).await.unwrap(), connect(&url).await.unwrap());
    let held = claim("a");
    granted(a.acquire(&held, Intent::Try).await);
    busy(b.acquire(&claim("a"), Intent::Try).await);
    // Whoever is gone has nothing.
    drop(a);
    eventually("it is free", Duration::from_secs(5), async || {
        matches!(
            b.acquire(&claim("a"), Intent::Try).await,
            Ok(lockcore::driver::Acquired::Granted(_))
        )
    })
    .await;
}
