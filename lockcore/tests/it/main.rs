//! The engine on the memory backend and virtual time.
#![expect(
    clippy::disallowed_methods,
    reason = "tests spawn on the runtime that they made"
)]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a failure is a failed test")]

mod acquire;
mod cancel;
mod close;
mod fair;
mod handover;
mod loss;
mod release;
mod renew;
mod session;
mod terms;
mod weighted;

use std::time::Duration;

use lockcore::memory::MemoryStore;
use lockcore::{Env, Manager, Settings};

/// A store on virtual time, and a way to more managers on it.
struct World {
    env: Env,
    store: MemoryStore,
}

impl World {
    fn new() -> Self {
        let env = Env::virtual_time(1);
        let store = MemoryStore::new(&env);
        Self { env, store }
    }

    fn manager(&self) -> Manager {
        self.store.manager(Settings::default()).unwrap()
    }

    /// Lets everything run that needs no time.
    async fn settle(&self) {
        self.env.sleep(Duration::from_micros(1)).await;
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}
