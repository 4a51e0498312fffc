//! Looking at locks, and taking them away.

use std::time::Duration;

use lockcore::driver::Released;
use lockcore::{Driver, LockManager, LossReason, Namespace};

use crate::support::{WAIT, busy, claim, driver, enqueue, granted, manager, resource, shared, unique};

#[tokio::test]
async fn inspects() {
    let (server, name) = (shared().await, unique("inspect"));
    let driver = driver(server).await;
    let empty = driver.inspect(&resource(&name)).await.unwrap();
    assert!(empty.holders.is_empty() && empty.waiters == 0);
    let holder = claim(&name);
    let token = granted(driver.acquire(&holder, WAIT).await);
    let waiters = enqueue(&driver, &name, 2).await;
    let seen = driver.inspect(&resource(&name)).await.unwrap();
    assert_eq!(seen.waiters, 2);
    let [occupant] = seen.holders.as_slice() else {
        panic!("{seen:?}")
    };
    assert_eq!((occupant.token, occupant.weight), (token, 1));
    assert_eq!(occupant.details, holder.details);
    // Reserved: nobody holds it, and both still wait.
    driver.release(&holder).await.unwrap();
    let seen = driver.inspect(&resource(&name)).await.unwrap();
    assert!(seen.holders.is_empty());
    assert_eq!(seen.waiters, 2);
    for waiter in &waiters {
        driver.release(waiter).await.unwrap();
    }
}

#[tokio::test]
async fn lists_by_prefix() {
    let server = shared().await;
    let driver = driver(server).await;
    let namespace = Namespace::new(unique("list")).unwrap();
    let long = format!("a{{{}", "x".repeat(900));
    let names = ["a{b}", "a/b", "a", "A", "..", ".a", "a*b", "é", &long];
    let mut claims = Vec::new();
    for name in names {
        let mut claim = claim(name);
        claim.resource = lockcore::Resource::new(
            namespace.clone(),
            lockcore::Kind::Mutex,
            lockcore::LockName::new(name).unwrap(),
        );
        granted(driver.acquire(&claim, WAIT).await);
        claims.push(claim);
    }
    let all = driver.list(&namespace, "").await.unwrap();
    let mut expected: Vec<_> = claims.iter().map(|claim| claim.resource.key()).collect();
    expected.sort_unstable();
    assert_eq!(
        all.iter().map(|listed| &*listed.key).collect::<Vec<_>>(),
        expected
    );
    assert!(all.iter().all(|listed| listed.inspection.holders.len() == 1));
    for prefix in [
        "a{",
        "a/",
        "a",
        ".",
        "..",
        "a*",
        "é",
        &long,
        &long[..500],
        "nothing",
    ] {
        let listed = driver.list(&namespace, prefix).await.unwrap();
        for claim in &claims {
            let missing = listed.iter().all(|listed| listed.key != claim.resource.key());
            let wanted = claim.resource.name().as_str().starts_with(prefix);
            assert!(!(wanted && missing), "{prefix:?} lacks {:?}", claim.resource);
        }
    }
    assert!(
        driver
            .list(&Namespace::new("l").unwrap(), "")
            .await
            .unwrap()
            .is_empty()
    );
    for claim in &claims {
        driver.release(claim).await.unwrap();
    }
    assert!(driver.list(&namespace, "").await.unwrap().is_empty());
}

#[tokio::test]
async fn a_forced_release_tells_the_holder_and_wakes_the_next() {
    let (server, name) = (shared().await, unique("force"));
    let (holder, waiter, admin) = (
        manager(server).await,
        manager(server).await,
        manager(server).await,
    );
    assert!(!admin.force_release(&name).await.unwrap());
    let guard = holder.lock(&name).acquire().await.unwrap();
    let token = guard.token();
    let waiting = tokio::spawn({
        let (waiter, name) = (waiter.clone(), name.clone());
        async move {
            waiter
                .lock(&name)
                .wait(Duration::from_secs(10))
                .acquire()
                .await
                .unwrap()
        }
    });
    let driver = driver(server).await;
    crate::support::eventually("it waits", || async {
        driver.inspect(&resource(&name)).await.unwrap().waiters == 1
    })
    .await;
    let start = std::time::Instant::now();
    assert!(admin.force_release(&name).await.unwrap());
    assert_eq!(guard.lost().await, LossReason::Revoked);
    let next = waiting.await.unwrap();
    assert!(next.token() > token);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    next.release().await.unwrap();
}

#[tokio::test]
async fn a_forced_release_leaves_a_reservation() {
    let (server, name) = (shared().await, unique("force-reserved"));
    let driver = driver(server).await;
    let holder = claim(&name);
    granted(driver.acquire(&holder, WAIT).await);
    let waiters = enqueue(&driver, &name, 2).await;
    assert_eq!(driver.release(&holder).await.unwrap(), Released::Released);
    assert!(!driver.force_release(&resource(&name)).await.unwrap());
    let second = busy(driver.acquire(&waiters[1], WAIT).await);
    assert_eq!(second.ahead, Some(1));
    assert!(second.holder.is_none());
    granted(driver.acquire(&waiters[0], WAIT).await);
    for waiter in &waiters {
        driver.release(waiter).await.unwrap();
    }
}
