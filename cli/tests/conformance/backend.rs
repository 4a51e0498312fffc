//! What the program is run on.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use async_trait::async_trait;
use leasehold::core::{DriverContext, DynDriver};
use leasehold::etcd::{self, EtcdConfig, EtcdDriver};
use leasehold::mysql::{self, MysqlConfig, MysqlDriver};
use leasehold::postgres::{self, PostgresConfig, PostgresDriver};
use leasehold::redis::{self, RedisConfig, RedisDriver};
use leasehold::sqlite::{self, SqliteConfig, SqliteDriver};
use leasehold::zk::{self, ZkConfig, ZkDriver};
use leasehold::{Capabilities, Endpoint, Env, Error, ErrorKind, Result};
use leasehold_conformance::servers::{Server, ServerError, ServerKind, Target};
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

    /// Of which kind the server is, if there is one.
    fn kind(&self) -> Option<ServerKind> {
        match &self.place {
            Place::File(_) => None,
            Place::Server(target, _) => Some(target.kind),
        }
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
        match self.kind() {
            None => sqlite::CAPABILITIES,
            Some(ServerKind::Etcd) => etcd::CAPABILITIES,
            Some(ServerKind::ZooKeeper) => zk::CAPABILITIES,
            Some(ServerKind::MySql | ServerKind::MariaDb) => mysql::CAPABILITIES,
            Some(ServerKind::Postgres) => postgres::CAPABILITIES,
            _ => redis::CAPABILITIES,
        }
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        let context = DriverContext::new(env.clone());
        let driver = match &self.place {
            Place::File(path) => {
                DynDriver::new(SqliteDriver::open(SqliteConfig::new(path)?, context.clone()).await?)
            }
            Place::Server(target, _) => {
                let mut endpoint = Endpoint::parse(self.running()?.url())?;
                let (endpoint, context) = (&mut endpoint, context.clone());
                match target.kind {
                    ServerKind::Etcd => DynDriver::new(
                        EtcdDriver::connect(EtcdConfig::from_endpoint(endpoint)?, context).await?,
                    ),
                    ServerKind::ZooKeeper => {
                        DynDriver::new(ZkDriver::connect(ZkConfig::from_endpoint(endpoint)?, context).await?)
                    }
                    ServerKind::MySql | ServerKind::MariaDb => DynDriver::new(
                        MysqlDriver::connect(MysqlConfig::from_endpoint(endpoint)?, context).await?,
                    ),
                    ServerKind::Postgres => {
                        let config = PostgresConfig::from_endpoint(endpoint)?;
                        DynDriver::new(PostgresDriver::connect(config, context).await?)
                    }
                    _ => DynDriver::new(
                        RedisDriver::connect(RedisConfig::from_endpoint(endpoint)?, context).await?,
                    ),
                }
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
