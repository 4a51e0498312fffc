//! A lock that passes among the tasks of one process without a request.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lockcore::memory::{Call, MemoryStore};
use lockcore::{Guard, Lock, LockBuilder, LockManager, LossReason, Manager, Settings, Token};
use tokio::task::JoinHandle;

use crate::{World, ms, secs};

/// A manager with this bound.
fn manager(world: &World, local_handover: Duration) -> Manager {
    let mut settings = Settings::default();
    settings.local_handover = local_handover;
    world.store.manager(settings).unwrap()
}

fn acquire(lock: LockBuilder) -> JoinHandle<Guard> {
    let lock = lock.build().unwrap();
    tokio::spawn(async move { lock.acquire().await.unwrap() })
}

/// The requests so far: acquires and releases.
fn requests(store: &MemoryStore) -> [u64; 2] {
    [store.calls(Call::Acquire), store.calls(Call::Release)]
}

/// The second of these waiters stands in the backend's queue with the first's grant behind it, and the others in line.
async fn line(world: &World, manager: &Manager, waiters: usize) -> (Guard, Vec<JoinHandle<Guard>>) {
    let first = manager.lock("a").acquire().await.unwrap();
    let mut line = Vec::new();
    for _ in 0..=waiters {
        line.push(acquire(manager.lock("a")));
        world.settle().await;
    }
    first.release().await.unwrap();
    let held = line.remove(0).await.unwrap();
    world.settle().await;
    (held, line)
}

#[tokio::test(start_paused = true)]
async fn no_request_and_a_token_for_each() {
    let world = World::new();
    let ours = manager(&world, ms(5));
    let (mut held, waiters) = line(&world, &ours, 6).await;
    let before = requests(&world.store);
    let mut tokens = vec![held.token()];
    for waiter in waiters {
        held.release().await.unwrap();
        held = waiter.await.unwrap();
        assert!(held.is_held() && held.remaining() > secs(29));
        tokens.push(held.token());
    }
    held.release().await.unwrap();
    // The first of them took its turn; the last gave the lock back.
    let [acquires, releases] = requests(&world.store);
    assert_eq!([acquires - before[0], releases - before[1]], [1, 2]);
    let elsewhere = world.manager().lock("a").try_acquire().await.unwrap().unwrap();
    tokens.push(elsewhere.token());
    assert!(tokens.windows(2).all(|pair| pair[0] < pair[1]), "{tokens:?}");
    drop(elsewhere);
    world.settle().await;
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_elsewhere_is_served_after_the_bound() {
    let world = World::new();
    let ours = manager(&world, ms(5));
    let lock = ours.lock("a").build().unwrap();
    let last = Arc::new(Mutex::new(None::<Token>));
    for _ in 0..8 {
        let (lock, env, last) = (lock.clone(), world.env.clone(), Arc::clone(&last));
        tokio::spawn(async move {
            loop {
                let guard = lock.acquire().await.unwrap();
                assert!(last.lock().unwrap().replace(guard.token()) < Some(guard.token()));
                env.sleep(Duration::from_micros(300)).await;
                guard.release().await.unwrap();
            }
        });
    }
    world.env.sleep(ms(50)).await;
    let theirs = world.manager();
    for _ in 0..100 {
        let start = world.env.now();
        let guard = theirs.lock("a").acquire().await.unwrap();
        let waited = world.env.now().since(start);
        // What is left of the bound, the turn that ends after it, and the one of ours that stood in the queue before.
        assert!(waited <= ms(6), "{waited:?}");
        assert!(last.lock().unwrap().replace(guard.token()) < Some(guard.token()));
        guard.release().await.unwrap();
        world.env.sleep(ms(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_passed_over_who_waits_elsewhere() {
    let world = World::new();
    let (ours, theirs) = (manager(&world, ms(5)), world.manager());
    let (held, waiters) = line(&world, &ours, 3).await;
    let elsewhere = acquire(theirs.lock("a"));
    world.settle().await;
    held.release().await.unwrap();
    let mut waiters = waiters.into_iter();
    // This one stood in the queue before; those behind it did not.
    waiters.next().unwrap().await.unwrap().release().await.unwrap();
    let elsewhere = elsewhere.await.unwrap();
    let mut waiters: Vec<_> = waiters.collect();
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()));
    elsewhere.release().await.unwrap();
    for waiter in waiters.drain(..) {
        waiter.await.unwrap().release().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn who_holds_it_for_longer_lets_the_line_ask() {
    let world = World::new();
    let ours = manager(&world, ms(5));
    let (held, mut waiters) = line(&world, &ours, 2).await;
    held.release().await.unwrap();
    let held = waiters.remove(0).await.unwrap();
    world.env.sleep(ms(4)).await;
    let status = ours.lock("a").inspect().await.unwrap();
    assert_eq!(status.waiters, 0);
    world.env.sleep(ms(2)).await;
    let status = ours.lock("a").inspect().await.unwrap();
    assert_eq!(status.waiters, 1);
    // In the order of their arrival all the same.
    let elsewhere = acquire(world.manager().lock("a"));
    world.settle().await;
    held.release().await.unwrap();
    let next = waiters.remove(0).await.unwrap();
    assert!(!elsewhere.is_finished());
    drop(next);
    drop(elsewhere.await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_is_dropped_passes_it_on() {
    let world = World::new();
    let ours = manager(&world, ms(5));
    let (held, mut waiters) = line(&world, &ours, 4).await;
    held.release().await.unwrap();
    let held = waiters.remove(0).await.unwrap();
    // One is dropped with the lease in its hands, before it could look; one while it stands in line.
    drop(held);
    waiters.remove(0).abort();
    waiters.remove(0).abort();
    let before = requests(&world.store);
    let last = waiters.remove(0).await.unwrap();
    assert!(last.is_held());
    assert_eq!(requests(&world.store), before);
    last.release().await.unwrap();
    world.env.sleep(ms(10)).await;
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn only_to_somebody_who_asked_for_the_same() {
    let world = World::new();
    let ours = manager(&world, ms(5));
    let same = || ours.lock("a");
    for other in [
        same().ttl(secs(10)),
        same().label("other"),
        same().auto_renew(false),
        same().max_hold(secs(5)),
    ] {
        let (held, mut waiters) = line(&world, &ours, 1).await;
        let label = format!("{other:?}");
        let other = acquire(other);
        world.settle().await;
        held.release().await.unwrap();
        let held = waiters.remove(0).await.unwrap();
        let before = requests(&world.store);
        held.release().await.unwrap();
        let other = other.await.unwrap();
        let [acquires, releases] = requests(&world.store);
        assert!(acquires > before[0] && releases > before[1], "{label}");
        other.release().await.unwrap();
        world.env.sleep(ms(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn not_at_all_when_it_is_off() {
    let world = World::new();
    let ours = manager(&world, Duration::ZERO);
    let (mut held, waiters) = line(&world, &ours, 5).await;
    let before = requests(&world.store);
    for waiter in waiters {
        held.release().await.unwrap();
        held = waiter.await.unwrap();
    }
    held.release().await.unwrap();
    assert_eq!(requests(&world.store)[1] - before[1], 6);
}

#[tokio::test(start_paused = true)]
async fn the_next_holder_is_renewed_and_told_of_a_loss() {
    let world = World::new();
    let ours = manager(&world, ms(5));
    let (held, mut waiters) = line(&world, &ours, 2).await;
    held.release().await.unwrap();
    let held = waiters.remove(0).await.unwrap();
    let old = held.lost();
    held.release().await.unwrap();
    let held = waiters.remove(0).await.unwrap();
    world.env.sleep(secs(120)).await;
    assert!(held.is_held() && world.store.calls(Call::Renew) > 5);
    held.renew().await.unwrap();
    world.store.steal("a", secs(1)).unwrap();
    assert_eq!(held.lost().await, LossReason::Revoked);
    // Whoever had it before is not concerned.
    assert!(tokio::time::timeout(secs(60), old).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn close_ends_it() {
    let world = World::new();
    let ours = manager(&world, ms(5));
    let lock: Lock = ours.lock("a").build().unwrap();
    let tasks: Vec<_> = (0..6)
        .map(|_| {
            let (lock, env) = (lock.clone(), world.env.clone());
            tokio::spawn(async move {
                while let Ok(guard) = lock.acquire().await {
                    env.sleep(Duration::from_micros(10)).await;
                    drop(guard);
                }
            })
        })
        .collect();
    world.env.sleep(ms(30)).await;
    ours.close().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(world.store.resources(), 0);
}
