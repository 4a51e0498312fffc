//! The driver on real files: what the conformance suite cannot see.

mod queue;
mod support;
