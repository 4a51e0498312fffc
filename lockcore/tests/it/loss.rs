use std::time::Duration;

use lockcore::{ErrorKind, Instant, LockManager, LossReason, local_deadline};

use crate::{World, ms, secs};

#[tokio::test(start_paused = true)]
async fn a_partition_is_noticed_by_the_deadline() {
    for ttl in [ms(50), ms(500), secs(2), secs(30)] {
        let world = World::new();
        let guard = world.manager().lock("a").ttl(ttl).acquire().await.unwrap();
        world.env.sleep(ttl * 5).await;
        world.store.partition(true);
        let start = world.env.now();
        assert_eq!(guard.lost().await, LossReason::Unreachable, "{ttl:?}");
        let took = world.env.now().since(start);
        assert!(
            took <= local_deadline(Instant::from_nanos(0), ttl).since(Instant::from_nanos(0)),
            "{ttl:?}: {took:?}"
        );
        assert!(!guard.is_held());
        world.store.partition(false);
        world.env.sleep(ttl * 3).await;
        assert!(!guard.is_held(), "loss is final");
        assert_eq!(
            guard.lost().await,
            LossReason::Unreachable,
            "a late subscriber is told at once"
        );
        assert_eq!(world.store.resources(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn lost_before_anybody_else_has_it() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let guard = ours
        .lock("a")
        .ttl(secs(2))
        .auto_renew(false)
        .acquire()
        .await
        .unwrap();
    let lock = theirs.lock("a").build().unwrap();
    let next = tokio::spawn(async move { lockcore::DistributedLock::acquire(&lock).await });
    while !next.is_finished() {
        world.env.sleep(ms(1)).await;
    }
    assert!(!guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn a_release_is_no_loss() {
    let world = World::new();
    let guard = world.manager().lock("a").ttl(secs(1)).acquire().await.unwrap();
    let lost = guard.lost();
    guard.release().await.unwrap();
    assert!(world.env.timeout(secs(1000), Box::pin(lost)).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn protect_stops_the_work() {
    let world = World::new();
    let guard = world.manager().lock("a").ttl(secs(1)).acquire().await.unwrap();
    assert_eq!(guard.protect(async { 7 }).await.unwrap(), 7);
    world.store.partition(true);
    let error = guard
        .protect(world.env.sleep(Duration::from_secs(3600)))
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.loss()),
        (ErrorKind::Lost, Some(LossReason::Unreachable))
    );
}

#[tokio::test(start_paused = true)]
async fn nobody_has_to_run_for_is_held() {
    let world = World::new();
    let guard = world.manager().lock("a").ttl(secs(1)).acquire().await.unwrap();
    // No task gets a turn between these two lines, as after a SIGSTOP.
    tokio::time::advance(secs(5)).await;
    assert!(!guard.is_held());
    assert_eq!(guard.remaining(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn with_lock_frees_it_whatever_happens() {
    let world = World::new();
    let manager = world.manager();
    let out: Result<u64, lockcore::Error> = manager.lock("a").with_lock(async |token| token.get()).await;
    assert!(out.unwrap() > 0);
    let panicked = tokio::spawn({
        let builder = manager.lock("a");
        async move { builder.with_lock(async |_| panic!("on purpose")).await }
    });
    assert!(panicked.await.unwrap_err().is_panic());
    let slow = manager
        .lock("a")
        .with_lock(async |_| std::future::pending::<()>().await);
    assert!(world.env.timeout(secs(1), Box::pin(slow)).await.is_none());
    world.settle().await;
    assert_eq!(world.store.resources(), 0);
}
