//! The connection that listens: one for each driver, whatever waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{Connect, DriverContext, Error, ErrorKind, KeepAlive, Result};
use sqlx::postgres::{PgListener, PgPoolOptions};
use sqlx::{Acquire as _, Connection as _, PgPool, Row as _};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::config::KEEP_ALIVE_PATIENCE;
use crate::error::{POOLED, classify};
use crate::pool::{Access, Pool};
use crate::push::hear;

/// How long the trial message may take to arrive.
const TRIAL: Duration = Duration::from_secs(2);
/// How long a connection may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// The prefix of channels; the listener's number follows.
const CHANNEL: &str = "leasehold_";
/// The message that a listener sends to itself.
const HELLO: &str = "hello";

/// A listening connection. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    ended: CancellationToken,
    ask: mpsc::Sender<oneshot::Sender<()>>,
}

/// Opens listening connections.
pub(crate) struct Connector {
    pub(crate) access: Arc<Access>,
    pub(crate) context: DriverContext,
    pub(crate) pool: Arc<Pool>,
    /// The number of the listener that is up, by which others reach it; 0 while none is.
    pub(crate) wake: Arc<AtomicI64>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for Connector {
    type Connection = Link;

    async fn connect(&self) -> Result<Link> {
        let limit = self.access.config.connect_timeout;
        let opened = self.context.env.timeout(limit, Box::pin(self.open())).await;
        opened
            .unwrap_or_else(|| {
                Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("no answer within {limit:?}"),
                ))
            })
            .map_err(|error| self.access.at(error))
    }

    async fn broken(&self, link: &Link) {
        link.ended.cancelled().await;
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        Some(KeepAlive {
            interval: self.access.config.keep_alive,
            patience: KEEP_ALIVE_PATIENCE,
        })
    }

    async fn check(&self, link: &Link) -> Result<()> {
        let gone = || Error::new(ErrorKind::Unavailable, "the listening connection ended");
        let (answer, answered) = oneshot::channel();
        link.ask.send(answer).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())
    }

    async fn disconnect(&self, link: Link) {
        link.ended.cancel();
        // The server is gone, or silent: the other connections are as good as gone too.
        self.pool.renew();
    }
}

impl Connector {
    async fn open(&self) -> Result<Link> {
        // sqlx's listener wants a pool. It is told not to connect again by itself: we have to know of it.
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.access.config.connect_timeout)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(self.access.options());
        let mut listener = PgListener::connect_with(&pool).await.map_err(classify)?;
        listener.eager_reconnect(false);
        // A number for this connection alone. It shows that we live for as long as the server keeps its lock.
        let [.., a, b, c, d, e, f, g, h] = self.context.env.random_u128()?.to_ne_bytes();
        let wake = i64::from_ne_bytes([a, b, c, d, e, f, g, h]) & i64::MAX | 1;
        let channel = format!("{CHANNEL}{wake}");
        // Not by sqlx's `listen`, which is for connecting again by itself, and one more round trip.
        let listen = format!("SELECT pg_advisory_lock({wake}); LISTEN \"{channel}\"; ");
        let connection = listener.acquire().await.map_err(classify)?;
        self.access.prepare(connection, &listen).await?;
        self.try_out(&mut listener, wake, channel).await?;
        let ended = CancellationToken::new();
        let (ask, asked) = mpsc::channel(1);
        self.wake.store(wake, Ordering::Release);
        let reader = Reader {
            context: self.context.clone(),
            wake: (wake, Arc::clone(&self.wake)),
            ended: ended.clone(),
        };
        self.context.env.spawn(reader.read(listener, pool, asked));
        Ok(Link { ended, ask })
    }

    /// Sees that the session is ours alone and that messages arrive.
    async fn try_out(&self, listener: &mut PgListener, wake: i64, channel: String) -> Result<()> {
        let sql: Arc<str> = "SELECT pg_try_advisory_xact_lock_shared($1), pg_notify($2, $3)".into();
        let send = || {
            crate::pool::statement(&sql)
                .bind(wake)
                .bind(channel.clone())
                .bind(HELLO)
        };
        let rows = self.pool.run(send).await?;
        let free: bool = rows
            .first()
            .map_or(Ok(true), |row| row.try_get(0))
            .map_err(classify)?;
        let arrives = Box::pin(listener.try_recv());
        let arrived = match self.context.env.timeout(TRIAL, arrives).await {
            Some(arrived) => arrived.map_err(classify)?.is_some(),
            None => false,
        };
        if free {
            return Err(Error::new(ErrorKind::Unsupported, POOLED));
        }
        if !arrived {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("a NOTIFY did not arrive within {TRIAL:?}: the server is overloaded, or {POOLED}"),
            ));
        }
        Ok(())
    }
}

/// Hears what comes in until the connection ends.
struct Reader {
    context: DriverContext,
    wake: (i64, Arc<AtomicI64>),
    ended: CancellationToken,
}

impl Reader {
    async fn read(
        self,
        mut listener: PgListener,
        pool: PgPool,
        mut asked: mpsc::Receiver<oneshot::Sender<()>>,
    ) {
        loop {
            // What was received stays where it is when this is left midway.
            tokio::select! {
                biased;
                () = self.ended.cancelled() => break,
                heard = listener.try_recv() => match heard {
                    Ok(Some(message)) => hear(&self.context.signals, message.payload()),
                    Ok(None) => break,
                    Err(error) => {
                        tracing::debug!(error = %classify(error), "the listening connection failed");
                        break;
                    }
                },
                Some(answer) = asked.recv() => {
                    let answers = Box::pin(ping(&mut listener));
                    if self.context.env.timeout(KEEP_ALIVE_PATIENCE, answers).await != Some(true) {
                        break;
                    }
                    answer.send(()).ok();
                }
            }
        }
        let (wake, current) = &self.wake;
        current
            .compare_exchange(*wake, 0, Ordering::AcqRel, Ordering::Acquire)
            .ok();
        self.ended.cancel();
        let goodbye = Box::pin(async move {
            drop(listener);
            pool.close().await;
        });
        self.context.env.timeout(GOODBYE, goodbye).await;
    }
}

async fn ping(listener: &mut PgListener) -> bool {
    match listener.acquire().await {
        Ok(connection) => connection.ping().await.is_ok(),
        Err(_) => false,
    }
}
