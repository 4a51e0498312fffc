//! What becomes of the file: reboots, removal, growth, tokens.

use std::time::Duration;

use leasehold_driver_sqlite::{SqliteConfig, Synchronous};
use lockcore::driver::{Driver, Intent, Lease, Released, Renewal};
use lockcore::{ErrorKind, ExpiryClock, WakeUp};

use crate::support::{Ask, Place, TTL, WAIT, claim, driver, open, resource};

#[tokio::test]
async fn a_reboot_frees_everything_and_tokens_grow() {
    let place = Place::new();
    let before = driver(&place.path).await;
    let token = before.grant(&claim("a"), Intent::Try).await.token;
    before.busy(&claim("a"), WAIT).await;
    before.close().await.unwrap();
    place.sql("UPDATE leasehold_meta SET boot = 'another'").await;
    let after = driver(&place.path).await;
    let found = after.inspect(&resource("a")).await.unwrap();
    assert!(found.holders.is_empty() && found.waiters == 0);
    assert!(after.grant(&claim("a"), Intent::Try).await.token > token);
}

#[tokio::test]
async fn another_machine_is_noticed() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let held = claim("a");
    let token = driver.grant(&held, Intent::Try).await.token;
    // What another kernel does when it opens the file.
    place.sql("UPDATE leasehold_lock SET owner = NULL").await;
    place.sql("UPDATE leasehold_meta SET boot = 'another'").await;
    // It holds and waits by a clock that has just begun.
    place
        .sql(
            "INSERT INTO leasehold_lock (key, token, owner, held, expires, since, details) \
             VALUES ('default/m/theirs', 1, 'them', 1, 5, 0, ''), ('default/m/free', 1, NULL, 1, 5, 0, '')",
        )
        .await;
    place
        .sql(
            "INSERT INTO leasehold_waiter (key, ticket, attempt, deadline) \
             VALUES ('default/m/theirs', 1, 'their waiter', 5), ('default/m/free', 1, 'their waiter', 5)",
        )
        .await;
    let untouched =
        "SELECT sum(expires) FROM leasehold_lock WHERE key IN ('default/m/theirs', 'default/m/free')";
    for intent in [Intent::Try, WAIT] {
        for name in ["b", "theirs", "free"] {
            let claim = claim(name);
            let error = driver.acquire(&claim, intent).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
            assert_eq!(driver.release(&claim).await.unwrap(), Released::NotHeld);
        }
    }
    assert_eq!(place.sql(untouched).await, 10);
    let lease = Lease::new(held.into(), token, TTL);
    assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::NotHeld]);
    driver.close().await.unwrap();
    assert_eq!(place.sql(untouched).await, 10);
    assert_eq!(place.sql("SELECT count(*) FROM leasehold_waiter").await, 2);
}

#[tokio::test]
async fn tokens_survive_the_row_and_the_clock() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let mut last = 0;
    for round in 0..4 {
        let claim = claim("a");
        let token = driver.grant(&claim, WAIT).await.token.get();
        assert!(token > last);
        last = token;
        driver.free(&claim).await;
        match round {
            0 => place.sql("DELETE FROM leasehold_lock").await,
            // As if the clock had been set back by a century.
            1 => {
                place
                    .sql("UPDATE leasehold_lock SET token = 5000000000000000")
                    .await
            }
            _ => 0,
        };
    }
    assert_eq!(last, 5_000_000_000_000_002);
}

#[tokio::test]
async fn idle_rows_are_swept() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let (held, fresh) = (claim("held"), claim("fresh"));
    driver.grant(&held, Intent::Try).await;
    driver.grant(&fresh, Intent::Try).await;
    driver.free(&fresh).await;
    place
        .sql(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
             INSERT INTO leasehold_lock (key, token, held, expires, since, details) \
             SELECT 'default/m/old' || i, i, 1, 0, 0, '' FROM n",
        )
        .await;
    for number in 0..4000 {
        let claim = claim(&format!("busy{}", number % 10));
        driver.grant(&claim, Intent::Try).await;
        driver.free(&claim).await;
    }
    let old = "SELECT count(*) FROM leasehold_lock WHERE key LIKE 'default/m/old%'";
    assert!(place.sql(old).await < 1000);
    driver.close().await.unwrap();
    let kept = "SELECT count(*) FROM leasehold_lock WHERE key IN ('default/m/held', 'default/m/fresh')";
    assert_eq!(place.sql(kept).await, 2);
}

#[tokio::test]
async fn the_log_stays_short() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    for number in 0..3000 {
        let claim = claim(&format!("n{}", number % 10));
        driver.grant(&claim, Intent::Try).await;
        driver.free(&claim).await;
    }
    let log = place.folder().join("locks.db-wal");
    let size = std::fs::metadata(log).unwrap().len();
    assert!(size < 40_000_000, "{size} bytes");
}

#[tokio::test]
async fn a_removed_file_is_made_anew() {
    let place = Place::new();
    let (a, b) = (driver(&place.path).await, driver(&place.path).await);
    let held = claim("a");
    let token = a.grant(&held, Intent::Try).await.token;
    for entry in std::fs::read_dir(place.folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            std::fs::remove_dir_all(path).unwrap();
        } else {
            std::fs::remove_file(path).unwrap();
        }
    }
    let taken = claim("a");
    assert!(b.grant(&taken, Intent::Try).await.token > token);
    let lease = Lease::new(held.clone().into(), token, TTL);
    assert_eq!(a.renew(&[lease]).await.unwrap(), [Renewal::NotHeld]);
    // Both are on the new file, and can be woken again.
    assert_eq!(a.busy(&held, WAIT).await.ahead, Some(0));
    assert_eq!(place.sockets(), usize::from(cfg!(unix)));
    a.close().await.unwrap();
    b.close().await.unwrap();
    assert_eq!(place.sockets(), 0);
}

#[tokio::test]
async fn what_is_declared() {
    let place = Place::new();
    let config = SqliteConfig::new(&place.path)
        .unwrap()
        .synchronous(Synchronous::Full);
    let driver = open(config.clone()).await.unwrap();
    let declared = driver.capabilities();
    if cfg!(target_os = "linux") {
        assert_eq!(declared.expiry_clock, ExpiryClock::Boot);
        assert_eq!(declared.wake_up, WakeUp::Push);
    }
    assert!(declared.fifo && declared.cross_process && !declared.weighted);
    driver.ping().await.unwrap();
    let quiet = open(config.push(false)).await.unwrap();
    let interval = Duration::from_millis(10);
    assert_eq!(quiet.capabilities().wake_up, WakeUp::Poll { interval });
    // A waiter without a socket keeps its place.
    let (holder, waiter) = (claim("a"), claim("a"));
    driver.grant(&holder, Intent::Try).await;
    quiet.busy(&waiter, WAIT).await;
    driver.free(&holder).await;
    driver.busy(&claim("a"), Intent::Try).await;
    quiet.grant(&waiter, WAIT).await;
}

#[tokio::test]
async fn full_synchronous_is_kept_by_every_connection() {
    let place = Place::new();
    let url = format!("sqlite:{}?synchronous=full", place.path.display());
    let locks = leasehold_driver_sqlite::SqliteLockManager::connect(&url)
        .await
        .unwrap();
    lockcore::LockManager::close(&locks).await.unwrap();
}
