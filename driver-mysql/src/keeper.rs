//! The one that has a connection of the mode `session`: waits on it for the lock, keeps it alive, gives it back.

use std::sync::{Arc, Weak};
use std::time::Duration;

use lockcore::{Claim, Error, ErrorKind, Heartbeat, Result, Session, Token};
use tokio::sync::{mpsc, oneshot};

use crate::config::Fence;
use crate::connection::Link;
use crate::error::classify;
use crate::script::{Value, answer, get};
use crate::session::{GRANTED_AT, Place, RELEASE, Sessions, Standing, seconds};

/// How long the server lets one who waits be silent once it has the lock: a stopped process costs the queue this much.
const WAITER_SILENCE: Duration = Duration::from_secs(1);
/// A wait without an end. Negative numbers mean different things to different servers.
const FOREVER: u32 = 31_536_000;
/// The longest pause between two signs of life: how soon it is noticed that the server ended the connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What a keeper is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Give the lock back, or stop waiting. The answer is whether it was held.
    Release(oneshot::Sender<bool>),
    /// Is it held still?
    Look(oneshot::Sender<bool>),
}

/// Keeps one attempt's connection.
pub(crate) struct Keeper {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) claim: Claim,
    pub(crate) name: String,
    pub(crate) place: Weak<Place>,
    pub(crate) heard: mpsc::UnboundedReceiver<Command>,
    /// The connection was given up.
    pub(crate) over: bool,
}

impl Keeper {
    /// Until the lock is given back, or the connection is gone, or nobody is there to give commands.
    pub(crate) async fn run(mut self, mut link: Link) {
        let standing = self.place.upgrade().map(|place| place.standing());
        let held = match standing {
            Some(Standing::Held(_, session)) => Some(session),
            Some(Standing::Waiting) => self.wait(&mut link).await,
            _ => None,
        };
        let Some(session) = held else {
            return self.give_up(&link, None);
        };
        match self.keep(&mut link, &session).await {
            Ok(true) => self.sessions.put(link, Some(self.claim.ttl)),
            Ok(false) => self.give_up(&link, None),
            Err(error) => {
                tracing::debug!(%error, "the connection of a lock broke");
                self.give_up(&link, Some(&session));
            }
        }
    }

    /// Stands in the server's queue. `None` when that is over without the lock.
    async fn wait(&mut self, link: &mut Link) -> Option<Session> {
        let script = format!(
            "SET SESSION wait_timeout = {}; SELECT GET_LOCK('{}', {FOREVER}), {GRANTED_AT}",
            seconds(WAITER_SILENCE),
            self.name
        );
        let mut run = Box::pin(link.run(script));
        let replies = loop {
            tokio::select! {
                biased;
                command = self.heard.recv() => match command {
                    Some(Command::Look(answer)) => drop(answer.send(false)),
                    Some(Command::Release(answer)) => {
                        drop(run);
                        // Before the answer: whoever waits for it sees to it that the connection ends.
                        self.give_up(link, None);
                        answer.send(false).ok();
                        return None;
                    }
                    None => return None,
                },
                replies = &mut run => break replies,
            }
        };
        drop(run);
        match self.granted(link, replies.map_err(classify)).await {
            Ok((token, session)) => {
                self.place
                    .upgrade()?
                    .stands(Standing::Held(token, session.clone()));
                self.sessions.context.signals.wake(self.claim.attempt);
                Some(session)
            }
            Err(error) => {
                tracing::debug!(%error, "the connection of a waiter broke");
                None
            }
        }
    }

    /// The lock is ours, from a time on that nobody knows here: it counts from the next sign of life.
    async fn granted(
        &self,
        link: &mut Link,
        replies: Result<Vec<crate::script::Reply>>,
    ) -> Result<(Token, Session)> {
        let replies = replies?;
        let row = answer(&replies)?;
        if get::<Option<i64>>(row, 0)? != Some(1) {
            return Err(Error::new(ErrorKind::Unavailable, "the wait was interrupted"));
        }
        let mut token = get(row, 1)?;
        let context = &self.sessions.context;
        let sent = context.env.now();
        let script = format!("SET SESSION wait_timeout = {}", seconds(self.claim.ttl));
        self.sessions.ask(link, script).await?;
        if self.sessions.opener.config.fence == Fence::Table {
            token = self.sessions.fence(link, &self.claim.resource).await?;
        }
        let session = Session::new(&context.signals, sent, self.claim.ttl);
        Ok((Token::new(token), session))
    }

    /// Holds the lock: true when it was given back, false when nobody is there any more.
    async fn keep(&mut self, link: &mut Link, session: &Session) -> Result<bool> {
        let env = self.sessions.context.env.clone();
        let mut heartbeat = Heartbeat::new(&env, env.now(), self.claim.ttl, LONGEST_PAUSE);
        loop {
            tokio::select! {
                biased;
                command = self.heard.recv() => match command {
                    Some(Command::Release(answer)) => {
                        let released = self.release(link).await;
                        if released.is_err() {
                            self.give_up(link, Some(session));
                        }
                        answer.send(matches!(released, Ok(true))).ok();
                        return released.map(|_| true);
                    }
                    Some(Command::Look(answer)) => {
                        let alive = self.sign_of_life(link, session).await;
                        if alive.is_err() {
                            self.give_up(link, Some(session));
                        }
                        answer.send(alive.is_ok()).ok();
                        alive?;
                    }
                    None => return Ok(false),
                },
                () = heartbeat.due() => {
                    let sent = env.now();
                    self.sign_of_life(link, session).await?;
                    heartbeat.confirmed(sent, self.claim.ttl);
                }
            }
        }
    }

    async fn release(&self, link: &mut Link) -> Result<bool> {
        let release = RELEASE.with(&[("name", Value::Word(&self.name))]);
        let replies = self.sessions.ask(link, release).await?;
        Ok(get::<Option<i64>>(answer(&replies)?, 0)? == Some(1))
    }

    async fn sign_of_life(&self, link: &mut Link, session: &Session) -> Result<()> {
        let env = &self.sessions.context.env;
        let sent = env.now();
        let limit = session.deadline().since(sent);
        let ping = Box::pin(sqlx::Connection::ping(&mut link.wire));
        match env.timeout(limit, ping).await {
            Some(Ok(())) => {
                session.extend(sent, self.claim.ttl);
                Ok(())
            }
            Some(Err(error)) => Err(classify(error)),
            None => Err(crate::error::silent()),
        }
    }

    /// The connection is of no more use.
    fn give_up(&mut self, link: &Link, session: Option<&Session>) {
        if std::mem::replace(&mut self.over, true) {
            return;
        }
        self.sessions.control.orphan(link.into());
        if let Some(place) = self.place.upgrade() {
            place.stands(Standing::Gone);
        }
        match session {
            Some(session) => session.end(),
            None => self.sessions.context.signals.wake(self.claim.attempt),
        }
    }
}
