use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, LockBuilder, LockManager, LossReason, Release};

use crate::{World, ms, secs};

#[tokio::test(start_paused = true)]
async fn waiters_are_told() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let _guard = theirs.lock("a").acquire().await.unwrap();
    let waiters: Vec<_> = (0..3)
        .map(|_| {
            let lock = ours.lock("a").build().unwrap();
            tokio::spawn(async move { lock.acquire().await })
        })
        .collect();
    world.settle().await;
    ours.close().await.unwrap();
    for waiter in waiters {
        assert_eq!(waiter.await.unwrap().unwrap_err().kind(), ErrorKind::Closed);
    }
    assert_eq!(
        ours.lock("a").acquire().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(
        ours.lock("a").try_acquire().await.unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(theirs.lock("a").inspect().await.unwrap().waiters, 0);
}

/// On a busy runtime the waiter is told when the manager is closed already.
#[tokio::test(start_paused = true)]
async fn waiters_leave_before_the_backend_is_left() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let _guard = theirs.lock("a").acquire().await.unwrap();
    let mut waiting = Box::pin(ours.lock("a").acquire());
    assert!(world.env.timeout(ms(10), &mut waiting).await.is_none());
    let closing = tokio::spawn({
        let manager = ours.clone();
        async move { manager.close().await }
    });
    world.settle().await;
    assert!(!closing.is_finished());
    assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Closed);
    closing.await.unwrap().unwrap();
    assert_eq!(theirs.lock("a").inspect().await.unwrap().waiters, 0);
}

#[tokio::test(start_paused = true)]
async fn held_locks_have_time_to_be_released() {
    let world = World::new();
    let manager = world.manager();
    let guard = manager.lock("a").ttl(secs(1)).acquire().await.unwrap();
    let closing = tokio::spawn({
        let manager = manager.clone();
        async move { manager.close().await }
    });
    world.env.sleep(secs(3)).await;
    assert!(guard.is_held(), "renewed while the manager drains");
    assert!(!closing.is_finished());
    guard.release().await.unwrap();
    world.settle().await;
    closing.await.unwrap().unwrap();
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_release_under_way_is_answered_before_the_backend_is_left() {
    let world = World::new();
    let manager = world.manager();
    let [dropped, released] = [manager.lock("a"), manager.lock("b")].map(LockBuilder::acquire);
    let (dropped, released) = (dropped.await.unwrap(), released.await.unwrap());
    world.store.set_latency(ms(100), ms(100));
    let releasing = tokio::spawn(released.release());
    drop(dropped);
    manager.close().await.unwrap();
    assert_eq!(world.store.resources(), 0);
    assert!(releasing.is_finished());
    assert_eq!(releasing.await.unwrap().unwrap(), Release::Released);
}

#[tokio::test(start_paused = true)]
async fn what_is_held_too_long_is_taken_back() {
    let world = World::new();
    let manager = world.manager();
    let guard = manager.lock("a").acquire().await.unwrap();
    let start = world.env.now();
    manager.close().await.unwrap();
    let took = world.env.now().since(start);
    assert!(took >= secs(5) && took < secs(5) + ms(10), "{took:?}");
    assert!(!guard.is_held());
    assert_eq!(guard.lost().await, LossReason::Closed);
    assert_eq!(world.store.resources(), 0);
    manager.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dead_backend_does_not_hold_it_up() {
    let world = World::new();
    let manager = world.manager();
    drop(manager.lock("a").acquire().await.unwrap());
    let _guard = manager.lock("b").acquire().await.unwrap();
    world.store.partition(true);
    let start = world.env.now();
    let closed = manager.close().await;
    assert!(closed.is_ok() || closed.unwrap_err().kind() == ErrorKind::Unavailable);
    assert!(world.env.now().since(start) <= secs(30));
}

#[tokio::test(start_paused = true)]
async fn clean_up_is_finished_first() {
    let world = World::new();
    let manager = world.manager();
    let guard = manager.lock("a").acquire().await.unwrap();
    world
        .store
        .script(Call::Release, [Some(Fault::Refuse(ErrorKind::Unavailable)), None]);
    drop(guard);
    manager.close().await.unwrap();
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_dropped_ends_its_tasks() {
    let world = World::new();
    let manager = world.manager();
    let guard = manager.lock("a").acquire().await.unwrap();
    drop(manager);
    world.env.sleep(secs(100)).await;
    assert!(guard.is_held(), "a guard keeps what it needs");
    guard.release().await.unwrap();
    world.settle().await;
    assert_eq!(world.env.tasks().len(), 0);
}
