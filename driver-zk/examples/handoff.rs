//! How long a lock takes from one client to the next: `cargo run --release --example handoff -- zk://localhost`.
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it measures, and says so"
)]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use leasehold_driver_zk::ZkLockManager;
use lockcore::LockManager;

const CLIENTS: usize = 16;
const ROUNDS: usize = 20;
const HOLD: Duration = Duration::from_millis(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "zk://localhost".to_owned());
    let alone = ZkLockManager::connect(&url).await?;
    let name = format!("handoff-{}", std::process::id());
    let (mut acquires, mut releases) = (Vec::new(), Vec::new());
    for _ in 0..200 {
        let start = Instant::now();
        let guard = alone.lock(&name).acquire().await?;
        acquires.push(start.elapsed());
        let start = Instant::now();
        guard.release().await?;
        releases.push(start.elapsed());
    }
    println!("acquire, free: {}", spread(acquires));
    println!("release: {}", spread(releases));

    let released = Arc::new(Mutex::new((None::<Instant>, Vec::new())));
    let mut tasks = Vec::new();
    let start = Instant::now();
    for _ in 0..CLIENTS {
        let (locks, name, released) = (
            ZkLockManager::connect(&url).await?,
            name.clone(),
            Arc::clone(&released),
        );
        tasks.push(tokio::spawn(async move {
            for _ in 0..ROUNDS {
                let guard = locks.lock(&name).wait(Duration::from_secs(60)).acquire().await?;
                {
                    let mut released = released.lock().unwrap_or_else(PoisonError::into_inner);
                    let since = released.0.take().map(|at| at.elapsed());
                    released.1.extend(since);
                }
                tokio::time::sleep(HOLD).await;
                released.lock().unwrap_or_else(PoisonError::into_inner).0 = Some(Instant::now());
                guard.release().await?;
            }
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let handed_over = std::mem::take(&mut released.lock().unwrap_or_else(PoisonError::into_inner).1);
    println!(
        "{CLIENTS} clients, held for {HOLD:?}, from the call of release to the next holder: {}",
        spread(handed_over)
    );
    println!(
        "{:.0} acquisitions a second",
        (CLIENTS * ROUNDS) as f64 / start.elapsed().as_secs_f64()
    );
    Ok(())
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    format!("p50 {:.2?}, p99 {:.2?} of {}", at(50), at(99), times.len())
}
