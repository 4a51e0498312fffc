//! A backend that runs, and what it has used.

use std::sync::Arc;

use leasehold_conformance::servers::{Origin, Server, ServerRequest};
use leasehold_measure::{Failure, ServerUse};
use lockcore::Env;
use lockcore::memory::MemoryStore;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::backend::Backend;
use crate::counters;
use crate::cpu;

/// A backend that runs for as long as this is there.
#[derive(Debug)]
pub struct Place {
    backend: Backend,
    way: Way,
    store: MemoryStore,
    server: Option<Server>,
    /// Last, so that it goes after all that is in it.
    _folder: Option<TempDir>,
}

/// The way to a backend, for another process.
#[derive(Clone, Serialize, Deserialize)]
pub struct Way {
    backend: String,
    url: String,
    admin_url: String,
    address: String,
}

impl std::fmt::Debug for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // URLs may have passwords.
        f.debug_struct("Way")
            .field("backend", &self.backend)
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Place {
    /// Starts a server of its own for `backend`, or makes a file or a store for it.
    ///
    /// # Errors
    /// When no server can be had from `origin`, with what would help, or when it does not start.
    pub async fn start(backend: Backend, origin: Origin) -> Result<Arc<Self>, Failure> {
        let server = match backend.server() {
            Some(kind) => {
                let request = ServerRequest::new(kind).origin(origin);
                // What is given by a URL may be somebody else's.
                let request = match origin {
                    Origin::Url => request,
                    _ => request.own().args(backend.arguments().iter().copied()),
                };
                Some(request.start().await?)
            }
            None => None,
        };
        let folder = match backend {
            Backend::Sqlite => Some(tempfile::tempdir()?),
            _ => None,
        };
        let url = match (&server, &folder) {
            (Some(server), _) => server.url().to_owned(),
            (None, Some(folder)) => format!("sqlite:{}", folder.path().join("locks.db").display()),
            (None, None) => "memory:".to_owned(),
        };
        let way = Way {
            backend: backend.name().to_owned(),
            admin_url: server.as_ref().map_or(&*url, Server::admin_url).to_owned(),
            address: server.as_ref().map_or("", Server::address).to_owned(),
            url,
        };
        let place = Self {
            backend,
            way,
            store: MemoryStore::new(&Env::system()),
            server,
            _folder: folder,
        };
        if origin != Origin::Url {
            counters::prepare(&place).await?;
        }
        Ok(Arc::new(place))
    }

    /// The one that another process has started.
    ///
    /// # Errors
    /// When this program does not know the backend.
    pub fn of(way: Way) -> Result<Arc<Self>, Failure> {
        Ok(Arc::new(Self {
            backend: way.backend.parse()?,
            way,
            store: MemoryStore::new(&Env::system()),
            server: None,
            _folder: None,
        }))
    }

    /// The way to it.
    #[must_use]
    pub const fn way(&self) -> &Way {
        &self.way
    }

    /// Which backend it is.
    #[must_use]
    pub const fn backend(&self) -> Backend {
        self.backend
    }

    /// The URL to connect with.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.way.url
    }

    /// As [`url`](Self::url), for the one who may see everything.
    #[must_use]
    pub fn admin_url(&self) -> &str {
        &self.way.admin_url
    }

    /// `host:port` of its server, empty without one.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.way.address
    }

    /// What [`Backend::Memory`] is.
    #[must_use]
    pub const fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// Which server it is and where it came from, for a person.
    #[must_use]
    pub fn describe(&self) -> String {
        let Some(server) = &self.server else {
            return "in this process".to_owned();
        };
        // What is behind the comma is of this machine only: the program's path, the image, the address.
        let described = server.describe();
        described.split(", ").next().unwrap_or_default().to_owned()
    }

    /// Keeps the server off the processor of the one that S1 measures, or lets it go anywhere again.
    pub fn keep_apart(&self, apart: bool) {
        if let Some(server) = self.server.as_ref().and_then(Server::pid) {
            cpu::keep_off_the_last(server, apart);
        }
    }

    /// What the server has used since it was started. `commands` are those that clients send to Redis, which also
    /// counts what its scripts call.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub async fn used(&self, commands: &[&str]) -> Result<ServerUse, Failure> {
        let mut used = counters::read(self, commands).await?;
        used.cpu = self
            .server
            .as_ref()
            .and_then(Server::pid)
            .and_then(cpu::of_processes);
        Ok(used)
    }
}
