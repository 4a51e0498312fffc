//! A Redis server for the suite.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use leasehold_conformance::servers::{Origin, Server, ServerError, Target};
use leasehold_conformance::{Ability, Backend};
use leasehold_driver_redis::redis::aio::MultiplexedConnection;
use leasehold_driver_redis::redis::{Client, FromRedisValue, RedisError, cmd};
use leasehold_driver_redis::{RedisConfig, RedisDriver};
use lockcore::{
    Capabilities, Driver, DriverContext, Endpoint, Env, Error, ErrorKind, Namespace, Resource, Result,
};

/// One server, started before the first scenario, or one that runs already.
#[derive(Debug)]
pub(crate) struct RedisBackend {
    target: Target,
    place: Mutex<Place>,
    /// It got in before the server was full.
    gatekeeper: Mutex<Option<MultiplexedConnection>>,
}

#[derive(Clone)]
enum Place {
    Nowhere,
    Server(Arc<Server>),
    Url(String),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may have a password.
        f.write_str(match self {
            Self::Nowhere => "nowhere",
            Self::Server(_) => "a server",
            Self::Url(_) => "a URL",
        })
    }
}

impl RedisBackend {
    pub(crate) const fn new(target: Target) -> Self {
        Self {
            target,
            place: Mutex::new(Place::Nowhere),
            gatekeeper: Mutex::new(None),
        }
    }

    fn place(&self) -> Place {
        lock(&self.place).clone()
    }

    fn server(&self) -> Result<Arc<Server>> {
        match self.place() {
            Place::Server(server) => Ok(server),
            _ => Err(Error::new(ErrorKind::Internal, "the server was not started here")),
        }
    }

    async fn connect(&self) -> Result<MultiplexedConnection> {
        let url = self.url().unwrap_or_default();
        let client = Client::open(url).map_err(of_the_administrator)?;
        let connecting = client.get_multiplexed_async_connection();
        connecting.await.map_err(of_the_administrator)
    }

    /// What an administrator does, on a connection of its own.
    async fn admin<T: FromRedisValue>(&self, command: &[&str]) -> Result<T> {
        run(&mut self.connect().await?, command).await
    }

    async fn keys(&self, namespace: &Namespace) -> Result<Vec<String>> {
        let pattern = format!("leasehold:1:{}:*", namespace.key());
        self.admin(&["KEYS", &pattern]).await
    }
}

async fn run<T: FromRedisValue>(connection: &mut MultiplexedConnection, command: &[&str]) -> Result<T> {
    let (name, arguments) = command.split_first().unwrap_or((&"PING", &[]));
    let answer = cmd(name).arg(arguments).query_async(connection).await;
    answer.map_err(of_the_administrator)
}

fn of_the_administrator(error: RedisError) -> Error {
    Error::new(ErrorKind::Unavailable, "the administrator's command failed").with_source(error)
}

fn of_the_server(error: ServerError) -> Error {
    Error::new(ErrorKind::Unavailable, "the test server").with_source(error)
}

#[async_trait]
impl Backend for RedisBackend {
    fn name(&self) -> String {
        self.target.to_string().replace('/', "-")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::MUTEX.with_renew_batch(1_000)
    }

    async fn driver(&self, env: &Env) -> Result<(Arc<dyn Driver>, DriverContext)> {
        let url = self.url().unwrap_or_default();
        let mut endpoint = Endpoint::parse(&url)?;
        let config = RedisConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let context = DriverContext::new(env.clone());
        let driver = RedisDriver::connect(config, context.clone()).await?;
        Ok((Arc::new(driver), context))
    }

    fn abilities(&self) -> Vec<Ability> {
        let mut abilities = vec![
            Ability::Processes,
            Ability::Network,
            Ability::DeleteLock,
            Ability::Residue,
            Ability::Logins,
        ];
        // A server that was given may have other users.
        if self.target.origin != Origin::Url {
            abilities.extend([
                Ability::Stop,
                Ability::Pause,
                Ability::KillConnections,
                Ability::Wipe,
                Ability::LimitClients,
            ]);
        }
        abilities
    }

    async fn prepare(&self) -> Result<()> {
        let mut request = self.target.request();
        if self.target.origin != Origin::Url {
            // Also what was acknowledged in the last moment before a kill survives it.
            request = request
                .own()
                .args(["--appendonly", "yes", "--appendfsync", "always"]);
        }
        let server = request.start().await.map_err(of_the_server)?;
        *lock(&self.place) = Place::Server(Arc::new(server));
        Ok(())
    }

    async fn finish(&self) {
        lock(&self.gatekeeper).take();
        *lock(&self.place) = Place::Nowhere;
    }

    fn describe(&self) -> String {
        self.server()
            .map_or_else(|_| self.name(), |server| server.describe())
    }

    fn url(&self) -> Option<String> {
        match self.place() {
            Place::Nowhere => None,
            Place::Server(server) => Some(server.url().to_owned()),
            Place::Url(url) => Some(url),
        }
    }

    fn at(&self, url: &str) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Self {
            target: self.target,
            place: Mutex::new(Place::Url(url.to_owned())),
            gatekeeper: Mutex::new(None),
        }))
    }

    async fn stop(&self) -> Result<()> {
        self.server()?.stop().await.map_err(of_the_server)
    }

    async fn start(&self) -> Result<()> {
        self.server()?.start_again().await.map_err(of_the_server)
    }

    async fn pause(&self) -> Result<()> {
        self.server()?.pause().await.map_err(of_the_server)
    }

    async fn resume(&self) -> Result<()> {
        self.server()?.resume().await.map_err(of_the_server)
    }

    async fn kill_connections(&self) -> Result<()> {
        for kind in ["pubsub", "normal"] {
            let killed = ["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"];
            self.admin::<u64>(&killed).await?;
        }
        Ok(())
    }

    async fn wipe(&self) -> Result<()> {
        self.admin::<()>(&["SCRIPT", "FLUSH"]).await?;
        self.admin(&["FLUSHALL"]).await
    }

    async fn limit_clients(&self, on: bool) -> Result<()> {
        let gatekeeper = lock(&self.gatekeeper).take();
        let mut gatekeeper = match gatekeeper {
            Some(gatekeeper) => gatekeeper,
            None => self.connect().await?,
        };
        let limit = if on {
            let list: String = run(&mut gatekeeper, &["CLIENT", "LIST"]).await?;
            list.lines().count().to_string()
        } else {
            "10000".to_owned()
        };
        run::<()>(&mut gatekeeper, &["CONFIG", "SET", "maxclients", &limit]).await?;
        *lock(&self.gatekeeper) = on.then_some(gatekeeper);
        Ok(())
    }

    async fn delete_lock(&self, resource: &Resource) -> Result<()> {
        let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
        let lease = format!("leasehold:1:{namespace}:{kind}:{{{}}}:L", resource.key());
        self.admin::<u64>(&["DEL", &lease]).await.map(drop)
    }

    async fn residue(&self, namespace: &Namespace) -> Result<Vec<String>> {
        let mut keys = self.keys(namespace).await?;
        // The fencing state stays for a day.
        keys.retain(|key| !key.ends_with(":F"));
        Ok(keys)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
