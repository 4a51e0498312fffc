//! The conformance suite of Leasehold: it runs on a lock driver of your own.
//!
//! Implement [`Backend`] for your driver, which takes a name, its capabilities and a way to connect, and hand it to
//! [`main`] in a test with `harness = false`. Each scenario of the catalogue is one trial, such as
//! `exclusion/ME1_two_contenders_one_winner`. What your driver does not declare, or what your backend cannot do for
//! the suite, is left out, and the run says what and why.
//!
//! ```no_run
//! // tests/conformance.rs, with `[[test]] name = "conformance"` and `harness = false` in Cargo.toml
//! use std::{process::ExitCode, sync::Arc};
//!
//! use async_trait::async_trait;
//! use leasehold_conformance::Backend;
//! use lockcore::{Capabilities, DriverContext, DynDriver, Env, Result};
//! # use lockcore::memory::{CAPABILITIES, MemoryDriver, MemoryStore};
//! # #[derive(Debug)]
//! # struct MyDriver;
//! # impl MyDriver {
//! #     async fn connect(_: &str, context: DriverContext) -> Result<MemoryDriver> {
//! #         Ok(MemoryStore::new(&context.env).driver().0)
//! #     }
//! # }
//!
//! #[derive(Debug)]
//! struct MyBackend;
//!
//! #[async_trait]
//! impl Backend for MyBackend {
//!     fn name(&self) -> String {
//!         "mine".into()
//!     }
//!
//!     fn capabilities(&self) -> Capabilities {
//!         CAPABILITIES
//!     }
//!
//!     async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
//!         let context = DriverContext::new(env.clone());
//!         let driver = MyDriver::connect("mine://localhost", context.clone()).await?;
//!         Ok((DynDriver::new(driver), context))
//!     }
//! }
//!
//! fn main() -> ExitCode {
//!     leasehold_conformance::main([Arc::new(MyBackend) as Arc<dyn Backend>])
//! }
//! ```
//!
//! Each further method of [`Backend`] lets more scenarios run: those that restart a server, cut connections, look for
//! what is left over, or start worker processes.
//!
//! Every scenario is recorded ([`history`]), and its history judged when it is over: no two valid holders at one
//! time, growing tokens, queues in order, releases that are handed over soon. What it leaves at the backend counts
//! against it too.

mod backend;
mod client;
mod context;
mod failure;
pub mod history;
pub mod limits;
mod memory;
pub mod proxy;
mod report;
mod runner;
mod scenario;
mod seam;
pub mod servers;
mod suite;
mod task;
mod worker;

pub use backend::{Ability, Backend, Budget, Clock, Cluster, Counters};
pub use client::{Client, Held, RecordedLock, Request};
pub use context::{Context, Task};
pub use failure::{Checked, Failure};
pub use memory::MemoryBackend;
pub use report::{main, main_of};
pub use runner::{Outcome, Verdict, run};
pub use scenario::{Group, Need, Scenario};
pub use seam::Link;
pub use suite::all as scenarios;
pub use worker::{Grip, Order, Worker};
