//! From a release to the next holder.

use std::path::Path;
use std::time::{Duration, Instant};

use leasehold_driver_sqlite::{SqliteConfig, SqliteLockManager};
use lockcore::driver::Driver;
use lockcore::{Guard, LockManager as _, Settings};

use crate::support::{Ask, Place, WAIT, claim, driver, manager};
use crate::worker::Worker;

/// So long that a test which waits for it fails.
const LONG: Duration = Duration::from_secs(8);
const PROMPT: Duration = Duration::from_secs(3);

async fn take(locks: &SqliteLockManager, name: &str) -> Guard {
    locks
        .lock(name)
        .wait(Duration::from_secs(30))
        .acquire()
        .await
        .unwrap()
}

async fn waiters(locks: &SqliteLockManager, name: &str, count: u64) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while locks.inspect(name).await.unwrap()[0].waiters != count {
        assert!(Instant::now() < deadline, "{count} waiters never came");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_wakes_the_next_one() {
    let place = Place::new();
    let (a, b) = (manager(&place.path, LONG).await, manager(&place.path, LONG).await);
    let mut times = Vec::new();
    for _ in 0..50 {
        let held = take(&a, "q").await;
        let other = b.clone();
        let next = tokio::spawn(async move {
            let guard = take(&other, "q").await;
            (guard, Instant::now())
        });
        waiters(&a, "q", 1).await;
        let start = Instant::now();
        held.release().await.unwrap();
        let (guard, end) = next.await.unwrap();
        times.push(end - start);
        guard.release().await.unwrap();
    }
    times.sort();
    println!(
        "hand-off: median {:?}, 90 % {:?}, worst {:?}",
        times[25], times[45], times[49]
    );
    assert!(times[25] < Duration::from_millis(50), "{times:?}");
    a.close().await.unwrap();
    b.close().await.unwrap();
    assert_eq!(place.sockets(), 0);
}

#[tokio::test]
async fn a_killed_waiter_is_skipped_at_once() {
    let place = Place::new();
    let (a, b) = (manager(&place.path, LONG).await, manager(&place.path, LONG).await);
    let held = take(&a, "q").await;
    let mut dead = Vec::new();
    for place_of in 1..=3 {
        let mut worker = Worker::start("wait", &place.path);
        worker.expect("waiting");
        waiters(&a, "q", place_of).await;
        dead.push(worker);
    }
    let other = b.clone();
    let next = tokio::spawn(async move { take(&other, "q").await });
    waiters(&a, "q", 4).await;
    for worker in &mut dead {
        worker.kill();
    }
    let start = Instant::now();
    held.release().await.unwrap();
    let guard = next.await.unwrap();
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    guard.release().await.unwrap();
    // Their sockets are removed by the next process that comes.
    assert_eq!(place.sockets(), 5);
    manager(&place.path, LONG).await.close().await.unwrap();
    assert_eq!(place.sockets(), 2);
}

#[tokio::test]
async fn a_try_skips_dead_waiters_too() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let holder = claim("q");
    driver.grant(&holder, WAIT).await;
    let mut worker = Worker::start("wait", &place.path);
    worker.expect("waiting");
    while driver.inspect(&holder.resource).await.unwrap().waiters == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    worker.kill();
    driver.free(&holder).await;
    driver.grant(&claim("q"), lockcore::driver::Intent::Try).await;
}

#[tokio::test]
async fn stopped_waiters_cost_the_claim_window() {
    let window = Duration::from_millis(300);
    let place = Place::new();
    let (a, b) = (
        manager(&place.path, window).await,
        manager(&place.path, window).await,
    );
    let held = take(&a, "q").await;
    let mut stopped = Vec::new();
    for count in 1..=2 {
        let mut worker = Worker::start("wait", &place.path);
        worker.expect("waiting");
        waiters(&a, "q", count).await;
        stopped.push(worker);
    }
    let other = b.clone();
    let next = tokio::spawn(async move { take(&other, "q").await });
    waiters(&a, "q", 3).await;
    for worker in &stopped {
        worker.signal("STOP");
    }
    let start = Instant::now();
    held.release().await.unwrap();
    let guard = next.await.unwrap();
    let took = start.elapsed();
    // Two windows, and a third before the last one is asked.
    assert!(took >= 2 * window && took < 3 * window + PROMPT, "{took:?}");
    // Both come back to where they were, one after the other.
    for worker in &stopped {
        worker.signal("CONT");
    }
    guard.release().await.unwrap();
    for worker in &mut stopped {
        worker.expect("got it");
        worker.kill();
        // It holds the lock to the end of its TTL.
        assert!(b.force_release("q").await.unwrap());
    }
}

#[tokio::test]
async fn more_wake_ups_than_the_kernel_keeps() {
    const LOCKS: u64 = 60;
    let place = Place::new();
    let a = manager(&place.path, LONG).await;
    let mut held = Vec::new();
    for number in 0..LOCKS {
        held.push(take(&a, &format!("n{number}")).await);
    }
    let path = place.path.clone();
    let (tell, told) = std::sync::mpsc::channel();
    // A process that is busy with something else while all its waiters are woken.
    let busy = std::thread::spawn(move || waits_while_blocked(&path, LOCKS, &told));
    waiters(&a, "n59", 1).await;
    for number in 0..LOCKS {
        waiters(&a, &format!("n{number}"), 1).await;
    }
    tell.send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let start = Instant::now();
    for guard in held {
        guard.release().await.unwrap();
    }
    assert!(start.elapsed() < Duration::from_secs(2), "released too late");
    let end = busy.join().unwrap();
    assert!(end - start < Duration::from_secs(6), "{:?}", end - start);
}

fn waits_while_blocked(path: &Path, locks: u64, told: &std::sync::mpsc::Receiver<()>) -> Instant {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let b = manager(path, LONG).await;
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..locks {
            let b = b.clone();
            waiting.spawn(async move { take(&b, &format!("n{number}")).await });
        }
        while told.try_recv().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        std::thread::sleep(Duration::from_secs(2));
        waiting.join_all().await;
        Instant::now()
    })
}

#[tokio::test]
async fn a_forced_release_is_told_to_the_holder() {
    let place = Place::new();
    let (a, b) = (manager(&place.path, LONG).await, manager(&place.path, LONG).await);
    let held = take(&a, "q").await;
    let start = Instant::now();
    assert!(b.force_release("q").await.unwrap());
    held.lost().await;
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket() {
    let place = Place::new();
    let deep = place
        .folder()
        .join("a".repeat(100))
        .join("b".repeat(100))
        .join("c".repeat(100));
    let path = deep.join("locks.db");
    let (a, b) = (manager(&path, LONG).await, manager(&path, LONG).await);
    let held = take(&a, "q").await;
    let other = b.clone();
    let next = tokio::spawn(async move { take(&other, "q").await });
    waiters(&a, "q", 1).await;
    let start = Instant::now();
    held.release().await.unwrap();
    next.await.unwrap().release().await.unwrap();
    if cfg!(target_os = "linux") {
        assert_eq!(a.capabilities().wake_up, lockcore::WakeUp::Push);
    }
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
    a.close().await.unwrap();
    b.close().await.unwrap();
    assert_eq!(std::fs::read_dir(deep.join("locks.db-wake")).unwrap().count(), 0);
}

#[tokio::test]
async fn without_sockets_waiters_ask() {
    let place = Place::new();
    // Where the folder should be is a file.
    std::fs::write(place.folder().join("locks.db-wake"), "").unwrap();
    let config = SqliteConfig::new(&place.path).unwrap();
    let b = SqliteLockManager::from_config(config, Settings::default())
        .await
        .unwrap();
    assert!(matches!(b.capabilities().wake_up, lockcore::WakeUp::Poll { .. }));
    let a = manager(&place.path, LONG).await;
    let held = take(&a, "q").await;
    let other = b.clone();
    let next = tokio::spawn(async move { take(&other, "q").await });
    waiters(&a, "q", 1).await;
    let start = Instant::now();
    held.release().await.unwrap();
    next.await.unwrap().release().await.unwrap();
    assert!(start.elapsed() < PROMPT, "{:?}", start.elapsed());
}
