//! How long the engine takes for an acquire and a release, on a driver that answers at once:
//! `cargo run --release -p lockcore --example engine`. Its argument is how many of them a round has.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "it measures the time of this machine"
)]

#[path = "../tests/cost/null.rs"]
mod null;

use std::time::Instant;

use lockcore::{Env, LockManager, Manager, Result};
use tokio::runtime::Builder;

const PAIRS: u32 = 200_000;
const ROUNDS: u32 = 7;

/// Nanoseconds for each pair, of `tasks` that have a name each.
async fn measure(manager: &Manager, tasks: u32, pairs: u32) -> Result<u128> {
    let start = Instant::now();
    let mut running = Vec::new();
    for task in 0..tasks {
        let lock = manager.lock(&format!("orders/{task}")).build()?;
        running.push(tokio::spawn(async move {
            for _ in 0..pairs / tasks {
                let guard = lock.acquire().await?;
                guard.release().await?;
            }
            Ok::<_, lockcore::Error>(())
        }));
    }
    for task in running {
        task.await.unwrap_or(Ok(()))?;
    }
    Ok(start.elapsed().as_nanos() / u128::from(pairs))
}

async fn report(flavour: &str, pairs: u32) -> Result<()> {
    let manager = null::manager(Env::system())?;
    for tasks in [1, 2, 64, 512] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(measure(&manager, tasks, pairs).await?);
        }
        rounds.sort_unstable();
        println!(
            "{flavour:>14}, {tasks:>3} tasks: {:>5} ns for each pair, best {:>5}",
            rounds[rounds.len() / 2],
            rounds[0]
        );
    }
    manager.close().await
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pairs = std::env::args().nth(1).map_or(Ok(PAIRS), |pairs| pairs.parse())?;
    Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(report("current_thread", pairs))?;
    Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(report("multi_thread", pairs))?;
    Ok(())
}
