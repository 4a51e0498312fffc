use lockcore::{ErrorKind, LockManager};

use crate::{World, ms};

#[tokio::test(start_paused = true)]
async fn readers_share_and_writers_do_not() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let readers = [
        ours.read_lock("a").acquire().await.unwrap(),
        theirs.read_lock("a").acquire().await.unwrap(),
        ours.read_lock("a").try_acquire().await.unwrap().unwrap(),
    ];
    assert!(theirs.write_lock("a").try_acquire().await.unwrap().is_none());
    let lock = theirs.write_lock("a").build().unwrap();
    let writer = tokio::spawn(async move { lock.acquire().await.unwrap() });
    world.settle().await;
    assert!(
        ours.read_lock("a").try_acquire().await.unwrap().is_none(),
        "a waiting writer comes first"
    );
    let token = readers.iter().map(lockcore::Guard::token).max().unwrap();
    drop(readers);
    let writer = writer.await.unwrap();
    assert!(writer.token() > token);
    assert!(ours.read_lock("a").try_acquire().await.unwrap().is_none());
    assert!(
        ours.lock("a").try_acquire().await.unwrap().is_some(),
        "a mutex of that name is another lock"
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_of_readers_goes_in_together() {
    let world = World::new();
    let writer = world.manager().write_lock("a").acquire().await.unwrap();
    let readers: Vec<_> = (0..5)
        .map(|_| {
            let lock = world.manager().read_lock("a").build().unwrap();
            tokio::spawn(async move { lock.acquire().await.unwrap() })
        })
        .collect();
    world.settle().await;
    let start = world.env.now();
    writer.release().await.unwrap();
    let guards = futures_util::future::join_all(readers).await;
    assert_eq!(guards.len(), 5);
    assert!(world.env.now().since(start) < ms(5));
}

#[tokio::test(start_paused = true)]
async fn permits_all_or_none() {
    let world = World::new();
    let manager = world.manager();
    let three = manager.semaphore("a", 3, 5).acquire().await.unwrap();
    assert!(
        manager
            .semaphore("a", 3, 5)
            .try_acquire()
            .await
            .unwrap()
            .is_none()
    );
    let two = manager.semaphore("a", 2, 5).try_acquire().await.unwrap().unwrap();
    assert_eq!((three.weight(), two.weight()), (3, 2));
    assert!(
        manager
            .semaphore("a", 1, 5)
            .try_acquire()
            .await
            .unwrap()
            .is_none()
    );
    let error = manager.semaphore("a", 1, 6).try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    drop((two, three));
    world.settle().await;
    assert!(
        manager
            .semaphore("a", 6, 6)
            .try_acquire()
            .await
            .unwrap()
            .is_some(),
        "the size can change while it is idle"
    );
}
