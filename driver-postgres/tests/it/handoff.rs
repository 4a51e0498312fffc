//! Who comes next, and how soon.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_driver_postgres::PostgresLockManager;
use lockcore::LockManager;
use lockcore::driver::{Driver, Intent, Released};

use crate::support::{Admin, WAIT, busy, claim, driver, enqueue, granted, own};

#[tokio::test]
async fn a_queue_is_served_in_order_and_not_overtaken() {
    let server = own().await;
    let (one, two) = (driver(&server).await, driver(&server).await);
    let holder = claim("line");
    granted(one.acquire(&holder, Intent::Try).await);
    let queue = enqueue(&two, "line", 3).await;
    one.release(&holder).await.unwrap();
    let barger = busy(one.acquire(&claim("line"), Intent::Try).await);
    assert!(barger.reserved.is_some());
    assert_eq!(busy(two.acquire(&queue[1], WAIT).await).ahead, Some(1));
    let mut last = granted(two.acquire(&queue[0], WAIT).await);
    for pair in queue.windows(2) {
        assert_eq!(two.release(&pair[0]).await.unwrap(), Released::Released);
        let token = granted(two.acquire(&pair[1], WAIT).await);
        assert!(token > last);
        last = token;
    }
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn dead_processes_in_a_row_cost_nothing() {
    let server = own().await;
    let (one, two) = (driver(&server).await, driver(&server).await);
    let mut admin = Admin::new(&server).await;
    let holder = claim("dead");
    granted(one.acquire(&holder, Intent::Try).await);
    for _ in 0..3 {
        enqueue(&two, "dead", 1).await;
    }
    // As if each had been a process of its own that was killed.
    admin.run("UPDATE leasehold.waiter SET wake = ticket").await;
    let live = enqueue(&one, "dead", 1).await;
    one.release(&holder).await.unwrap();
    granted(one.acquire(&live[0], WAIT).await);
    assert_eq!(admin.number("SELECT count(*) FROM leasehold.waiter").await, 0);
    // A try does not have to respect them either.
    one.release(&live[0]).await.unwrap();
    granted(one.acquire(&holder, Intent::Try).await);
    enqueue(&two, "dead", 1).await;
    admin
        .run("UPDATE leasehold.waiter SET wake = ticket; UPDATE leasehold.lock SET expires = now()")
        .await;
    granted(one.acquire(&claim("dead"), Intent::Try).await);
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test]
async fn stopped_waiters_cost_a_window_each() {
    let server = own().await;
    let (one, two) = (driver(&server).await, driver(&server).await);
    let holder = claim("stopped");
    granted(one.acquire(&holder, Intent::Try).await);
    // They listen, and claim nothing.
    enqueue(&two, "stopped", 3).await;
    let manager = PostgresLockManager::connect(server.url()).await.unwrap();
    let lock = manager.lock("stopped").wait(Duration::from_secs(20));
    let waits = tokio::spawn(async move { lock.acquire().await });
    crate::support::eventually("it stands in the queue", async || {
        one.inspect(&holder.resource).await.unwrap().waiters == 4
    })
    .await;
    let start = Instant::now();
    one.release(&holder).await.unwrap();
    let guard = waits.await.unwrap().unwrap();
    let took = start.elapsed();
    assert!(took > Duration::from_millis(1_150), "{took:?}");
    assert!(took < Duration::from_millis(2_500), "{took:?}");
    guard.release().await.unwrap();
    manager.close().await.unwrap();
    one.close().await.unwrap();
    two.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_offs_are_quick() {
    let server = own().await;
    for managers in [1, 16] {
        let mut all = Vec::new();
        for _ in 0..managers {
            all.push(Arc::new(
                PostgresLockManager::connect(server.url()).await.unwrap(),
            ));
        }
        let name = format!("quick-{managers}");
        let last = Arc::new(std::sync::Mutex::new(None::<Instant>));
        let mut tasks = Vec::new();
        for task in 0..16 {
            let (manager, last) = (Arc::clone(&all[task % managers]), Arc::clone(&last));
            let lock = manager.lock(&name).wait(Duration::from_secs(60));
            tasks.push(tokio::spawn(async move {
                let mut spans = Vec::new();
                for _ in 0..8 {
                    let guard = lock.clone().acquire().await.unwrap();
                    let now = Instant::now();
                    spans.extend(last.lock().unwrap().map(|last| now - last));
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    *last.lock().unwrap() = Some(Instant::now());
                    guard.release().await.unwrap();
                }
                spans
            }));
        }
        let mut spans = Vec::new();
        for task in tasks {
            spans.extend(task.await.unwrap());
        }
        spans.sort_unstable();
        let (p50, p99) = (spans[spans.len() / 2], spans[spans.len() * 99 / 100]);
        println!("16 tasks of {managers} managers: hand-off p50 {p50:?}, p99 {p99:?}");
        // A lost wake-up would cost a window or a lease.
        assert!(p50 < Duration::from_millis(50), "{p50:?}");
        for manager in all {
            manager.close().await.unwrap();
        }
    }
}
