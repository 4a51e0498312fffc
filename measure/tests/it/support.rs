//! Contenders in memory, and short plans.

use std::sync::Arc;
use std::time::Duration;

use leasehold_measure::{Case, Contender, Leasehold, Plan, Runner, Section};
use lockcore::memory::MemoryStore;
use lockcore::{Env, LockManager, Settings};

pub(crate) const SHORT: Duration = Duration::from_millis(150);

/// Leasehold on a store of its own, with a manager for each client.
pub(crate) fn memory(name: &str) -> Arc<dyn Contender> {
    let store = MemoryStore::new(&Env::system());
    let connect = move || {
        let locks = store.manager(Settings::default());
        async move { locks.map(|locks| Arc::new(locks) as Arc<dyn LockManager>) }
    };
    Arc::new(Leasehold::new("memory", connect).named(name))
}

pub(crate) fn runner(contenders: Vec<Arc<dyn Contender>>, cases: Vec<Case>, rounds: u32) -> Runner {
    Runner::new(contenders, Plan { cases, rounds }, "test")
}

/// One of every scenario.
pub(crate) fn one_of_each() -> Vec<Case> {
    vec![
        Case::latency(SHORT),
        Case::throughput(8, SHORT),
        Case::contended(4, Duration::ZERO, SHORT),
        Case::growth(2, Duration::from_millis(2), SHORT),
        Case::growth(6, Duration::from_millis(2), SHORT),
        Case::held(300, Duration::from_secs(1)),
        Case::recovery(Duration::from_millis(200)),
        Case::local(4, SHORT),
        Case::popular(20, 8, SHORT),
    ]
}

pub(crate) fn of<'a>(sections: &'a [Section], id: &str) -> &'a Section {
    let mut found = sections.iter().filter(|section| section.id == id);
    found.next().unwrap_or_else(|| panic!("there is no section {id}"))
}
