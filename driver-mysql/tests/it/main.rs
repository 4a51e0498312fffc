//! Tests on real servers: what the conformance suite cannot know about MySQL and MariaDB.
#![expect(clippy::disallowed_methods, reason = "real servers live in real time")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper of a test fails like a test"
)]

mod access;
mod faults;
mod handoff;
mod session;
mod support;
