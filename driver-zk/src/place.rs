//! What this process knows of its attempts: their nodes, and the sessions these live by.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockcore::{AttemptId, Claim, DriverContext, Instant, PooledSession, Token};

use crate::layout::Mark;
use crate::session::Link;
use crate::view::{View, Watches};

pub(crate) type Session = Arc<PooledSession<Arc<Link>>>;

/// Every attempt that may have a node at the server.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<AttemptId, Place>>);

/// One attempt's state. Its requests are sent one after the other, also when one that nobody waits for any more is
/// still under way.
pub(crate) type Place = Arc<tokio::sync::Mutex<State>>;

impl Places {
    pub(crate) fn enter(&self, attempt: AttemptId) -> Place {
        Arc::clone(self.all().entry(attempt).or_default())
    }

    pub(crate) fn get(&self, attempt: AttemptId) -> Option<Place> {
        self.all().get(&attempt).cloned()
    }

    pub(crate) fn leave(&self, attempt: AttemptId) {
        self.all().remove(&attempt);
    }

    pub(crate) fn clear(&self) {
        self.all().clear();
    }

    fn all(&self) -> MutexGuard<'_, HashMap<AttemptId, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
pub(crate) struct State {
    /// The one that its node lives by.
    pub(crate) session: Option<Session>,
    pub(crate) stage: Stage,
}

#[derive(Debug, Default)]
pub(crate) enum Stage {
    /// It has no node.
    #[default]
    Absent,
    /// A request for one was sent, and nobody knows what became of it.
    Unknown,
    /// It has one, and is not known to hold.
    Queued(Box<Queued>),
    Held(Node),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Of all that a process holds there is one.
    pub(crate) path: Arc<str>,
    /// That of its `czxid`.
    pub(crate) token: Token,
    /// Of its data, which changes with the mark.
    pub(crate) version: i32,
    pub(crate) mark: Mark,
}

impl Node {
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}

#[derive(Debug)]
pub(crate) struct Queued {
    pub(crate) node: Node,
    /// Who was the first when it looked first. All others before it were behind somebody when they were created, so
    /// none of them holds without a claim.
    pub(crate) first_seen: Option<String>,
    pub(crate) view: Arc<View>,
    pub(crate) watches: Watches,
}

impl Queued {
    pub(crate) fn stage(node: Node, context: &DriverContext, claim: &Claim) -> Stage {
        Stage::Queued(Box::new(Self {
            node,
            first_seen: None,
            view: Arc::new(View::new(context, claim)),
            watches: Watches::default(),
        }))
    }
}

impl State {
    /// Is the session that its node lives by over, as far as anybody here knows?
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        self.session
            .as_ref()
            .is_none_or(|session| session.session().deadline() <= now)
    }

    /// It has no node any more.
    pub(crate) fn forget_node(&mut self, attempt: AttemptId) {
        if let Some(session) = self.session.take() {
            session.handle().let_go(attempt);
        }
        self.stage = Stage::Absent;
    }
}
