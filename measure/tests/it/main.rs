//! The scenarios under small loads, on the in-memory backend and on locks that are none.
#![expect(clippy::disallowed_methods, reason = "what is measured takes real time")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod broken;
mod charts;
mod scenarios;
mod support;
