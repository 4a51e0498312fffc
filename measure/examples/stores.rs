//! Compares two stores in memory, of which one is far away, and prints a page for a browser:
//! `cargo run --example stores > report.html`

use std::sync::Arc;
use std::time::Duration;

use leasehold_measure::{Contender, Failure, Leasehold, Plan, Runner};
use lockcore::memory::MemoryStore;
use lockcore::{Env, LockManager, Settings};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let far = Duration::from_millis(1);
    let contenders = vec![store("near", Duration::ZERO), store("far", far)];
    let report = Runner::new(contenders, Plan::brief(Duration::from_millis(500), 1), "example")
        .run()
        .await;
    std::io::Write::write_all(&mut std::io::stdout(), report.to_html()?.as_bytes())?;
    std::io::Write::write_all(&mut std::io::stderr(), report.to_text().as_bytes())?;
    Ok(())
}

fn store(name: &str, latency: Duration) -> Arc<dyn Contender> {
    let store = MemoryStore::new(&Env::system());
    store.set_latency(latency, latency);
    let connect = move || {
        let locks = store.manager(Settings::default());
        async move { locks.map(|locks| Arc::new(locks) as Arc<dyn LockManager>) }
    };
    Arc::new(Leasehold::new("memory", connect).named(name))
}
