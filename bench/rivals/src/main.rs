//! Leasehold's comparison, with other libraries in it.
#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]

use std::process::ExitCode;
use std::sync::Arc;

use leasehold_bench::contender::Entry;
use leasehold_bench::place::Place;
use leasehold_bench::program::{self, Others};

mod distributed_lock;
mod etcd;
mod foreign;
mod rslock;
mod zookeeper;

fn main() -> ExitCode {
    program::main(Rivals)
}

#[derive(Debug)]
struct Rivals;

impl Others for Rivals {
    fn contenders(&self, place: &Arc<Place>) -> Vec<Entry> {
        let mut all = rslock::contenders(place);
        all.extend(distributed_lock::contenders(place));
        all.extend(etcd::contenders(place));
        all.extend(zookeeper::contenders(place));
        all.extend(foreign::contenders(place));
        all
    }

    fn missing(&self) -> Vec<String> {
        foreign::missing()
    }

    fn versions(&self) -> Vec<(String, String)> {
        let mut all = crates();
        all.extend(foreign::versions());
        all
    }
}

/// The versions in the lock file.
fn crates() -> Vec<(String, String)> {
    const LOCKED: &str = include_str!("../Cargo.lock");
    const RIVALS: [&str; 6] = [
        "distributed-lock-mysql",
        "distributed-lock-postgres",
        "distributed-lock-redis",
        "etcd-client",
        "rslock",
        "zookeeper-client",
    ];
    let mut found = Vec::new();
    let mut lines = LOCKED.lines();
    while let Some(line) = lines.next() {
        let quoted = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
        if let Some(name) = quoted(line, "name = ")
            && RIVALS.contains(&name.as_str())
            && let Some(version) = lines.next().and_then(|line| quoted(line, "version = "))
        {
            found.push((name, version));
        }
    }
    found
}
