//! The driver: each call is one transaction, or a few.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use etcd_client::{Client, GetOptions, Txn, TxnOp, TxnOpResponse};
use futures_util::future::try_join_all;
use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    Capabilities, Claim, Diagnosis, Driver, DriverContext, Error, ErrorKind, ExpiryClock, Failover,
    FencingSource, Kind, MAX_TTL, Namespace, Resource, Result, SessionPool, Supervisor,
};

use crate::acquire::{Asking, telling};
use crate::config::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_KEEP_ALIVE, DEFAULT_QUEUE, EtcdConfig};
use crate::connection::{Connector, Link, Source, ask};
use crate::doctor;
use crate::keys::{self, LockKeys, State};
use crate::look;
use crate::queue::Queues;
use crate::requests::{self, Seen, Stored};
use crate::session::{self, Opener};

/// Leases in one call of `renew`: a server takes 128 operations in a transaction unless it is told otherwise.
const RENEW_BATCH: usize = 128;

/// The shortest TTL: what a server allows with its default election timeout, rounded up.
const MIN_TTL: Duration = Duration::from_secs(2);

/// How much later than its TTL an abandoned lock is free: the second that is kept for a deposed leader, and what a server
/// takes to notice and to agree on it, twice a second.
const EXPIRY_EPSILON: Duration = Duration::from_millis(2_000);

/// How long a close waits for the server to have ended the leases. They are ended later, or run out.
const GOODBYE: Duration = Duration::from_millis(300);

/// What every driver of this crate can do.
pub const CAPABILITIES: Capabilities = Capabilities::MUTEX
    .with_ttl(MIN_TTL, MAX_TTL, Duration::from_secs(1))
    .with_expiry(ExpiryClock::ServerMonotonic, EXPIRY_EPSILON)
    .with_fencing(FencingSource::StoreRevision)
    .with_failover(Failover::Consensus)
    .with_sessions(true)
    .with_renew_batch(RENEW_BATCH);

/// Locks on one etcd cluster. See the [crate] for the protocol.
#[derive(Debug)]
pub struct EtcdDriver {
    context: DriverContext,
    supervisor: Supervisor<Connector>,
    queues: Arc<Queues>,
    pool: SessionPool<Opener>,
    queue: usize,
    /// Do we log in, where we know?
    login: Option<bool>,
}

impl EtcdDriver {
    /// Connects to the first member that answers. From then on the connection is kept: it is opened again, to the next
    /// member, when it breaks.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when no member that belongs to a majority answers within the connect
    /// timeout; [`Denied`](ErrorKind::Denied) for the login or the server's certificate;
    /// [`Invalid`](ErrorKind::Invalid) for a value out of bounds and for certificate files that cannot be used.
    pub async fn connect(config: EtcdConfig, context: DriverContext) -> Result<Self> {
        config.validate()?;
        let limits = (config.connect_timeout, config.keep_alive, config.queue);
        Self::start(Source::Config(config), limits, context).await
    }

    /// Connects by way of an existing client, with its members, login and TLS. Everything is sent on its connections. The
    /// limits are those of [`EtcdConfig`]'s defaults.
    ///
    /// A client that logs in has to refresh its token by itself (`with_auto_token_refresh`).
    ///
    /// # Errors
    /// As [`EtcdDriver::connect`].
    pub async fn from_client(client: Client, context: DriverContext) -> Result<Self> {
        let limits = (DEFAULT_CONNECT_TIMEOUT, DEFAULT_KEEP_ALIVE, DEFAULT_QUEUE);
        Self::start(Source::Client(Box::new(client)), limits, context).await
    }

    async fn start(
        source: Source,
        (connect_timeout, keep_alive, queue): (Duration, Duration, usize),
        context: DriverContext,
    ) -> Result<Self> {
        let queues = Queues::new(context.clone());
        let login = source.login();
        let connector = Connector {
            source,
            context: context.clone(),
            queues: Arc::clone(&queues),
            connect_timeout,
            keep_alive,
            first: AtomicUsize::new(0),
        };
        let supervisor = Supervisor::start(&context, connector).await?;
        let opener = Opener {
            context: context.clone(),
            supervisor: supervisor.clone(),
            queues: Arc::clone(&queues),
        };
        Ok(Self {
            pool: SessionPool::new(&context, opener),
            context,
            supervisor,
            queues,
            queue,
            login,
        })
    }

    pub(crate) async fn link(&self) -> Result<Link> {
        self.supervisor.connection(&self.context).await
    }

    pub(crate) const fn context(&self) -> &DriverContext {
        &self.context
    }

    pub(crate) fn queues(&self) -> &Queues {
        &self.queues
    }

    pub(crate) const fn pool(&self) -> &SessionPool<Opener> {
        &self.pool
    }

    /// How many may wait for one lock.
    pub(crate) const fn queue(&self) -> usize {
        self.queue
    }

    /// Are the locks that live by a session still held? One read for all of them.
    async fn look_at(&self, leases: &[&Lease]) -> Result<Vec<Renewal>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let link = self.link().await?;
        let reads: Vec<_> = leases
            .iter()
            .map(|lease| {
                let keys = LockKeys::new(&lease.claim.resource);
                TxnOp::get(
                    keys.of(lease.claim.attempt),
                    Some(GetOptions::new().with_keys_only()),
                )
            })
            .collect();
        let found = link.call(link.kv().txn(Txn::new().and_then(reads))).await?;
        let answers = found.op_responses();
        let answer = |(lease, answer): (&&Lease, &TxnOpResponse)| match answer {
            TxnOpResponse::Get(get) => match get.kvs().first() {
                Some(key) if keys::token(key.create_revision()) == Some(lease.token) => Renewal::Renewed,
                _ => Renewal::NotHeld,
            },
            _ => Renewal::Unknown,
        };
        Ok(leases.iter().zip(&answers).map(answer).collect())
    }

    /// Renews a lock that has a lease of its own; a TTL that is another one needs another lease.
    async fn renew_own(&self, lease: &Lease) -> Result<Renewal> {
        let (claim, link) = (&lease.claim, self.link().await?);
        let mine = LockKeys::new(&claim.resource).of(claim.attempt);
        let seconds = session::seconds(lease.ttl);
        let id = session::own_id(claim.attempt, seconds);
        let mut kv = link.kv();
        let (found, renewed) = tokio::join!(
            link.call(kv.get(mine.as_str(), None)),
            session::renew_own(&link, id)
        );
        let (found, renewed) = (found?, renewed?);
        let held =
            |seen: &Seen| keys::token(seen.created) == Some(lease.token) && seen.state() == State::Holds;
        let Some(seen) = found.kvs().first().map(Seen::from).filter(held) else {
            return Ok(Renewal::NotHeld);
        };
        if seen.lease == id {
            return Ok(match renewed {
                true => Renewal::Renewed,
                false => Renewal::NotHeld,
            });
        }
        if !renewed {
            session::open_own(&link, id, seconds).await?;
        }
        let value = String::from_utf8_lossy(&seen.value);
        let stored = Stored {
            value: &value,
            lease: id,
        };
        if !link
            .call(link.kv().txn(requests::rewrite(&seen, stored)))
            .await?
            .succeeded()
        {
            return Ok(Renewal::Unknown);
        }
        session::revoke(&link, seen.lease).await?;
        Ok(Renewal::Renewed)
    }
}

fn refuse_others(kind: Kind) -> Result<()> {
    if kind == Kind::Mutex {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("etcd has no {kind} locks here: use a mutex, or a backend that declares weighted locks"),
    ))
}

impl Driver for EtcdDriver {
    fn backend(&self) -> &'static str {
        "etcd"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        refuse_others(claim.resource.kind())?;
        let asking = Asking::new(self, claim).await?;
        match intent {
            Intent::Wait { ticket } => Box::pin(asking.in_turn(ticket)).await,
            _ => Box::pin(asking.now()).await,
        }
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        refuse_others(claim.resource.kind())?;
        let keys = LockKeys::new(&claim.resource);
        let turn = self.queues.attempts.turn(claim.attempt);
        let _turn = match &turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        let _ending = self.queues.attempts.ends(claim.attempt);
        self.queues.leaves(&keys, claim.attempt);
        let link = self.link().await?;
        let deleted = link
            .call(link.kv().delete(keys.of(claim.attempt), telling()))
            .await?;
        let before = deleted.prev_kvs().first().map(Seen::from);
        let held = before.filter(|before| before.state() == State::Holds);
        if !claim.auto_renew {
            let own = session::own_id(claim.attempt, session::seconds(claim.ttl));
            let renewed = held.as_ref().map_or(own, |held| held.lease);
            for id in [own, renewed].into_iter().take(1 + usize::from(renewed != own)) {
                if let Err(error) = session::revoke(&link, id).await {
                    // The key is gone, and nothing else hangs on it.
                    tracing::debug!(%error, "a lease was not revoked, it runs out");
                }
            }
        }
        Ok(match held {
            Some(_) => Released::Released,
            None => Released::NotHeld,
        })
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        let shared: Vec<_> = leases.iter().filter(|lease| lease.claim.auto_renew).collect();
        let own = leases.iter().filter(|lease| !lease.claim.auto_renew);
        let (shared, own) = tokio::join!(
            self.look_at(&shared),
            try_join_all(own.map(|lease| self.renew_own(lease)))
        );
        let (mut shared, mut own) = (shared?.into_iter(), own?.into_iter());
        let answers = leases.iter().map(|lease| match lease.claim.auto_renew {
            true => shared.next(),
            false => own.next(),
        });
        Ok(answers.map(|answer| answer.unwrap_or(Renewal::Unknown)).collect())
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        refuse_others(resource.kind())?;
        look::inspect(&self.link().await?, &LockKeys::new(resource)).await
    }

    async fn list(&self, namespace: &Namespace, _prefix: &str) -> Result<Vec<Listed>> {
        look::list(&self.link().await?, namespace).await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        refuse_others(resource.kind())?;
        look::force_release(&self.link().await?, &LockKeys::new(resource)).await
    }

    async fn ping(&self) -> Result<()> {
        ask(&self.link().await?).await
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        doctor::diagnose(&self.link().await?, self.login).await
    }

    async fn close(&self) -> Result<()> {
        let (pool, supervisor) = (self.pool.clone(), self.supervisor.clone());
        let closing = async move {
            pool.close().await;
            supervisor.close();
        };
        // A server that cannot be reached does not hold up whoever says goodbye.
        let mut closing = self.context.env.spawn(closing);
        self.context.env.timeout(GOODBYE, &mut closing).await;
        Ok(())
    }
}
