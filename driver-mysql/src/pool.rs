//! A few connections, each opened when it is first needed.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lockcore::{Env, Error, ErrorKind, Instant, Result};
use tokio::sync::{Notify, oneshot};

use crate::connection::{Link, Opener};
use crate::error::{classify, closed, number, silent};
use crate::script::{NOW, Reply, Request, answer, get, text};

/// A connection that was not used for so long is asked first whether it is alive.
const STALE: Duration = Duration::from_secs(20);

/// When all but one of the idle connections are closed that were not used since.
const TRIM: Duration = Duration::from_secs(1);

/// How long the server has been up, whose numbers of connections begin anew when it starts.
const UPTIME: &str = "SHOW GLOBAL STATUS LIKE 'Uptime'";

#[derive(Debug)]
struct Idle {
    link: Link,
    since: Instant,
}

/// A connection that the server may still be busy with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Orphan {
    pub(crate) id: u64,
    pub(crate) opened: u64,
}

impl From<&Link> for Orphan {
    fn from(link: &Link) -> Self {
        Self {
            id: link.id,
            opened: link.opened,
        }
    }
}

#[derive(Default)]
struct State {
    idle: Vec<Idle>,
    /// Connections that are open or being opened.
    open: usize,
    /// How many times no connection could be opened, and why the last time.
    failures: u64,
    failure: Option<(ErrorKind, String)>,
}

/// The connections of one driver. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<Inner>);

struct Inner {
    opener: Arc<Opener>,
    limit: usize,
    state: Mutex<State>,
    /// A connection became idle, or may be opened, or cannot be.
    changed: Notify,
    /// Connections that were given up with a request under way. The server is told to end them before it hears anything
    /// else from us, lest it carries out the request after what follows it.
    orphans: Mutex<Vec<Orphan>>,
    /// Idle connections are looked at.
    trimming: AtomicBool,
    /// Taken by the one that tells it.
    ending: tokio::sync::Mutex<()>,
    closed: AtomicBool,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("open", &lock(&self.0.state).open)
            .field("limit", &self.0.limit)
            .finish_non_exhaustive()
    }
}

/// A connection in use.
struct Loan<'a> {
    pool: &'a Pool,
    link: Option<Link>,
}

impl Loan<'_> {
    fn give_back(mut self) {
        if let Some(link) = self.link.take() {
            self.pool.put(link);
        }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            self.pool.gone();
            // The request may still be on its way.
            self.pool.orphan(Orphan::from(&link));
        }
    }
}

impl Pool {
    pub(crate) fn new(opener: Arc<Opener>, limit: usize) -> Self {
        Self(Arc::new(Inner {
            opener,
            limit,
            state: Mutex::default(),
            changed: Notify::new(),
            orphans: Mutex::default(),
            trimming: AtomicBool::new(false),
            ending: tokio::sync::Mutex::default(),
            closed: AtomicBool::new(false),
        }))
    }

    /// How many connections there are at most.
    pub(crate) fn limit(&self) -> usize {
        self.0.limit
    }

    fn env(&self) -> &Env {
        &self.0.opener.env
    }

    fn patience(&self) -> Duration {
        self.0.opener.config.patience
    }

    /// Runs `request` on a connection of its own. An error in a transaction ends that connection, and with it the
    /// transaction.
    pub(crate) async fn run(&self, request: impl Into<Request>) -> Result<Vec<Reply>> {
        self.try_run(request).await?.map_err(classify)
    }

    /// The same, with the server's refusals apart.
    ///
    /// That the server ended an idle connection shows with the next request on it, which then goes to a new one. All of
    /// our requests can be repeated.
    pub(crate) async fn try_run(&self, request: impl Into<Request>) -> Result<sqlx::Result<Vec<Reply>>> {
        let request = request.into();
        loop {
            let (link, used) = self.take().await?;
            let mut loan = Loan {
                pool: self,
                link: Some(link),
            };
            let Some(link) = &mut loan.link else {
                return Err(closed());
            };
            let run = Box::pin(link.run(request.clone()));
            let Some(answer) = self.env().timeout(self.patience(), run).await else {
                return Err(silent());
            };
            match &answer {
                Ok(_) => loan.give_back(),
                // No statement of it is left, if it was not a transaction.
                Err(error) if number(error).is_some() => {
                    if request.is_transaction() {
                        loan.link = None;
                        self.gone();
                    } else {
                        loan.give_back();
                    }
                }
                Err(error) => {
                    drop(loan);
                    // The others are likely to be as broken.
                    self.forget_idle();
                    if used && matches!(error, sqlx::Error::Io(_)) {
                        continue;
                    }
                }
            }
            return Ok(answer);
        }
    }

    pub(crate) async fn close(&self) {
        self.0.closed.store(true, Ordering::Release);
        let idle = std::mem::take(&mut lock(&self.0.state).idle);
        self.0.changed.notify_waiters();
        for Idle { link, .. } in idle {
            link.close().await;
        }
    }

    /// The server is told to end this connection before anything else is asked of it.
    pub(crate) fn orphan(&self, orphan: Orphan) {
        lock(&self.0.orphans).push(orphan);
    }

    /// Sees to it that no connection lives that was given up.
    pub(crate) async fn settle(&self) -> Result<()> {
        if lock(&self.0.orphans).is_empty() {
            return Ok(());
        }
        self.run("DO 0".to_owned()).await.map(drop)
    }

    fn put(&self, link: Link) {
        let since = self.env().now();
        let mut state = lock(&self.0.state);
        if self.0.closed.load(Ordering::Acquire) {
            state.open -= 1;
            return;
        }
        state.idle.push(Idle { link, since });
        let several = state.idle.len() > 1;
        drop(state);
        self.0.changed.notify_one();
        if several && !self.0.trimming.swap(true, Ordering::AcqRel) {
            let pool = self.clone();
            self.env().spawn(async move { pool.trim().await });
        }
    }

    /// Closes what a burst of requests opened and nobody needs now.
    async fn trim(&self) {
        let round = async || {
            let (old, done) = self.old();
            for Idle { link, .. } in old {
                link.close().await;
            }
            match done {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        self.env().every(TRIM, round).await;
    }

    /// Takes out what was not used for a while, and whether that was all.
    fn old(&self) -> (Vec<Idle>, bool) {
        let now = self.env().now();
        let mut old = Vec::new();
        let mut state = lock(&self.0.state);
        // The last ones were used last.
        while state.idle.len() > 1 && now.since(state.idle[0].since) >= TRIM {
            old.push(state.idle.remove(0));
            state.open -= 1;
        }
        let done = state.idle.len() <= 1;
        if done {
            self.0.trimming.store(false, Ordering::Release);
        }
        (old, done)
    }

    /// A connection ended that had a place.
    fn gone(&self) {
        lock(&self.0.state).open -= 1;
        self.0.changed.notify_one();
    }

    fn forget_idle(&self) {
        let mut state = lock(&self.0.state);
        let idle = std::mem::take(&mut state.idle);
        state.open -= idle.len();
        drop(state);
        self.0.changed.notify_waiters();
    }

    /// A connection that the server knows everything on, and whether it was used before.
    async fn take(&self) -> Result<(Link, bool)> {
        loop {
            let (mut link, used) = self.any().await?;
            if lock(&self.0.orphans).is_empty() {
                return Ok((link, used));
            }
            let _ending = self.0.ending.lock().await;
            let orphans = lock(&self.0.orphans).clone();
            match self.end(&mut link, &orphans).await {
                Ok(()) => {
                    // Those that came meanwhile stay.
                    lock(&self.0.orphans).drain(..orphans.len());
                    return Ok((link, used));
                }
                Err(error) => {
                    self.gone();
                    self.forget_idle();
                    if !used {
                        return Err(error);
                    }
                }
            }
        }
    }

    /// The first that is to be had: one that is given back, or a new one, which others can have where it comes too late.
    async fn any(&self) -> Result<(Link, bool)> {
        let failures = lock(&self.0.state).failures;
        let mut opening: Option<oneshot::Receiver<Link>> = None;
        loop {
            if self.0.closed.load(Ordering::Acquire) {
                return Err(closed());
            }
            let changed = self.0.changed.notified();
            if let Some(link) = self.idle().await {
                return Ok((link, true));
            }
            {
                let mut state = lock(&self.0.state);
                if state.failures > failures
                    && let Some((kind, message)) = &state.failure
                {
                    return Err(Error::new(*kind, message.clone()));
                }
                if opening.is_none() && state.open < self.0.limit {
                    state.open += 1;
                    drop(state);
                    opening = Some(self.open());
                }
            }
            match &mut opening {
                Some(opened) => tokio::select! {
                    biased;
                    link = &mut *opened => match link {
                        Ok(link) => return Ok((link, false)),
                        Err(_) => opening = None,
                    },
                    () = changed => {}
                },
                None => changed.await,
            }
        }
    }

    fn open(&self) -> oneshot::Receiver<Link> {
        let (sender, receiver) = oneshot::channel();
        let pool = self.clone();
        self.env().spawn(async move {
            match pool.0.opener.open().await {
                Ok(link) => {
                    if let Err(link) = sender.send(link) {
                        pool.put(link);
                    }
                }
                Err(error) => {
                    let mut state = lock(&pool.0.state);
                    state.open -= 1;
                    state.failures += 1;
                    state.failure = Some((error.kind(), error.to_string()));
                    drop(state);
                    // All who wait for a connection.
                    pool.0.changed.notify_waiters();
                }
            }
        });
        receiver
    }

    async fn idle(&self) -> Option<Link> {
        loop {
            let Idle { mut link, since } = lock(&self.0.state).idle.pop()?;
            if self.env().now().since(since) < STALE {
                return Some(link);
            }
            let ping = Box::pin(sqlx::Connection::ping(&mut link.wire));
            let alive = self.env().timeout(self.patience(), ping).await;
            if alive.is_some_and(|alive| alive.is_ok()) {
                return Some(link);
            }
            self.gone();
        }
    }

    async fn end(&self, link: &mut Link, orphans: &[Orphan]) -> Result<()> {
        if orphans.is_empty() {
            return Ok(());
        }
        let script = format!("SELECT {NOW}; {UPTIME}");
        let replies = self.tell(link, script).await?.map_err(classify)?;
        let seconds: Option<u64> = match replies.get(1).and_then(|reply| reply.rows.first()) {
            Some(row) => text(row, 1)?.and_then(|seconds| seconds.parse().ok()),
            None => None,
        };
        let now: u64 = get(answer(&replies)?, 0)?;
        let started = now.saturating_sub(seconds.unwrap_or(0).saturating_mul(1_000_000));
        for orphan in orphans.iter().filter(|orphan| orphan.opened >= started) {
            // That it is gone already is an answer.
            self.tell(link, format!("KILL {}", orphan.id)).await?.ok();
        }
        Ok(())
    }

    /// One script; an error when the connection is of no more use.
    async fn tell(&self, link: &mut Link, script: String) -> Result<sqlx::Result<Vec<Reply>>> {
        match self
            .env()
            .timeout(self.patience(), Box::pin(link.run(script)))
            .await
        {
            Some(Err(error)) if number(&error).is_none() => Err(classify(error)),
            Some(answer) => Ok(answer),
            None => Err(silent()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
