//! The driver: each call is one script.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::{
    Batches, Capabilities, Claim, DEFAULT_CLAIM_WINDOW, Diagnosis, Driver, DriverContext, Error, ErrorKind,
    Kind, Namespace, Resource, Result, Supervisor,
};
use redis::{Client, Cmd, cmd};

use crate::batch::{ALONE, MOST, Scripted};
use crate::calls::Calls;
use crate::config::{DEFAULT_CONNECT_TIMEOUT, DEFAULT_KEEP_ALIVE, DEFAULT_QUEUE, RedisConfig};
use crate::connection::Connector;
use crate::doctor;
use crate::keys::{Keys, pattern, resource_key};
use crate::reply::{self, Outcome};
use crate::scripts::Scripts;
use crate::transport::Transport;

/// Leases in one batch, which is one call of the renewal script: it holds up the server's other clients for about 1 ms.
const RENEW_BATCH: usize = 1_000;

/// What Redis can do. A single server: replication is asynchronous, and a failover is outside of what is declared.
pub const CAPABILITIES: Capabilities = Capabilities::MUTEX.with_renew_batch(RENEW_BATCH);

/// How many keys the server looks at for one page of a list, and how many locks are read in one pipeline.
const PAGE: usize = 500;

/// Locks on one Redis or Valkey server. See the [crate] for the protocol.
#[derive(Debug)]
pub struct RedisDriver {
    calls: Arc<Calls>,
    batches: Batches<Scripted>,
    queue: usize,
    /// Whether we log in with a password, where we know.
    password: Option<bool>,
}

impl RedisDriver {
    /// Connects. From then on the connection is kept: it is opened again when it breaks.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) when the server does not answer within the connect timeout, is still
    /// loading, or is a replica; [`Denied`](ErrorKind::Denied) for the login, its rights, or the server's certificate;
    /// [`Unsupported`](ErrorKind::Unsupported) for a server older than 6.2, a cluster or a Sentinel;
    /// [`Invalid`](ErrorKind::Invalid) for a value out of bounds and for certificate files that cannot be used.
    pub async fn connect(config: RedisConfig, context: DriverContext) -> Result<Self> {
        config.validate()?;
        let limits = Limits {
            connect_timeout: config.connect_timeout,
            keep_alive: config.keep_alive,
            queue: config.queue,
        };
        Self::start(Transport::Config(config), limits, context).await
    }

    /// Connects with the address, login, database and TLS of an existing client, on a connection of our own.
    ///
    /// On that connection the protocol is RESP3, `TCP_NODELAY` is set, and pushes go to this driver. The client's
    /// other settings of TCP hold. The limits are those of [`RedisConfig`]'s defaults. For `rediss://` the `redis`
    /// crate needs one of its TLS features, and `rustls` a crypto provider.
    ///
    /// # Errors
    /// As [`RedisDriver::connect`].
    pub async fn from_client(client: Client, context: DriverContext) -> Result<Self> {
        let limits = Limits {
            connect_timeout: DEFAULT_CONNECT_TIMEOUT,
            keep_alive: DEFAULT_KEEP_ALIVE,
            queue: DEFAULT_QUEUE,
        };
        Self::start(Transport::client(&client)?, limits, context).await
    }

    async fn start(transport: Transport, limits: Limits, context: DriverContext) -> Result<Self> {
        let channel: Arc<str> = format!("leasehold:1:w:{:032x}", context.env.random_u128()?).into();
        let scripts = Arc::new(Scripts::new());
        let password = transport.password();
        let connector = Connector {
            transport,
            context: context.clone(),
            scripts: Arc::clone(&scripts),
            channel: Arc::clone(&channel),
            connect_timeout: limits.connect_timeout,
            keep_alive: limits.keep_alive,
            warned: AtomicBool::new(false),
        };
        let calls = Arc::new(Calls {
            supervisor: Supervisor::start(&context, connector).await?,
            context: context.clone(),
            scripts,
            channel,
        });
        let batch = Scripted(Arc::clone(&calls));
        Ok(Self {
            batches: Batches::pipelined(&context.env, batch, ALONE, MOST),
            calls,
            queue: limits.queue,
            password,
        })
    }
}

impl RedisDriver {
    async fn ask(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let attempt = claim.attempt.to_hex();
        let arguments = |call: &mut Cmd| {
            Keys::new(&claim.resource).add_to(call);
            call.arg(&attempt).arg(millis(claim.ttl));
            match intent {
                Intent::Wait { ticket } => call.arg(ticket.unwrap_or(0)),
                _ => call.arg(""),
            };
            call.arg(u64::try_from(claim.waiter_ttl.as_micros()).unwrap_or(u64::MAX))
                .arg(&*self.calls.channel)
                .arg(millis(claim.claim_window))
                .arg(self.queue)
                .arg(&*claim.details)
                .arg(claim.spare_tokens);
        };
        let link = self.calls.link().await?;
        loop {
            let reply = self
                .calls
                .run(&link, &self.calls.scripts.acquire, arguments)
                .await?;
            if let Outcome::Done(acquired) = reply::acquired(&reply, claim)? {
                return Ok(acquired);
            }
        }
    }

    async fn give_up(&self, claim: &Claim) -> Result<Released> {
        let attempt = claim.attempt.to_hex();
        let arguments = |call: &mut Cmd| {
            Keys::new(&claim.resource).add_to(call);
            call.arg(&attempt).arg(millis(claim.claim_window));
        };
        Ok(
            match self.calls.free(&self.calls.scripts.release, arguments).await? {
                true => Released::Released,
                false => Released::NotHeld,
            },
        )
    }
}

struct Limits {
    connect_timeout: Duration,
    keep_alive: Duration,
    queue: usize,
}

/// Milliseconds, at least one: the server knows no lease of zero.
pub(crate) fn millis(duration: Duration) -> u64 {
    let below_a_second = u64::from(duration.subsec_nanos().div_ceil(1_000_000));
    duration
        .as_secs()
        .saturating_mul(1000)
        .saturating_add(below_a_second)
        .max(1)
}

fn refuse_others(kind: Kind) -> Result<()> {
    if kind == Kind::Mutex {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unsupported,
        format!("Redis has no {kind} locks here: use a mutex, or a backend that declares weighted locks"),
    ))
}

impl Driver for RedisDriver {
    fn backend(&self) -> &'static str {
        "redis"
    }

    fn capabilities(&self) -> Capabilities {
        CAPABILITIES
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        refuse_others(claim.resource.kind())?;
        self.batches
            .acquire(claim, intent, || self.ask(claim, intent))
            .await
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        refuse_others(claim.resource.kind())?;
        self.batches.release(claim, || self.give_up(claim)).await
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        let arguments = |call: &mut Cmd| {
            call.arg(leases.len());
            let mut keys = Keys::default();
            for lease in leases {
                keys.set(&lease.claim.resource);
                call.arg(keys.lease());
            }
            for lease in leases {
                call.arg(lease.claim.attempt.to_hex()).arg(millis(lease.ttl));
            }
        };
        let link = self.calls.link().await?;
        let reply = self
            .calls
            .run(&link, &self.calls.scripts.renew, arguments)
            .await?;
        let answers = reply::renewed(&reply, leases.len())?;
        Ok(answers
            .map(|ours| match ours {
                true => Renewal::Renewed,
                false => Renewal::NotHeld,
            })
            .collect())
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        refuse_others(resource.kind())?;
        let link = self.calls.link().await?;
        let arguments = |call: &mut Cmd| Keys::new(resource).add_to(call);
        reply::inspection(
            &self
                .calls
                .run(&link, &self.calls.scripts.inspect, arguments)
                .await?,
        )
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        let Some(pattern) = pattern(namespace, Kind::Mutex, prefix) else {
            return Ok(Vec::new());
        };
        let link = self.calls.link().await?;
        let mut found = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor)
                .arg("MATCH")
                .arg(&pattern)
                .arg("COUNT")
                .arg(PAGE);
            let reply = link.send(&scan).await.map_err(Error::from)?;
            let (next, leases) = reply::page(&reply)?;
            let keys: Vec<_> = leases.into_iter().filter_map(resource_key).collect();
            for keys in keys.chunks(PAGE) {
                let calls: Vec<_> = keys
                    .iter()
                    .map(|key| {
                        move |call: &mut Cmd| Keys::from_parts(namespace, Kind::Mutex, key).add_to(call)
                    })
                    .collect();
                let replies = self
                    .calls
                    .run_all(&link, &self.calls.scripts.inspect, &calls)
                    .await?;
                for (key, reply) in keys.iter().zip(replies) {
                    let inspection = reply::inspection(&reply.map_err(Error::from)?)?;
                    if !inspection.holders.is_empty() {
                        found.push(Listed::new(Kind::Mutex, (*key).to_owned(), inspection));
                    }
                }
            }
            if next == "0" {
                break;
            }
            next.clone_into(&mut cursor);
        }
        // While the server rehashes, SCAN may tell a key twice.
        found.sort_by(|a, b| a.key.cmp(&b.key));
        found.dedup_by(|a, b| a.key == b.key);
        Ok(found)
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        refuse_others(resource.kind())?;
        let arguments = |call: &mut Cmd| {
            Keys::new(resource).add_to(call);
            // Nobody told the window of those who wait.
            call.arg(millis(DEFAULT_CLAIM_WINDOW));
        };
        self.calls.free(&self.calls.scripts.force, arguments).await
    }

    async fn ping(&self) -> Result<()> {
        let link = self.calls.link().await?;
        link.send(&cmd("PING")).await?;
        Ok(())
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        doctor::diagnose(&self.calls.link().await?, &self.calls.context.env, self.password).await
    }

    async fn close(&self) -> Result<()> {
        self.calls.supervisor.close();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_rounded_up() {
        for (nanos, expected) in [(0, 1), (1, 1), (1_000_000, 1), (1_000_001, 2)] {
            assert_eq!(millis(Duration::from_nanos(nanos)), expected);
        }
    }
}
