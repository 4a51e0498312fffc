//! What looks after a lane while it waits or holds: one task for each.

use std::sync::Arc;
use std::time::Duration;

use lockcore::driver::Released;
use lockcore::{AttemptId, Claim, Heartbeat, Instant, Result, Session, Token};
use tokio::sync::{mpsc, oneshot, watch};

use super::Sessions;
use super::lane::Lane;
use crate::claims::{get, micros, only};
use crate::pool::{PATIENCE, statement};

/// A sign of life is given at least so often: to find out about a connection that died without a word.
const LONGEST_INTERVAL: Duration = Duration::from_secs(10);

/// A lock that is held.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) session: Session,
    pub(super) token: Token,
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
enum Order {
    /// Is it still there?
    Look(oneshot::Sender<bool>),
    Release(oneshot::Sender<Result<Released>>),
}

/// What a keeper needs to know of its lock.
pub(super) struct Kept {
    pub(super) key: String,
    pub(super) attempt: AttemptId,
    pub(super) ttl: Duration,
    pub(super) token: Token,
    /// Before the request that was granted.
    pub(super) sent: Instant,
}

impl Held {
    /// Keeps the connection of a granted lock alive until it is released, ends, or nobody wants it.
    pub(super) fn keep(sessions: &Arc<Sessions>, lane: Lane, kept: Kept) -> Self {
        let context = &sessions.context;
        let session = Session::new(&context.signals, kept.sent, kept.ttl);
        let (orders, given) = mpsc::channel(4);
        let token = kept.token;
        let keeper = keep(Arc::clone(sessions), lane, kept, session.clone(), given);
        context.env.spawn(keeper);
        Self {
            session,
            token,
            orders,
        }
    }

    /// Looks at the server; false when the lock is gone.
    pub(super) async fn look(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        // A keeper that is gone has no lock.
        self.orders.send(Order::Look(answer)).await.is_ok() && answered.await.unwrap_or(false)
    }

    pub(super) async fn release(self) -> Result<Released> {
        let (answer, answered) = oneshot::channel();
        if self.orders.send(Order::Release(answer)).await.is_err() {
            return Ok(Released::NotHeld);
        }
        answered.await.unwrap_or(Ok(Released::NotHeld))
    }
}

async fn keep(
    sessions: Arc<Sessions>,
    mut lane: Lane,
    kept: Kept,
    session: Session,
    mut orders: mpsc::Receiver<Order>,
) {
    let env = &sessions.context.env;
    let mut heartbeat = Heartbeat::new(env, kept.sent, kept.ttl, LONGEST_INTERVAL);
    loop {
        let order = tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(order) => Some(order),
                // Nobody can want it any more: dropping the connection frees the lock.
                None => return,
            },
            () = lane.ended() => break,
            () = heartbeat.due() => None,
        };
        match order {
            Some(Order::Release(answer)) => {
                let outcome = release(&sessions, &mut lane, &kept).await;
                sessions.park(lane);
                answer.send(outcome).ok();
                return;
            }
            Some(Order::Look(answer)) => match look(&sessions, &mut lane, &kept).await {
                Ok(true) => drop(answer.send(true)),
                Ok(false) => {
                    // Taken by force: lockcore hears it from this answer, and the connection is closed.
                    answer.send(false).ok();
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "the connection of a lock broke");
                    session.end();
                    answer.send(false).ok();
                    break;
                }
            },
            None => {
                let sent = env.now();
                // Any statement restarts the server's timer of this connection.
                let ping = Box::pin(lane.run(statement(&sessions.statements.alive)));
                match env.timeout(kept.ttl.min(PATIENCE), ping).await {
                    Some(Ok(_)) => session.extend(sent, kept.ttl),
                    _ => break,
                }
                heartbeat.confirmed(sent, kept.ttl);
            }
        }
    }
    // Before anything else: the server may have given the lock to somebody else.
    session.end();
    drop(lane);
    while let Ok(order) = orders.try_recv() {
        match order {
            Order::Look(answer) => answer.send(false).ok(),
            Order::Release(answer) => answer.send(Ok(Released::NotHeld)).ok(),
        };
    }
}

/// Does the table say that the lock is ours?
async fn look(sessions: &Sessions, lane: &mut Lane, kept: &Kept) -> Result<bool> {
    let owner = statement(&sessions.statements.owner)
        .bind(&kept.key)
        .bind(kept.attempt.to_hex());
    let rows = lane.ask(&sessions.access, owner).await?;
    match rows.first() {
        Some(row) => Ok(get::<Option<bool>>(row, "is_ours")? == Some(true)),
        None => Ok(false),
    }
}

async fn release(sessions: &Sessions, lane: &mut Lane, kept: &Kept) -> Result<Released> {
    let free = statement(&sessions.statements.release)
        .bind(&kept.key)
        .bind(kept.attempt.to_hex())
        .bind(kept.token.get().cast_signed());
    match lane.ask(&sessions.access, free).await {
        Ok(rows) => {
            let was_held: bool = only(&rows).and_then(|row| get(row, "session_release"))?;
            Ok(if was_held {
                Released::Released
            } else {
                Released::NotHeld
            })
        }
        // The connection is gone, and the lock with it.
        Err(failed) if failed.cut => Ok(Released::NotHeld),
        Err(failed) => Err(failed.into()),
    }
}

/// A connection that stands in the server's queue.
#[derive(Debug)]
pub(super) struct Waiting {
    lane: watch::Receiver<bool>,
    outcome: oneshot::Receiver<Option<Lane>>,
    /// The server's process.
    pub(super) pid: i32,
}

impl Waiting {
    pub(super) fn start(
        sessions: &Arc<Sessions>,
        mut lane: Lane,
        number: i64,
        pid: i32,
        claim: &Claim,
    ) -> Self {
        let (attempt, window) = (claim.attempt, micros(claim.claim_window));
        let (mut outcome, given) = oneshot::channel();
        let (done, is_done) = watch::channel(false);
        let sessions = Arc::clone(sessions);
        let env = sessions.context.env.clone();
        env.spawn(async move {
            let wait = statement(&sessions.statements.wait).bind(number).bind(window);
            let waited = tokio::select! {
                biased;
                () = outcome.closed() => return,
                waited = lane.run(wait) => waited,
            };
            let granted = match waited {
                Ok(_) => Some(lane),
                Err(failed) => {
                    tracing::debug!(error = %failed.error, "a wait ended");
                    None
                }
            };
            outcome.send(granted).ok();
            done.send(true).ok();
            sessions.context.signals.wake(attempt);
        });
        Self {
            lane: is_done,
            outcome: given,
            pid,
        }
    }

    /// Is the wait over?
    pub(super) fn is_over(&self) -> bool {
        *self.lane.borrow() || self.lane.has_changed().is_err()
    }

    /// The connection that was granted the lock, if it was.
    pub(super) fn into_lane(mut self) -> Option<Lane> {
        self.outcome.try_recv().ok().flatten()
    }
}
