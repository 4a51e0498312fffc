//! What servers and administrators do to us.

use std::time::{Duration, Instant};

use lockcore::driver::{Intent, Lease, Renewal};
use lockcore::{Driver, LockManager, LossReason};

use crate::support::{
    Admin, WAIT, claim, claim_for, driver, enqueue, eventually, granted, key, manager, own, shared, unique,
};

#[tokio::test]
async fn a_killed_server_that_comes_back_knows_its_locks() {
    let server = own().await;
    let (ours, theirs) = (manager(&server).await, manager(&server).await);
    let guard = ours.lock("restarted").acquire().await.unwrap();
    let token = guard.token();
    let waiting = tokio::spawn({
        let theirs = theirs.clone();
        async move {
            theirs
                .lock("restarted")
                .wait(Duration::from_secs(40))
                .acquire()
                .await
        }
    });
    let admin = Admin::new(&server).await;
    eventually("it waits", || async { admin.keys("restarted").await.len() == 2 }).await;
    server.restart().await.unwrap();
    eventually("it answers", || async { ours.ping().await.is_ok() }).await;
    assert!(guard.is_held());
    // The watch is there again: the waiter is told, it does not find out by its timer.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    guard.release().await.unwrap();
    let next = waiting.await.unwrap().unwrap();
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(next.token() > token);
    next.release().await.unwrap();
}

#[tokio::test]
async fn a_revoked_lease_is_a_loss_of_all_its_locks() {
    let server = shared().await;
    let (locks, name, other) = (manager(server).await, unique("revoked"), unique("revoked"));
    let admin = Admin::new(server).await;
    // Short, so that the next keep-alive comes soon; nothing tells us before.
    let ttl = Duration::from_secs(6);
    let lock = |name: &str| locks.lock(name).ttl(ttl);
    let (one, two) = (
        lock(&name).acquire().await.unwrap(),
        lock(&other).acquire().await.unwrap(),
    );
    let lease = admin.keys(&name).await[0].1;
    admin.client().lease_client().revoke(lease).await.unwrap();
    for guard in [&one, &two] {
        let reason = tokio::time::timeout(Duration::from_secs(4), guard.lost())
            .await
            .unwrap();
        assert!(
            matches!(reason, LossReason::SessionEnded | LossReason::Revoked),
            "{reason}"
        );
    }
    // The next request opens a new one.
    let again = lock(&name).acquire().await.unwrap();
    assert_ne!(admin.keys(&name).await[0].1, lease);
    again.release().await.unwrap();
}

/// A request finds out before the keep-alive does.
#[tokio::test]
async fn a_lease_that_the_server_does_not_know_is_replaced() {
    let server = shared().await;
    let (driver, admin, name) = (driver(server).await, Admin::new(server).await, unique("unknown"));
    let first = claim(&name);
    granted(driver.acquire(&first, Intent::Try).await);
    let (waiter, place) = enqueue(&driver, &name).await;
    let lease = admin.keys(&name).await[0].1;
    admin.client().lease_client().revoke(lease).await.unwrap();
    // Both keys are gone with it: the waiter takes the lock, under another lease.
    granted(driver.acquire(&waiter, place).await);
    let keys = admin.keys(&name).await;
    assert_eq!((keys.len(), &keys[0].0), (1, &key(&waiter)));
    assert_ne!(keys[0].1, lease);
    // And so does a try.
    let other = unique("unknown");
    admin.client().lease_client().revoke(keys[0].1).await.unwrap();
    granted(driver.acquire(&claim(&other), Intent::Try).await);
}

#[tokio::test]
async fn a_deleted_key_is_a_loss() {
    let server = shared().await;
    let (locks, admin, name) = (manager(server).await, Admin::new(server).await, unique("deleted"));
    let ttl = Duration::from_secs(6);
    let guard = locks.lock(&name).ttl(ttl).acquire().await.unwrap();
    let kept = locks.lock(&unique("kept")).ttl(ttl).acquire().await.unwrap();
    admin
        .client()
        .delete(admin.keys(&name).await[0].0.as_str(), None)
        .await
        .unwrap();
    let lost = tokio::time::timeout(Duration::from_secs(6), guard.lost()).await;
    assert_eq!(lost.unwrap(), LossReason::Revoked);
    assert!(kept.is_held());
}

/// What a request left behind that came through late, when nobody waited for it any more.
#[tokio::test]
async fn a_ghost_is_found_and_removed() {
    let server = shared().await;
    let (driver, admin, name) = (driver(server).await, Admin::new(server).await, unique("ghost"));
    let living = claim_for(&name, Duration::from_secs(6));
    let token = granted(driver.acquire(&living, Intent::Try).await);
    let lease = admin.keys(&name).await[0].1;
    let ghost = claim(&name);
    admin.put(&key(&ghost), "W1|", lease).await;
    eventually("it is gone", || async { admin.keys(&name).await.len() == 1 }).await;
    let lease = Lease::new(living.into(), token, Duration::from_secs(6));
    assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::Renewed]);
}

/// The waiter behind a dead process gets its turn when that one's lease runs out, as the server says.
#[tokio::test]
async fn the_lock_of_a_dead_process_is_passed_on_when_its_lease_ends() {
    let server = shared().await;
    let (theirs, admin, name) = (manager(server).await, Admin::new(server).await, unique("died"));
    // Nobody keeps this one alive.
    let lease = admin.client().lease_client().grant(3, None).await.unwrap().id();
    let dead = claim(&name);
    admin.put(&key(&dead), "H1|", lease).await;
    let start = Instant::now();
    let got = theirs
        .lock(&name)
        .wait(Duration::from_secs(15))
        .acquire()
        .await
        .unwrap();
    let took = start.elapsed();
    assert!(
        took > Duration::from_secs(2) && took < Duration::from_secs(5),
        "{took:?}"
    );
    got.release().await.unwrap();
}

#[tokio::test]
async fn a_deleted_place_is_taken_again() {
    let server = shared().await;
    let (driver, admin, name) = (driver(server).await, Admin::new(server).await, unique("place"));
    let holder = claim(&name);
    granted(driver.acquire(&holder, WAIT).await);
    let (waiter, place) = enqueue(&driver, &name).await;
    admin.client().delete(key(&waiter), None).await.unwrap();
    let again = crate::support::busy(driver.acquire(&waiter, place).await);
    assert_eq!(again.ahead, Some(0));
    assert_eq!(admin.keys(&name).await.len(), 2);
}
