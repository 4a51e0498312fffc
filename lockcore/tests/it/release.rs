use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, LockManager, Release};

use crate::{World, ms, secs};

#[tokio::test(start_paused = true)]
async fn released_or_not_held() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let guard = ours.lock("a").acquire().await.unwrap();
    assert_eq!(guard.release().await.unwrap(), Release::Released);

    let late = ours
        .lock("a")
        .ttl(secs(1))
        .auto_renew(false)
        .acquire()
        .await
        .unwrap();
    let successor = theirs.lock("a").acquire().await.unwrap();
    assert_eq!(late.release().await.unwrap(), Release::NotHeld);
    assert!(theirs.lock("a").try_acquire().await.unwrap().is_none());
    assert!(successor.is_held());

    world.store.expire_now("a").unwrap();
    assert_eq!(successor.release().await.unwrap(), Release::NotHeld);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_release_can_be_retried() {
    for fault in [
        Fault::Refuse(ErrorKind::Unavailable),
        Fault::LoseReply,
        Fault::SwallowReply,
        Fault::SwallowRequest,
    ] {
        let world = World::new();
        let manager = world.manager();
        let guard = manager.lock("a").acquire().await.unwrap();
        world.store.script(Call::Release, [Some(fault), Some(fault)]);
        let error = guard.release().await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::Unavailable);
        let error = error.retry().await.unwrap_err();
        let released = error.retry().await.unwrap();
        let applied = matches!(fault, Fault::LoseReply | Fault::SwallowReply);
        assert_eq!(
            released,
            if applied {
                Release::NotHeld
            } else {
                Release::Released
            }
        );
        assert_eq!(world.store.resources(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_an_acquire_goes_after_the_release() {
    let world = World::new();
    let manager = world.manager();
    // Given up on after 3 s, and over while the release is under way.
    world
        .store
        .script(Call::Acquire, [Some(Fault::DelayReply(secs(4)))]);
    world
        .store
        .script(Call::Release, [Some(Fault::DelayRequest(secs(2)))]);
    let guard = manager.lock("a").acquire().await.unwrap();
    assert_eq!(guard.release().await.unwrap(), Release::Released);
    world.settle().await;
    assert_eq!(world.store.calls(Call::Release), 2, "one more, for what was late");
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_is_released_in_the_background() {
    let world = World::new();
    let manager = world.manager();
    let guard = manager.lock("a").acquire().await.unwrap();
    world.store.script(
        Call::Release,
        std::iter::repeat_n(Some(Fault::Refuse(ErrorKind::Unavailable)), 5),
    );
    drop(guard.release().await.unwrap_err());
    world.env.sleep(secs(5)).await;
    assert_eq!(world.store.resources(), 0);

    let guard = manager.lock("a").acquire().await.unwrap();
    world
        .store
        .script(Call::Release, std::iter::repeat_n(Some(Fault::SwallowRequest), 2));
    drop(guard);
    world.env.sleep(secs(10)).await;
    assert_eq!(world.store.resources(), 0);
}

#[test]
fn dropped_outside_a_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (guard, store, manager) = runtime.block_on(async {
        let env = lockcore::Env::system();
        let store = lockcore::memory::MemoryStore::new(&env);
        let manager = store.manager(lockcore::Settings::default()).unwrap();
        (manager.lock("a").acquire().await.unwrap(), store, manager)
    });
    drop(guard);
    runtime.block_on(manager.close()).unwrap();
    assert_eq!(store.resources(), 0);
}

#[test]
fn dropped_after_the_runtime() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let guard = runtime.block_on(async {
        let store = lockcore::memory::MemoryStore::new(&lockcore::Env::system());
        let manager = store.manager(lockcore::Settings::default()).unwrap();
        manager.lock("a").ttl(ms(50)).acquire().await.unwrap()
    });
    drop(runtime);
    assert!(guard.is_held());
    std::thread::scope(|scope| scope.spawn(|| drop(guard)).join().unwrap());
}

#[test]
fn types_can_be_sent_and_shared() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<lockcore::Guard>();
    shared::<lockcore::ReleaseError>();
    shared::<lockcore::Error>();
    shared::<lockcore::LockBuilder>();
    shared::<lockcore::Lock>();
    shared::<lockcore::Manager>();
    shared::<std::sync::Arc<dyn LockManager>>();
    shared::<std::sync::Arc<dyn lockcore::DistributedLock>>();
}
