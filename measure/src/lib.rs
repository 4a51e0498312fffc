//! Measures distributed locks side by side.
//!
//! A [`Contender`] is a way to lock on one backend: Leasehold, another library, or a raw client that does the least
//! that can be done. A [`Runner`] puts all of them under the same load, in turn and several times, and makes a
//! [`Report`] of it: a text, JSON, Markdown, or a page with charts.
//!
//! What is measured is a [`Plan`]: cases of eight [`Scenario`]s, each bounded in time and in acquisitions.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use leasehold_measure::{Failure, Leasehold, Plan, Runner, Scenario};
//! use lockcore::{Env, LockManager, Settings, memory::MemoryStore};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Failure> {
//! let store = MemoryStore::new(&Env::system());
//! let contender = Leasehold::new("memory", move || {
//!     let locks = store.manager(Settings::default());
//!     async move { locks.map(|locks| Arc::new(locks) as Arc<dyn LockManager>) }
//! });
//! let plan = Plan::brief(Duration::from_millis(20), 1).only(&[Scenario::Contended]);
//! let report = Runner::new(vec![Arc::new(contender)], plan, "example").run().await;
//! assert!(!report.is_alarming());
//! print!("{}", report.to_text());
//! # Ok(())
//! # }
//! ```
#![expect(
    clippy::disallowed_methods,
    reason = "what is measured takes real time, on real threads"
)]

mod case;
mod contender;
mod figure;
mod leasehold;
mod load;
mod plan;
mod process;
mod referee;
mod report;
mod run;
mod stats;
mod trial;
mod usage;

pub use case::{Case, Scenario};
pub use contender::{Client, Contender, Failure, Hold, Offers, ServerUse};
pub use figure::{Curve, Figure, Unit};
pub use leasehold::Leasehold;
pub use plan::Plan;
pub use process::{Launch, serve};
pub use report::{Entrant, Machine, Outcome, Reference, Report, Section, Standing};
pub use run::{Observer, Runner, Step};
pub use stats::PERCENTILES;
pub use trial::Found;
