//! What operations cost, counted at the server.

use std::time::Duration;

use lockcore::LockManager;
use lockcore::driver::Intent;
use lockcore::{Driver, driver::Released};

use crate::metrics;
use crate::support::{Admin, WAIT, claim, claim_once, driver, eventually, granted, manager, own};

impl Admin {
    /// Requests to the store and for leases, and what was agreed on. Keep-alives and watches are not among them.
    async fn counted(&self) -> (u64, u64) {
        let metrics = self.metrics().await;
        let requests = metrics::sum(&metrics, "grpc_server_msg_received_total", |labels| {
            let ours = ["\"Txn\"", "\"DeleteRange\"", "\"LeaseGrant\"", "\"LeaseRevoke\""];
            ours.iter().any(|method| labels.contains(method))
        });
        let writes = metrics::sum(&metrics, "etcd_server_proposals_committed_total", |_| true);
        (requests, writes)
    }
}

#[tokio::test]
async fn without_contention_one_request_and_one_write() {
    const TIMES: u64 = 20;
    let server = own().await;
    let (driver, admin) = (driver(&server).await, Admin::new(&server).await);
    granted(driver.acquire(&claim("first"), Intent::Try).await);
    for intent in [Intent::Try, WAIT] {
        let claims: Vec<_> = (0..TIMES).map(|at| claim(&format!("lock-{at}"))).collect();
        let before = admin.counted().await;
        for claim in &claims {
            granted(driver.acquire(claim, intent).await);
        }
        let acquired = admin.counted().await;
        for claim in &claims {
            assert_eq!(driver.release(claim).await.unwrap(), Released::Released);
        }
        let released = admin.counted().await;
        assert_eq!((acquired.0 - before.0, acquired.1 - before.1), (TIMES, TIMES));
        assert_eq!((released.0 - acquired.0, released.1 - acquired.1), (TIMES, TIMES));
    }
    // A lease of its own: one more of each.
    let once = claim_once("once", Duration::from_secs(9));
    let before = admin.counted().await;
    granted(driver.acquire(&once, Intent::Try).await);
    let acquired = admin.counted().await;
    driver.release(&once).await.unwrap();
    let released = admin.counted().await;
    assert_eq!((acquired.0 - before.0, acquired.1 - before.1), (2, 2));
    assert_eq!((released.0 - acquired.0, released.1 - acquired.1), (2, 2));
    // A try that is refused changes nothing, but goes the way of a transaction that may.
    let before = admin.counted().await;
    driver.acquire(&claim("first"), Intent::Try).await.unwrap();
    let refused = admin.counted().await;
    assert_eq!((refused.0 - before.0, refused.1 - before.1), (1, 1));
}

/// Queueing, a second look at most, claiming, releasing: however many wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_contention_the_same_for_2_16_and_128() {
    let server = own().await;
    let admin = Admin::new(&server).await;
    let mut crowd = Vec::new();
    for _ in 0..128 {
        let locks = manager(&server).await;
        let warm = locks.lock("warm-up").wait(Duration::from_secs(9)).acquire().await;
        warm.unwrap().release().await.unwrap();
        crowd.push(locks);
    }
    let mut each = Vec::new();
    for waiters in [2_usize, 16, 128] {
        let name = format!("wanted-by-{waiters}");
        let holder = driver(&server).await;
        let held = claim(&name);
        granted(holder.acquire(&held, Intent::Try).await);
        let before = admin.counted().await;
        let mut tasks = Vec::new();
        for locks in crowd.iter().take(waiters) {
            let (locks, name) = (locks.clone(), name.clone());
            tasks.push(tokio::spawn(async move {
                let got = locks.lock(&name).wait(Duration::from_secs(60)).acquire().await;
                got.unwrap().release().await.unwrap();
            }));
        }
        eventually("all of them wait", || async {
            admin.keys(&name).await.len() == waiters + 1
        })
        .await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        holder.release(&held).await.unwrap();
        for task in tasks {
            task.await.unwrap();
        }
        let after = admin.counted().await;
        let count = u64::try_from(waiters).unwrap();
        // Not the holder's own release.
        let (requests, writes) = (after.0 - before.0 - 1, after.1 - before.1 - 1);
        println!("{waiters} waiters: {requests} requests, {writes} writes");
        assert!(requests <= 6 * count + 4, "{requests} requests for {count}");
        assert!(writes <= 3 * count + 2, "{writes} writes for {count}");
        each.push(requests * 10 / count);
    }
    // On a machine that is slow some stand by for long enough to look.
    assert!(each[2] <= each[1] + 20, "tenths of a request each: {each:?}");
}
