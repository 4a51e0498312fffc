//! Leasehold as a contender, on any backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockcore::{Guard, LockManager, Release, Wait};

use crate::contender::{Client, Contender, Failure, Hold, Offers, ServerUse};

type Connect = dyn Fn() -> BoxFuture<'static, Result<Arc<dyn LockManager>, Failure>> + Send + Sync;
type AskServer = dyn Fn() -> BoxFuture<'static, Result<ServerUse, Failure>> + Send + Sync;

/// Leasehold on one backend.
#[derive(Clone)]
pub struct Leasehold {
    name: String,
    backend: String,
    connect: Arc<Connect>,
    ask_server: Option<Arc<AskServer>>,
    /// The client is somebody else's: closing it is theirs.
    shared: bool,
}

impl Leasehold {
    /// Leasehold on `backend`, which `connect` makes a lock manager for: one for each client.
    pub fn new<F, C, E>(backend: impl Into<String>, connect: F) -> Self
    where
        F: Fn() -> C + Send + Sync + 'static,
        C: Future<Output = Result<Arc<dyn LockManager>, E>> + Send + 'static,
        E: Into<Failure>,
    {
        Self {
            name: "leasehold".into(),
            backend: backend.into(),
            connect: Arc::new(move || {
                let connecting = connect();
                async move { connecting.await.map_err(Into::into) }.boxed()
            }),
            ask_server: None,
            shared: false,
        }
    }

    /// Leasehold on a lock manager that is there already, which all clients share and nobody closes.
    pub fn shared(locks: impl LockManager + 'static) -> Self {
        let locks: Arc<dyn LockManager> = Arc::new(locks);
        let connect = {
            let locks = Arc::clone(&locks);
            move || std::future::ready(Ok::<_, Failure>(Arc::clone(&locks)))
        };
        Self {
            shared: true,
            ..Self::new(locks.backend(), connect)
        }
    }

    /// Calls it `name` instead of `leasehold`, as where two modes of a backend are compared.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Says what the server has used, which takes access to the server that Leasehold itself does not need.
    #[must_use]
    pub fn server_use<F, U>(mut self, ask: F) -> Self
    where
        F: Fn() -> U + Send + Sync + 'static,
        U: Future<Output = Result<ServerUse, Failure>> + Send + 'static,
    {
        self.ask_server = Some(Arc::new(move || ask().boxed()));
        self
    }
}

impl fmt::Debug for Leasehold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leasehold")
            .field("name", &self.name)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Contender for Leasehold {
    fn name(&self) -> &str {
        &self.name
    }

    fn backend(&self) -> &str {
        &self.backend
    }

    fn offers(&self) -> Offers {
        Offers {
            queue: true,
            tokens: true,
            renewal: true,
        }
    }

    async fn client(&self) -> Result<Box<dyn Client>, Failure> {
        let locks = (self.connect)().await?;
        Ok(Box::new(Manager {
            locks,
            shared: self.shared,
        }))
    }

    async fn server_use(&self) -> Result<ServerUse, Failure> {
        match &self.ask_server {
            Some(ask) => ask().await,
            None => Ok(ServerUse::default()),
        }
    }
}

#[derive(Debug)]
struct Manager {
    locks: Arc<dyn LockManager>,
    shared: bool,
}

#[async_trait]
impl Client for Manager {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let lock = self.locks.lock(name).ttl(ttl).wait(Wait::Forever);
        Ok(Box::new(Held(lock.acquire().await?)))
    }

    async fn ping(&self) -> Result<Option<Duration>, Failure> {
        Ok(Some(self.locks.ping().await?))
    }

    async fn close(self: Box<Self>) -> Result<(), Failure> {
        if !self.shared {
            self.locks.close().await?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Held(Guard);

#[async_trait]
impl Hold for Held {
    fn token(&self) -> Option<u64> {
        Some(self.0.token().get())
    }

    fn ttl(&self) -> Option<Duration> {
        Some(self.0.ttl())
    }

    fn is_held(&self) -> bool {
        self.0.is_held()
    }

    async fn release(self: Box<Self>) -> Result<(), Failure> {
        match self.0.release().await.map_err(lockcore::Error::from)? {
            Release::Released => Ok(()),
            _ => Err("the lock was lost while it was held".into()),
        }
    }
}
