//! Locks that nobody else has or wants, taken and freed many at a time.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use crate::claim::Claim;
use crate::coalesce::{Coalescer, Together};
use crate::driver::{Acquired, Intent, Released};
use crate::env::Env;
use crate::error::Result;

/// How a backend takes and frees many locks with one request. Both are given two claims at least, and give an answer for
/// each of them, in order. An error is the answer to all.
pub trait Batch: Send + Sync + 'static {
    /// Takes those locks that nobody has or wants. `None`: ask for this one alone.
    fn take(&self, claims: &[Claim]) -> impl Future<Output = Result<Vec<Option<Acquired>>>> + Send;

    /// Frees those locks that nobody waits for. `None`: free this one alone.
    fn free(&self, claims: &[Claim]) -> impl Future<Output = Result<Vec<Option<Released>>>> + Send;
}

/// Claims and releases on their way to the backend: those that would wait for one another go together.
pub struct Batches<B: Batch> {
    takes: Coalescer<Takes<B>>,
    frees: Coalescer<Frees<B>>,
}

impl<B: Batch> fmt::Debug for Batches<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("takes", &self.takes)
            .field("frees", &self.frees)
            .finish()
    }
}

impl<B: Batch> Batches<B> {
    /// Over so many connections, each of which is busy until it has answered: who finds all of them busy, or others under way
    /// together, goes with those who find the same, `most` at a time. Claims and releases have half of the connections each.
    #[must_use]
    pub fn over_connections(env: &Env, batch: B, connections: usize, most: usize) -> Self {
        let slots = connections / 2;
        Self::new(
            batch,
            |takes| Coalescer::new(env.clone(), takes, slots, most),
            |frees| Coalescer::new(env.clone(), frees, slots, most),
        )
    }

    /// Over one connection that takes requests while others are under way: the first `alone` claims, and as many releases,
    /// go by themselves, and who comes while they are under way goes with those who are about to ask, `most` at a time.
    #[must_use]
    pub fn pipelined(env: &Env, batch: B, alone: usize, most: usize) -> Self {
        Self::new(
            batch,
            |takes| Coalescer::pipelined(env.clone(), takes, alone, most),
            |frees| Coalescer::pipelined(env.clone(), frees, alone, most),
        )
    }

    fn new(
        batch: B,
        takes: impl FnOnce(Takes<B>) -> Coalescer<Takes<B>>,
        frees: impl FnOnce(Frees<B>) -> Coalescer<Frees<B>>,
    ) -> Self {
        let batch = Arc::new(batch);
        Self {
            takes: takes(Takes(Arc::clone(&batch))),
            frees: frees(Frees(batch)),
        }
    }

    /// The answer to `claim`, which `alone` sends by itself. Dropped, it is not sent unless it is under way already.
    ///
    /// # Errors
    /// Those of `alone` and of [`Batch::take`].
    pub async fn acquire<A>(
        &self,
        claim: &Claim,
        intent: Intent,
        alone: impl FnOnce() -> A + Send,
    ) -> Result<Acquired>
    where
        A: Future<Output = Result<Acquired>> + Send,
    {
        match intent {
            // Who stands in the queue takes what others wait for.
            Intent::Wait { ticket: Some(_) } => Box::pin(alone()).await,
            _ => self.takes.call(|| claim.clone(), alone).await,
        }
    }

    /// The answer to the release of `claim`, which `alone` sends by itself. Dropped, it is not sent unless it is under way
    /// already.
    ///
    /// # Errors
    /// Those of `alone` and of [`Batch::free`].
    pub async fn release<A>(&self, claim: &Claim, alone: impl FnOnce() -> A + Send) -> Result<Released>
    where
        A: Future<Output = Result<Released>> + Send,
    {
        self.frees.call(|| claim.clone(), alone).await
    }
}

struct Takes<B>(Arc<B>);

impl<B: Batch> Together for Takes<B> {
    type Request = Claim;
    type Answer = Acquired;

    async fn send(&self, claims: &[Claim]) -> Result<Vec<Option<Acquired>>> {
        self.0.take(claims).await
    }
}

struct Frees<B>(Arc<B>);

impl<B: Batch> Together for Frees<B> {
    type Request = Claim;
    type Answer = Released;

    async fn send(&self, claims: &[Claim]) -> Result<Vec<Option<Released>>> {
        self.0.free(claims).await
    }
}
