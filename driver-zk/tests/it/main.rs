//! The driver on real servers.
#![expect(clippy::disallowed_methods, reason = "real servers live in real time")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails like a test"
)]

mod access;
#[path = "../admin/mod.rs"]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "bits that Java counts in"
)]
#[expect(dead_code, reason = "the conformance suite uses the rest")]
mod admin;
mod curator;
mod doctor;
mod ensemble;
mod faults;
mod leaks;
mod mutex;
mod queue;
mod support;
