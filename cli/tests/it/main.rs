//! The program as a black box, on SQLite and on a Redis server.
#![expect(clippy::disallowed_methods, reason = "real processes live in real time")]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "helpers of tests fail and report like tests"
)]

mod bench;
mod doctor;
mod exclusion;
mod exits;
mod loss;
mod output;
mod passing_on;
mod support;
#[cfg(target_os = "linux")]
mod terminal;
