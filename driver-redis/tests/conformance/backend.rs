//! A Redis server for the suite.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_conformance::servers::{Origin, Server, ServerError, Target};
use leasehold_conformance::{Ability, Backend, Budget, Counters};
use leasehold_driver_redis::redis::aio::MultiplexedConnection;
use leasehold_driver_redis::redis::{AsyncConnectionConfig, Client, FromRedisValue};
use leasehold_driver_redis::{RedisConfig, RedisDriver};
use lockcore::{
    AttemptId, Capabilities, DriverContext, DynDriver, Endpoint, Env, Error, ErrorKind, Namespace, Resource,
    Result,
};

use crate::admin::{self, failed, run};

/// How long an administrator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than the whole suite writes.
const DISK: u64 = 256 << 20;

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
        let client = Client::open(url).map_err(failed)?;
        // As patient as the scenarios: the default is half a second.
        let patient = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        let connecting = client.get_multiplexed_async_connection_with_config(&patient);
        connecting.await.map_err(failed)
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

    fn another(&self) -> Option<Arc<dyn Backend>> {
        (self.target.origin != Origin::Url).then(|| Arc::new(Self::new(self.target)) as _)
    }

    async fn driver(&self, env: &Env) -> Result<(DynDriver, DriverContext)> {
        let url = self.url().unwrap_or_default();
        let mut endpoint = Endpoint::parse(&url)?;
        let config = RedisConfig::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        let context = DriverContext::new(env.clone());
        let driver = RedisDriver::connect(config, context.clone()).await?;
        Ok((DynDriver::new(driver), context))
    }

    fn abilities(&self) -> Vec<Ability> {
        let mut abilities = vec![
            Ability::Processes,
            Ability::Network,
            Ability::DeleteLock,
            Ability::DeleteWaiter,
            Ability::Residue,
            Ability::Logins,
        ];
        // A server that was given may have other users.
        if self.target.origin != Origin::Url {
            abilities.extend([
                Ability::Stop,
                Ability::Pause,
                Ability::KillConnections,
                Ability::KillConnection,
                Ability::Wipe,
                Ability::CleanUp,
                Ability::Usage,
                Ability::Counters,
                Ability::LimitClients,
            ]);
        }
        if self.target.origin == Origin::LocalProcess {
            abilities.push(Ability::StepClock);
            if admin::is_root() {
                abilities.push(Ability::FillDisk);
            }
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
        if self.target.origin == Origin::LocalProcess {
            request = request.wall_clock();
            if admin::is_root() {
                request = request.disk_limit(DISK);
            }
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

    async fn fill_disk(&self) -> Result<()> {
        self.server()?.fill_disk().await.map_err(of_the_server)
    }

    /// A server that may not acknowledge what is not on the disk ends when it cannot write, and is started again.
    async fn free_disk(&self) -> Result<()> {
        let server = self.server()?;
        server.free_disk().await.map_err(of_the_server)?;
        if self.admin::<String>(&["PING"]).await.is_err() {
            server.stop().await.map_err(of_the_server)?;
            server.start_again().await.map_err(of_the_server)?;
        }
        Ok(())
    }

    async fn step_clock(&self, by: Duration, forward: bool) -> Result<()> {
        self.server()?.step_clock(by, forward).map_err(of_the_server)
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
        let lease = admin::base(resource) + "L";
        self.admin::<u64>(&["DEL", &lease]).await.map(drop)
    }

    async fn delete_waiter(&self, resource: &Resource, attempt: AttemptId) -> Result<()> {
        let (base, attempt) = (admin::base(resource), attempt.to_hex());
        self.admin::<u64>(&["ZREM", &format!("{base}Q"), &attempt])
            .await?;
        self.admin::<u64>(&["HDEL", &format!("{base}W"), &attempt])
            .await
            .map(drop)
    }

    async fn kill_connection(&self, nth: usize) -> Result<bool> {
        admin::kill(&mut self.connect().await?, nth).await
    }

    async fn clean_up(&self, namespace: &Namespace) -> Result<()> {
        let pattern = format!("leasehold:1:{}:*:F", namespace.key());
        admin::clean_up(&mut self.connect().await?, &pattern).await
    }

    async fn usage(&self) -> Result<Vec<(&'static str, u64)>> {
        admin::usage(&mut self.connect().await?).await
    }

    async fn counters(&self) -> Result<Counters> {
        admin::counters(&mut self.connect().await?).await
    }

    fn budget(&self) -> Budget {
        admin::BUDGET
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
