//! The core of Leasehold.
mod capability;
mod claim;
pub mod driver;
mod endpoint;
mod env;
mod error;
mod guard;
mod holder;
mod name;
mod session;
mod settings;
mod signals;
mod supervisor;

pub use capability::{Capabilities, ExpiryClock, Failover, FencingSource, WakeUp};
pub use claim::{AttemptId, Claim, Token};
pub use driver::{Driver, DriverContext};
pub use endpoint::{Endpoint, Secret};
pub use env::{Env, Instant};
pub use error::{Error, ErrorKind, Result};
pub use guard::LossReason;
pub use holder::{Holder, LockStatus, MAX_LABEL_BYTES, Owner};
pub use name::{
    Kind, LockName, MAX_KEY_BYTES, MAX_NAME_BYTES, MAX_NAMESPACE_BYTES, Namespace, Resource, decode_key,
};
pub use session::Session;
pub use settings::{
    DEFAULT_CLAIM_WINDOW, DEFAULT_DRAIN, DEFAULT_OP_TIMEOUT, DEFAULT_TTL, DEFAULT_WAITER_TTL, MAX_TTL,
    Settings, local_deadline,
};
pub use signals::Signals;
pub use supervisor::{Connect, Supervisor};
