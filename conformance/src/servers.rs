//! Real servers for tests: the one place that decides where they come from.
//!
//! [`start`] looks in this order and takes the first that it finds:
//!
//! 1. the URL in `LEASEHOLD_TEST_<KIND>_URL`, such as `LEASEHOLD_TEST_REDIS_URL`;
//! 2. a container, run by testcontainers: from the official image, or from an image of the same server that
//!    `cargo xtask servers` has built from Debian packages because no registry could be reached;
//! 3. the server's program on this machine, started on a free loopback port with a data folder of its own;
//! 4. else it fails, and says what to run.
//!
//! A test that needs one particular origin asks for it with [`ServerRequest::origin`]. Everything that was
//! started is removed when the [`Server`] is dropped, and also when the test process is killed: a watcher
//! process outlives it just long enough to clean up (see [`Server`]).
//!
//! ```no_run
//! # async fn demo() -> Result<(), leasehold_conformance::servers::ServerError> {
//! use leasehold_conformance::servers::{Origin, ServerKind, ServerRequest, start};
//!
//! let any = start(ServerKind::Redis).await?;
//! println!("{}: {}", any.url(), any.describe());
//!
//! let small = ServerRequest::new(ServerKind::Valkey)
//!     .origin(Origin::Container)
//!     .password("s3cret")
//!     .args(["--maxmemory", "2mb"])
//!     .start()
//!     .await?;
//! small.restart().await?; // SIGKILL, then the same port and the same data
//! # Ok(())
//! # }
//! ```
#![expect(clippy::disallowed_methods, reason = "real servers live in real time")]

mod clock;
mod cluster;
mod container;
mod disk;
mod engine;
mod error;
mod etcd;
mod http;
mod kind;
mod limits;
mod mysql;
mod port;
mod postgres;
mod process;
mod reaper;
mod redis;
mod request;
mod scram;
mod server;
mod target;
mod tls;
mod tree;
mod user;
mod zookeeper;

pub use cluster::{Cluster, ClusterRequest};
pub use error::{Missing, ServerError};
pub use kind::{Origin, ServerKind};
pub use request::{Offer, ServerRequest, survey};
pub use server::Server;
pub use target::{LEAVE_OUT, Plan, Target};
#[cfg(unix)]
pub(crate) use tree::stopped;

/// Starts a server of this kind from the first origin that has one, with nothing special about it.
///
/// # Errors
/// As [`ServerRequest::start`].
pub async fn start(kind: ServerKind) -> Result<Server, ServerError> {
    ServerRequest::new(kind).start().await
}
