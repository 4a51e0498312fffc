//! The driver on real servers.
#![expect(clippy::disallowed_methods, reason = "real servers live in real time")]

mod access;
mod administration;
mod faults;
mod handoff;
mod mutex;
mod support;
mod tls;
