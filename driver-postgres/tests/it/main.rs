//! The driver on a server: what it costs, and what it does when something fails.

#![expect(clippy::disallowed_methods, reason = "real servers live in real time")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails like a test"
)]

mod access;
mod cost;
mod doctor;
mod faults;
mod handoff;
mod model;
mod mutex;
mod session;
mod support;
