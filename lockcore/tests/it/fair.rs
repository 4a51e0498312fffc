use std::sync::{Arc, Mutex};

use lockcore::memory::Call;
use lockcore::{LockManager, Settings};

use crate::{World, ms, secs};

#[tokio::test(start_paused = true)]
async fn served_in_order_of_arrival() {
    let world = World::new();
    let managers: Vec<_> = (0..5).map(|_| world.manager()).collect();
    let guard = managers[0].lock("a").acquire().await.unwrap();
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for i in 0..20 {
        let (lock, order, env) = (
            managers[i % 5].lock("a").build().unwrap(),
            Arc::clone(&order),
            world.env.clone(),
        );
        tasks.push(tokio::spawn(async move {
            let guard = lock.acquire().await.unwrap();
            order.lock().unwrap().push(i);
            env.sleep(ms(1)).await;
            guard.release().await.unwrap();
        }));
        world.settle().await;
    }
    guard.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    // One of each process stands in the backend's queue; the others are in their process's.
    let order = order.lock().unwrap().clone();
    for process in 0..5 {
        let own: Vec<_> = order.iter().filter(|i| **i % 5 == process).collect();
        assert!(own.is_sorted(), "{order:?}");
    }
    assert_eq!(order[..5], [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn a_try_does_not_overtake() {
    let world = World::new();
    let (ours, theirs, third) = (world.manager(), world.manager(), world.manager());
    let guard = ours.lock("a").acquire().await.unwrap();
    let lock = theirs.lock("a").build().unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    world.settle().await;
    // The waiter does not hear of it: its turn is reserved.
    world.store.drop_wake_ups(true);
    guard.release().await.unwrap();
    assert!(third.lock("a").try_acquire().await.unwrap().is_none());
    assert!(theirs.lock("a").try_acquire().await.unwrap().is_none());
    world.store.drop_wake_ups(false);
    drop(waiter.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_waiter_costs_one_claim_window() {
    let world = World::new();
    let (ours, stopped, next) = (world.manager(), world.store.driver(), world.manager());
    let guard = ours.lock("a").acquire().await.unwrap();
    // A waiter that is never heard of again: its claim is made by hand.
    let resource = lockcore::Resource::new(
        lockcore::Namespace::default(),
        lockcore::Kind::Mutex,
        lockcore::LockName::new("a").unwrap(),
    );
    let claim = lockcore::Claim::new(resource, lockcore::AttemptId::from_bits(7), secs(30));
    let intent = lockcore::driver::Intent::Wait { ticket: None };
    lockcore::Driver::acquire(&stopped.0, &claim, intent)
        .await
        .unwrap();
    let lock = next.lock("a").build().unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await.unwrap() });
    world.settle().await;
    let start = world.env.now();
    guard.release().await.unwrap();
    drop(waiter.await.unwrap());
    let took = world.env.now().since(start);
    assert!(took >= ms(400) && took < ms(450), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_dead_waiter_costs_nothing() {
    let world = World::new();
    let (ours, next) = (world.manager(), world.manager());
    let dead = world.store.manager(Settings::default()).unwrap();
    let guard = ours.lock("a").acquire().await.unwrap();
    let lock = dead.lock("a").build().unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await });
    world.settle().await;
    let lock = next.lock("a").build().unwrap();
    let live = tokio::spawn(async move { lock.acquire().await.unwrap() });
    world.settle().await;
    waiter.abort();
    drop(dead);
    world.settle().await;
    let start = world.env.now();
    guard.release().await.unwrap();
    drop(live.await.unwrap());
    assert!(world.env.now().since(start) < ms(5));
}

#[tokio::test(start_paused = true)]
async fn requests_do_not_grow_with_the_waiters() {
    let mut per_acquisition = Vec::new();
    for waiters in [2_u64, 16, 128] {
        let world = World::new();
        let mut tasks = Vec::new();
        for _ in 0..waiters {
            let (lock, env) = (world.manager().lock("a").build().unwrap(), world.env.clone());
            tasks.push(tokio::spawn(async move {
                for _ in 0..4 {
                    let guard = lock.acquire().await.unwrap();
                    env.sleep(ms(10)).await;
                    guard.release().await.unwrap();
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        let requests = world.store.calls(Call::Acquire) + world.store.calls(Call::Release);
        per_acquisition.push(requests * 100 / (waiters * 4));
    }
    assert!(
        per_acquisition.iter().all(|requests| *requests <= 300),
        "per 100 acquisitions: {per_acquisition:?}"
    );
}
