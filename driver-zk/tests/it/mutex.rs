//! What one client sees of a lock.

use std::time::Duration;

use lockcore::driver::{Driver, Intent, Lease, Released, Renewal};
use lockcore::{Capabilities, ErrorKind, FencingSource, Kind, LockManager, LockName, Namespace, Resource};

use crate::support::{
    WAIT, admin, busy, claim, claim_for, connect, contenders, driver, foreign, granted, lock, manager, own,
    resource, shared, unique,
};

/// What `mntr` says, less the question itself.
async fn packets(server: &leasehold_conformance::servers::Server) -> u64 {
    admin(server).number("zk_packets_received").await.unwrap()
}

#[tokio::test]
async fn an_uncontended_lock_costs_two_writes() {
    let server = own().await;
    let admin = admin(&server);
    let driver = driver(&server).await;
    // Makes the session and the parents.
    let name = unique("cheap");
    let first = claim(&name);
    granted(driver.acquire(&first, Intent::Try).await);
    driver.release(&first).await.unwrap();
    let (before, writes) = (packets(&server).await, admin.writes().await.unwrap());
    for _ in 0..100 {
        let claim = claim(&name);
        granted(driver.acquire(&claim, WAIT).await);
        assert_eq!(driver.release(&claim).await.unwrap(), Released::Released);
    }
    // A creation with a listing, and a deletion; now and then a keep-alive.
    let (used, written) = (
        packets(&server).await - before,
        admin.writes().await.unwrap() - writes,
    );
    assert!((300..=310).contains(&used), "{used} packets");
    assert_eq!(written, 200);
}

#[tokio::test]
async fn tokens_grow_and_repeats_change_nothing() {
    let server = shared().await;
    let (driver, other) = (driver(server).await, driver(server).await);
    let name = unique("tokens");
    let mut last = None;
    for _ in 0..5 {
        let claim = claim(&name);
        let token = granted(driver.acquire(&claim, WAIT).await);
        assert!(Some(token) > last);
        last = Some(token);
        assert_eq!(granted(driver.acquire(&claim, WAIT).await), token);
        assert_eq!(granted(driver.acquire(&claim, Intent::Try).await), token);
        let lease = Lease::new(claim.clone().into(), token, Duration::from_secs(10));
        assert_eq!(
            driver.renew(std::slice::from_ref(&lease)).await.unwrap(),
            [Renewal::Renewed]
        );
        assert!(
            busy(other.acquire(&crate::support::claim(&name), Intent::Try).await)
                .holder
                .is_some()
        );
        assert_eq!(driver.release(&claim).await.unwrap(), Released::Released);
        assert_eq!(driver.release(&claim).await.unwrap(), Released::NotHeld);
        assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::NotHeld]);
    }
    assert_eq!(
        contenders(&admin(server).client().await.unwrap(), &name).await,
        [""; 0]
    );
}

/// Whoever knows the attempt can release it, and does not need the process that made it.
#[tokio::test]
async fn another_driver_releases_what_it_knows() {
    let server = shared().await;
    let (driver, other) = (driver(server).await, driver(server).await);
    let (name, waiting) = (unique("elsewhere"), unique("elsewhere"));
    for (name, expected) in [(&name, Released::Released), (&waiting, Released::NotHeld)] {
        let holder = claim(&waiting);
        if *name == waiting {
            granted(driver.acquire(&holder, WAIT).await);
        }
        let claim = claim(name);
        drop(driver.acquire(&claim, WAIT).await.unwrap());
        assert_eq!(other.release(&claim).await.unwrap(), expected);
        let left = contenders(&admin(server).client().await.unwrap(), name).await;
        assert_eq!(left.len(), usize::from(*name == waiting));
    }
}

#[tokio::test]
async fn ttls_are_those_of_sessions() {
    let server = request_with_ticks(2000).await;
    let driver = driver(&server).await;
    let capabilities = driver.capabilities();
    assert_eq!(capabilities, leasehold_driver_zk::CAPABILITIES);
    assert_eq!(
        capabilities.effective_ttl(Duration::from_secs(1)),
        Duration::from_secs(4)
    );
    assert_eq!(
        capabilities.effective_ttl(Duration::from_secs(100)),
        Duration::from_secs(40)
    );
    // A guard of a minute is bridged.
    let locks = manager(&server).await;
    let guard = locks
        .lock("minute")
        .ttl(Duration::from_secs(60))
        .acquire()
        .await
        .unwrap();
    assert!(guard.remaining() <= Duration::from_secs(40) && guard.remaining() > Duration::from_secs(30));
    guard.release().await.unwrap();
    // A session for each TTL, of which a tick is not sure.
    let claim = claim_for("four", Duration::from_secs(4));
    let answer = crate::support::grant(driver.acquire(&claim, WAIT).await);
    let lockcore::driver::Bound::Session(session) = answer.bound else {
        panic!("a lease of its own")
    };
    let env = lockcore::Env::system();
    assert!(session.deadline().since(env.now()) <= Duration::from_secs(2));
}

async fn request_with_ticks(ms: u32) -> leasehold_conformance::servers::Server {
    let lines = [
        format!("tickTime={ms}"),
        "minSessionTimeout=-1".into(),
        "maxSessionTimeout=-1".into(),
    ];
    crate::support::request().args(lines).start().await.unwrap()
}

#[tokio::test]
async fn capabilities_are_what_the_server_agrees_to() {
    let server = shared().await;
    let capabilities: Capabilities = driver(server).await.capabilities();
    assert_eq!(
        (capabilities.min_ttl, capabilities.max_ttl),
        (Duration::from_secs(1), Duration::from_secs(60))
    );
    assert_eq!(capabilities.expiry_epsilon, Duration::from_secs(1));
    assert!(capabilities.sessions && capabilities.fifo);
    assert_eq!(capabilities.fencing, FencingSource::StoreRevision);
}

#[tokio::test]
async fn who_holds_and_who_waits() {
    let server = shared().await;
    let driver = driver(server).await;
    let name = unique("seen");
    assert!(driver.inspect(&resource(&name)).await.unwrap().holders.is_empty());
    let holder = claim(&name);
    let token = granted(driver.acquire(&holder, WAIT).await);
    busy(driver.acquire(&claim(&name), WAIT).await);
    let seen = driver.inspect(&resource(&name)).await.unwrap();
    assert_eq!(seen.waiters, 1);
    let [occupant] = &seen.holders[..] else {
        panic!("{seen:?}")
    };
    assert_eq!((&*occupant.details, occupant.token), (&*holder.details, token));
    let age = std::time::SystemTime::now().duration_since(occupant.since.unwrap());
    assert!(age.unwrap_or_default() < Duration::from_secs(60));
    let listed = driver.list(&Namespace::default(), &name).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].key.as_str(), listed[0].inspection.waiters),
        (name.as_str(), 1)
    );
    // Its next one has not claimed yet: nobody holds.
    driver.release(&holder).await.unwrap();
    let seen = driver.inspect(&resource(&name)).await.unwrap();
    assert_eq!((seen.holders.len(), seen.waiters), (0, 1));
    assert!(!driver.force_release(&resource(&name)).await.unwrap());
    // One of another recipe holds as soon as it is the first.
    let client = admin(server).client().await.unwrap();
    let other = unique("seen");
    granted(driver.acquire(&claim(&other), WAIT).await);
    assert!(driver.force_release(&resource(&other)).await.unwrap());
    foreign(&client, &other, b"10.0.0.1").await;
    let seen = driver.inspect(&resource(&other)).await.unwrap();
    assert_eq!((&*seen.holders[0].details, seen.waiters), ("", 0));
    assert!(driver.force_release(&resource(&other)).await.unwrap());
    assert!(!driver.force_release(&resource(&other)).await.unwrap());
}

#[tokio::test]
async fn paths_are_told_and_roots_are_made() {
    let server = shared().await;
    let url = format!("{}/apps/{}", server.url(), unique("root"));
    let locks = leasehold_driver_zk::ZkLockManager::connect(&format!("{url}?namespace=shop"))
        .await
        .unwrap();
    let path = locks.lock_path("orders/42").unwrap();
    assert!(
        path.starts_with("/apps/root-") && path.ends_with("/leasehold/1/shop/m/orders%2F42"),
        "{path}"
    );
    let client = admin(server).client().await.unwrap();
    let guard = locks.lock("orders/42").acquire().await.unwrap();
    assert_eq!(client.list_children(&path).await.unwrap().len(), 1);
    guard.release().await.unwrap();
    assert_eq!(client.list_children(&path).await.unwrap(), [""; 0]);
    assert_eq!(locks.list("").await.unwrap().len(), 0);
}

#[tokio::test]
async fn only_mutexes() {
    let driver = driver(shared().await).await;
    let name = LockName::new("x").unwrap();
    let resource = Resource::new(Namespace::default(), Kind::Semaphore, name);
    assert_eq!(
        driver.inspect(&resource).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
}

#[tokio::test]
async fn a_full_queue_is_refused() {
    let server = shared().await;
    let driver = connect(&format!("{}?queue=2", server.url())).await.unwrap();
    let name = unique("full");
    granted(driver.acquire(&claim(&name), WAIT).await);
    busy(driver.acquire(&claim(&name), WAIT).await);
    busy(driver.acquire(&claim(&name), WAIT).await);
    let error = driver.acquire(&claim(&name), WAIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("full"), "{error}");
    let client = admin(server).client().await.unwrap();
    assert_eq!(client.list_children(&lock(&name)).await.unwrap().len(), 3);
}
