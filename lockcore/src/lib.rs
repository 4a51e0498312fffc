//! The core of Leasehold.
mod acquire;
mod atomic;
mod attempt;
mod batches;
mod capability;
mod claim;
mod coalesce;
mod core;
mod diagnosis;
pub mod driver;
mod dyn_driver;
mod endpoint;
mod env;
mod error;
mod gate;
mod guard;
mod heartbeat;
mod held;
mod holder;
mod lease_word;
#[cfg(test)]
mod lease_word_tests;
mod lock;
mod loss;
mod manager;
pub mod memory;
mod name;
mod options;
mod pace;
mod schedule;
mod session;
mod session_pool;
mod settings;
mod signals;
mod supervisor;
mod upkeep;

pub use batches::{Batch, Batches};
pub use capability::{Capabilities, ExpiryClock, Failover, FencingSource, WakeUp};
pub use claim::{AttemptId, Claim, SharedClaim, Token};
pub use diagnosis::{ClockReading, Diagnosis, Finding, Severity};
pub use driver::{Driver, DriverContext, DynDriver};
pub use endpoint::{Endpoint, Secret};
pub use env::{Env, Instant};
pub use error::{Error, ErrorKind, Result};
pub use guard::{Guard, Release, ReleaseError};
pub use heartbeat::Heartbeat;
pub use holder::{Holder, LockStatus, MAX_LABEL_BYTES, Owner};
pub use lock::{DistributedLock, Lock, LockBuilder};
pub use loss::LossReason;
pub use manager::{LockManager, Manager};
pub use name::{
    Kind, LockName, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_NAMESPACE_BYTES, Namespace, Resource, decode_key,
};
pub use options::{Retry, Wait};
pub use session::Session;
pub use session_pool::{OpenSession, PooledSession, SessionPool};
pub use settings::{
    DEFAULT_CLAIM_WINDOW, DEFAULT_DRAIN, DEFAULT_LOCAL_HANDOVER, DEFAULT_OP_TIMEOUT, DEFAULT_TTL,
    DEFAULT_WAITER_TTL, MAX_TTL, Settings, local_deadline,
};
pub use signals::Signals;
pub use supervisor::{Connect, KeepAlive, Supervisor};
