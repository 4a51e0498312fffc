use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, LockManager, Retry, Wait};

use crate::{World, ms, secs};

#[tokio::test(start_paused = true)]
async fn one_request_each() {
    let world = World::new();
    let manager = world.manager();
    let guard = manager.lock("a").acquire().await.unwrap();
    guard.release().await.unwrap();
    assert_eq!(
        [Call::Acquire, Call::Release].map(|call| world.store.calls(call)),
        [1, 1]
    );
    assert!(manager.lock("a").try_acquire().await.unwrap().is_some());
    assert_eq!(world.store.calls(Call::Acquire), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lock_object_is_not_reentrant() {
    let world = World::new();
    let lock = world.manager().lock("a").build().unwrap();
    let guard = lock.acquire().await.unwrap();
    assert!(lock.try_acquire().await.unwrap().is_none());
    let error = lock.acquire_within(Wait::For(secs(1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.holder().unwrap().token, guard.token());
    assert!(error.to_string().contains("held by"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn waits_are_as_long_as_they_say() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let _guard = ours.lock("a").acquire().await.unwrap();
    for wait in [ms(0), ms(1), ms(250), secs(100)] {
        let start = world.env.now();
        let error = theirs.lock("a").wait(wait).acquire().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        let waited = world.env.now().since(start);
        assert!(
            waited >= wait && waited <= wait + ms(2),
            "{waited:?} for {wait:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_gets_it_at_the_release_and_at_the_expiry() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let guard = ours.lock("a").acquire().await.unwrap();
    let start = world.env.now();
    let (next, ()) = tokio::join!(theirs.lock("a").acquire(), async {
        world.env.sleep(secs(3)).await;
        guard.release().await.unwrap();
    });
    assert!(world.env.now().since(start) < secs(3) + ms(5));
    drop(next);
    let guard = ours
        .lock("a")
        .ttl(secs(2))
        .auto_renew(false)
        .acquire()
        .await
        .unwrap();
    let start = world.env.now();
    let next = theirs.lock("a").acquire().await.unwrap();
    let waited = world.env.now().since(start);
    // At our own deadline we give it up, a drift margin before it would expire.
    assert!(waited >= ms(1980) && waited < secs(2) + ms(50), "{waited:?}");
    assert!(next.token() > guard.token());
    assert!(!guard.is_held());
}

#[tokio::test(start_paused = true)]
async fn bad_input_is_refused_without_a_request() {
    let world = World::new();
    let manager = world.manager();
    let long = "x".repeat(2048);
    for builder in [
        manager.lock(""),
        manager.lock(&long),
        manager.lock("a").ttl(ms(0)),
        manager.lock("a").ttl(std::time::Duration::MAX),
        manager.lock("a").max_hold(ms(0)),
        manager.lock("a").label(""),
        manager.lock("a").label(long.as_str()),
        manager.semaphore("a", 0, 3),
        manager.semaphore("a", 4, 3),
    ] {
        assert_eq!(builder.acquire().await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert_eq!(world.store.calls(Call::Acquire), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_first_request_is_sent_again_with_the_same_id() {
    let world = World::new();
    let manager = world.manager();
    world
        .store
        .script(Call::Acquire, [Some(Fault::LoseReply), Some(Fault::LoseReply)]);
    let guard = manager.lock("a").try_acquire().await.unwrap().unwrap();
    assert_eq!(world.store.calls(Call::Acquire), 3);
    guard.release().await.unwrap();
    world.settle().await;
    assert_eq!(world.store.resources(), 0);

    world.store.script(Call::Acquire, [Some(Fault::LoseReply)]);
    let error = manager.lock("a").retry(Retry::NONE).acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    world.env.sleep(ms(1)).await;
    assert_eq!(
        world.store.resources(),
        0,
        "what may have been granted is released"
    );
}

#[tokio::test(start_paused = true)]
async fn errors_that_no_retry_helps_end_the_wait() {
    let world = World::new();
    let manager = world.manager();
    world
        .store
        .script(Call::Acquire, [Some(Fault::Refuse(ErrorKind::Denied))]);
    assert_eq!(
        manager.lock("a").acquire().await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    assert_eq!(world.store.calls(Call::Acquire), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiter_rides_out_an_outage() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let guard = ours.lock("a").ttl(secs(2)).acquire().await.unwrap();
    let lock = theirs.lock("a").build().unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await });
    world.settle().await;
    world.store.partition(true);
    world.env.sleep(secs(60)).await;
    assert!(!guard.is_held());
    world.store.restart_empty();
    world.store.partition(false);
    let next = waiter.await.unwrap().unwrap();
    assert!(next.token() > guard.token());
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_comes_too_late_is_given_back() {
    let world = World::new();
    let manager = world.manager();
    world
        .store
        .script(Call::Acquire, [Some(Fault::DelayReply(ms(500)))]);
    let error = manager.lock("a").ttl(ms(200)).try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    world.settle().await;
    assert_eq!(world.store.resources(), 0);
    world
        .store
        .script(Call::Acquire, [Some(Fault::DelayReply(ms(500)))]);
    let guard = manager.lock("a").ttl(ms(200)).acquire().await.unwrap();
    assert!(guard.is_held(), "an acquire tries again");
}

#[tokio::test(start_paused = true)]
async fn no_wake_up_no_stall() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    world.store.drop_wake_ups(true);
    let guard = ours.lock("a").ttl(secs(5)).acquire().await.unwrap();
    let lock = theirs.lock("a").build().unwrap();
    let waiter = tokio::spawn(async move { lock.acquire().await });
    world.settle().await;
    let start = world.env.now();
    guard.release().await.unwrap();
    drop(waiter.await.unwrap().unwrap());
    assert!(world.env.now().since(start) <= secs(5) + ms(600));
}
