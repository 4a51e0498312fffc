//! Sessions: how they are opened, what the server agrees to, and the nodes that are held under them.

use std::collections::HashMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lockcore::{AttemptId, DriverContext, Error, ErrorKind, OpenSession, Result};
use zookeeper_client::{Client, Connector, Error as ZkError, StateWatcher};

use crate::config::{TlsConfig, ZkConfig};
use crate::error::{from_client, is_uncertain};
use crate::tls;

/// Asked for to find out the shortest session that the server agrees to. Shorter ones leave a client no time to notice
/// that a connection is silent.
const SHORTEST: Duration = Duration::from_secs(1);
/// Asked for to find out the longest.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How many ticks are in the shortest and the longest session, unless the server is configured otherwise.
const TICKS: (u32, u32) = (2, 20);
/// How long a closing driver waits until its goodbye has left, which goes on by itself.
const GOODBYE: Duration = Duration::from_millis(100);

/// How to get to the ensemble.
pub(crate) struct Ensemble {
    connector: Connector,
    servers: String,
    tls: Option<TlsConfig>,
    secure: bool,
    connect_timeout: Duration,
    silence: Duration,
}

impl fmt::Debug for Ensemble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ensemble")
            .field("servers", &self.servers)
            .field("tls", &self.secure)
            .finish_non_exhaustive()
    }
}

impl Ensemble {
    pub(crate) fn new(config: &ZkConfig) -> Self {
        let mut connector = Client::connector();
        if let Some((user, password)) = &config.login {
            let login = format!("{user}:{}", password.expose());
            connector = connector.with_auth("digest", login.as_bytes());
        }
        Self::with_connector(connector, config)
    }

    /// With the login and TLS of a connector that somebody else has made.
    pub(crate) fn with_connector(connector: Connector, config: &ZkConfig) -> Self {
        Self {
            connector,
            servers: config.connect_string(),
            tls: config.tls.clone(),
            secure: config.tls.is_some(),
            connect_timeout: config.connect_timeout,
            silence: config.silence,
        }
    }

    /// Opens a session within the connect timeout; one that is `patient` goes on when all servers refuse, as they do
    /// while they elect a leader.
    async fn connect(&self, context: &DriverContext, timeout: Duration, patient: bool) -> Result<Client> {
        let mut failed = None;
        let trying = Box::pin(self.try_servers(context, timeout, patient, &mut failed));
        match context.env.timeout(self.connect_timeout, trying).await {
            Some(connected) => connected,
            None => Err(failed.unwrap_or_else(|| {
                Error::new(
                    ErrorKind::Unavailable,
                    "no server opened a session within connect_timeout",
                )
            })),
        }
    }

    /// A server that takes connections and says nothing must not use up all the time that there is: after a while the
    /// others are tried besides.
    async fn try_servers(
        &self,
        context: &DriverContext,
        timeout: Duration,
        patient: bool,
        failed: &mut Option<Error>,
    ) -> Result<Client> {
        let env = &context.env;
        let several = self.servers.contains(',');
        let mut under_way = FuturesUnordered::new();
        loop {
            if several || under_way.is_empty() {
                under_way.push(self.connect_once(timeout)?);
            }
            let next = env.now().after(self.connect_timeout / 4);
            loop {
                // Without one under way there is nothing but the pause.
                let mut answer = Box::pin(async {
                    match under_way.next().await {
                        Some(answer) => answer,
                        None => pending().await,
                    }
                });
                let Some(connected) = env.timeout(next.since(env.now()), &mut answer).await else {
                    break;
                };
                drop(answer);
                match connected.map_err(from_client) {
                    Ok(client) => return Ok(client),
                    Err(error) if error.kind() != ErrorKind::Unavailable => return Err(error),
                    Err(error) if !patient && under_way.is_empty() => return Err(error),
                    Err(error) => *failed = Some(error),
                }
            }
        }
    }

    fn connect_once(
        &self,
        timeout: Duration,
    ) -> Result<impl Future<Output = std::result::Result<Client, ZkError>> + Send> {
        let mut connector = self
            .connector
            .clone()
            .with_session_timeout(timeout)
            .with_connection_timeout(self.silence)
            .with_fail_eagerly();
        if let Some(tls) = &self.tls {
            connector = connector.with_tls(tls::options(tls)?);
        }
        Ok(Box::pin(async move {
            match self.secure {
                true => connector.secure_connect(&self.servers).await,
                false => connector.connect(&self.servers).await,
            }
        }))
    }

    /// What sessions the servers agree to.
    pub(crate) async fn bounds(&self, context: &DriverContext, tick: Option<Duration>) -> Result<Bounds> {
        let (short, long) = tokio::join!(
            self.connect(context, SHORTEST, false),
            self.connect(context, LONGEST, false)
        );
        let longest = long?.session_timeout();
        // Its time to connect is short as well.
        let shortest = short.map_or(longest * TICKS.0 / TICKS.1, |client| client.session_timeout());
        Ok(Bounds::new(shortest, longest, tick))
    }
}

/// What sessions the servers agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) shortest: Duration,
    pub(crate) longest: Duration,
    pub(crate) tick: Duration,
}

impl Bounds {
    /// Asked for [`SHORTEST`] and [`LONGEST`], the servers agreed to these.
    fn new(shortest: Duration, longest: Duration, tick: Option<Duration>) -> Self {
        let guess = if shortest > SHORTEST {
            shortest / TICKS.0
        } else {
            // The shortest may be shorter still.
            (longest / TICKS.1).min(shortest / TICKS.0)
        };
        Self {
            shortest,
            longest,
            tick: tick.unwrap_or(guess),
        }
    }

    /// How long a session with this timeout is sure to last after a sign of life. The server that saw it tells the
    /// leader within half a tick, and the leader looks once per tick.
    fn lasts(self, timeout: Duration) -> Duration {
        timeout.saturating_sub(self.tick).max(timeout / 2)
    }
}

/// Opens sessions for the pool.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) context: DriverContext,
    pub(crate) ensemble: Ensemble,
    pub(crate) bounds: Bounds,
}

#[async_trait]
impl OpenSession for Opener {
    type Handle = Arc<Link>;

    async fn open(&self, ttl: Duration) -> Result<(Arc<Link>, Duration)> {
        let client = self.ensemble.connect(&self.context, ttl, true).await?;
        let lasts = self.bounds.lasts(client.session_timeout());
        tracing::debug!(session = %client.session_id(), timeout = ?client.session_timeout(), "opened a session");
        Ok((Arc::new(Link::new(client, lasts)), lasts))
    }

    async fn keep_alive(&self, link: &Arc<Link>) -> Result<Option<Duration>> {
        let Ok(client) = link.client() else {
            return Ok(None);
        };
        let answer = client.check_stat("/");
        // After it, so as not to delay it.
        link.watch_held(&self.context);
        match answer.await {
            Ok(_) => Ok(Some(link.lasts)),
            Err(ZkError::SessionExpired | ZkError::ClientClosed | ZkError::AuthFailed) => Ok(None),
            // Whatever the server says, it has heard us.
            Err(error) if !is_uncertain(&error) => Ok(Some(link.lasts)),
            Err(error) => Err(from_client(error)),
        }
    }

    async fn ended(&self, link: &Arc<Link>) {
        link.terminated().await;
    }

    async fn close(&self, link: Arc<Link>) {
        link.lock_client().take();
        // The client says goodbye by itself once nobody has it; here we only see it off.
        let gone = Box::pin(link.terminated());
        self.context.env.timeout(GOODBYE, gone).await;
    }
}

/// One session at the server.
pub(crate) struct Link {
    /// `None` once the session is closed, also for those who still have places under it.
    client: Mutex<Option<Client>>,
    /// The session's id, for people.
    id: i64,
    states: StateWatcher,
    lasts: Duration,
    held: Mutex<HashMap<AttemptId, HeldNode>>,
}

#[derive(Debug)]
struct HeldNode {
    path: Arc<str>,
    /// It was held at the last keep-alive already.
    old: bool,
    watched: bool,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &format_args!("{:#x}", self.id))
            .field("state", &self.states.peek_state())
            .finish_non_exhaustive()
    }
}

impl Link {
    fn new(client: Client, lasts: Duration) -> Self {
        Self {
            id: client.session_id().0,
            states: client.state_watcher(),
            client: Mutex::new(Some(client)),
            lasts,
            held: Mutex::default(),
        }
    }

    /// For one request, not to be kept.
    pub(crate) fn client(&self) -> Result<Client> {
        self.lock_client()
            .clone()
            .ok_or_else(|| from_client(ZkError::ClientClosed))
    }

    fn lock_client(&self) -> MutexGuard<'_, Option<Client>> {
        lock(&self.client)
    }

    async fn terminated(&self) {
        let mut states = self.states.clone();
        while !states.state().is_terminated() {
            states.changed().await;
        }
    }

    /// `attempt` holds by the node at `path`, from now on.
    pub(crate) fn hold(&self, attempt: AttemptId, path: Arc<str>) {
        let node = HeldNode {
            path,
            old: false,
            watched: false,
        };
        lock(&self.held).insert(attempt, node);
    }

    /// `attempt` is about to give its lock back. What watches the node ends with it.
    pub(crate) fn let_go(&self, attempt: AttemptId) {
        lock(&self.held).remove(&attempt);
    }

    /// Watches the nodes of locks that are held for a while, so that we learn of a node that somebody has deleted. A lock
    /// that is held for less than a keep-alive costs nothing.
    fn watch_held(self: &Arc<Self>, context: &DriverContext) {
        for (attempt, node) in lock(&self.held).iter_mut() {
            if node.old && !node.watched {
                node.watched = true;
                let watching = Arc::clone(self).watch(context.clone(), *attempt, Arc::clone(&node.path));
                drop(context.env.spawn(watching));
            }
            node.old = true;
        }
    }

    async fn watch(self: Arc<Self>, context: DriverContext, attempt: AttemptId, path: Arc<str>) {
        let Ok(client) = self.client() else { return };
        // An ephemeral node has no children: this watch hears of its deletion alone.
        let watching = client.list_and_watch_children(&path).await;
        drop(client);
        match watching {
            Ok((_, watcher)) => drop(watcher.changed().await),
            Err(ZkError::NoNode) => {}
            Err(_) => return self.unwatched(attempt),
        }
        if lock(&self.held).contains_key(&attempt) {
            self.unwatched(attempt);
            context.signals.wake(attempt);
        }
    }

    fn unwatched(&self, attempt: AttemptId) {
        if let Some(node) = lock(&self.held).get_mut(&attempt) {
            node.watched = false;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tick_is_found_out() {
        let seconds = Duration::from_secs;
        for (shortest, longest, expected) in [
            // tickTime 2000, 3000 and 500.
            (seconds(4), seconds(40), seconds(2)),
            (seconds(6), seconds(60), seconds(3)),
            (seconds(1), seconds(10), Duration::from_millis(500)),
            // maxSessionTimeout=120000 besides.
            (seconds(4), seconds(120), seconds(2)),
            // tickTime 100.
            (seconds(1), seconds(2), Duration::from_millis(100)),
        ] {
            assert_eq!(
                Bounds::new(shortest, longest, None).tick,
                expected,
                "{shortest:?} {longest:?}"
            );
        }
        let told = Bounds::new(seconds(4), seconds(40), Some(seconds(1)));
        assert_eq!(told.lasts(seconds(30)), seconds(29));
        assert_eq!(
            told.lasts(Duration::from_millis(1500)),
            Duration::from_millis(750)
        );
    }
}
