//! The way to a lock: stand in the queue, wait for the turn, claim it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use lockcore::driver::{Acquired, Busy, Grant, Intent, Occupant};
use lockcore::{Claim, Error, ErrorKind, Result};
use zookeeper_client::{Client, CreateMode, Error as ZkError, Stat};

use crate::driver::ZkDriver;
use crate::error::{ends_session, from_client, is_uncertain};
use crate::head::{Head, token};
use crate::layout::{Mark, in_order, prefix};
use crate::place::{Node, Queued, Session, Stage, State};
use crate::view::LOOK_AHEAD;

/// How often the queue may change under one call before it says so. Each time somebody else got on.
const TURNS: usize = 16;

/// What a step came to.
pub(crate) enum Step {
    Done(Acquired),
    /// The queue has changed: look again.
    Again,
}

/// One call of acquire.
pub(crate) struct Acquire<'a> {
    pub(crate) driver: &'a ZkDriver,
    pub(crate) claim: &'a Claim,
    pub(crate) intent: Intent,
    /// The node whose children contend.
    pub(crate) lock: String,
}

impl Acquire<'_> {
    pub(crate) async fn run(&self, state: &mut State) -> Result<Acquired> {
        for _ in 0..TURNS {
            let step = match &state.stage {
                Stage::Absent => self.enter(state).await?,
                _ if state.is_over(self.driver.now()) => {
                    state.forget_node(self.claim.attempt);
                    Step::Again
                }
                Stage::Unknown => self.recover(state).await?,
                Stage::Queued(_) => self.look(state).await?,
                Stage::Held(_) => self.confirm(state).await?,
            };
            if let Step::Done(acquired) = step {
                return Ok(acquired);
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the queue changed too often while it was looked at",
        ))
    }

    /// Creates the node and looks at the queue, in one round trip.
    async fn enter(&self, state: &mut State) -> Result<Step> {
        let session = self.driver.pool.get(self.claim.ttl).await?;
        let client = session.handle().client()?;
        state.session = Some(session);
        state.stage = Stage::Unknown;
        let (mut created, mut listed) = self.create(&client, false).await;
        if matches!(created, Err(ZkError::NoNode)) {
            // The server removes a lock that nobody uses.
            (created, listed) = self.create(&client, true).await;
        }
        let (stat, number) = match created {
            Ok(created) => created,
            Err(ZkError::NoNode) => {
                state.stage = Stage::Absent;
                let made = self.driver.make_parents(&client, &self.lock).await;
                return made
                    .map(|()| Step::Again)
                    .map_err(|error| self.failed(state, error));
            }
            Err(error) => return Err(self.failed(state, error)),
        };
        let Some(token) = token(&stat) else {
            return Err(from_client(ZkError::Unimplemented));
        };
        let node = Node {
            path: format!("{}/{}{number}", self.lock, prefix(self.claim.attempt)).into(),
            token,
            version: 0,
            mark: Mark::New,
        };
        state.stage = Queued::stage(node, &self.driver.context, self.claim);
        let (children, parent) = listed.map_err(|error| self.failed(state, error))?;
        // Nothing has changed since it was created: whoever is the first now was it then.
        let unchanged = parent.pzxid == stat.czxid;
        self.assess(state, &client, children, unchanged).await
    }

    /// All requests leave at once and are answered in order. With `make_lock`, the parent is created before.
    async fn create(
        &self,
        client: &Client,
        make_lock: bool,
    ) -> (
        Result<(Stat, String), ZkError>,
        Result<(Vec<String>, Stat), ZkError>,
    ) {
        let path = format!("{}/{}", self.lock, prefix(self.claim.attempt));
        let options = CreateMode::EphemeralSequential.with_acls(self.driver.acls());
        let making = make_lock.then(|| self.driver.make_lock(client, &self.lock));
        let creating = client.create(&path, &Mark::New.record(&self.claim.details), &options);
        let listing = client.get_children(&self.lock);
        if let Some(making) = making
            && let Err(error) = making.await
            && !matches!(error, ZkError::NodeExists | ZkError::NoNode)
        {
            return (Err(error), listing.await);
        }
        let (created, listed) = tokio::join!(creating, listing);
        (created.map(|(stat, number)| (stat, number.to_string())), listed)
    }

    /// What the queue means for a node that is in it. With `unchanged`, it is the newest change to the queue.
    async fn assess(
        &self,
        state: &mut State,
        client: &Client,
        children: Vec<String>,
        unchanged: bool,
    ) -> Result<Step> {
        let Stage::Queued(queued) = &mut state.stage else {
            return Ok(Step::Again);
        };
        let queue = in_order(children);
        let own = prefix(self.claim.attempt);
        if queue.iter().filter(|name| name.starts_with(&own)).count() > 1 {
            // An earlier request was applied after all.
            state.stage = Stage::Unknown;
            return Ok(Step::Again);
        }
        let Some(ahead) = queue.iter().position(|name| *name == queued.node.name()) else {
            // Somebody has removed it: it stands in the queue anew.
            state.forget_node(self.claim.attempt);
            return Ok(Step::Again);
        };
        if ahead == 0 {
            if unchanged && queued.node.mark == Mark::New {
                let node = queued.node.clone();
                return Ok(self.hold(state, node, queue.len() == 1));
            }
            return self.take_turn(state, client).await;
        }
        if self.intent == Intent::Try {
            return self.step_back(state, client, &queue[..ahead]).await;
        }
        if ahead > self.driver.queue {
            self.remove(state, client).await?;
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!("the queue is full: {} wait for the lock", self.driver.queue),
            ));
        }
        self.stand(state, client, &queue[..ahead]).await
    }

    /// While it is the only one, what is spare of its tokens is used by this process.
    pub(crate) fn hold(&self, state: &mut State, node: Node, alone: bool) -> Step {
        let Some(session) = &state.session else {
            return Step::Again;
        };
        session.handle().hold(self.claim.attempt, Arc::clone(&node.path));
        let spare = if alone { self.claim.spare_tokens } else { 0 };
        let grant = Grant::session(node.token, session.session().clone()).with_spare(spare);
        state.stage = Stage::Held(node);
        Step::Done(Acquired::Granted(grant))
    }

    /// It is the first. The claim and a removal by somebody who took it for dead exclude each other by the version.
    async fn take_turn(&self, state: &mut State, client: &Client) -> Result<Step> {
        let Stage::Queued(queued) = &state.stage else {
            return Ok(Step::Again);
        };
        let mut node = queued.node.clone();
        let path = Arc::clone(&node.path);
        let record = Mark::Holds.record(&self.claim.details);
        let claiming = client.set_data(&path, &record, Some(node.version));
        let counting = (self.claim.spare_tokens > 0).then(|| client.check_stat(&self.lock));
        match claiming.await {
            Ok(stat) => {
                node.version = stat.version;
                node.mark = Mark::Holds;
                let lock = match counting {
                    Some(counting) => counting.await.ok().flatten(),
                    None => None,
                };
                let alone = lock.is_some_and(|lock| lock.num_children == 1);
                Ok(self.hold(state, node, alone))
            }
            Err(ZkError::NoNode) => {
                state.forget_node(self.claim.attempt);
                Ok(Step::Again)
            }
            // By an earlier request of ours, whose answer was lost.
            Err(ZkError::BadVersion) => {
                state.stage = Stage::Unknown;
                Ok(Step::Again)
            }
            Err(error) => Err(self.failed(state, error)),
        }
    }

    /// A try that was not the first leaves the queue again.
    async fn step_back(&self, state: &mut State, client: &Client, before: &[String]) -> Result<Step> {
        let path = format!("{}/{}", self.lock, before[0]);
        let looking = client.get_data(&path);
        self.remove(state, client).await?;
        let head = looking
            .await
            .ok()
            .map(|(data, stat)| Head::new(&before[0], &data, stat));
        let holder = head.filter(|head| head.holds()).map(|head| head.occupant());
        Ok(Step::Done(Acquired::Busy(Busy::default().held_by(holder))))
    }

    async fn remove(&self, state: &mut State, client: &Client) -> Result<()> {
        let Stage::Queued(queued) = &state.stage else {
            return Ok(());
        };
        let path = Arc::clone(&queued.node.path);
        match client.delete(&path, None).await {
            Ok(()) | Err(ZkError::NoNode) => {
                state.forget_node(self.claim.attempt);
                Ok(())
            }
            Err(error) => Err(self.failed(state, error)),
        }
    }

    /// Waits behind `before`: says so in its node, watches those right before it, and looks at the first, all in one
    /// round trip.
    async fn stand(&self, state: &mut State, client: &Client, before: &[String]) -> Result<Step> {
        let Stage::Queued(queued) = &mut state.stage else {
            return Ok(Step::Again);
        };
        let head_name = &before[0];
        queued.first_seen.get_or_insert_with(|| head_name.clone());
        let near = &before[before.len().saturating_sub(LOOK_AHEAD)..];
        queued.view.set(near, near.len() == before.len());
        queued.watches.keep(near);

        let path = Arc::clone(&queued.node.path);
        let marking = (queued.node.mark == Mark::New).then(|| {
            let record = Mark::Waits.record(&self.claim.details);
            client.set_data(&path, &record, Some(queued.node.version))
        });
        let unwatched: Vec<_> = near.iter().filter(|name| !queued.watches.has(name)).collect();
        let paths: Vec<_> = unwatched
            .iter()
            .map(|name| format!("{}/{name}", self.lock))
            .collect();
        // They have no children: these watches hear of their deletion alone, and not of their marks.
        let watching: Vec<_> = paths
            .iter()
            .map(|path| client.list_and_watch_children(path))
            .collect();
        let head_path = format!("{}/{head_name}", self.lock);
        let looking = client.get_data(&head_path);
        let marked = match marking {
            Some(marking) => Some(marking.await),
            None => None,
        };
        let watched = join_all(watching).await;
        let looked = looking.await;

        match marked {
            None => {}
            Some(Ok(stat)) => {
                queued.node.version = stat.version;
                queued.node.mark = Mark::Waits;
            }
            Some(Err(ZkError::NoNode)) => {
                state.forget_node(self.claim.attempt);
                return Ok(Step::Again);
            }
            Some(Err(ZkError::BadVersion)) => {
                state.stage = Stage::Unknown;
                return Ok(Step::Again);
            }
            Some(Err(error)) => return Err(self.failed(state, error)),
        }
        for (name, watched) in unwatched.into_iter().zip(watched) {
            match watched {
                Ok((_, watcher)) => queued.watches.add(&queued.view, name.clone(), watcher),
                Err(ZkError::NoNode) => queued.view.gone(name),
                Err(error) => return Err(self.failed(state, error)),
            }
        }
        let head = match looked {
            Ok((data, stat)) => Head::new(head_name, &data, stat),
            Err(ZkError::NoNode) => return Ok(Step::Again),
            Err(error) => return Err(self.failed(state, error)),
        };
        let ahead = before.len();
        if head.holds_for(queued.first_seen.as_deref()) {
            return Ok(waits(ahead - 1, None, Some(head.occupant())));
        }
        // The first one has not claimed its turn yet.
        let idle = queued.view.suspect(head_name);
        if idle < self.claim.claim_window {
            let left = self.claim.claim_window - idle;
            return Ok(waits(ahead, (ahead <= LOOK_AHEAD).then_some(left), None));
        }
        tracing::debug!(attempt = %self.claim.attempt, "removing a waiter that did not claim its turn");
        match client.delete(&head_path, Some(head.version())).await {
            Ok(()) | Err(ZkError::NoNode | ZkError::BadVersion) => Ok(Step::Again),
            Err(error) => Err(self.failed(state, error)),
        }
    }

    /// Stands in the queue already.
    async fn look(&self, state: &mut State) -> Result<Step> {
        let client = client_of(state)?;
        if let Stage::Queued(queued) = &state.stage
            && queued.view.is_first()
        {
            return self.take_turn(state, &client).await;
        }
        let children = match client.list_children(&self.lock).await {
            Ok(children) => children,
            Err(ZkError::NoNode) => Vec::new(),
            Err(error) => return Err(self.failed(state, error)),
        };
        self.assess(state, &client, children, false).await
    }

    /// Puts down what is not known any more after `error`.
    pub(crate) fn failed(&self, state: &mut State, error: ZkError) -> Error {
        if ends_session(&error) {
            self.driver.session_ended(state);
        }
        match &state.stage {
            Stage::Absent | Stage::Held(_) => {}
            Stage::Unknown if !is_uncertain(&error) => state.forget_node(self.claim.attempt),
            Stage::Unknown => {}
            Stage::Queued(_) => {
                if is_uncertain(&error) {
                    state.stage = Stage::Unknown;
                }
            }
        }
        from_client(error)
    }
}

pub(crate) fn client_of(state: &State) -> Result<Client> {
    let session: Option<&Session> = state.session.as_ref();
    match session {
        Some(session) => session.handle().client(),
        None => Err(from_client(ZkError::ClientClosed)),
    }
}

fn waits(ahead: usize, reserved: Option<Duration>, holder: Option<Occupant>) -> Step {
    let ahead = u64::try_from(ahead).unwrap_or(u64::MAX);
    let busy = Busy::default()
        .queued(ahead, None)
        .reserved(reserved)
        // Those further behind look a little later: the ones before them may be dead too.
        .free_in(reserved)
        .held_by(holder);
    Step::Done(Acquired::Busy(busy))
}
