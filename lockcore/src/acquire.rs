//! The way to a guard: local queue, backend queue, grant.

use std::sync::Arc;
use std::time::Duration;

use backon::ExponentialBackoff;

use crate::attempt::Attempt;
use crate::claim::{AttemptId, Claim, MOST_SPARE_TOKENS, SharedClaim};
use crate::core::{Core, backoff};
use crate::driver::{Acquired, Busy, Grant, Intent, Occupant};
use crate::env::Instant;
use crate::error::{Error, ErrorKind, Result};
use crate::gate::{Visit, Wish};
use crate::guard::Guard;
use crate::held::{Held, Plan};
use crate::holder::Holder;
use crate::loss::LossReason;
use crate::name::Resource;
use crate::options::{Options, Wait};
use crate::schedule::recheck;
use crate::signals::WaiterSlot;

/// For how many turns of each one in line tokens are asked for. More of them are more turns for one request to the
/// backend, as far as the time for them goes.
const TURNS_EACH: usize = 8;

/// What is acquired, after validation; the same for every attempt of one lock object.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) core: Arc<Core>,
    pub(crate) resource: Resource,
    pub(crate) weight: u32,
    pub(crate) capacity: u32,
    /// What the backend gives for the TTL that was asked for.
    pub(crate) ttl: Duration,
    pub(crate) details: Arc<str>,
    pub(crate) options: Options,
}

impl Target {
    /// One attempt; when the lock is busy, whom the backend named as its holder.
    pub(crate) async fn try_acquire(&self) -> Result<Result<Guard, Option<Occupant>>> {
        self.refuse_when_closed()?;
        if let Some(holder) = self.core.gates.waited_for(&self.resource) {
            return Ok(Err(holder));
        }
        let mut attempt = self.attempt(0)?;
        let mut pauses = Pauses::new(self);
        loop {
            let sent = self.core.shared.env.now();
            match attempt.send(Intent::Try).await {
                Ok(Acquired::Granted(grant)) => {
                    return self.settle(attempt, grant, sent, None).map(Ok);
                }
                Ok(Acquired::Busy(busy)) => {
                    attempt.refused();
                    return Ok(Err(busy.holder));
                }
                Err(error) => {
                    let pause = pauses.after(error, false)?;
                    tokio::select! {
                        biased;
                        () = self.core.closed.cancelled() => return Err(Core::closed_error()),
                        () = self.core.shared.env.sleep(pause) => {}
                    }
                }
            }
        }
    }

    /// Waits for the lock as long as `wait` says.
    pub(crate) async fn acquire(&self, wait: Wait) -> Result<Guard> {
        let deadline = match wait {
            Wait::For(limit) if !limit.is_zero() => self.core.shared.env.now().after(limit),
            Wait::Forever => Instant::FAR_FUTURE,
            Wait::No | Wait::For(_) => {
                return self
                    .try_acquire()
                    .await?
                    .map_err(|holder| self.timed_out(wait, holder));
            }
        };
        self.refuse_when_closed()?;
        let mut visit = self.core.gates.enter(&self.resource, || self.wish());
        if !visit.has_turn() {
            let handed = tokio::select! {
                biased;
                () = self.core.closed.cancelled() => return Err(Core::closed_error()),
                handed = visit.turn() => handed,
                () = self.core.shared.env.sleep_until(deadline) => {
                    return Err(self.timed_out(wait, visit.last_holder()));
                }
            };
            if let Some(guard) = handed {
                self.refuse_when_closed()?;
                return Ok(guard);
            }
        }
        self.acquire_in_turn(wait, deadline, &mut visit).await
    }

    async fn acquire_in_turn(&self, wait: Wait, deadline: Instant, visit: &mut Visit<'_>) -> Result<Guard> {
        let env = &self.core.shared.env;
        let spare = self.spare_tokens(visit);
        let mut attempt = self.attempt(spare)?;
        let mut pauses = Pauses::new(self);
        let mut ticket = None;
        let mut queued = false;
        let mut unanswered = None;
        loop {
            attempt.register();
            let sent = env.now();
            let next = match attempt.send(Intent::Wait { ticket }).await {
                Ok(Acquired::Granted(grant)) => match self.settle(attempt, grant, sent, Some(visit)) {
                    Ok(guard) => return Ok(guard),
                    Err(error) => {
                        attempt = self.attempt(spare)?;
                        attempt.register();
                        pauses.after(error, false)?
                    }
                },
                Ok(Acquired::Busy(busy)) => {
                    queued = true;
                    unanswered = None;
                    ticket = busy.ticket.or(ticket);
                    visit.found_busy();
                    let pause = self.recheck(&busy, &attempt.claim);
                    visit.saw_holder(busy.holder);
                    pauses.reset();
                    pause
                }
                Err(error) => {
                    let pause = pauses.after(error, queued)?;
                    unanswered = pauses.last.take();
                    pause
                }
            };
            let next = env.now().after(next);
            self.sleep(attempt.register(), next, deadline).await?;
            if env.now() >= deadline {
                return Err(match unanswered {
                    Some(error) => error,
                    None => self.timed_out(wait, visit.last_holder()),
                });
            }
        }
    }

    /// Until the waiter is woken, or `next`, or `deadline`.
    async fn sleep(&self, waiter: &WaiterSlot, mut next: Instant, deadline: Instant) -> Result<()> {
        let env = &self.core.shared.env;
        loop {
            tokio::select! {
                biased;
                () = self.core.closed.cancelled() => return Err(Core::closed_error()),
                signalled = waiter.signalled() => {
                    if signalled.now {
                        return Ok(());
                    }
                    next = signalled.after.map_or(next, |after| next.min(env.now().after(after)));
                }
                () = env.sleep_until(next.min(deadline)) => return Ok(()),
            }
        }
    }

    fn recheck(&self, busy: &Busy, claim: &Claim) -> Duration {
        let polls = match self.core.shared.capabilities.wake_up {
            crate::capability::WakeUp::Push => None,
            crate::capability::WakeUp::Poll { interval } => {
                Some(self.core.shared.env.jitter(interval / 2, interval))
            }
        };
        recheck(busy, claim, polls)
    }

    /// What a lease that is handed over has to be like.
    fn wish(&self) -> Wish {
        let Options {
            auto_renew, max_hold, ..
        } = self.options;
        Wish {
            ttl: self.ttl,
            details: Arc::clone(&self.details),
            takes_over: self.capacity == 1 && auto_renew && max_hold.is_none(),
        }
    }

    /// How many tokens those in line behind `visit` could use.
    fn spare_tokens(&self, visit: &Visit<'_>) -> u32 {
        if self.core.shared.settings.local_handover.is_zero() || !self.wish().takes_over {
            return 0;
        }
        let wanted = visit.behind().saturating_mul(TURNS_EACH);
        u32::try_from(wanted).unwrap_or(u32::MAX).min(MOST_SPARE_TOKENS)
    }

    fn attempt(&self, spare_tokens: u32) -> Result<Attempt<'_>> {
        let shared = &self.core.shared;
        let settings = &shared.settings;
        let id = AttemptId::from_bits(shared.env.random_u128()?);
        let claim = Claim {
            resource: self.resource.clone(),
            attempt: id,
            weight: self.weight,
            capacity: self.capacity,
            ttl: self.ttl,
            auto_renew: self.options.auto_renew,
            waiter_ttl: settings.waiter_ttl,
            claim_window: settings
                .claim_window
                .min(self.ttl / 2)
                .max(Duration::from_millis(1)),
            spare_tokens,
            details: Arc::clone(&self.details),
        };
        Ok(Attempt::new(&self.core, SharedClaim::from(claim)))
    }

    /// How the lease goes on that is granted by a request sent at `sent`.
    fn plan(&self, sent: Instant) -> Plan {
        let Options {
            ttl,
            auto_renew,
            max_hold,
            ..
        } = self.options;
        let longest = max_hold.map_or(Instant::FAR_FUTURE, |max_hold| sent.after(max_hold));
        // A backend that cannot keep a lease for as long as it was asked is renewed up to there.
        let bridged = ttl > self.ttl;
        let asked = sent.after(ttl);
        if !auto_renew && bridged && asked < longest {
            return Plan {
                renew: true,
                end: asked,
                end_reason: LossReason::Expired,
            };
        }
        Plan {
            renew: auto_renew || bridged,
            end: longest,
            end_reason: LossReason::MaxHold,
        }
    }

    /// Makes a guard of a grant in answer to a request sent at `sent`.
    fn settle(
        &self,
        mut attempt: Attempt<'_>,
        grant: Grant,
        sent: Instant,
        visit: Option<&mut Visit<'_>>,
    ) -> Result<Guard> {
        let now = self.core.shared.env.now();
        // The attempt lives to the end of this: a manager that closes meanwhile waits for it.
        let held = attempt.settle(grant, [sent, now], self.plan(sent))?;
        self.core.upkeep.track(held.clone(), [sent, now]);
        let tenure = visit.is_some_and(|visit| self.begin_tenure(visit, &held, sent));
        let guard = Guard::new(Arc::clone(&self.core), held, tenure);
        self.refuse_when_closed()?;
        Ok(guard)
    }

    /// Lets the lease pass along the line behind `visit`, if that is worth it; for no longer than the setting says.
    fn begin_tenure(&self, visit: &mut Visit<'_>, held: &Held, sent: Instant) -> bool {
        let shared = &self.core.shared;
        // A short lease is not spent on it.
        let limit = shared.settings.local_handover.min(self.ttl / 4);
        let until = sent.after(limit);
        if held.spare == 0 || shared.env.now() >= until || !visit.begin_tenure(held.claim().attempt, until) {
            return false;
        }
        let (core, env, claim) = (
            Arc::downgrade(&self.core),
            shared.env.clone(),
            held.claim().clone(),
        );
        drop(shared.env.spawn(async move {
            env.sleep_until(until).await;
            if let Some(core) = core.upgrade() {
                core.gates.end_tenure(&claim.resource, claim.attempt);
            }
        }));
        true
    }

    fn refuse_when_closed(&self) -> Result<()> {
        if self.core.closed.is_cancelled() {
            Err(Core::closed_error())
        } else {
            Ok(())
        }
    }

    fn timed_out(&self, wait: Wait, holder: Option<Occupant>) -> Error {
        let holder = holder.map(Holder::from_occupant);
        let mut message = match wait {
            Wait::For(limit) if !limit.is_zero() => {
                format!(
                    "the lock was busy for all of {}",
                    humantime::format_duration(limit)
                )
            }
            _ => "the lock is busy".to_owned(),
        };
        if let Some(holder) = &holder {
            message = format!("{message}, held by {holder}");
        }
        Error::new(ErrorKind::Timeout, message).with_holder(holder)
    }
}

/// The pauses after requests without an answer.
struct Pauses<'a> {
    target: &'a Target,
    /// Since the last answer.
    pauses: Option<ExponentialBackoff>,
    left: u32,
    last: Option<Error>,
}

impl<'a> Pauses<'a> {
    const fn new(target: &'a Target) -> Self {
        Self {
            target,
            pauses: None,
            left: target.options.retry.times,
            last: None,
        }
    }

    fn reset(&mut self) {
        *self = Self::new(self.target);
    }

    /// How long to wait before the next try after `error`; the error itself when there is none. A waiter that stands
    /// in the queue has no bound but its wait.
    fn after(&mut self, error: Error, queued: bool) -> Result<Duration> {
        if !error.is_retryable() || (!queued && self.left == 0) {
            return Err(error);
        }
        self.left = self.left.saturating_sub(1);
        self.last = Some(error);
        let retry = self.target.options.retry;
        let range = (retry.first_pause, retry.longest_pause);
        let pauses = self.pauses.get_or_insert_with(|| backoff(range));
        let pause = pauses.next().unwrap_or(retry.longest_pause);
        // Callers that failed together do not come back together.
        Ok(self.target.core.shared.env.jitter(pause / 2, pause))
    }
}
