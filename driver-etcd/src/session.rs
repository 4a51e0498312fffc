//! The leases that locks live by: one that many share for each TTL, and those that a lock has for itself.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::{GetOptions, LeaseGrantOptions, LeaseKeepAliveStream, LeaseKeeper, LeaseTimeToLiveOptions};
use lockcore::{AttemptId, DriverContext, Error, ErrorKind, Instant, OpenSession, Result, Supervisor};

use crate::connection::{Connector, Failure, Link};
use crate::keys;
use crate::queue::Queues;

/// How much longer the server keeps a lease than its locks count on: a leader that was deposed and does not know it yet
/// may confirm a lease for up to an election timeout, which is 1 s by default.
pub(crate) const SLACK: Duration = Duration::from_secs(1);

/// How long the server may take to end a lease when it is closed.
const CLOSING: Duration = Duration::from_secs(1);

/// A session is compared with the server's list with most keep-alives, and once in a TTL if it has more keys than this.
const MANY: usize = 1_000;

/// How many keys are read at once where the list of a lease is too long for one reply.
const PAGE: i64 = 5_000;

/// The TTL to ask the server for.
pub(crate) fn seconds(ttl: Duration) -> i64 {
    let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    i64::try_from(whole).unwrap_or(i64::MAX).saturating_add(slack())
}

fn slack() -> i64 {
    i64::try_from(SLACK.as_secs()).unwrap_or(i64::MAX)
}

/// What locks may count on when the server says `granted`.
pub(crate) fn lasts(granted: i64) -> Duration {
    Duration::from_secs(u64::try_from(granted.saturating_sub(slack())).unwrap_or(0))
}

/// A lease that many locks share.
#[derive(Debug)]
pub(crate) struct SharedLease {
    id: i64,
    granted: i64,
    /// A stream of keep-alives; not here while one is under way, so that a late answer is never taken for another's.
    stream: Mutex<Option<Stream>>,
    compared: Mutex<Compared>,
}

#[derive(Debug)]
struct Compared {
    when: Instant,
    keys: usize,
}

impl SharedLease {
    pub(crate) const fn id(&self) -> i64 {
        self.id
    }

    fn stream(&self) -> MutexGuard<'_, Option<Stream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compared(&self) -> MutexGuard<'_, Compared> {
        self.compared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Stream {
    link: Link,
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream").finish_non_exhaustive()
    }
}

/// Opens shared leases and keeps them alive.
#[derive(Clone, Debug)]
pub(crate) struct Opener {
    pub(crate) context: DriverContext,
    pub(crate) supervisor: Supervisor<Connector>,
    pub(crate) queues: Arc<Queues>,
}

#[async_trait]
impl OpenSession for Opener {
    type Handle = Arc<SharedLease>;

    async fn open(&self, ttl: Duration) -> Result<(Self::Handle, Duration)> {
        let link = self.supervisor.connection(&self.context).await?;
        let granted = link.call(link.leases().grant(seconds(ttl), None)).await?;
        let lease = SharedLease {
            id: granted.id(),
            granted: granted.ttl(),
            stream: Mutex::default(),
            compared: Mutex::new(Compared {
                when: self.context.env.now(),
                keys: 0,
            }),
        };
        Ok((Arc::new(lease), lasts(granted.ttl())))
    }

    async fn keep_alive(&self, lease: &Self::Handle) -> Result<Option<Duration>> {
        let link = self.supervisor.connection(&self.context).await?;
        let confirmed = self.confirm(&link, lease).await?;
        if confirmed.is_some() {
            self.compare(&link, lease);
        }
        Ok(confirmed.map(lasts))
    }

    async fn close(&self, lease: Self::Handle) {
        let closing = Box::pin(async {
            let link = self.supervisor.connection(&self.context).await?;
            revoke(&link, lease.id).await
        });
        match self.context.env.timeout(CLOSING, closing).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(%error, "a lease was not revoked, it runs out"),
            None => tracing::debug!("the revocation of a lease was not answered, it runs out"),
        }
    }
}

impl Opener {
    /// What the server says that the lease has left; nothing when it is gone.
    async fn confirm(&self, link: &Link, lease: &SharedLease) -> Result<Option<i64>> {
        let idle = lease.stream().take().filter(|stream| !stream.link.is_over());
        let (stream, ttl) = match idle {
            None => {
                let (keeper, answers) = match link.call(link.leases().keep_alive(lease.id)).await {
                    Ok(stream) => stream,
                    Err(failure) if failure.is_lease_gone() => return Ok(None),
                    Err(failure) => return Err(failure.into()),
                };
                let stream = Stream {
                    link: link.clone(),
                    keeper,
                    answers,
                };
                // The client keeps the first answer to itself: a lease is always renewed for what it was granted for.
                (stream, lease.granted)
            }
            Some(mut stream) => {
                let Stream {
                    link,
                    keeper,
                    answers,
                } = &mut stream;
                let asked = async {
                    keeper.keep_alive().await?;
                    answers.message().await
                };
                let answer = link.call(asked).await?.ok_or_else(|| {
                    Error::new(
                        ErrorKind::Unavailable,
                        "the server ended the stream of keep-alives",
                    )
                })?;
                (stream, answer.ttl())
            }
        };
        *lease.stream() = Some(stream);
        Ok((ttl > 0).then_some(ttl))
    }

    /// Compares what we think we hold with what the server has, in the background.
    fn compare(&self, link: &Link, lease: &Arc<SharedLease>) {
        let now = self.context.env.now();
        let mut compared = lease.compared();
        let ttl = lasts(lease.granted);
        // What holds nothing can have left a ghost only.
        let holds = self.queues.attempts.is_held_by(lease.id, now);
        let pause = if compared.keys > MANY || !holds {
            ttl
        } else {
            ttl / 5
        };
        if now.since(compared.when) < pause {
            return;
        }
        compared.when = now;
        drop(compared);
        let (this, link, lease) = (self.clone(), link.clone(), Arc::clone(lease));
        drop(self.context.env.spawn(async move {
            if let Err(error) = this.reconcile(&link, &lease, now).await {
                tracing::debug!(%error, "a session was not compared with the server");
            }
        }));
    }

    async fn reconcile(&self, link: &Link, lease: &SharedLease, now: Instant) -> Result<()> {
        let held = self.queues.attempts.held_by(lease.id, now);
        let options = LeaseTimeToLiveOptions::new().with_keys();
        let (mut there, mut ghosts) = (HashSet::with_capacity(held.len()), Vec::new());
        let mut visit = |key: &[u8]| {
            let Some(parsed) = keys::parse(key) else { return };
            there.insert(parsed.attempt);
            if !self.queues.attempts.is_known(parsed.attempt) {
                tracing::debug!(attempt = %parsed.attempt, "removing what a late request left behind");
                ghosts.push(key.to_vec());
            }
        };
        match link
            .call(link.leases().time_to_live(lease.id, Some(options)))
            .await
        {
            // It is gone: the next keep-alive says so too.
            Ok(told) if told.ttl() < 0 => return Ok(()),
            Ok(told) => told.keys().iter().for_each(|key| visit(key)),
            Err(failure) if failure.is_too_long() => {
                for folder in self.queues.attempts.folders_of(lease.id, now) {
                    visit_pages(link, lease.id, &folder, &mut visit).await?;
                }
            }
            Err(failure) => return Err(failure.into()),
        }
        lease.compared().keys = there.len();
        for ghost in ghosts {
            link.call(link.kv().delete(ghost, None)).await?;
        }
        for attempt in held {
            if !there.contains(&attempt) {
                self.context.signals.wake(attempt);
            }
        }
        Ok(())
    }
}

/// Those keys in `folder` that hang on a lease which has too many for one reply.
async fn visit_pages(link: &Link, lease: i64, folder: &str, mut visit: impl FnMut(&[u8])) -> Result<()> {
    let (mut from, end) = (
        folder.as_bytes().to_vec(),
        format!("{}0", folder.trim_end_matches('/')),
    );
    loop {
        let options = GetOptions::new()
            .with_range(end.clone())
            .with_limit(PAGE)
            .with_keys_only();
        let page = link.call(link.kv().get(from, Some(options))).await?;
        let ours = page.kvs().iter().filter(|found| found.lease() == lease);
        ours.for_each(|found| visit(found.key()));
        let Some(last) = page.kvs().last().filter(|_| page.more()) else {
            return Ok(());
        };
        from = [last.key(), &[0]].concat();
    }
}

/// Ends a lease; one that is gone is fine.
pub(crate) async fn revoke(link: &Link, id: i64) -> Result<()> {
    match link.call(link.leases().revoke(id)).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_lease_gone() => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

/// The lease that an attempt has for itself. Everybody who knows the attempt knows its id, so that a reply that is lost
/// loses nothing.
pub(crate) fn own_id(attempt: AttemptId, seconds: i64) -> i64 {
    let (high, low) = (attempt.bits() >> 64, attempt.bits() & u128::from(u64::MAX));
    #[expect(clippy::cast_possible_truncation, reason = "both halves have 64 bits")]
    let mixed = (high as u64).rotate_left(23) ^ (low as u64);
    let mixed = mixed ^ seconds.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    i64::try_from(mixed >> 1).unwrap_or(i64::MAX).max(1)
}

/// Opens the lease `id` for `seconds`; false when it was open already.
pub(crate) async fn open_own(link: &Link, id: i64, seconds: i64) -> Result<bool> {
    let options = LeaseGrantOptions::new().with_id(id);
    match link.call(link.leases().grant(seconds, Some(options))).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_lease_there() => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// One keep-alive for a lease; false when the server does not have it.
pub(crate) async fn renew_own(link: &Link, id: i64) -> Result<bool> {
    match link.call(link.leases().keep_alive(id)).await {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_lease_gone() => Ok(false),
        Err(failure) => Err(failure.into()),
    }
}

/// What is left of a lease, for sure: nothing when it is gone.
pub(crate) async fn remaining(link: &Link, id: i64) -> Result<Duration, Failure> {
    let told = link.call(link.leases().time_to_live(id, None)).await?;
    Ok(lasts(told.ttl()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_and_the_slack() {
        for (millis, expected) in [(1, 2), (1_000, 2), (1_001, 3), (30_000, 31)] {
            assert_eq!(seconds(Duration::from_millis(millis)), expected);
        }
        assert_eq!(lasts(31), Duration::from_secs(30));
        assert_eq!((lasts(0), lasts(-1)), (Duration::ZERO, Duration::ZERO));
    }

    #[test]
    fn own_ids_differ_and_are_positive() {
        let id = |bits, seconds| own_id(AttemptId::from_bits(bits), seconds);
        assert_eq!(id(7, 3), id(7, 3));
        assert_ne!(id(7, 3), id(7, 4));
        assert_ne!(id(7, 3), id(8, 3));
        assert!((0..1_000).all(|bits| id(bits << 60, 2) > 0));
    }
}
