//! Leasehold on SQLite: locks for the processes of one machine, in one file, with no server.

mod boot;
mod claims;
mod config;
mod database;
mod driver;
mod error;
mod looks;
mod place;
mod schema;
#[cfg(unix)]
mod socket;
mod wake;

pub use config::{SqliteConfig, Synchronous};
pub use driver::SqliteDriver;
