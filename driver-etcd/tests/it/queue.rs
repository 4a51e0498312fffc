//! Who comes next, and who is passed over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold_conformance::servers::Server;
use leasehold_driver_etcd::EtcdDriver;
use lockcore::driver::{Acquired, Intent};
use lockcore::{Claim, Driver, ErrorKind, LockManager};

use crate::support::{
    Admin, WAIT, busy, claim, connect, driver, enqueue, eventually, granted, manager, resource, shared,
    unique,
};

const WINDOW: Duration = Duration::from_millis(400);

/// Asks when the driver says so until the lock is had; how long that took.
async fn insists(driver: &EtcdDriver, claim: &Claim, mut intent: Intent) -> Duration {
    let start = Instant::now();
    loop {
        match driver.acquire(claim, intent).await.unwrap() {
            Acquired::Granted(_) => return start.elapsed(),
            Acquired::Busy(busy) => {
                intent = Intent::Wait { ticket: busy.ticket };
                let pause = busy.free_in.or(busy.reserved).unwrap_or(WINDOW / 4);
                tokio::time::sleep(pause.max(Duration::from_millis(1))).await;
            }
            _ => panic!("no answer"),
        }
    }
}

/// Waiters that never claim, as dead or stopped processes whose session lives on; how long the one behind them waits.
async fn behind(server: &Server, dead: usize) -> Duration {
    let (ours, theirs, name) = (driver(server).await, driver(server).await, unique("dead"));
    let holder = claim(&name);
    granted(ours.acquire(&holder, Intent::Try).await);
    for _ in 0..dead {
        enqueue(&theirs, &name).await;
    }
    let (waiter, place) = enqueue(&ours, &name).await;
    ours.release(&holder).await.unwrap();
    let took = insists(&ours, &waiter, place).await;
    assert_eq!(
        Admin::new(server).await.keys(&name).await.len(),
        1,
        "they are gone"
    );
    took
}

#[tokio::test]
async fn dead_waiters_cost_a_window_each() {
    let server = shared().await;
    for dead in [0, 1, 3, 4] {
        let took = behind(server, dead).await;
        let windows = WINDOW * u32::try_from(dead).unwrap();
        assert!(
            took >= windows.saturating_sub(Duration::from_millis(50)),
            "{dead}: {took:?}"
        );
        assert!(took < windows + Duration::from_millis(300), "{dead}: {took:?}");
    }
}

/// The same by way of managers: nobody asks but those who are told to.
#[tokio::test]
async fn three_dead_waiters_in_a_row_delay_a_living_one_by_three_windows() {
    let server = shared().await;
    let (ours, theirs, name) = (manager(server).await, manager(server).await, unique("row"));
    let guard = ours.lock(&name).acquire().await.unwrap();
    let dead = driver(server).await;
    for _ in 0..3 {
        enqueue(&dead, &name).await;
    }
    let waiting = tokio::spawn({
        let (theirs, name) = (theirs.clone(), name.clone());
        async move { theirs.lock(&name).wait(Duration::from_secs(20)).acquire().await }
    });
    let admin = Admin::new(server).await;
    eventually("it waits", || async { admin.keys(&name).await.len() == 5 }).await;
    // Long enough for its watch to be there.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    guard.release().await.unwrap();
    waiting.await.unwrap().unwrap().release().await.unwrap();
    let took = start.elapsed();
    assert!(
        took > WINDOW * 5 / 2 && took < WINDOW * 3 + Duration::from_millis(500),
        "{took:?}"
    );
}

/// Longer rows are got through as well, by those who stand by further behind.
#[tokio::test]
async fn a_long_row_of_dead_waiters_is_got_through() {
    let server = shared().await;
    let (ours, name) = (manager(server).await, unique("long"));
    let guard = ours.lock(&name).acquire().await.unwrap();
    let dead = driver(server).await;
    for _ in 0..9 {
        enqueue(&dead, &name).await;
    }
    let mut waiting = Vec::new();
    for at in 0..4 {
        let (theirs, wanted) = (manager(server).await, name.clone());
        waiting.push(tokio::spawn(async move {
            let got = theirs.lock(&wanted).wait(Duration::from_secs(30)).acquire().await;
            got.unwrap().release().await.unwrap();
        }));
        let admin = Admin::new(server).await;
        eventually("it waits", || async { admin.keys(&name).await.len() == 11 + at }).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let start = Instant::now();
    guard.release().await.unwrap();
    for waiting in waiting {
        waiting.await.unwrap();
    }
    assert!(start.elapsed() < WINDOW * 25, "{:?}", start.elapsed());
}

/// Who was passed over and lives stands in the queue again, behind the others.
#[tokio::test]
async fn who_was_passed_over_comes_back() {
    let server = shared().await;
    let (ours, theirs, name) = (driver(server).await, driver(server).await, unique("slow"));
    let holder = claim(&name);
    granted(ours.acquire(&holder, Intent::Try).await);
    let (slow, place) = enqueue(&theirs, &name).await;
    let (quick, next) = enqueue(&ours, &name).await;
    ours.release(&holder).await.unwrap();
    insists(&ours, &quick, next).await;
    let again = busy(theirs.acquire(&slow, place).await);
    assert_eq!(again.ahead, Some(0));
    assert!(
        again.ticket
            > match place {
                Intent::Wait { ticket } => ticket,
                _ => None,
            }
    );
    ours.release(&quick).await.unwrap();
    let ticket = again.ticket;
    granted(theirs.acquire(&slow, Intent::Wait { ticket }).await);
}

/// One who only tries does not overtake, and is not kept out for ever by a queue of the dead.
#[tokio::test]
async fn a_try_gets_past_the_dead_in_the_end() {
    let server = shared().await;
    let (ours, theirs, name) = (driver(server).await, driver(server).await, unique("try"));
    let holder = claim(&name);
    granted(ours.acquire(&holder, Intent::Try).await);
    enqueue(&theirs, &name).await;
    ours.release(&holder).await.unwrap();
    let reserved = busy(ours.acquire(&claim(&name), Intent::Try).await)
        .reserved
        .unwrap();
    assert!(reserved <= WINDOW && reserved > WINDOW / 2, "{reserved:?}");
    tokio::time::sleep(WINDOW).await;
    granted(ours.acquire(&claim(&name), Intent::Try).await);
}

#[tokio::test]
async fn a_full_queue_is_told() {
    let server = shared().await;
    let name = unique("full");
    let driver = connect(&format!("{}?queue=2", server.url())).await.unwrap();
    granted(driver.acquire(&claim(&name), WAIT).await);
    enqueue(&driver, &name).await;
    enqueue(&driver, &name).await;
    let refused = driver.acquire(&claim(&name), WAIT).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.to_string().contains("queue"), "{refused}");
    assert_eq!(driver.inspect(&resource(&name)).await.unwrap().waiters, 2);
}

/// Sixteen tasks of as many processes at one lock that each holds for ten milliseconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_offs_are_quick() {
    const TASKS: usize = 16;
    const ROUNDS: usize = 8;
    let server = shared().await;
    let name: Arc<str> = unique("busy").into();
    let released = Arc::new(std::sync::Mutex::new((Instant::now(), Vec::new())));
    let mut tasks = Vec::new();
    for _ in 0..TASKS {
        let (locks, name, released) = (manager(server).await, Arc::clone(&name), Arc::clone(&released));
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let guard = locks
                    .lock(&name)
                    .wait(Duration::from_secs(60))
                    .acquire()
                    .await
                    .unwrap();
                {
                    let mut released = released.lock().unwrap();
                    let took = released.0.elapsed();
                    released.1.push(took);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                released.lock().unwrap().0 = Instant::now();
                guard.release().await.unwrap();
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let mut took = released.lock().unwrap().1.clone();
    took.sort_unstable();
    let (middle, most) = (took[took.len() / 2], took[took.len() - 2]);
    println!(
        "hand-off of {} grants: p50 {middle:?}, last but one {most:?}",
        took.len()
    );
    assert!(middle < Duration::from_millis(100), "{middle:?}");
}

/// Far behind, a waiter is told of one key only. Whether those before it leave in order or not, it comes when it is its turn.
#[tokio::test]
async fn who_is_far_behind_comes_in_time() {
    let server = shared().await;
    for in_order in [true, false] {
        let (ours, name) = (driver(server).await, unique("far"));
        let holder = claim(&name);
        granted(ours.acquire(&holder, Intent::Try).await);
        let mut before = Vec::new();
        for _ in 0..150 {
            before.push(enqueue(&ours, &name).await.0);
        }
        let (theirs, wanted) = (manager(server).await, name.clone());
        let waiting = tokio::spawn(async move {
            let got = theirs.lock(&wanted).wait(Duration::from_secs(30)).acquire().await;
            got.unwrap().release().await.unwrap();
        });
        let admin = Admin::new(server).await;
        eventually("it waits", || async { admin.keys(&name).await.len() == 152 }).await;
        if !in_order {
            before.reverse();
        }
        for gone in &before {
            ours.release(gone).await.unwrap();
        }
        let start = Instant::now();
        ours.release(&holder).await.unwrap();
        waiting.await.unwrap();
        // Sooner than its sign of life, which would find out as well.
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
}
