//! An expired entry of a cache that many want at once, and that one of them rebuilds.
//!
//! On a backend for several processes it starts copies of itself, which share a cache of files; in memory the copies are
//! tasks. `cargo run --example cache_stampede --features sqlite -- sqlite:/tmp/locks.db`; without a URL, in memory.
#![expect(clippy::print_stdout, reason = "it shows what it does")]
#![expect(clippy::disallowed_methods, reason = "it lives in real time")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use leasehold::LockManager;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const COPIES: usize = 6;
const KEYS: [&str; 2] = ["front page", "prices"];

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    match args.as_slice() {
        [] => in_tasks("memory:").await,
        [url] if url.starts_with("memory:") => in_tasks(url).await,
        [url] => in_processes(url).await,
        [url, cache] => {
            let locks = leasehold::connect(url).await?;
            visit(&*locks, Path::new(cache)).await?;
            Ok(locks.close().await?)
        }
        _ => Err("usage: cache_stampede [URL]".into()),
    }
}

/// What a visitor does: every key, from the cache or rebuilt.
async fn visit(locks: &dyn LockManager, cache: &Path) -> Result<()> {
    for key in KEYS {
        if get(locks, cache, key).await? != format!("all of {key}") {
            return Err("the cache has something else".into());
        }
    }
    Ok(())
}

async fn get(locks: &dyn LockManager, cache: &Path, key: &str) -> Result<String> {
    let entry = cache.join(key);
    if let Ok(found) = fs::read_to_string(&entry) {
        return Ok(found);
    }
    // A lock for each key: who rebuilds one does not hold up the other.
    let guard = locks
        .lock(&format!("examples/cache/{}/{key}", cache.display()))
        .ttl(Duration::from_secs(5))
        .wait(Duration::from_secs(30))
        .acquire()
        .await?;
    // The one before us has rebuilt it while we waited.
    if let Ok(found) = fs::read_to_string(&entry) {
        return Ok(found);
    }
    let built = guard.protect(rebuild(cache, key)).await??;
    // Appears whole or not at all.
    let unfinished = cache.join(format!("{key}.{}", guard.token()));
    fs::write(&unfinished, &built)?;
    fs::rename(&unfinished, &entry)?;
    let _freed = guard.release().await?;
    Ok(built)
}

/// Slow and costly, and counted.
async fn rebuild(cache: &Path, key: &str) -> Result<String> {
    let mut count = fs::File::options()
        .append(true)
        .create(true)
        .open(cache.join("rebuilt"))?;
    writeln!(count, "{key}")?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    Ok(format!("all of {key}"))
}

async fn in_tasks(url: &str) -> Result<()> {
    let cache = Cache::new()?;
    let locks = leasehold::connect(url).await?;
    let visitors: Vec<_> = (0..COPIES)
        .map(|_| {
            let (locks, cache) = (Arc::clone(&locks), cache.0.clone());
            tokio::spawn(async move { visit(&*locks, &cache).await })
        })
        .collect();
    for visitor in visitors {
        visitor.await??;
    }
    cache.check("tasks")?;
    Ok(locks.close().await?)
}

async fn in_processes(url: &str) -> Result<()> {
    let cache = Cache::new()?;
    let ourselves = std::env::current_exe()?;
    let visitors: Vec<_> = (0..COPIES)
        .map(|_| {
            tokio::process::Command::new(&ourselves)
                .arg(url)
                .arg(&cache.0)
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .spawn()
        })
        .collect::<Result<_, _>>()?;
    for mut visitor in visitors {
        if !visitor.wait().await?.success() {
            return Err("a visitor failed".into());
        }
    }
    cache.check("processes")
}

/// An empty cache: a folder that goes when it is dropped.
struct Cache(PathBuf);

impl Cache {
    fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("leasehold-cache-{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self(folder))
    }

    /// Each key was rebuilt once.
    fn check(&self, who: &str) -> Result<()> {
        let rebuilt = fs::read_to_string(self.0.join("rebuilt"))?;
        println!(
            "{COPIES} {who} wanted {} keys; rebuilt were: {rebuilt:?}",
            KEYS.len()
        );
        let mut rebuilt: Vec<_> = rebuilt.lines().collect();
        rebuilt.sort_unstable();
        if rebuilt != KEYS {
            return Err("a key was not rebuilt exactly once".into());
        }
        Ok(())
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
