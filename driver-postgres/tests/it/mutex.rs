//! One lock at a time.

use std::time::Duration;

use lockcore::driver::{Driver, Intent, Lease, Released, Renewal};
use lockcore::{ErrorKind, LockName};

use crate::support::{Admin, WAIT, busy, claim, claim_for, driver, granted, own, resource};

#[tokio::test]
async fn calls_applied_twice_are_as_once() {
    let server = own().await;
    let driver = driver(&server).await;
    let first = claim_for("twice", Duration::from_secs(2));
    let token = granted(driver.acquire(&first, Intent::Try).await);
    tokio::time::sleep(Duration::from_millis(300)).await;
    // The reply was lost: the same token, and not a moment more.
    assert_eq!(granted(driver.acquire(&first, WAIT).await), token);
    let holder = driver
        .inspect(&resource("twice"))
        .await
        .unwrap()
        .holders
        .pop()
        .unwrap();
    assert!(holder.remaining.unwrap() < Duration::from_millis(1_750));
    assert_eq!(&*holder.details, &*first.details);
    assert_eq!(driver.release(&first).await.unwrap(), Released::Released);
    assert_eq!(driver.release(&first).await.unwrap(), Released::NotHeld);
    // A lease that ran out is not brought back.
    let short = claim_for("twice", Duration::from_millis(50));
    let token = granted(driver.acquire(&short, Intent::Try).await);
    tokio::time::sleep(Duration::from_millis(60)).await;
    let lease = Lease::new(short.clone().into(), token, Duration::from_secs(9));
    assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::NotHeld]);
    assert_eq!(driver.release(&short).await.unwrap(), Released::NotHeld);
    let last = claim("twice");
    assert!(granted(driver.acquire(&last, Intent::Try).await) > token);
    // A lease with another token is not this one.
    let wrong = Lease::new(last.clone().into(), token, last.ttl);
    assert_eq!(driver.renew(&[wrong]).await.unwrap(), [Renewal::NotHeld]);
    driver.close().await.unwrap();
}

#[tokio::test]
async fn names_are_apart() {
    let server = own().await;
    let driver = driver(&server).await;
    let names = [
        "a",
        "A",
        "a ",
        " a",
        "a\0",
        "a\0b",
        "\u{e9}",
        "e\u{301}",
        "\u{c9}",
        "a/b",
        "a%2Fb",
        "a'b",
        "a\"b",
        "a\\b",
        "a;b",
        "--",
        "$1",
        "%",
        "_",
        "a_",
        "a%",
        ".",
        "..",
        "\u{ffff}",
        "\u{1f512}",
        "NULL",
        "\n",
        "\t",
    ];
    let long: Vec<_> = ["x", "y"].map(|end| format!("{}{end}", "n".repeat(1_000))).into();
    let names: Vec<&str> = names.into_iter().chain(long.iter().map(String::as_str)).collect();
    let mut claims = Vec::new();
    for name in &names {
        let claim = claim(name);
        granted(driver.acquire(&claim, Intent::Try).await);
        claims.push(claim);
    }
    for name in &names {
        busy(driver.acquire(&claim(name), Intent::Try).await);
    }
    let listed = driver.list(claims[0].resource.namespace(), "").await.unwrap();
    assert_eq!(listed.len(), names.len());
    assert!(listed.is_sorted_by(|a, b| a.key < b.key));
    assert!(LockName::new("").is_err());
    for claim in &claims {
        assert_eq!(driver.release(claim).await.unwrap(), Released::Released);
    }
    driver.close().await.unwrap();
}

#[tokio::test]
async fn tokens_grow_over_deletion_and_a_clock_that_is_set_back() {
    let server = own().await;
    let driver = driver(&server).await;
    let mut admin = Admin::new(&server).await;
    let mut last = None;
    for what in [
        "DELETE FROM leasehold.lock",
        "TRUNCATE leasehold.lock",
        "DROP SCHEMA leasehold CASCADE",
        // As if the clock had been an hour ahead.
        "UPDATE leasehold.lock SET token = token + 3600000000",
        "SELECT 1",
    ] {
        let mut token = driver.acquire(&claim("grows"), Intent::Try).await;
        if token.is_err() {
            // The first one finds out that the tables are gone.
            token = driver.acquire(&claim("grows"), Intent::Try).await;
        }
        let token = granted(token);
        assert!(Some(token) > last);
        last = Some(token);
        driver.force_release(&resource("grows")).await.unwrap();
        admin.run(what).await;
    }
    driver.close().await.unwrap();
}

#[tokio::test]
async fn a_full_queue_is_said() {
    let server = own().await;
    let driver = crate::support::connect(&format!("{}?queue=2", server.url()))
        .await
        .unwrap();
    granted(driver.acquire(&claim("full"), Intent::Try).await);
    crate::support::enqueue(&driver, "full", 2).await;
    let error = driver.acquire(&claim("full"), WAIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    driver.close().await.unwrap();
}

#[tokio::test]
async fn rows_without_use_are_swept() {
    let server = own().await;
    let driver = driver(&server).await;
    let mut admin = Admin::new(&server).await;
    let used = claim("used");
    granted(driver.acquire(&used, Intent::Try).await);
    admin
        .run(
            "INSERT INTO leasehold.lock (key, token, owner, held, waits, expires, since, details) \
             SELECT 'default/m/old' || n, 1000, CASE WHEN n % 2 = 0 THEN 'x' END, true, n % 3 = 0, '-infinity', now(), '' \
             FROM generate_series(1, 1000) AS n; \
             INSERT INTO leasehold.waiter SELECT key, 1, 'dead', '-infinity', NULL FROM leasehold.lock WHERE waits",
        )
        .await;
    for _ in 0..6 * 256 {
        granted(driver.acquire(&used, Intent::Try).await);
    }
    crate::support::eventually("only the lock in use is left", async || {
        admin.number("SELECT count(*) FROM leasehold.lock").await == 1
            && admin.number("SELECT count(*) FROM leasehold.waiter").await == 0
    })
    .await;
    driver.close().await.unwrap();
}
