//! The atomics of the lease word, which `tests/loom` takes from loom.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
