//! A backend of several servers.

use std::fmt;

use async_trait::async_trait;
use lockcore::Result;

/// The servers of a cluster, by number from 0. The backend's URL names all of them.
#[async_trait]
pub trait Cluster: fmt::Debug + Send + Sync {
    /// How many there are.
    fn size(&self) -> usize;

    /// Which one leads now, as the others see it.
    async fn leader(&self) -> Result<usize>;

    /// Ends a member without warning; what it has written stays.
    async fn stop(&self, member: usize) -> Result<()>;

    /// Starts it again, and returns when it takes part.
    async fn start(&self, member: usize) -> Result<()>;

    /// Keeps a member from running, with its connections open.
    async fn pause(&self, member: usize) -> Result<()>;

    /// Ends the [`pause`](Self::pause).
    async fn resume(&self, member: usize) -> Result<()>;
}
