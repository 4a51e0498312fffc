//! The conformance suite of Leasehold: it runs on a lock driver of your own.
//!
//! Implement [`Backend`] for your driver, which takes a name, its capabilities and a way to connect, and hand it to
//! [`main`] in a test with `harness = false`. Each scenario of the catalogue is one trial, such as
//! `exclusion/ME1_two_contenders_one_winner`. What your driver does not declare, or what your backend cannot do for
//! the suite, is left out, and the run says what and why.
//!
//! ```no_run
//! use std::{process::ExitCode, sync::Arc};
//!
//! use leasehold_conformance::{Clock, MemoryBackend, main};
//!
//! fn start() -> ExitCode {
//!     main([Arc::new(MemoryBackend::new(Clock::Virtual)) as _])
//! }
//! ```
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
mod worker;

pub use backend::{Ability, Backend, Clock};
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
