//! One connection: how it is opened, and when it is of no more use.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{
    Certificate, Client, ConnectOptions, Error as ClientError, GetOptions, Identity, KvClient, LeaseClient,
    TlsOptions, WatchFilterType, WatchOptions,
};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use lockcore::{Connect, DriverContext, Env, Error, ErrorKind, Instant, KeepAlive, Result};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::config::{EtcdConfig, KEEP_ALIVE_PATIENCE, TlsConfig};
use crate::error::{from_client, gone, is_lease_gone, is_lease_there, is_too_long, wants_login};
use crate::keys::ROOT;
use crate::queue::Queues;
use crate::watch::{self, Watcher};

/// Room for the largest reply that a driver of ours asks for: a list of 10,000 waiters.
const LARGEST_REPLY: usize = 64 << 20;

/// A member that does not answer for so long gets company by the next one.
const COMPANY: Duration = Duration::from_millis(500);

/// How often a connection is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// A connection to send requests on. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link(Arc<Wire>);

struct Wire {
    client: Client,
    kv: KvClient,
    ended: CancellationToken,
    env: Env,
    /// When the last answer came.
    answered: AtomicU64,
    /// Another one has come.
    heard: Notify,
    /// Requests that are not answered yet.
    under_way: AtomicUsize,
}

/// A request that is not answered yet.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    pub(crate) fn kv(&self) -> KvClient {
        self.0.kv.clone()
    }

    pub(crate) fn leases(&self) -> LeaseClient {
        self.0.client.lease_client()
    }

    pub(crate) fn client(&self) -> Client {
        self.0.client.clone()
    }

    /// The answer to a request, unless the connection ends first.
    pub(crate) async fn call<T>(
        &self,
        request: impl Future<Output = Result<T, ClientError>> + Send,
    ) -> Result<T, Failure> {
        let _under_way = UnderWay::new(&self.0.under_way);
        let answer = tokio::select! {
            biased;
            answer = request => answer,
            () = self.0.ended.cancelled() => return Err(Failure::Gone),
        };
        if answer.is_ok() {
            self.0
                .answered
                .store(self.0.env.now().as_nanos(), Ordering::Relaxed);
            self.0.heard.notify_waiters();
        }
        answer.map_err(|error| {
            // The watches were opened with the same login.
            if wants_login(&error) {
                self.0.ended.cancel();
            }
            Failure::Client(Box::new(error))
        })
    }

    /// How long it has been silent.
    fn silent_for(&self) -> Duration {
        let last = Instant::from_nanos(self.0.answered.load(Ordering::Relaxed));
        self.0.env.now().since(last)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.ended.is_cancelled()
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection ended first.
    Gone,
    /// The server refused, or the client failed.
    Client(Box<ClientError>),
    /// Something else went wrong on the way.
    Other(Error),
}

impl Failure {
    fn is(&self, what: fn(&ClientError) -> bool) -> bool {
        matches!(self, Self::Client(error) if what(error))
    }

    /// The server does not know the lease (any more).
    pub(crate) fn is_lease_gone(&self) -> bool {
        self.is(is_lease_gone)
    }

    /// There is a lease of this id.
    pub(crate) fn is_lease_there(&self) -> bool {
        self.is(is_lease_there)
    }

    /// The reply is larger than the client reads.
    pub(crate) fn is_too_long(&self) -> bool {
        self.is(is_too_long)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Gone => gone(),
            Failure::Client(error) => from_client(&error),
            Failure::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// What connections are made of.
pub(crate) enum Source {
    /// One member at a time, each with a client of ours.
    Config(EtcdConfig),
    /// Somebody else's client, which finds its members by itself.
    Client(Box<Client>),
}

impl Source {
    /// Is there a password or a certificate to log in with? An existing client keeps that to itself.
    pub(crate) fn login(&self) -> Option<bool> {
        match self {
            Self::Config(config) => {
                let certificate = config.tls.as_ref().is_some_and(|tls| tls.identity.is_some());
                Some(config.login.is_some() || certificate)
            }
            Self::Client(_) => None,
        }
    }
}

/// Opens connections.
pub(crate) struct Connector {
    pub(crate) source: Source,
    pub(crate) context: DriverContext,
    pub(crate) queues: Arc<Queues>,
    pub(crate) connect_timeout: Duration,
    pub(crate) keep_alive: Duration,
    /// The member that is tried first.
    pub(crate) first: AtomicUsize,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Connector");
        if let Source::Config(config) = &self.source {
            shown.field("hosts", &config.hosts);
        }
        shown.finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for Connector {
    type Connection = Link;

    async fn connect(&self) -> Result<Link> {
        let opening = async {
            match &self.source {
                Source::Client(client) => Box::pin(self.open(Client::clone(client))).await,
                Source::Config(config) => self.open_any(config).await,
            }
        };
        let limit = self.connect_timeout;
        let opened = self.context.env.timeout(limit, Box::pin(opening)).await;
        opened.unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Unavailable,
                format!("no member of the etcd cluster answered within {limit:?}"),
            ))
        })
    }

    async fn broken(&self, link: &Link) {
        link.0.ended.cancelled().await;
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        Some(KeepAlive {
            interval: self.keep_alive.min(LOOK),
            patience: KEEP_ALIVE_PATIENCE,
        })
    }

    async fn check(&self, link: &Link) -> Result<()> {
        let (silent, waits) = (link.silent_for(), link.0.under_way.load(Ordering::Relaxed) > 0);
        // Other answers show that it is alive as well; one that is late makes us ask.
        let asks = silent >= self.keep_alive || waits && silent >= LOOK;
        if !asks {
            return Ok(());
        }
        // A server that is slow is not silent.
        tokio::select! {
            biased;
            asked = ask(link) => asked,
            () = link.0.heard.notified() => Ok(()),
        }
    }

    async fn disconnect(&self, link: Link) {
        link.0.ended.cancel();
        // The next member first: this one may be cut off from the others and not know it yet.
        self.first.fetch_add(1, Ordering::Relaxed);
    }
}

impl Connector {
    /// To the first member that answers. One that is slow gets company by the next one.
    async fn open_any(&self, config: &EtcdConfig) -> Result<Link> {
        let (env, members) = (&self.context.env, config.hosts.len());
        let first = self.first.load(Ordering::Relaxed);
        let mut left = (0..members).map(|offset| (first + offset) % members);
        let (mut opening, mut failed) = (FuturesUnordered::new(), None::<Error>);
        let mut next = env.now();
        loop {
            if env.now() >= next || opening.is_empty() {
                match left.next() {
                    Some(at) => opening.push(self.open_one(config, at)),
                    None if opening.is_empty() => return Err(failed.unwrap_or_else(gone)),
                    None => {}
                }
                next = env.now().after(COMPANY);
            }
            match env.timeout(next.since(env.now()), opening.next()).await.flatten() {
                Some((at, Ok(link))) => {
                    self.first.store(at, Ordering::Relaxed);
                    return Ok(link);
                }
                // What has to be fixed is told rather than that some member is down.
                Some((_, Err(error))) => {
                    next = env.now();
                    if failed.as_ref().is_none_or(Error::is_retryable) {
                        failed = Some(error);
                    }
                }
                None => {}
            }
        }
    }

    fn open_one<'a>(&'a self, config: &'a EtcdConfig, at: usize) -> BoxFuture<'a, (usize, Result<Link>)> {
        Box::pin(async move {
            let address = address(&config.hosts[at]);
            let opened = match client(config, &address).await {
                Ok(client) => Box::pin(self.open(client)).await,
                Err(error) => Err(error),
            };
            let located = |error: Error| Error::new(error.kind(), format!("etcd at {address}: {error}"));
            (at, opened.map_err(located))
        })
    }

    /// Opens the stream of watches, which shows when the connection breaks, and asks something that only a majority
    /// can answer.
    async fn open(&self, client: Client) -> Result<Link> {
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let link = Link(Arc::new(Wire {
            kv: client.kv_client().max_decoding_message_size(LARGEST_REPLY),
            client,
            ended,
            env: self.context.env.clone(),
            answered: AtomicU64::new(0),
            heard: Notify::new(),
            under_way: AtomicUsize::new(0),
        }));
        let mut watches = link.0.client.watch_client();
        let id = self.queues.next_watch();
        let options = WatchOptions::new()
            .with_watch_id(id)
            .with_filters([WatchFilterType::NoPut, WatchFilterType::NoDelete]);
        let (answered, stream) = tokio::join!(ask(&link), link.call(watches.watch(ROOT, Some(options))));
        answered?;
        let watcher = Watcher::new(&self.queues, stream?, link.0.ended.clone());
        self.context.env.spawn(watch::run(watcher, self.context.clone()));
        guard.disarm();
        Ok(link)
    }
}

/// One linearizable read of nothing: a member that is cut off from the majority does not answer it.
pub(crate) async fn ask(link: &Link) -> Result<()> {
    let mut kv = link.kv();
    match link
        .call(kv.get(ROOT, Some(GetOptions::new().with_count_only())))
        .await
    {
        Ok(_) => Ok(()),
        Err(failure) => {
            // A role for one namespace may not read here, and works all the same.
            let permission =
                matches!(&failure, Failure::Client(error) if error.to_string().contains("permission denied"));
            match permission {
                true => Ok(()),
                false => Err(failure.into()),
            }
        }
    }
}

fn address((host, port): &(String, u16)) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// A client of one member, logged in.
async fn client(config: &EtcdConfig, address: &str) -> Result<Client> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(config.connect_timeout)
        .with_require_leader(true)
        .with_auto_token_refresh(true);
    if let Some((user, password)) = &config.login {
        options = options.with_user(user, password.expose());
    }
    let scheme = match &config.tls {
        Some(tls) => {
            options = options.with_tls(tls_options(tls)?);
            "https"
        }
        None => "http",
    };
    let member = format!("{scheme}://{address}");
    Client::connect([member], Some(options))
        .await
        .map_err(|error| from_client(&error))
}

fn tls_options(tls: &TlsConfig) -> Result<TlsOptions> {
    let mut options = TlsOptions::new();
    options = match &tls.ca {
        Some(ca) => options.ca_certificate(Certificate::from_pem(read(ca)?)),
        None => options.with_native_roots(),
    };
    if let Some((certificate, key)) = &tls.identity {
        options = options.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(options)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    std::fs::read(file).map_err(|error| {
        let name = file.display().to_string();
        Error::new(
            ErrorKind::Invalid,
            format!("{}: cannot be read", name.escape_debug()),
        )
        .with_source(error)
    })
}
