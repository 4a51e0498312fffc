//! A contender on a backend of ours: its way to lock, and what it uses of the server.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use leasehold_measure::{Client, Contender, Failure, Offers, ServerUse};

use crate::place::Place;

type Connect = dyn Fn(Arc<Place>) -> BoxFuture<'static, Result<Box<dyn Client>, Failure>> + Send + Sync;

/// A contender at a [`Place`].
#[derive(Clone)]
pub struct Entry {
    name: String,
    place: Arc<Place>,
    offers: Offers,
    commands: &'static [&'static str],
    connect: Arc<Connect>,
}

impl Entry {
    /// Called `name`, with a client by `connect`.
    pub fn new<F, C>(place: &Arc<Place>, name: impl Into<String>, offers: Offers, connect: F) -> Self
    where
        F: Fn(Arc<Place>) -> C + Send + Sync + 'static,
        C: Future<Output = Result<Box<dyn Client>, Failure>> + Send + 'static,
    {
        Self {
            name: name.into(),
            place: Arc::clone(place),
            offers,
            commands: &["eval", "evalsha"],
            connect: Arc::new(move |place| connect(place).boxed()),
        }
    }

    /// The commands that its clients send to Redis, other than scripts alone.
    #[must_use]
    pub const fn commands(mut self, commands: &'static [&'static str]) -> Self {
        self.commands = commands;
        self
    }

    /// Where it locks.
    #[must_use]
    pub const fn place(&self) -> &Arc<Place> {
        &self.place
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("backend", &self.place.backend())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Contender for Entry {
    fn name(&self) -> &str {
        &self.name
    }

    fn backend(&self) -> &str {
        self.place.backend().name()
    }

    fn offers(&self) -> Offers {
        self.offers
    }

    async fn client(&self) -> Result<Box<dyn Client>, Failure> {
        (self.connect)(Arc::clone(&self.place)).await
    }

    async fn server_use(&self) -> Result<ServerUse, Failure> {
        self.place.used(self.commands).await
    }
}
