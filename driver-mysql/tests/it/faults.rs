//! Connections that are killed, servers that restart, rows that go away.

use std::time::Duration;

use lockcore::driver::{Driver as _, Intent, Released};

use crate::support::{
    CONNECTIONS, admin, busy, claim, connect, driver, eventually, execute, granted, numbers, own,
};

/// A release that finds no row must not free the lock that somebody takes in that very moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_a_row_frees_nobody() {
    let server = own().await;
    let (a, b) = (driver(&server).await, driver(&server).await);
    for round in 0..150 {
        let name = format!("race-{round}");
        let (holder, stranger) = (claim(&name), claim(&name));
        let (taken, released) = tokio::join!(a.acquire(&holder, Intent::Try), b.release(&stranger));
        granted(taken);
        assert_eq!(released.unwrap(), Released::NotHeld);
        busy(b.acquire(&claim(&name), Intent::Try).await);
        assert_eq!(a.release(&holder).await.unwrap(), Released::Released);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reply_that_was_lost_is_given_again() {
    let server = own().await;
    let driver = driver(&server).await;
    let claim = claim("a");
    let token = granted(driver.acquire(&claim, Intent::Try).await);
    assert_eq!(granted(driver.acquire(&claim, Intent::Try).await), token);
    assert_eq!(granted(driver.acquire(&claim, crate::support::WAIT).await), token);
    assert_eq!(driver.release(&claim).await.unwrap(), Released::Released);
    assert_eq!(driver.release(&claim).await.unwrap(), Released::NotHeld);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_are_replaced() {
    let server = own().await;
    let driver = driver(&server).await;
    for round in 0..10 {
        for id in numbers(&server, CONNECTIONS).await {
            // Some are gone with another one.
            let mut admin = admin(&server).await;
            let kill = sqlx::AssertSqlSafe(format!("KILL {id}"));
            sqlx::raw_sql(kill).execute(&mut admin).await.ok();
        }
        let claim = claim(&format!("killed-{round}"));
        granted(driver.acquire(&claim, Intent::Try).await);
        assert_eq!(driver.release(&claim).await.unwrap(), Released::Released);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_grow_over_a_crash_and_the_loss_of_the_row() {
    let server = own().await;
    let driver = driver(&server).await;
    let mut last = granted(driver.acquire(&claim("a"), Intent::Try).await);
    server.stop().await.unwrap();
    server.start_again().await.unwrap();
    eventually("the lock is still held", Duration::from_secs(10), async || {
        matches!(
            driver.acquire(&claim("a"), Intent::Try).await,
            Ok(lockcore::driver::Acquired::Busy(_))
        )
    })
    .await;
    for _ in 0..3 {
        execute(&server, "DELETE FROM leasehold_lock").await;
        let token = granted(driver.acquire(&claim("a"), Intent::Try).await);
        assert!(token > last);
        last = token;
    }
}

/// Tables that somebody dropped are made again with the next connection.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_tables_come_back() {
    let server = own().await;
    driver(&server).await;
    execute(
        &server,
        "DROP TABLE leasehold_lock, leasehold_waiter, leasehold_meta",
    )
    .await;
    let driver = connect(server.url()).await.unwrap();
    granted(driver.acquire(&claim("a"), Intent::Try).await);
}

/// Several processes start at once with tables that are not complete, and the one that is first is undone: InnoDB lets
/// all the others insert and calls it a deadlock. None of them stumbles over it.
#[tokio::test(flavor = "multi_thread")]
async fn several_make_the_tables_at_once() {
    let server = own().await;
    driver(&server).await;
    execute(&server, "DELETE FROM leasehold_meta").await;
    let mut first = admin(&server).await;
    let begin = "BEGIN; INSERT INTO leasehold_meta (id, layout) VALUES (1, 1)";
    sqlx::raw_sql(begin).execute(&mut first).await.unwrap();
    let connecting: Vec<_> = (0..4)
        .map(|_| {
            let url = server.url().to_owned();
            tokio::spawn(async move { connect(&url).await })
        })
        .collect();
    let inserting =
        "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.processlist WHERE info LIKE 'INSERT IGNORE%'";
    eventually("all want to insert", Duration::from_secs(10), async || {
        numbers(&server, inserting).await == [4]
    })
    .await;
    sqlx::raw_sql("ROLLBACK").execute(&mut first).await.unwrap();
    for driver in connecting {
        driver.await.unwrap().unwrap();
    }
}
