//! A connection that comes back by itself: the upkeep that every networked driver needs, written once.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::sync::{Notify, watch};

use crate::driver::DriverContext;
use crate::error::{Error, ErrorKind, Result};

/// The first pause after a failed connection attempt.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause between attempts: how soon a restarted server is noticed.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// How long a request waits for the next connection attempt to end.
const PATIENCE: Duration = Duration::from_secs(1);

/// How a supervisor finds out that the other end is gone without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// The pause between one check and the next.
    pub interval: Duration,
    /// How long a check may take before the connection counts as broken.
    pub patience: Duration,
}

/// How a driver connects.
#[async_trait]
pub trait Connect: fmt::Debug + Send + Sync + 'static {
    /// What requests are sent on.
    type Connection: Clone + Send + Sync + 'static;

    /// Opens a connection within `timeout` and restores on it all that the server has to know: login, subscriptions,
    /// scripts.
    ///
    /// # Errors
    /// By kind. [`Denied`](ErrorKind::Denied) and the like are reported to callers, and tried again all the same:
    /// passwords get fixed.
    async fn connect(&self) -> Result<Self::Connection>;

    /// Ends when `connection` is of no more use.
    async fn broken(&self, connection: &Self::Connection);

    /// How often [`Connect::check`] is called; never for `None`, for a client that finds out by itself.
    fn keep_alive(&self) -> Option<KeepAlive> {
        None
    }

    /// One round trip on `connection`, as cheap as it can be.
    ///
    /// # Errors
    /// Any error means that the connection is of no more use. An answer of the server, even a refusal, is none.
    async fn check(&self, connection: &Self::Connection) -> Result<()> {
        let _ = connection;
        Ok(())
    }

    /// Says goodbye and fails what is under way. Called once for each connection, also for a broken one, so it does
    /// not wait for the other end.
    async fn disconnect(&self, connection: Self::Connection);
}

enum State<C> {
    Up(C),
    Down(Arc<Error>),
    Closed,
}

/// Keeps one connection open: connects again with back-off when it breaks, and tells lockcore's waiters and holders
/// to look again after each reconnect. Cheap to clone.
pub struct Supervisor<C: Connect> {
    state: watch::Receiver<State<C::Connection>>,
    close: Arc<Notify>,
}

impl<C: Connect> Clone for Supervisor<C> {
    fn clone(&self) -> Self {
        Self {
            state: self.state.clone(),
            close: Arc::clone(&self.close),
        }
    }
}

impl<C: Connect> fmt::Debug for Supervisor<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &*self.state.borrow() {
            State::Up(_) => "up",
            State::Down(_) => "down",
            State::Closed => "closed",
        };
        f.debug_struct("Supervisor").field("state", &state).finish()
    }
}

impl<C: Connect> Supervisor<C> {
    /// Connects once, and keeps the connection from then on.
    ///
    /// # Errors
    /// That of the first attempt: a wrong URL or password shows at once.
    pub async fn start(context: &DriverContext, connector: C) -> Result<Self> {
        let first = connector.connect().await?;
        let (publish, state) = watch::channel(State::Up(first.clone()));
        let close = Arc::<Notify>::default();
        let task = Self::supervise(context.clone(), connector, first, publish, Arc::clone(&close));
        context.env.spawn(task);
        Ok(Self { state, close })
    }

    /// The connection; while it is down, waits up to a second for the attempt under way.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) with the last failure, [`Denied`](ErrorKind::Denied) when the server
    /// refuses us now, [`Closed`](ErrorKind::Closed) after [`Supervisor::close`].
    pub async fn connection(&self, context: &DriverContext) -> Result<C::Connection> {
        let mut state = self.state.clone();
        if let State::Up(connection) = &*state.borrow_and_update() {
            return Ok(connection.clone());
        }
        let next = Box::pin(state.changed());
        // Whether it changed or not, the state tells.
        context.env.timeout(PATIENCE, next).await.map(Result::ok);
        match &*state.borrow() {
            State::Up(connection) => Ok(connection.clone()),
            State::Down(error) => Err(Error::new(
                error.kind(),
                format!("the connection is down: {error}"),
            )),
            State::Closed => Err(Error::new(ErrorKind::Closed, "the connection was closed")),
        }
    }

    /// Ends the upkeep and the connection.
    pub fn close(&self) {
        self.close.notify_one();
    }

    async fn supervise(
        context: DriverContext,
        connector: C,
        mut connection: C::Connection,
        publish: watch::Sender<State<C::Connection>>,
        close: Arc<Notify>,
    ) {
        loop {
            tokio::select! {
                biased;
                () = close.notified() => break,
                // Every handle is gone, and with them everybody who could call close.
                () = publish.closed() => break,
                () = connector.broken(&connection) => {}
                () = Self::silent(&context, &connector, &connection) => {}
            }
            let lost = Error::new(ErrorKind::Unavailable, "the connection broke");
            publish.send_replace(State::Down(Arc::new(lost)));
            tracing::warn!("the backend's connection broke, connecting again");
            connector.disconnect(connection).await;
            connection = tokio::select! {
                biased;
                () = close.notified() => { publish.send_replace(State::Closed); return }
                () = publish.closed() => return,
                next = Self::reconnect(&context, &connector, &publish) => next,
            };
            publish.send_replace(State::Up(connection.clone()));
            tracing::info!("the backend's connection is back");
            context.signals.wake_all();
        }
        publish.send_replace(State::Closed);
        connector.disconnect(connection).await;
    }

    /// Ends when a check fails or is not answered in time.
    async fn silent(context: &DriverContext, connector: &C, connection: &C::Connection) {
        let Some(keep_alive) = connector.keep_alive() else {
            return std::future::pending().await;
        };
        loop {
            context.env.sleep(keep_alive.interval).await;
            let check = connector.check(connection);
            match context.env.timeout(keep_alive.patience, check).await {
                Some(Ok(())) => {}
                Some(Err(error)) => return tracing::debug!(%error, "the keep-alive failed"),
                None => return tracing::debug!("the keep-alive was not answered"),
            }
        }
    }

    async fn reconnect(
        context: &DriverContext,
        connector: &C,
        publish: &watch::Sender<State<C::Connection>>,
    ) -> C::Connection {
        let schedule = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_delay(LONGEST_PAUSE);
        let mut pauses = schedule.without_max_times().build();
        loop {
            match connector.connect().await {
                Ok(connection) => return connection,
                Err(error) => publish.send_replace(State::Down(Arc::new(error))),
            };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            context.env.sleep(context.env.jitter(pause / 2, pause)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

    use super::*;
    use crate::env::Env;

    /// Numbers its connections. Checks of those up to `answered` are answered.
    #[derive(Clone, Debug, Default)]
    struct Numbered {
        opened: Arc<AtomicU64>,
        answered: Arc<AtomicU64>,
        checks: Arc<AtomicU32>,
        disconnected: Arc<AtomicU64>,
    }

    #[async_trait]
    impl Connect for Numbered {
        type Connection = u64;

        async fn connect(&self) -> Result<u64> {
            Ok(self.opened.fetch_add(1, Ordering::Relaxed) + 1)
        }

        async fn broken(&self, _: &u64) {
            std::future::pending().await
        }

        fn keep_alive(&self) -> Option<KeepAlive> {
            Some(KeepAlive {
                interval: Duration::from_secs(2),
                patience: Duration::from_secs(3),
            })
        }

        async fn check(&self, connection: &u64) -> Result<()> {
            self.checks.fetch_add(1, Ordering::Relaxed);
            if *connection > self.answered.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
            Ok(())
        }

        async fn disconnect(&self, connection: u64) {
            self.disconnected.store(connection, Ordering::Relaxed);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_replaced() {
        let context = DriverContext::new(Env::virtual_time(1));
        let connector = Numbered::default();
        connector.answered.store(1, Ordering::Relaxed);
        let supervisor = Supervisor::start(&context, connector.clone()).await.unwrap();
        context.env.sleep(Duration::from_secs(9)).await;
        assert_eq!(supervisor.connection(&context).await.unwrap(), 1);
        assert_eq!(connector.checks.load(Ordering::Relaxed), 4);
        // From now on nobody answers: two seconds to the next check, three of patience.
        connector.answered.store(0, Ordering::Relaxed);
        context.env.sleep(Duration::from_secs(5)).await;
        assert_eq!(supervisor.connection(&context).await.unwrap(), 2);
        assert_eq!(connector.disconnected.load(Ordering::Relaxed), 1);
        supervisor.close();
        context.env.tasks().close();
        context.env.tasks().wait().await;
        assert_eq!(connector.disconnected.load(Ordering::Relaxed), 2);
    }
}
