//! Taking a lock: at once, or by way of the queue.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{DeleteOptions, Txn, TxnResponse};
use lockcore::driver::{Acquired, Busy, Grant};
use lockcore::{Claim, Error, ErrorKind, PooledSession, Result, Token};

use crate::connection::{Failure, Link};
use crate::driver::EtcdDriver;
use crate::keys::{self, LockKeys, State};
use crate::queue::{Older, Place, STAND_BY, windows};
use crate::requests::{self, Answer, Look, Seen, Stored};
use crate::session::{self, SharedLease};

/// How often one call may find that the queue has changed under it.
const ROUNDS: u32 = 5;

/// One call of acquire.
pub(crate) struct Asking<'a> {
    driver: &'a EtcdDriver,
    claim: &'a Claim,
    link: Link,
    keys: LockKeys,
    mine: String,
    holds: String,
    waits: String,
    /// What waiters live by, and holders that are renewed.
    shared: Option<Arc<PooledSession<Arc<SharedLease>>>>,
    /// What a holder lives by that is not renewed.
    own: Option<i64>,
}

/// How a round ended.
enum Round {
    Done(Acquired),
    /// Ask again: our key was created at this revision, as far as we know.
    Again(Option<i64>),
    /// It is the turn of our key, which was created at this revision.
    Free(i64),
}

impl<'a> Asking<'a> {
    pub(crate) async fn new(driver: &'a EtcdDriver, claim: &'a Claim) -> Result<Self> {
        let keys = LockKeys::new(&claim.resource);
        let now = driver.context().env.unix_micros();
        driver.queues().attempts.begins(claim.attempt, &keys);
        Ok(Self {
            driver,
            claim,
            link: driver.link().await?,
            mine: keys.of(claim.attempt),
            keys,
            holds: keys::value(State::Holds, now, &claim.details),
            waits: keys::value(State::Waits, now, &claim.details),
            shared: None,
            own: None,
        })
    }

    /// Takes it now or leaves nothing.
    pub(crate) async fn now(mut self) -> Result<Acquired> {
        for _ in 0..ROUNDS {
            match self.take().await {
                Ok(Round::Done(Acquired::Busy(busy))) => {
                    // lockcore does not release what was refused.
                    self.driver.queues().attempts.leaves(self.claim.attempt);
                    if let Some(own) = self.own {
                        session::revoke(&self.link, own).await?;
                    }
                    return Ok(Acquired::Busy(busy));
                }
                Ok(Round::Done(granted)) => return Ok(granted),
                Ok(Round::Again(_) | Round::Free(_)) => {}
                Err(failure) => self.settle(failure).await?,
            }
        }
        Err(unsettled())
    }

    /// Takes it, or stands in the queue, or claims the turn. `ticket` is when our key was created.
    pub(crate) async fn in_turn(mut self, ticket: Option<u64>) -> Result<Acquired> {
        let attempt = self.claim.attempt;
        self.driver
            .queues()
            .asks(&self.keys, attempt, self.claim.claim_window);
        let mut created = ticket.and_then(|ticket| i64::try_from(ticket).ok());
        let mut free = false;
        for _ in 0..ROUNDS {
            let round = match created {
                None => self.enqueue().await,
                Some(created) => self.claim_turn(created, std::mem::take(&mut free)).await,
            };
            match round {
                Ok(Round::Done(acquired)) => {
                    if matches!(acquired, Acquired::Granted(_)) {
                        self.driver.queues().leaves(&self.keys, attempt);
                    }
                    return Ok(acquired);
                }
                Ok(Round::Again(known)) => created = known,
                Ok(Round::Free(known)) => {
                    free = true;
                    created = Some(known);
                }
                Err(failure) => self.settle(failure).await?,
            }
        }
        Err(unsettled())
    }

    async fn take(&mut self) -> Result<Round, Failure> {
        let lease = match self.claim.auto_renew {
            true => self.shared().await?,
            false => self.own().await?,
        };
        let taken = requests::try_take(&self.keys, &self.mine, self.holding(lease));
        let look = match requests::answer(&self.send(taken).await?)? {
            Answer::Taken { revision, alone } => return self.granted(revision, alone),
            Answer::Queued(look) | Answer::Refused(look) => look,
        };
        match (&look.mine, &look.oldest) {
            (Some(mine), _) if mine.state() == State::Holds => self.adopt(mine).await,
            (_, None) => Ok(Round::Again(None)),
            (_, Some(oldest)) if oldest.state() == State::Holds => {
                self.driver.queues().is_held(&self.keys);
                Ok(Round::Done(Acquired::Busy(held_by(oldest))))
            }
            // Free, and somebody waits. Who has not claimed it in its time is dead, and gives way to the next.
            (_, Some(first)) => {
                let since = self.driver.queues().is_free(&self.keys, first.created);
                let rest = self.claim.claim_window.saturating_sub(since);
                if !rest.is_zero() {
                    return Ok(Round::Done(Acquired::Busy(Busy::default().reserved(Some(rest)))));
                }
                let removal = requests::remove(std::slice::from_ref(first), None, None);
                self.send(removal).await?;
                Ok(Round::Again(None))
            }
        }
    }

    async fn enqueue(&mut self) -> Result<Round, Failure> {
        let shared = self.shared().await?;
        let lease = match self.claim.auto_renew {
            true => shared,
            false => self.own().await?,
        };
        let waiting = Stored {
            value: &self.waits,
            lease: shared,
        };
        let enqueued = requests::enqueue(&self.keys, &self.mine, self.holding(lease), waiting);
        match requests::answer(&self.send(enqueued).await?)? {
            Answer::Taken { revision, alone } => self.granted(revision, alone),
            Answer::Queued(look) if look.count > self.driver.queue().saturating_add(1) => {
                self.link
                    .call(self.link.kv().delete(self.mine.as_str(), None))
                    .await?;
                let message = "as many wait for this lock as the driver allows: see the option `queue`";
                Err(Error::new(ErrorKind::Unavailable, message).into())
            }
            Answer::Queued(look) => {
                let created = look.revision;
                self.waiting(&look, created).await
            }
            // It stood there already: an earlier request was answered to nobody.
            Answer::Refused(look) => self.stood(&look, None).await,
        }
    }

    async fn claim_turn(&mut self, created: i64, found_free: bool) -> Result<Round, Failure> {
        let shared = self.shared().await?;
        if found_free && !self.claim.auto_renew {
            self.own().await?;
        }
        // Whose turn it is not only looks, and writes nothing; nor is a lease opened before there is something to hold by it.
        let lease = match self.claim.auto_renew {
            true => (found_free || self.is_due()).then_some(shared),
            false => self.own,
        };
        let holding = lease.map(|lease| self.holding(lease));
        let count = self.claim.spare_tokens > 0;
        let claimed = requests::claim(&self.keys, &self.mine, created, holding, count);
        match requests::answer(&self.send(claimed).await?)? {
            Answer::Taken { alone, .. } if lease.is_some() => self.granted(created, count && alone),
            Answer::Taken { .. } => Ok(Round::Free(created)),
            Answer::Queued(look) | Answer::Refused(look) => self.stood(&look, Some(created)).await,
        }
    }

    /// Our key was not written by this request.
    async fn stood(&mut self, look: &Look, known: Option<i64>) -> Result<Round, Failure> {
        match &look.mine {
            None => Ok(Round::Again(None)),
            Some(mine) if mine.state() == State::Holds => self.adopt(mine).await,
            Some(mine) if Some(mine.created) == known => self.waiting(look, mine.created).await,
            Some(mine) => Ok(Round::Again(Some(mine.created))),
        }
    }

    /// Our key is in the queue.
    async fn waiting(&mut self, look: &Look, created: i64) -> Result<Round, Failure> {
        let (queues, window) = (self.driver.queues(), self.claim.claim_window);
        let Some(oldest) = look.oldest.as_ref().filter(|oldest| oldest.created < created) else {
            return Ok(Round::Free(created));
        };
        let older = look.older;
        let (Older::Exactly(count) | Older::AtLeast(count)) = older;
        let place = Place {
            created,
            older,
            seen: look.revision,
        };
        let waiter = (self.claim.attempt, window);
        let ticket = u64::try_from(created).ok();
        let queued = |busy: Busy, ahead: usize| busy.queued(u64::try_from(ahead).unwrap_or(u64::MAX), ticket);
        if oldest.state() == State::Holds {
            queues.is_held(&self.keys);
            queues.waits(&self.keys, waiter, place, &look.named);
            let busy = queued(held_by(oldest), count.saturating_sub(1));
            return Ok(Round::Done(Acquired::Busy(busy)));
        }
        let since = queues.is_free(&self.keys, oldest.created);
        let rest = windows(window, count).saturating_sub(since);
        if rest.is_zero() {
            let all = matches!(older, Older::Exactly(count) if count == look.before.len());
            return self.pass(&look.before, all, created).await;
        }
        queues.waits(&self.keys, waiter, place, &look.named);
        // Those behind the second are not told by `reserved` when to look.
        let free_in = (2..=STAND_BY).contains(&count).then_some(rest);
        let reserved = window.saturating_sub(since);
        let busy = queued(Busy::default().reserved(Some(reserved)).free_in(free_in), count);
        Ok(Round::Done(Acquired::Busy(busy)))
    }

    /// Goes past those who had their claim windows and did not claim.
    async fn pass(&mut self, dead: &[Seen], all: bool, created: i64) -> Result<Round, Failure> {
        if dead.is_empty() {
            return Ok(Round::Again(Some(created)));
        }
        let lease = match self.claim.auto_renew {
            true => Some(self.shared().await?),
            false => self.own,
        };
        let holding = lease.filter(|_| all).map(|lease| self.holding(lease));
        let claims = holding.is_some();
        let removal = requests::remove(dead, Some((&self.mine, created)), holding);
        let removed = self.send(removal).await?.succeeded();
        if removed {
            tracing::debug!(
                count = dead.len(),
                "went past waiters that did not claim their turn"
            );
        }
        match removed && claims {
            true => self.granted(created, false),
            false => Ok(Round::Again(Some(created))),
        }
    }

    /// An earlier request took the lock.
    async fn adopt(&mut self, mine: &Seen) -> Result<Round, Failure> {
        if !self.claim.auto_renew {
            // Nothing is extended: it lasts for what is left.
            let left = session::remaining(&self.link, mine.lease).await?;
            let grant = Grant::lease(token(mine.created)?, left.min(self.claim.ttl));
            return Ok(Round::Done(Acquired::Granted(grant)));
        }
        let shared = self.shared().await?;
        if mine.lease != shared {
            let moved = requests::rewrite(mine, self.holding(shared));
            if !self.send(moved).await?.succeeded() {
                return Ok(Round::Again(Some(mine.created)));
            }
        }
        self.granted(mine.created, false)
    }

    /// What is spare of its tokens is used by this process while nobody else waits.
    fn granted(&self, created: i64, alone: bool) -> Result<Round, Failure> {
        let token = token(created)?;
        let spare = if alone { self.claim.spare_tokens } else { 0 };
        let grant = match (&self.shared, self.claim.auto_renew) {
            (Some(shared), true) => {
                let now = self.driver.context().env.now();
                self.driver.queues().attempts.has(self.claim.attempt, now);
                Grant::session(token, shared.session().clone())
            }
            _ => Grant::lease(token, self.claim.ttl),
        };
        Ok(Round::Done(Acquired::Granted(grant.with_spare(spare))))
    }

    fn is_due(&self) -> bool {
        self.driver.queues().is_due(&self.keys, self.claim.attempt)
    }

    fn holding(&self, lease: i64) -> Stored<'_> {
        Stored {
            value: &self.holds,
            lease,
        }
    }

    async fn send(&self, txn: Txn) -> Result<TxnResponse, Failure> {
        let (attempt, attempts) = (self.claim.attempt, &self.driver.queues().attempts);
        // Nobody would release what a call gets that lockcore no longer waits for.
        if !attempts.is_wanted(attempt) {
            return Err(given_up().into());
        }
        let answer = self.link.call(self.link.kv().txn(txn)).await?;
        if attempts.is_wanted(attempt) {
            return Ok(answer);
        }
        // It may have come through after the release: gone with what it left, once that has its answer.
        if let Some(turn) = attempts.turn(attempt) {
            drop(turn.lock().await);
        }
        self.link
            .call(self.link.kv().delete(self.mine.as_str(), None))
            .await?;
        Err(given_up().into())
    }

    /// The lease that this attempt shares.
    async fn shared(&mut self) -> Result<i64, Failure> {
        if let Some(shared) = &self.shared {
            return Ok(shared.handle().id());
        }
        let shared = self.driver.pool().get(self.ttl()).await?;
        let id = shared.handle().id();
        if !self
            .driver
            .queues()
            .attempts
            .lives_by(self.claim.attempt, &shared)
        {
            return Err(given_up().into());
        }
        self.shared = Some(shared);
        Ok(id)
    }

    /// In whole seconds, as the sessions are.
    fn ttl(&self) -> Duration {
        session::lasts(session::seconds(self.claim.ttl))
    }

    /// The lease that this attempt has for itself, good for the whole TTL from now on.
    async fn own(&mut self) -> Result<i64, Failure> {
        if let Some(own) = self.own {
            return Ok(own);
        }
        let seconds = session::seconds(self.claim.ttl);
        let id = session::own_id(self.claim.attempt, seconds);
        if !session::open_own(&self.link, id, seconds).await? {
            // From an earlier call. What is held by it is not extended.
            let mine = self
                .link
                .call(self.link.kv().get(self.mine.as_str(), None))
                .await?;
            let held = mine
                .kvs()
                .first()
                .is_some_and(|mine| keys::state(mine.value()) == State::Holds);
            if !held && !session::renew_own(&self.link, id).await? {
                session::open_own(&self.link, id, seconds).await?;
            }
        }
        self.own = Some(id);
        Ok(id)
    }

    /// A lease that is gone is replaced; everything else is the caller's.
    async fn settle(&mut self, failure: Failure) -> Result<()> {
        if !failure.is_lease_gone() {
            return Err(failure.into());
        }
        self.own = None;
        if let Some(shared) = self.shared.take()
            && session::remaining(&self.link, shared.handle().id())
                .await?
                .is_zero()
        {
            self.driver.pool().ended(&shared);
        }
        Ok(())
    }
}

fn token(created: i64) -> Result<Token> {
    keys::token(created).ok_or_else(|| {
        Error::new(
            ErrorKind::Internal,
            "the store's revision is too large to make tokens of: start with a new store",
        )
    })
}

fn unsettled() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the queue changed with every request for it",
    )
}

fn given_up() -> Error {
    Error::new(ErrorKind::Unavailable, "the attempt was given up meanwhile")
}

fn held_by(oldest: &Seen) -> Busy {
    Busy::default().held_by(Some(keys::occupant(&oldest.value, oldest.created)))
}

/// A delete that tells what was there.
pub(crate) fn telling() -> Option<DeleteOptions> {
    Some(DeleteOptions::new().with_prev_key())
}
