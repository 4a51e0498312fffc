//! What the engine costs in memory, counted by the allocator: on a driver that answers at once.
//!
//! A test binary of its own, since the counting allocator is for the whole process. How long it takes is in
//! `examples/engine.rs`.
#![expect(clippy::unwrap_used, reason = "a failure is a failed test")]

mod null;

use std::future::Future;

use allocation_counter::{AllocationInfo, measure};
use futures_util::FutureExt;
use lockcore::{DEFAULT_TTL, Env, Lock, LockManager, Release};

/// One acquire and one release that nobody disputes, on a lock that was built before.
const MOST_ALLOCATIONS: u64 = 3;
/// One held lock, with its name, its guard and its share of the tables.
const MOST_BYTES: u64 = 1024;
const HELD: u64 = 100_000;

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(future)
}

async fn pair(lock: &Lock) {
    let guard = lock.acquire().await.unwrap();
    guard.release().await.unwrap();
}

/// In one poll, since the driver answers at once.
fn cost(lock: &Lock) -> AllocationInfo {
    measure(|| pair(lock).now_or_never().unwrap())
}

#[test]
fn allocations_of_an_acquire_and_a_release() {
    run(async {
        let manager = null::manager(Env::system()).unwrap();
        let lock = manager.lock("one").build().unwrap();
        for _ in 0..1000 {
            pair(&lock).await;
        }
        let mut worst = 0;
        for _ in 0..1000 {
            // The upkeep and the runtime have their turns outside of the count.
            tokio::task::yield_now().await;
            worst = worst.max(cost(&lock).count_total);
        }
        println!("{worst} allocations, {} bytes", cost(&lock).bytes_total);
        assert!(worst <= MOST_ALLOCATIONS, "{worst} allocations");
    });
}

/// `HELD` locks, kept for so many TTLs.
async fn hold(ttls: u32) {
    let env = Env::virtual_time(1);
    let manager = null::manager(env.clone()).unwrap();
    let mut guards = Vec::new();
    for number in 0..HELD {
        let lock = manager.lock(&format!("orders/{number}"));
        guards.push(lock.acquire().await.unwrap());
    }
    env.sleep(DEFAULT_TTL * ttls).await;
    // Of a guard that is dropped, the release is a task.
    for guard in guards {
        assert_eq!(guard.release().await.unwrap(), Release::Released);
    }
}

/// Also while all of them are renewed at once.
#[test]
fn memory_of_held_locks() {
    let [taken, renewed] = [0, 2].map(|ttls| measure(|| run(hold(ttls))).bytes_max / HELD);
    println!("{taken} bytes at the most when they are taken, {renewed} when they are renewed");
    assert!(taken.max(renewed) <= MOST_BYTES);
}
