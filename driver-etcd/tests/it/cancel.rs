//! What is given up leaves nothing.

use std::time::Duration;

use lockcore::LockManager;

use crate::support::{Admin, eventually, manager, own};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cancelled_acquires_leave_nothing() {
    const TIMES: u64 = 1_000;
    let server = own().await;
    let (ours, theirs, admin) = (
        manager(&server).await,
        manager(&server).await,
        Admin::new(&server).await,
    );
    let idle = admin.watches().await;
    let guard = ours.lock("wanted").acquire().await.unwrap();
    for at in 0..TIMES {
        // From before the request is sent to well into the wait; some without renewal, with a lease of their own.
        let lock = theirs.lock("wanted").auto_renew(at % 4 > 0);
        let waiting = lock.wait(Duration::from_secs(30)).acquire();
        let limit = Duration::from_micros(at % 50 * 100);
        assert!(tokio::time::timeout(limit, waiting).await.is_err());
    }
    let alone = || async { admin.keys("wanted").await.len() == 1 };
    eventually("only the holder has a key", alone).await;
    guard.release().await.unwrap();
    for at in 0..TIMES / 10 {
        let taking = theirs.lock("free").auto_renew(at % 4 > 0).try_acquire();
        drop(tokio::time::timeout(Duration::from_micros(at * 20), taking).await);
    }
    eventually("nobody has a key", || async {
        admin.keys("free").await.is_empty()
    })
    .await;
    eventually("their watches are gone", || async {
        admin.watches().await <= idle
    })
    .await;
    // One session each is left, until they close.
    eventually("their leases are gone", || async { admin.leases().await <= 2 }).await;
    theirs.close().await.unwrap();
    ours.close().await.unwrap();
    eventually("all leases are gone", || async { admin.leases().await == 0 }).await;
    eventually("all watches are gone", || async { admin.watches().await == 0 }).await;
}
