//! What the program is run on.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use leasehold::core::{Driver, DriverContext};
use leasehold::redis::{RedisConfig, RedisDriver};
use leasehold::sqlite::{SqliteConfig, SqliteDriver};
use leasehold::{Capabilities, Endpoint, Env, Error, ErrorKind, Result};
use leasehold_conformance::servers::{Server, ServerError, Target};
use leasehold_conformance::{Ability, Backend};

#[derive(Debug)]
pub(crate) enum Place {
    File(PathBuf),
    /// Started before the first scenario.
    Server(Target, Box<OnceLock<Server>>),
}

impl Place {
    pub(crate) fn server(target: Target) -> Self {
        Self::Server(target, Box::default())
    }
}

/// A backend that the program reaches by URL.
#[derive(Debug)]
pub(crate) struct ProgramBackend {
    place: Place,
    program: PathBuf,
}

impl ProgramBackend {
    pub(crate) fn new(place: Place, program: &Path) -> Self {
        let program = program.to_owned();
        Self { place, program }
    }

    fn running(&self) -> Result<&Server> {
        let server = match &self.place {
            Place::Server(_, server) => server.get(),
            Place::File(_) => None,
        };
        server.ok_or_else(|| Error::new(ErrorKind::Internal, "there is no server here"))
    }
}

fn of_the_server(error: ServerError) -> Error {
    Error::new(ErrorKind::Unavailable, "the test server").with_source(error)
}

#[async_trait]
impl Backend for ProgramBackend {
    fn name(&self) -> String {
        match &self.place {
            Place::File(_) => "sqlite".to_owned(),
            Place::Server(target, _) => target.to_string().replace('/', "-"),
        }
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::MUTEX
    }

    async fn driver(&self, env: &Env) -> Result<(Arc<dyn Driver>, DriverContext)> {
        let context = DriverContext::new(env.clone());
        let driver: Arc<dyn Driver> = match &self.place {
            Place::File(path) => {
                Arc::new(SqliteDriver::open(SqliteConfig::new(path)?, context.clone()).await?)
            }
            Place::Server(..) => {
                let mut endpoint = Endpoint::parse(self.running()?.url())?;
                let config = RedisConfig::from_endpoint(&mut endpoint)?;
                Arc::new(RedisDriver::connect(config, context.clone()).await?)
            }
        };
        Ok((driver, context))
    }

    fn abilities(&self) -> Vec<Ability> {
        match self.place {
            Place::File(_) => vec![Ability::Program],
            Place::Server(..) => vec![Ability::Program, Ability::Network, Ability::Pause],
        }
    }

    async fn prepare(&self) -> Result<()> {
        if let Place::Server(target, server) = &self.place {
            let started = target.request().start().await.map_err(of_the_server)?;
            server.get_or_init(|| started);
        }
        Ok(())
    }

    async fn finish(&self) {
        if let Ok(server) = self.running() {
            server.stop().await.ok();
        }
    }

    fn describe(&self) -> String {
        self.running().map_or_else(|_| self.name(), Server::describe)
    }

    fn url(&self) -> Option<String> {
        match &self.place {
            Place::File(path) => Some(format!("sqlite:{}", path.display())),
            Place::Server(..) => self.running().ok().map(|server| server.url().to_owned()),
        }
    }

    async fn pause(&self) -> Result<()> {
        self.running()?.pause().await.map_err(of_the_server)
    }

    async fn resume(&self) -> Result<()> {
        self.running()?.resume().await.map_err(of_the_server)
    }

    fn program(&self) -> Option<PathBuf> {
        Some(self.program.clone())
    }
}
