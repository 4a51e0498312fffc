//! The in-memory backend: the reference model, with virtual time and scripted faults, for tests of your own.
//!
//! A [`MemoryStore`] is the server, a [`MemoryDriver`] a connection to it; managers on one store exclude each other.
//!
//! ```
//! use lockcore::{Env, LockManager, Settings, memory::MemoryStore};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> lockcore::Result<()> {
//! let env = Env::virtual_time(42); // time stands still until everybody sleeps
//! let store = MemoryStore::new(&env);
//! let (ours, theirs) = (store.manager(Settings::default())?, store.manager(Settings::default())?);
//!
//! let guard = ours.lock("job").acquire().await?;
//! assert!(theirs.lock("job").try_acquire().await?.is_none());
//!
//! store.partition(true); // nothing is answered any more
//! let reason = guard.lost().await; // 30 s pass in no time
//! assert_eq!(reason, lockcore::LossReason::Unreachable);
//! # Ok(())
//! # }
//! ```

mod driver;
mod faults;
mod model;
mod queue;
mod store;

pub use driver::{CAPABILITIES, MemoryDriver};
pub use faults::{Call, Fault};
pub use store::MemoryStore;
