//! Compares Leasehold with what each backend can do at best, and with other libraries.
//!
//! The load, the statistics and the reports are those of `leasehold-measure`. Here are the contenders, the servers that
//! they run on, and the targets that Leasehold has set itself.
#![expect(clippy::disallowed_methods, reason = "what is measured is real time")]

mod acceptance;
pub mod backend;
pub mod contender;
mod counters;
mod cpu;
pub mod ours;
pub mod place;
pub mod program;
pub mod raw;
mod reason;
mod serve;
