//! A worker that is told to stop: it finishes what it is at, frees its locks, and leaves nothing for others to wait for.
//!
//! It stops on Ctrl-C, or by itself after half a second.
//! `cargo run --example graceful_shutdown --features redis -- redis://localhost`; without a URL, in memory.
#![expect(clippy::print_stdout, reason = "it shows what it does")]
#![expect(clippy::disallowed_methods, reason = "it lives in real time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use leasehold::{ErrorKind, LockManager};
use tokio::sync::watch;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "memory:".into());
    let locks = leasehold::connect(&url).await?;
    let (stop, stopping) = watch::channel(false);

    let workers: Vec<_> = (0..4)
        .map(|worker| tokio::spawn(work(worker, Arc::clone(&locks), stopping.clone())))
        .collect();
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        () = tokio::time::sleep(Duration::from_millis(500)) => {}
    }
    println!("stopping");
    let asked = Instant::now();
    stop.send(true)?;

    // Refuses new locks, ends the waits, and gives held ones the time that the setting `drain` says.
    locks.close().await?;
    let mut steps = 0;
    for worker in workers {
        steps += worker.await??;
    }
    println!("{steps} steps; stopped in {:?}", asked.elapsed());
    if steps == 0 || asked.elapsed() > Duration::from_secs(5) {
        return Err("that was no orderly end".into());
    }

    // In memory the store went with its manager; elsewhere the next process finds the lock free.
    let next = leasehold::connect(&url).await?;
    let guard = next.lock("examples/graceful_shutdown").try_acquire().await?;
    let guard = guard.ok_or("the lock is still held")?;
    let _freed = guard.release().await?;
    next.close().await?;
    Ok(())
}

/// Takes the lock for one step at a time. All four wait for each other most of the time.
async fn work(worker: u32, locks: Arc<dyn LockManager>, stopping: watch::Receiver<bool>) -> Result<u32> {
    let mut steps = 0;
    while !*stopping.borrow() {
        let guard = match locks.lock("examples/graceful_shutdown").acquire().await {
            Ok(guard) => guard,
            // Closed while we waited: there is no place in a queue left behind.
            Err(error) if error.kind() == ErrorKind::Closed => break,
            Err(error) => return Err(error.into()),
        };
        // The step under way is finished under the lock, or dropped if it is lost.
        guard
            .protect(tokio::time::sleep(Duration::from_millis(20)))
            .await?;
        steps += 1;
        let _freed = guard.release().await?;
    }
    println!("worker {worker}: {steps} steps");
    Ok(steps)
}
