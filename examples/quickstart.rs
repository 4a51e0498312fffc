//! Takes a lock, shows who holds it, works under it, and frees it.
//!
//! `cargo run --example quickstart --features redis -- redis://localhost`; without a URL, in memory.
#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::time::Duration;

use leasehold::{LockManager, Release};

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let locks = leasehold::connect(&url).await?;

    let guard = locks
        .lock("examples/quickstart")
        .ttl(Duration::from_secs(10)) // how long it outlives us if we die; it is renewed while we live
        .wait(Duration::from_secs(5))
        .label("quickstart")
        .acquire()
        .await?;
    println!("locked {} with token {}", guard.name(), guard.token());

    // It is nobody else's meanwhile, not even another task's of this process.
    if locks.lock("examples/quickstart").try_acquire().await?.is_some() {
        return Err("two holders at a time".into());
    }
    for status in locks.inspect("examples/quickstart").await? {
        for holder in &status.holders {
            println!("held by {holder}");
        }
    }

    let answer = guard.protect(work(&*locks)).await??; // the work is dropped when the lock is lost
    println!("the answer is {answer}");

    match guard.release().await? {
        Release::Released => println!("held to the end, and free now"),
        other => return Err(format!("the lock was lost before: {other:?}").into()),
    }
    locks.close().await?;
    Ok(())
}

/// Application code knows `dyn LockManager`, and no backend.
async fn work(locks: &dyn LockManager) -> leasehold::Result<u32> {
    locks.ping().await?;
    Ok(42)
}
