//! Work as a closure under a lock: freed however the work ends, and stopped when the lock is lost.
//!
//! `cargo run --example with_lock --features redis -- redis://localhost`; without a URL, in memory.
#![expect(clippy::print_stdout, reason = "it shows what it does")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use leasehold::ErrorKind;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let locks = leasehold::connect(&url).await?;
    let lock = || locks.lock("examples/with_lock").ttl(Duration::from_secs(2));

    // The output of the work is the output.
    let double = lock().with_lock(|token| async move { token.get() * 2 }).await?;
    println!("twice the token is {double}");

    // Work that fails, and a lock that cannot be had, are two kinds of failure.
    let failed: Result<(), String> = lock().with_lock(|_| async { Err("no paper".to_owned()) }).await?;
    println!("the work said {failed:?}, and the lock is free again");

    // Four at once, one at a time: a plain read and write in between loses nothing.
    let counter = AtomicU32::new(0);
    let increment = || {
        lock().with_lock(|_| async {
            let seen = counter.load(Ordering::Relaxed);
            tokio::task::yield_now().await;
            counter.store(seen + 1, Ordering::Relaxed);
        })
    };
    let (a, b, c, d) = tokio::join!(increment(), increment(), increment(), increment());
    [a, b, c, d].into_iter().collect::<leasehold::Result<()>>()?;
    if counter.into_inner() != 4 {
        return Err("an increment was lost".into());
    }

    // Somebody who knows better takes the lock away: the work is dropped where it stands.
    let stopped = lock()
        .with_lock(|_| async {
            locks.force_release("examples/with_lock").await?;
            std::future::pending::<leasehold::Result<()>>().await
        })
        .await;
    match stopped {
        Err(error) if error.kind() == ErrorKind::Lost => println!("stopped: {error}"),
        other => return Err(format!("the work outlived its lock: {other:?}").into()),
    }
    locks.close().await?;
    Ok(())
}
