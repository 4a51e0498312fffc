//! See the README.

pub mod proxy;
pub mod servers;
