//! The driver: sessions, and nodes that live by them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    Capabilities, Claim, DEFAULT_TTL, Diagnosis, Driver, DriverContext, Error, ErrorKind, ExpiryClock,
    Failover, FencingSource, Instant, Kind, Namespace, Resource, Result, SessionPool,
};
use zookeeper_client::{Acl, Acls, AuthId, Client, Connector, Error as ZkError, Permission};

use crate::config::{Access, ZkConfig};
use crate::doctor;
use crate::error::{ends_session, from_client};
use crate::layout::Layout;
use crate::nodes::inspection;
use crate::place::{Place, Places, Stage, State};
use crate::queue::Acquire;
use crate::session::{Bounds, Ensemble, Opener};

/// How many locks are looked at in one pipeline.
const PAGE: usize = 500;

/// What this driver can do where `tickTime` is 2 s and the limits of sessions are not configured. A driver that is
/// connected declares what its servers agreed to.
pub const CAPABILITIES: Capabilities = capabilities(
    Duration::from_secs(4),
    Duration::from_secs(40),
    Duration::from_secs(2),
);

/// For servers that agree to sessions from `shortest` to `longest`, and look for ended ones every `tick`.
const fn capabilities(shortest: Duration, longest: Duration, tick: Duration) -> Capabilities {
    Capabilities::MUTEX
        .with_ttl(shortest, longest, Duration::from_millis(1))
        // The end is rounded up to a whole tick, and then the nodes have to be deleted.
        .with_expiry(ExpiryClock::ServerMonotonic, tick.saturating_mul(2))
        .with_fencing(FencingSource::StoreRevision)
        .with_failover(Failover::Consensus)
        .with_sessions(true)
}

/// Locks on a ZooKeeper ensemble. See the [crate] for the protocol.
#[derive(Debug)]
pub struct ZkDriver {
    pub(crate) context: DriverContext,
    pub(crate) pool: SessionPool<Opener>,
    pub(crate) queue: usize,
    places: Places,
    pub(crate) layout: Layout,
    pub(crate) access: Access,
    /// Of what belongs to everybody, with a login.
    pub(crate) parents: Vec<Acl>,
    bounds: Bounds,
    /// For a look at the servers.
    config: ZkConfig,
}

impl ZkDriver {
    /// Connects, and asks which sessions the servers agree to. The sessions that locks live by are opened when they are
    /// needed, and kept.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when no server answers within the connect timeout, or TLS fails;
    /// [`Denied`](ErrorKind::Denied) when the servers refuse the login; [`Invalid`](ErrorKind::Invalid) for a value
    /// out of bounds and for certificate files that cannot be used.
    pub async fn connect(config: ZkConfig, context: DriverContext) -> Result<Self> {
        let ensemble = Ensemble::new(&config);
        Self::start(ensemble, &config, context).await
    }

    /// The same with the login and TLS of a connector of the client library, for what [`ZkConfig`] does not have. Its
    /// session, timeouts and read-only mode are not used.
    ///
    /// # Errors
    /// As [`ZkDriver::connect`].
    pub async fn from_connector(
        connector: Connector,
        config: ZkConfig,
        context: DriverContext,
    ) -> Result<Self> {
        let ensemble = Ensemble::with_connector(connector, &config);
        Self::start(ensemble, &config, context).await
    }

    async fn start(ensemble: Ensemble, config: &ZkConfig, context: DriverContext) -> Result<Self> {
        config.validate()?;
        let bounds = ensemble.bounds(&context, config.tick).await?;
        let opener = Opener {
            context: context.clone(),
            ensemble,
            bounds,
        };
        let mut parents = Acls::creator_all().to_vec();
        parents.push(Acl::new(Permission::READ | Permission::CREATE, AuthId::anyone()));
        Ok(Self {
            pool: SessionPool::new(&context, opener),
            context,
            queue: config.queue,
            places: Places::default(),
            layout: config.layout()?,
            access: config.access,
            parents,
            bounds,
            config: config.clone(),
        })
    }

    /// The node whose children contend for `resource`: what a Java service gives to its `InterProcessMutex`.
    ///
    /// # Errors
    /// As [`ZkConfig::lock_path`].
    pub fn lock_path(&self, resource: &Resource) -> Result<String> {
        self.layout.lock(resource)
    }

    pub(crate) fn now(&self) -> Instant {
        self.context.env.now()
    }

    /// The server has said so in answer to a request under the session of `state`.
    pub(crate) fn session_ended(&self, state: &State) {
        if let Some(session) = &state.session {
            self.pool.ended(session);
        }
    }

    /// A session for requests that need no particular one.
    async fn any_client(&self) -> Result<Client> {
        let now = self.now();
        let mut open = self.pool.sessions().into_iter();
        let session = match open.find(|session| session.session().deadline() > now) {
            Some(session) => session,
            None => {
                self.pool
                    .get(self.capabilities().effective_ttl(DEFAULT_TTL))
                    .await?
            }
        };
        session.handle().client()
    }

    async fn release_place(&self, claim: &Claim, lock: &str, state: &mut State) -> Result<Released> {
        let over = state.is_over(self.now());
        let held = matches!(state.stage, Stage::Held(_));
        if let Some(session) = &state.session {
            session.handle().let_go(claim.attempt);
        }
        let node = match std::mem::take(&mut state.stage) {
            // The watches end here.
            Stage::Queued(queued) => Some(queued.node),
            Stage::Held(node) => Some(node),
            Stage::Absent | Stage::Unknown => None,
        };
        state.stage = Stage::Unknown;
        if let (Some(session), Some(node), false) = (&state.session, node, over) {
            let client = session.handle().client()?;
            return match client.delete(&node.path, None).await {
                Ok(()) if held => Ok(Released::Released),
                Ok(()) | Err(ZkError::NoNode) => Ok(Released::NotHeld),
                Err(error) => {
                    if ends_session(&error) {
                        self.session_ended(state);
                    }
                    Err(from_client(error))
                }
            };
        }
        // Whatever there is of it, under whichever session.
        let client = match &state.session {
            Some(session) if !over => session.handle().client()?,
            _ => self.any_client().await?,
        };
        let lost = state.session.is_some() && over;
        let mut released = Released::NotHeld;
        for name in self
            .nodes_of(&client, lock, claim.attempt)
            .await
            .map_err(from_client)?
        {
            let path = format!("{lock}/{name}");
            let held = self.is_holder(&client, lock, &name).await?;
            match client.delete(&path, None).await {
                Ok(()) if held && !lost => released = Released::Released,
                Ok(()) | Err(ZkError::NoNode) => {}
                Err(error) => return Err(from_client(error)),
            }
        }
        Ok(released)
    }
}

impl Drop for ZkDriver {
    fn drop(&mut self) {
        // Its sessions would be kept for ever.
        let pool = self.pool.clone();
        drop(self.context.env.spawn(async move { pool.close().await }));
    }
}

fn refuse_others(kind: Kind) -> Result<()> {
    if kind == Kind::Mutex {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("ZooKeeper has no {kind} locks here: use a mutex, or a backend that declares weighted locks"),
    ))
}

impl Driver for ZkDriver {
    fn backend(&self) -> &'static str {
        "zookeeper"
    }

    fn capabilities(&self) -> Capabilities {
        capabilities(self.bounds.shortest, self.bounds.longest, self.bounds.tick)
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        refuse_others(claim.resource.kind())?;
        let lock = self.layout.lock(&claim.resource)?;
        let place: Place = self.places.enter(claim.attempt);
        let mut state = place.lock().await;
        let acquire = Acquire {
            driver: self,
            claim,
            intent,
            lock,
        };
        let answer = acquire.run(&mut state).await;
        if matches!((&answer, &state.stage), (Ok(_), Stage::Absent)) {
            // A try that was refused has left nothing.
            self.places.leave(claim.attempt);
        }
        answer
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        refuse_others(claim.resource.kind())?;
        let lock = self.layout.lock(&claim.resource)?;
        let place = self.places.enter(claim.attempt);
        let mut state = place.lock().await;
        let released = self.release_place(claim, &lock, &mut state).await;
        if released.is_ok() || state.is_over(self.now()) {
            // What a session leaves is found by the attempt's name.
            state.forget_node(claim.attempt);
            self.places.leave(claim.attempt);
        }
        released
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let mut looks = Vec::with_capacity(leases.len());
        for lease in leases {
            looks.push(match self.places.get(lease.claim.attempt) {
                Some(place) => match (&*place.lock().await, self.now()) {
                    (state, now) if state.is_over(now) => None,
                    (
                        State {
                            session: Some(session),
                            stage: Stage::Held(node),
                        },
                        _,
                    ) => {
                        let client = session.handle().client()?;
                        let path = Arc::clone(&node.path);
                        Some(async move { client.check_stat(&path).await })
                    }
                    _ => None,
                },
                None => None,
            });
        }
        let look = |look| async {
            let Some(look) = look else {
                return Renewal::NotHeld;
            };
            match Box::pin(look).await {
                Ok(Some(_)) => Renewal::Renewed,
                Ok(None) | Err(ZkError::NoNode | ZkError::SessionExpired) => Renewal::NotHeld,
                Err(_) => Renewal::Unknown,
            }
        };
        Ok(join_all(looks.into_iter().map(look)).await)
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        refuse_others(resource.kind())?;
        let lock = self.layout.lock(resource)?;
        let client = self.any_client().await?;
        Ok(inspection(self.look(&client, &lock).await?))
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        let folder = self.layout.folder(namespace, Kind::Mutex.code())?;
        let client = self.any_client().await?;
        let mut keys = match client.list_children(&folder).await {
            Ok(keys) => keys,
            Err(ZkError::NoNode) => Vec::new(),
            Err(error) => return Err(from_client(error)),
        };
        // Of a long name only the beginning is in its key; of a short one all of it.
        keys.retain(|key| lockcore::decode_key(key).is_none_or(|name| name.as_str().starts_with(prefix)));
        keys.sort_unstable();
        let mut found = Vec::new();
        for page in keys.chunks(PAGE) {
            let locks: Vec<_> = page.iter().map(|key| format!("{folder}/{key}")).collect();
            let looks = join_all(locks.iter().map(|lock| self.look(&client, lock))).await;
            for (key, look) in page.iter().zip(looks) {
                let inspection = inspection(look?);
                if !inspection.holders.is_empty() {
                    found.push(Listed::new(Kind::Mutex, key.clone(), inspection));
                }
            }
        }
        Ok(found)
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        refuse_others(resource.kind())?;
        let lock = self.layout.lock(resource)?;
        let client = self.any_client().await?;
        loop {
            let head = match self.look(&client, &lock).await? {
                Some((head, _)) if head.holds() => head,
                _ => return Ok(false),
            };
            match client.delete(&head.path(&lock), Some(head.version())).await {
                Ok(()) => return Ok(true),
                // It was released, or claimed, meanwhile.
                Err(ZkError::NoNode | ZkError::BadVersion) => {}
                Err(error) => return Err(from_client(error)),
            }
        }
    }

    async fn ping(&self) -> Result<()> {
        let client = self.any_client().await?;
        client.check_stat("/").await.map(drop).map_err(from_client)
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        self.ping().await?;
        Ok(doctor::diagnose(&self.context.env, &self.config, self.bounds).await)
    }

    async fn close(&self) -> Result<()> {
        self.places.clear();
        self.pool.close().await;
        Ok(())
    }
}
