//! The driver on real servers.
#![expect(clippy::disallowed_methods, reason = "real servers live in real time")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails like a test"
)]

mod access;
mod administration;
mod doctor;
mod faults;
mod handoff;
mod model;
mod mutex;
mod support;
mod tls;
