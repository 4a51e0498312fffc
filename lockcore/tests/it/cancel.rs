//! Futures dropped at every poll.
#![expect(clippy::future_not_send, reason = "polled by hand on one thread")]

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use lockcore::LockManager;
use lockcore::memory::{Call, Fault};

use crate::{World, ms, secs};

/// Polls `future` up to `polls` times, a little virtual time apart, then drops it; true when it was done.
async fn poll_times<F: Future>(world: &World, future: F, polls: usize) -> bool {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        if future.as_mut().poll(&mut context).is_ready() {
            return true;
        }
        world.env.sleep(ms(1)).await;
    }
    false
}

/// Drops the future that `start` makes after 0, 1, 2, .. polls, until it is done before that; `after` looks at the
/// world each time.
async fn at_every_poll<F: Future>(latency: Duration, held: bool, start: impl Fn(lockcore::Lock) -> F + Copy) {
    for polls in 0..200 {
        let world = World::new();
        world.store.set_latency(latency, latency);
        let (ours, theirs) = (world.manager(), world.manager());
        let guard = if held {
            Some(theirs.lock("a").acquire().await.unwrap())
        } else {
            None
        };
        let lock = ours.lock("a").build().unwrap();
        let done = if let Some(guard) = guard {
            // The lock becomes free in the middle of the wait.
            let env = world.env.clone();
            let release = tokio::spawn(async move {
                env.sleep(ms(20)).await;
                guard.release().await.unwrap();
            });
            let done = poll_times(&world, start(lock), polls).await;
            release.await.unwrap();
            done
        } else {
            poll_times(&world, start(lock), polls).await
        };
        world.env.sleep(secs(1)).await;
        assert_eq!(world.store.resources(), 0, "dropped after {polls} polls");
        let next = world
            .env
            .timeout(ms(50), Box::pin(theirs.lock("a").acquire()))
            .await;
        assert!(
            next.is_some_and(|next| next.is_ok()),
            "dropped after {polls} polls"
        );
        if done {
            assert!(polls > 1, "it never waited");
            return;
        }
    }
    panic!("never done");
}

#[tokio::test(start_paused = true)]
async fn acquire_of_a_free_lock() {
    at_every_poll(
        ms(3),
        false,
        |lock| async move { drop(lock.acquire().await.unwrap()) },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn try_acquire_of_a_free_lock() {
    at_every_poll(ms(3), false, |lock| async move {
        drop(lock.try_acquire().await.unwrap())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn acquire_of_a_held_lock() {
    at_every_poll(
        ms(3),
        true,
        |lock| async move { drop(lock.acquire().await.unwrap()) },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn acquire_and_release() {
    let start = |lock: lockcore::Lock| async move { lock.acquire().await.unwrap().release().await.unwrap() };
    at_every_poll(ms(3), false, start).await;
    at_every_poll(ms(3), true, start).await;
}

#[tokio::test(start_paused = true)]
async fn renewal_by_hand() {
    let start = |lock: lockcore::Lock| async move {
        let guard = lock.acquire().await.unwrap();
        guard.renew().await.unwrap();
        guard.renew_for(secs(1)).await.unwrap();
    };
    at_every_poll(ms(3), false, start).await;
}

#[tokio::test(start_paused = true)]
async fn a_thousand_cancelled_waiters_leave_nothing() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let guard = theirs.lock("a").acquire().await.unwrap();
    let waiting = (0..1000).map(|_| ours.lock("a").acquire());
    let waiting = Box::pin(futures_util::future::join_all(waiting));
    assert!(world.env.timeout(secs(1), waiting).await.is_none());
    world.settle().await;
    assert_eq!(guard_status(&theirs).await, (1, 0));
    guard.release().await.unwrap();
    assert_eq!(world.store.resources(), 0);
}

async fn guard_status(manager: &lockcore::Manager) -> (usize, u64) {
    let status = manager.lock("a").inspect().await.unwrap();
    (status.holders.len(), status.waiters)
}

/// It is applied after the release that was to undo it.
#[tokio::test(start_paused = true)]
async fn a_request_that_arrives_after_its_release_leaves_nothing() {
    let world = World::new();
    let manager = world.manager();
    world
        .store
        .script(Call::Acquire, [Some(Fault::DelayRequest(secs(10)))]);
    let lock = manager.lock("a").ttl(secs(60)).build().unwrap();
    assert!(!poll_times(&world, lock.acquire(), 2).await);
    world.env.sleep(secs(9)).await;
    assert_eq!(
        world.store.calls(Call::Release),
        1,
        "nobody waits for it that long"
    );
    world.env.sleep(secs(2)).await;
    assert_eq!(world.store.resources(), 0);
    assert_eq!(world.store.calls(Call::Release), 2);
}
