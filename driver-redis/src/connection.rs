//! One connection: how it is opened, what the server has to know on it, and what the server pushes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use lockcore::{Connect, DriverContext, Error, ErrorKind, KeepAlive, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisError, RedisResult, Value, cmd, pipe};
use tokio_util::sync::CancellationToken;

use crate::config::KEEP_ALIVE_PATIENCE;
use crate::error::{from_client, from_server, gone};
use crate::push::listener;
use crate::reply;
use crate::scripts::Scripts;
use crate::transport::Transport;

/// The oldest server whose commands and ACLs the scripts are written for.
const OLDEST: (u32, u32) = (6, 2);

/// A connection to send requests on. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Link {
    wire: MultiplexedConnection,
    ended: CancellationToken,
    /// Do we run it? Then requests under way are answered when it ends.
    is_ours: bool,
}

impl Link {
    /// One command; an error reply is an error.
    pub(crate) async fn send(&self, command: &Cmd) -> Result<Value, Failure> {
        let mut wire = self.wire.clone();
        match self.answer(wire.send_packed_command(command)).await? {
            Value::ServerError(error) => Err(self.failed(Failure::Client(error.into()))),
            value => Ok(value),
        }
    }

    /// Several commands in one write; error replies stand among the replies.
    pub(crate) async fn send_all(&self, commands: &Pipeline) -> Result<Vec<Value>, Failure> {
        let mut wire = self.wire.clone();
        self.answer(wire.send_packed_commands(commands, 0, commands.len()))
            .await
    }

    async fn answer<T>(&self, request: impl Future<Output = RedisResult<T>>) -> Result<T, Failure> {
        let reply = if self.is_ours {
            request.await
        } else {
            tokio::select! {
                biased;
                reply = request => reply,
                () = self.ended.cancelled() => return Err(Failure::Gone),
            }
        };
        reply.map_err(|error| self.failed(error.into()))
    }

    /// Looks at a failure: some mean that the connection is of no more use.
    pub(crate) fn failed(&self, failure: Failure) -> Failure {
        if let Failure::Client(error) = &failure {
            // A primary that became a replica: only a new connection may lead to the new primary.
            let demoted = error.code() == Some("READONLY");
            if demoted || error.is_unrecoverable_error() {
                self.ended.cancel();
            }
        }
        failure
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection ended first.
    Gone,
    /// The server refused, or the client failed.
    Client(RedisError),
}

impl Failure {
    /// The server does not have the script (any more).
    pub(crate) fn is_noscript(&self) -> bool {
        matches!(self, Self::Client(error) if error.code() == Some("NOSCRIPT"))
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        Self::Client(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Gone => gone(),
            Failure::Client(error) => from_client(&error),
        }
    }
}

/// Opens connections.
pub(crate) struct Connector {
    pub(crate) transport: Transport,
    pub(crate) context: DriverContext,
    pub(crate) scripts: Arc<Scripts>,
    /// Where others publish what this driver's waiters and holders have to know.
    pub(crate) channel: Arc<str>,
    pub(crate) connect_timeout: Duration,
    pub(crate) keep_alive: Duration,
    /// The warnings about the server's settings were given.
    pub(crate) warned: AtomicBool,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("address", &self.transport.address())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Connect for Connector {
    type Connection = Link;

    async fn connect(&self) -> Result<Link> {
        let opened = self
            .context
            .env
            .timeout(self.connect_timeout, Box::pin(self.open()))
            .await;
        let error = match opened {
            Some(Ok(link)) => return Ok(link),
            Some(Err(error)) => error,
            None => Error::new(
                ErrorKind::Unavailable,
                format!("no answer within {:?}", self.connect_timeout),
            ),
        };
        Err(Error::new(
            error.kind(),
            format!("Redis at {}: {error}", self.transport.address()),
        ))
    }

    async fn broken(&self, link: &Link) {
        link.ended.cancelled().await;
    }

    fn keep_alive(&self) -> Option<KeepAlive> {
        Some(KeepAlive {
            interval: self.keep_alive,
            patience: KEEP_ALIVE_PATIENCE,
        })
    }

    async fn check(&self, link: &Link) -> Result<()> {
        match link.send(&cmd("PING")).await {
            Err(Failure::Client(error)) if error.is_io_error() => Err(from_client(&error)),
            Err(Failure::Gone) => Err(gone()),
            // A refusal is an answer.
            _ => Ok(()),
        }
    }

    async fn disconnect(&self, link: Link) {
        link.ended.cancel();
    }
}

impl Connector {
    async fn open(&self) -> Result<Link> {
        let ended = CancellationToken::new();
        let client = AsyncConnectionConfig::new()
            // lockcore bounds each request, and `connect` all of this.
            .set_response_timeout(None)
            .set_connection_timeout(None)
            .set_pipeline_buffer_size(1024)
            .set_push_sender(listener(self.context.signals.clone(), ended.clone()));
        let (wire, pump) = self.transport.open(client).await?;
        // A connection that is given up while it is being set up ends as well.
        let guard = ended.clone().drop_guard();
        let is_ours = pump.is_some();
        if let Some(pump) = pump {
            let ended = ended.clone();
            self.context.env.spawn(async move {
                tokio::select! {
                    () = pump => ended.cancel(),
                    () = ended.cancelled() => {}
                }
            });
        }
        let link = Link { wire, ended, is_ours };
        self.prepare(&link).await?;
        guard.disarm();
        Ok(link)
    }

    /// Looks at the server, subscribes, and loads the scripts: one round trip.
    async fn prepare(&self, link: &Link) -> Result<()> {
        let mut setup = pipe();
        setup.cmd("HELLO").arg(3);
        if self.transport.database() != 0 {
            setup.cmd("SELECT").arg(self.transport.database());
        }
        setup.cmd("SUBSCRIBE").arg(&*self.channel);
        for script in self.scripts.all() {
            setup.cmd("SCRIPT").arg("LOAD").arg(script.text);
        }
        let needed = setup.len();
        // The rest is a courtesy: the server may refuse it.
        setup.cmd("INFO").arg("memory");
        for (field, value) in [("LIB-NAME", "leasehold"), ("LIB-VER", env!("CARGO_PKG_VERSION"))] {
            setup.cmd("CLIENT").arg("SETINFO").arg(field).arg(value);
        }
        let replies = link.send_all(&setup).await?;
        for (at, reply) in replies.iter().take(needed).enumerate() {
            match reply {
                Value::ServerError(error) => return Err(from_server(error)),
                hello if at == 0 => check_server(&reply::server(hello)?)?,
                _ => {}
            }
        }
        if !self.warned.swap(true, Ordering::Relaxed) {
            warn_about(replies.get(needed).unwrap_or(&Value::Nil));
        }
        Ok(())
    }
}

fn check_server(server: &reply::Server<'_>) -> Result<()> {
    let mut parts = server.version.split('.').map(str::parse::<u32>);
    let version = match (parts.next(), parts.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    if version < OLDEST {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the server is version {}: use Redis 6.2 or newer, or Valkey",
                server.version.escape_debug()
            ),
        ));
    }
    match server.mode {
        "cluster" => Err(Error::new(
            ErrorKind::Unsupported,
            "the server is a node of a Redis Cluster: connect to a single server",
        )),
        "sentinel" => Err(Error::new(
            ErrorKind::Unsupported,
            "this is a Sentinel: connect to the server that it watches",
        )),
        // Worth a retry: after a failover the name leads to the new primary soon.
        _ if server.role != "master" => Err(Error::new(
            ErrorKind::Unavailable,
            "the server is a replica: connect to its primary",
        )),
        _ => Ok(()),
    }
}

fn warn_about(info: &Value) {
    match reply::info(info, "maxmemory_policy") {
        Some("noeviction") => {}
        Some(policy) => tracing::warn!(
            policy,
            "the Redis server may evict locks when its memory is full: set its maxmemory-policy to noeviction"
        ),
        None => tracing::warn!(
            "the Redis server does not tell its maxmemory-policy: see to it that it is noeviction, \
             or grant +info to have it checked"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_will_not_do() {
        let fit = reply::Server {
            version: "7.0.15",
            mode: "standalone",
            role: "master",
        };
        check_server(&fit).unwrap();
        check_server(&reply::Server {
            version: "6.2.0",
            ..fit
        })
        .unwrap();
        for (server, kind, part) in [
            (
                reply::Server {
                    version: "6.0.16",
                    ..fit
                },
                ErrorKind::Unsupported,
                "6.0.16",
            ),
            (
                reply::Server { version: "", ..fit },
                ErrorKind::Unsupported,
                "6.2",
            ),
            (
                reply::Server {
                    mode: "cluster",
                    ..fit
                },
                ErrorKind::Unsupported,
                "Cluster",
            ),
            (
                reply::Server {
                    mode: "sentinel",
                    ..fit
                },
                ErrorKind::Unsupported,
                "Sentinel",
            ),
            (
                reply::Server {
                    role: "replica",
                    ..fit
                },
                ErrorKind::Unavailable,
                "primary",
            ),
            (
                reply::Server { role: "slave", ..fit },
                ErrorKind::Unavailable,
                "primary",
            ),
        ] {
            let error = check_server(&server).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(part), "{error}");
        }
    }
}
