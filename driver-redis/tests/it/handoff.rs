//! From one holder to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leasehold_driver_redis::RedisLockManager;
use lockcore::{Driver, Guard, LockManager};
use tokio::task::JoinHandle;

use crate::support::{
    Admin, WAIT, claim, claim_for, driver, enqueue, eventually, granted, manager, resource, shared, unique,
};

/// Waits for `name` on `manager`, and is in the queue when this returns.
async fn waiting(manager: &RedisLockManager, name: &str, before: u64) -> JoinHandle<Guard> {
    let task = tokio::spawn({
        let (manager, name) = (manager.clone(), name.to_owned());
        async move {
            let wait = Duration::from_secs(30);
            manager.lock(&name).wait(wait).acquire().await.unwrap()
        }
    });
    eventually("it is queued", || async {
        let status = manager.inspect(name).await.unwrap();
        status.iter().any(|status| status.waiters > before)
    })
    .await;
    task
}

#[tokio::test]
async fn a_release_wakes_the_next_by_push() {
    let (server, name) = (shared().await, unique("push"));
    let (ours, theirs) = (manager(server).await, manager(server).await);
    let mut slowest = Duration::ZERO;
    for _ in 0..20 {
        let guard = ours.lock(&name).acquire().await.unwrap();
        let next = waiting(&theirs, &name, 0).await;
        let start = Instant::now();
        guard.release().await.unwrap();
        let next = next.await.unwrap();
        slowest = slowest.max(start.elapsed());
        next.release().await.unwrap();
    }
    assert!(slowest < Duration::from_millis(300), "{slowest:?}");
}

#[tokio::test]
async fn in_order_of_arrival() {
    let (server, name) = (shared().await, unique("order"));
    let first = manager(server).await;
    let guard = first.lock(&name).acquire().await.unwrap();
    let order = AtomicU64::new(0);
    let mut waiters = Vec::new();
    let mut managers = Vec::new();
    for before in 0..5 {
        let manager = manager(server).await;
        waiters.push(waiting(&manager, &name, before).await);
        managers.push(manager);
    }
    guard.release().await.unwrap();
    let mut last = 0;
    for waiter in waiters {
        let guard = waiter.await.unwrap();
        order.fetch_add(1, Ordering::Relaxed);
        assert!(guard.token().get() > last);
        last = guard.token().get();
        guard.release().await.unwrap();
    }
    assert_eq!(order.load(Ordering::Relaxed), 5);
}

#[tokio::test]
async fn a_silent_waiter_costs_one_claim_window() {
    let (server, name) = (shared().await, unique("silent"));
    let (holder, silent, live) = (driver(server).await, driver(server).await, manager(server).await);
    let held = claim(&name);
    granted(holder.acquire(&held, WAIT).await);
    // It hears its wake-up, and does nothing: as a process that was stopped.
    enqueue(&silent, &name, 1).await;
    let next = waiting(&live, &name, 1).await;
    let start = Instant::now();
    holder.release(&held).await.unwrap();
    next.await.unwrap().release().await.unwrap();
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(390), "{took:?}");
    assert!(took < Duration::from_millis(800), "{took:?}");
}

#[tokio::test]
async fn who_missed_its_turn_keeps_its_place() {
    let (server, name) = (shared().await, unique("late"));
    let driver = driver(server).await;
    let held = claim(&name);
    granted(driver.acquire(&held, WAIT).await);
    let waiters = enqueue(&driver, &name, 2).await;
    let late = crate::support::busy(driver.acquire(&waiters[0], WAIT).await);
    driver.release(&held).await.unwrap();
    tokio::time::sleep(Duration::from_millis(410)).await;
    granted(driver.acquire(&waiters[1], WAIT).await);
    let again = lockcore::driver::Intent::Wait { ticket: late.ticket };
    let newcomer = enqueue(&driver, &name, 1).await;
    assert_eq!(
        crate::support::busy(driver.acquire(&waiters[0], again).await).ahead,
        Some(0)
    );
    driver.release(&waiters[1]).await.unwrap();
    granted(driver.acquire(&waiters[0], WAIT).await);
    for claim in waiters.iter().chain(&newcomer) {
        driver.release(claim).await.unwrap();
    }
}

#[tokio::test]
async fn dead_waiters_cost_nothing_however_many() {
    let (server, name) = (shared().await, unique("dead"));
    let (holder, live, mut admin) = (
        driver(server).await,
        manager(server).await,
        Admin::new(server).await,
    );
    for lapse in [false, true] {
        let held = claim_for(&name, Duration::from_millis(if lapse { 700 } else { 30_000 }));
        granted(holder.acquire(&held, WAIT).await);
        let dying = driver(server).await;
        enqueue(&dying, &name, 200).await;
        dying.close().await.unwrap();
        let next = waiting(&live, &name, 200).await;
        let start = Instant::now();
        if !lapse {
            holder.release(&held).await.unwrap();
        }
        let next = next.await.unwrap();
        let limit = Duration::from_millis(if lapse { 1_600 } else { 300 });
        assert!(start.elapsed() < limit, "{:?}", start.elapsed());
        assert_eq!(holder.inspect(&resource(&name)).await.unwrap().waiters, 0);
        next.release().await.unwrap();
        assert_eq!(admin.keys(&name).await, "F");
    }
}

#[tokio::test]
async fn an_expired_lock_goes_to_its_waiter() {
    let (server, name) = (shared().await, unique("expired"));
    let (holder, live) = (driver(server).await, manager(server).await);
    let held = claim_for(&name, Duration::from_millis(500));
    let start = Instant::now();
    granted(holder.acquire(&held, WAIT).await);
    let next = live
        .lock(&name)
        .wait(Duration::from_secs(10))
        .acquire()
        .await
        .unwrap();
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(495) && took < Duration::from_millis(700),
        "{took:?}"
    );
    next.release().await.unwrap();
}

#[tokio::test]
async fn contended_by_many_processes() {
    let (server, name) = (shared().await, unique("many"));
    let inside = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (manager, name, inside) = (manager(server).await, name.clone(), Arc::clone(&inside));
        tasks.push(tokio::spawn(async move {
            let mut tokens = Vec::new();
            for _ in 0..25 {
                let guard = manager
                    .lock(&name)
                    .wait(Duration::from_secs(30))
                    .acquire()
                    .await
                    .unwrap();
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                tokio::time::sleep(Duration::from_millis(1)).await;
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1);
                tokens.push(guard.token());
                guard.release().await.unwrap();
            }
            tokens
        }));
    }
    let mut tokens = Vec::new();
    for task in tasks {
        tokens.extend(task.await.unwrap());
    }
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!(tokens.len(), 200);
    let mut admin = Admin::new(server).await;
    assert_eq!(admin.keys(&name).await, "F");
}
