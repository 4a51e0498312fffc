//! See the README.

pub mod servers;
