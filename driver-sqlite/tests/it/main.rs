//! The driver on real files and with real processes.
#![expect(clippy::disallowed_methods, reason = "real files live in real time")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and report like tests"
)]

mod cancel;
mod doctor;
mod file;
#[cfg(unix)]
mod handoff;
mod model;
#[cfg(unix)]
mod processes;
mod queue;
mod refused;
mod support;
#[cfg(unix)]
mod worker;
