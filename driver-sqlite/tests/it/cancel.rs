//! Calls that are dropped midway.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use lockcore::driver::{Driver, Intent, Released};

use crate::support::{Ask, Place, WAIT, claim, driver, resource};

/// Polls `future` `times` times, a moment apart, and drops it.
async fn drop_after(future: impl Future, times: u32) -> bool {
    let mut future = pin!(future);
    for _ in 0..times {
        if future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_ready()
        {
            return true;
        }
        tokio::time::sleep(Duration::from_micros(u64::from(times) * 20)).await;
    }
    false
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_after_a_dropped_acquire_leaves_nothing() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let mut finished = 0;
    for round in 0..200 {
        let (name, times) = (format!("n{}", round % 3), round % 8);
        let dropped = claim(&name);
        let intent = if round % 2 == 0 { WAIT } else { Intent::Try };
        finished += u32::from(drop_after(driver.acquire(&dropped, intent), times).await);
        driver.release(&dropped).await.unwrap();
        let left = driver.inspect(&resource(&name)).await.unwrap();
        assert!(left.holders.is_empty() && left.waiters == 0, "{round}: {left:?}");
        driver.free_after_grant(&name).await;
    }
    println!("{finished} of 200 had ended before they were dropped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_release_is_done() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    for times in 1..20 {
        let held = claim("a");
        driver.grant(&held, Intent::Try).await;
        drop_after(driver.release(&held), times).await;
        // Behind the dropped one, in order.
        assert_eq!(driver.release(&held).await.unwrap(), Released::NotHeld);
    }
}

trait GrantAndFree {
    async fn free_after_grant(&self, name: &str);
}

impl GrantAndFree for leasehold_driver_sqlite::SqliteDriver {
    async fn free_after_grant(&self, name: &str) {
        let claim = claim(name);
        self.grant(&claim, Intent::Try).await;
        self.free(&claim).await;
    }
}
