//! Leasehold on Redis and Valkey.

mod config;
mod connection;
mod driver;
mod error;
mod keys;
mod reply;
mod scripts;
mod transport;

pub use config::{
    Address, DEFAULT_CONNECT_TIMEOUT, DEFAULT_KEEP_ALIVE, DEFAULT_QUEUE, KEEP_ALIVE_PATIENCE, MAX_QUEUE,
    RedisConfig, TlsConfig,
};
pub use driver::RedisDriver;
pub use redis;
