//! One driver after the other at one lock.

use std::time::Duration;

use leasehold_driver_etcd::EtcdLockManager;
use leasehold_driver_etcd::etcd_client::Client;
use lockcore::driver::{Bound, Intent, Lease, Released, Renewal};
use lockcore::{Driver, LockManager, Settings};

use crate::support::{
    Admin, WAIT, busy, claim, claim_for, claim_once, driver, enqueue, eventually, grant, granted, manager,
    shared, unique,
};

#[tokio::test]
async fn a_lock_and_its_queue_are_seen() {
    let server = shared().await;
    let (ours, theirs, name) = (driver(server).await, driver(server).await, unique("seen"));
    let holder = claim(&name);
    let token = granted(ours.acquire(&holder, Intent::Try).await);
    let refused = busy(theirs.acquire(&claim(&name), Intent::Try).await);
    assert_eq!(refused.holder.unwrap().token, token);
    let first = busy(theirs.acquire(&claim(&name), WAIT).await);
    assert_eq!(first.ahead, Some(0));
    let second = busy(ours.acquire(&claim(&name), WAIT).await);
    assert_eq!((second.ahead, second.reserved), (Some(1), None));

    let found = ours.inspect(&holder.resource).await.unwrap();
    assert_eq!((found.holders.len(), found.waiters), (1, 2));
    let seen = &found.holders[0];
    assert_eq!((seen.token, &*seen.details), (token, &*holder.details));
    let left = seen.remaining.unwrap();
    assert!(
        left > Duration::from_secs(25) && left <= Duration::from_secs(30),
        "{left:?}"
    );
    assert!(seen.since.is_some());
    let listed = ours.list(holder.resource.namespace(), &name).await.unwrap();
    let listed = listed
        .iter()
        .find(|lock| lock.key == holder.resource.key())
        .unwrap();
    assert_eq!(
        (listed.inspection.holders.len(), listed.inspection.waiters),
        (1, 2)
    );
    assert!(listed.inspection.holders[0].remaining.is_some());

    assert!(theirs.force_release(&holder.resource).await.unwrap());
    assert!(
        !theirs.force_release(&holder.resource).await.unwrap(),
        "waiters hold nothing"
    );
    assert_eq!(ours.release(&holder).await.unwrap(), Released::NotHeld);
}

/// Whatever was answered to nobody: the same again is the same grant.
#[tokio::test]
async fn a_repeated_request_is_one_grant() {
    let server = shared().await;
    let (driver, admin, name) = (driver(server).await, Admin::new(server).await, unique("replay"));
    for (round, intent) in [Intent::Try, WAIT].into_iter().enumerate() {
        let claim = claim(&name);
        let token = granted(driver.acquire(&claim, intent).await);
        for again in [Intent::Try, WAIT] {
            assert_eq!(granted(driver.acquire(&claim, again).await), token, "{round}");
        }
        assert_eq!(admin.keys(&name).await.len(), 1);
        // A place in the queue, and the claim of it.
        let (waiter, place) = enqueue(&driver, &name).await;
        assert_eq!(busy(driver.acquire(&waiter, WAIT).await).ahead, Some(0));
        assert_eq!(busy(driver.acquire(&waiter, place).await).ahead, Some(0));
        assert_eq!(admin.keys(&name).await.len(), 2);
        assert_eq!(driver.release(&claim).await.unwrap(), Released::Released);
        let next = granted(driver.acquire(&waiter, place).await);
        assert!(next > token);
        for again in [Intent::Try, WAIT, place] {
            assert_eq!(granted(driver.acquire(&waiter, again).await), next);
        }
        assert_eq!(driver.release(&waiter).await.unwrap(), Released::Released);
        assert_eq!(driver.release(&waiter).await.unwrap(), Released::NotHeld);
    }
    assert!(admin.keys(&name).await.is_empty());
}

/// Sessions are shared by TTL; a replay under another session is moved to it.
#[tokio::test]
async fn locks_of_one_ttl_share_a_lease() {
    let server = shared().await;
    let (driver, admin) = (driver(server).await, Admin::new(server).await);
    let mut leases = Vec::new();
    for (name, secs) in [("a", 41), ("b", 41), ("c", 42)] {
        let claim = claim_for(&unique(name), Duration::from_secs(secs));
        let granted = grant(driver.acquire(&claim, Intent::Try).await);
        let Bound::Session(session) = granted.bound else {
            panic!("no session")
        };
        assert!(!session.is_lost());
        leases.push(admin.keys(claim.resource.name().as_str()).await[0].1);
    }
    assert!(leases[0] == leases[1] && leases[1] != leases[2]);
    driver.close().await.unwrap();
    let left = admin.client().leases().await.unwrap();
    assert!(left.leases().iter().all(|lease| !leases.contains(&lease.id())));
}

#[tokio::test]
async fn without_renewal_a_lock_has_a_lease_of_its_own() {
    let server = shared().await;
    let (driver, admin, name) = (driver(server).await, Admin::new(server).await, unique("own"));
    let ttl = Duration::from_secs(3);
    let claim = claim_once(&name, ttl);
    let first = grant(driver.acquire(&claim, Intent::Try).await);
    assert!(matches!(first.bound, Bound::Lease(lasts) if lasts == ttl));
    let lease = admin.keys(&name).await[0].1;
    // The same again extends nothing.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let again = grant(driver.acquire(&claim, WAIT).await);
    assert_eq!(again.token, first.token);
    assert!(matches!(again.bound, Bound::Lease(lasts) if lasts < ttl));
    // Renewed, and given another term.
    let renew = |ttl| Lease::new(claim.clone().into(), first.token, ttl);
    assert_eq!(driver.renew(&[renew(ttl)]).await.unwrap(), [Renewal::Renewed]);
    assert_eq!(admin.keys(&name).await[0].1, lease);
    let longer = Duration::from_secs(60);
    assert_eq!(driver.renew(&[renew(longer)]).await.unwrap(), [Renewal::Renewed]);
    let other = admin.keys(&name).await[0].1;
    assert_ne!(other, lease);
    let left = driver.inspect(&claim.resource).await.unwrap().holders[0].remaining;
    assert!(left.unwrap() > Duration::from_secs(50), "{left:?}");
    // A waiter behind it, without renewal as well.
    let waiter = claim_once(&name, ttl);
    let ticket = busy(driver.acquire(&waiter, WAIT).await).ticket;
    assert_eq!(driver.release(&claim).await.unwrap(), Released::Released);
    let next = grant(driver.acquire(&waiter, Intent::Wait { ticket }).await);
    assert!(next.token > first.token && matches!(next.bound, Bound::Lease(lasts) if lasts == ttl));
    assert_eq!(driver.renew(&[renew(ttl)]).await.unwrap(), [Renewal::NotHeld]);
    assert_eq!(driver.release(&waiter).await.unwrap(), Released::Released);
    driver.close().await.unwrap();
    let left = admin.client().leases().await.unwrap();
    let gone = |id| left.leases().iter().all(|lease| lease.id() != id);
    assert!(gone(lease) && gone(other));
}

#[tokio::test]
async fn a_refused_try_leaves_no_lease() {
    let server = shared().await;
    let (driver, admin, name) = (driver(server).await, Admin::new(server).await, unique("refused"));
    granted(driver.acquire(&claim(&name), Intent::Try).await);
    let client = admin.client();
    let other = claim_once(&name, Duration::from_secs(77));
    busy(driver.acquire(&other, Intent::Try).await);
    for lease in client.lease_client().leases().await.unwrap().leases() {
        let told = client
            .lease_client()
            .time_to_live(lease.id(), None)
            .await
            .unwrap();
        assert_ne!(told.granted_ttl(), 78);
    }
}

#[tokio::test]
async fn a_client_of_ones_own() {
    let server = shared().await;
    let client = Client::connect([server.address()], None).await.unwrap();
    let locks = EtcdLockManager::from_client(client, Settings::default())
        .await
        .unwrap();
    let (name, theirs) = (unique("theirs"), manager(server).await);
    let guard = locks.lock(&name).acquire().await.unwrap();
    assert!(theirs.lock(&name).try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
    let diagnosis = locks.diagnose().await.unwrap();
    assert_eq!(diagnosis.server, "etcd");
    assert!(diagnosis.version.is_some());
    locks.close().await.unwrap();
    eventually("closed", || async { locks.ping().await.is_err() }).await;
}
