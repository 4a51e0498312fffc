//! Somebody who takes locks, for ever, in every way that there is.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use lockcore::{Error, ErrorKind, Guard, Lock, LockManager, Release, Retry, Wait};

use crate::ms;
use crate::table::{Given, PERMITS, Shape};
use crate::world::{LONGEST_HOLD, LONGEST_TTL, Node, Weather, World};

pub(crate) async fn live(world: Arc<World>, index: usize, random: Rng) {
    let mut actor = Actor { world, index, random };
    while !actor.world.is_over() {
        let pause = actor.upto(ms(400));
        actor.rest(pause).await;
        actor.step().await;
        actor.world.check();
    }
}

struct Actor {
    world: Arc<World>,
    index: usize,
    random: Rng,
}

impl Actor {
    fn upto(&mut self, limit: Duration) -> Duration {
        ms(self.random.u64(1..=u64::try_from(limit.as_millis()).unwrap()))
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.u32(..100) < percent
    }

    fn is_calm(&self) -> bool {
        self.world.weather == Weather::Calm
    }

    /// In calm weather every actor has milliseconds of its own, so that no two of them do something at one moment.
    fn slots(&self) -> u64 {
        if self.is_calm() {
            self.world.actors as u64 + 1
        } else {
            1
        }
    }

    /// A duration up to `limit` that keeps to the actor's milliseconds.
    fn span(&mut self, limit: Duration) -> Duration {
        let slots = self.slots();
        let millis = u64::try_from(self.upto(limit).as_millis()).unwrap();
        ms((millis / slots).max(1) * slots)
    }

    /// Sleeps for `duration`, and on to the next of the actor's milliseconds.
    async fn rest(&self, duration: Duration) {
        let (slots, now) = (self.slots(), self.world.env.now());
        let millis = now.after(duration).as_nanos() / 1_000_000;
        let ahead = (self.index as u64 + slots - millis % slots) % slots;
        let end = lockcore::Instant::from_nanos((millis + ahead) * 1_000_000);
        self.world.env.sleep_until(end).await;
    }

    async fn step(&mut self) {
        let nodes = self.world.nodes.lock().unwrap().clone();
        let number = self.random.usize(..nodes.len());
        let row = self.random.usize(..self.world.rows.len());
        let lock = self.lock(&nodes[number], row);
        let start = self.world.rows[row].lock().unwrap().start(self.world.env.now());
        let guard = if self.chance(25) {
            self.try_acquire(&lock, (row, number)).await
        } else {
            self.acquire(&lock, &nodes[number], (row, number)).await
        };
        if let Some(guard) = guard {
            let given = self.world.give(row, start, guard);
            self.hold(&given, &nodes[number], row).await;
        }
    }

    fn lock(&mut self, node: &Node, row: usize) -> Lock {
        let (name, shape) = {
            let row = self.world.rows[row].lock().unwrap();
            (row.name.clone(), row.shape)
        };
        let builder = match shape {
            Shape::Mutex => node.manager.lock(&name),
            Shape::ReadWrite if self.chance(70) => node.manager.read_lock(&name),
            Shape::ReadWrite => node.manager.write_lock(&name),
            Shape::Semaphore => node
                .manager
                .semaphore(&name, self.random.u32(1..=PERMITS), PERMITS),
        };
        let ttl = ms(self
            .random
            .u64(100..=u64::try_from(LONGEST_TTL.as_millis()).unwrap()));
        let mut builder = builder.ttl(ttl).retry(Retry::times(self.random.u32(..4)));
        if !self.is_calm() {
            builder = builder.auto_renew(!self.chance(15));
            if self.chance(10) {
                builder = builder.max_hold(self.upto(LONGEST_HOLD));
            }
        }
        builder.build().unwrap()
    }

    async fn try_acquire(&mut self, lock: &Lock, (row, node): (usize, usize)) -> Option<Guard> {
        self.does(format!("tries row {row} on node {node}"));
        let answer = lock.try_acquire().await;
        if let (true, Ok(got)) = (self.is_ordered(row), &answer) {
            let tried = self.world.lines[row]
                .lock()
                .unwrap()
                .tries(self.index, node, got.is_some());
            tried.unwrap_or_else(|wrong| self.world.wrong(wrong));
        }
        self.got(answer, None).flatten()
    }

    async fn acquire(&mut self, lock: &Lock, node: &Node, (row, number): (usize, usize)) -> Option<Guard> {
        let wait = if self.chance(40) {
            Wait::For(self.span(ms(6000)))
        } else {
            Wait::Forever
        };
        let patience = if self.chance(30) {
            self.span(ms(4000))
        } else {
            ms(1 << 40)
        };
        self.does(format!(
            "acquires row {row} on node {number}, {wait:?}, for {patience:?}"
        ));
        let ordered = self.is_ordered(row);
        if ordered {
            self.world.lines[row].lock().unwrap().enters(self.index, number);
        }
        let before = self.world.env.now();
        let answer = tokio::select! {
            biased;
            answer = lock.acquire_within(wait) => Some(answer),
            () = self.world.env.sleep(patience) => None,
            () = node.gone.cancelled() => None,
        };
        let now = self.world.env.now();
        if ordered {
            let mut line = self.world.lines[row].lock().unwrap();
            match &answer {
                Some(Ok(_)) => line
                    .granted(self.index, number, now)
                    .unwrap_or_else(|wrong| self.world.wrong(wrong)),
                _ => line.leaves(self.index, number),
            }
        }
        self.got(answer?, Some((wait, now.since(before))))
    }

    /// Notes an error, and whether it was to be expected after a wait of that long.
    fn got<T>(&self, answer: Result<T, Error>, waited: Option<(Wait, Duration)>) -> Option<T> {
        let error = match answer {
            Ok(got) => return Some(got),
            Err(error) => error,
        };
        self.world
            .note(format_args!("actor {}: {}", self.index, error.kind()));
        let expected = match (error.kind(), waited) {
            (ErrorKind::Timeout, Some((Wait::For(limit), waited))) => {
                waited >= limit && waited <= limit + ms(if self.is_calm() { 1 } else { 3001 })
            }
            (ErrorKind::Unavailable | ErrorKind::Denied | ErrorKind::Closed, _) => !self.is_calm(),
            _ => false,
        };
        if !expected {
            self.world
                .wrong(format!("actor {}: {error}, after {waited:?}", self.index));
        }
        None
    }

    async fn hold(&mut self, given: &Arc<Given>, node: &Node, row: usize) {
        let Some(lost) = given.guard().map(|guard| guard.lost()) else {
            return;
        };
        let short = self.chance(70);
        let wanted = self.upto(if short { ms(300) } else { LONGEST_HOLD });
        let stays = tokio::select! {
            biased;
            _ = lost => true,
            () = self.rest(wanted) => true,
            () = node.gone.cancelled() => false,
        };
        if stays && !self.is_calm() && self.chance(20) {
            self.renew(given, row).await;
        }
        // The guard of a process that is over stays in the table: it must be seen to end by itself.
        if !stays || node.gone.is_cancelled() {
            return;
        }
        let now = self.world.env.now();
        let Some((guard, held)) = given.take() else { return };
        self.world.rows[row].lock().unwrap().sweep(now);
        if self.is_ordered(row) {
            self.world.lines[row].lock().unwrap().released(now);
        }
        self.does(format!(
            "lets go of row {row}, token {}, held: {held}",
            given.token
        ));
        if self.chance(30) {
            return drop(guard);
        }
        self.release(guard, held, given.is_gone(now)).await;
    }

    async fn renew(&mut self, given: &Arc<Given>, row: usize) {
        let Some(guard) = given.guard() else { return };
        self.does(format!("renews row {row}"));
        let ttl = self.upto(LONGEST_TTL);
        let answer = if self.chance(50) {
            guard.renew().await
        } else {
            guard.renew_for(ttl).await
        };
        if let Err(error) = answer {
            let kind = error.kind();
            let known = [ErrorKind::Lost, ErrorKind::Unavailable, ErrorKind::Denied].contains(&kind);
            if !known || (kind == ErrorKind::Lost && guard.is_held()) {
                self.world.wrong(format!("renewal: {error}"));
            }
        }
    }

    async fn release(&mut self, guard: Guard, held: bool, gone: bool) {
        let patience = if self.chance(20) && !self.is_calm() {
            self.upto(ms(100))
        } else {
            ms(1 << 40)
        };
        let releasing = async {
            let mut outcome = guard.release().await;
            let mut retries = 3;
            while let Err(error) = outcome {
                if retries == 0 {
                    return None;
                }
                retries -= 1;
                outcome = error.retry().await;
            }
            outcome.ok()
        };
        let outcome = tokio::select! {
            biased;
            outcome = releasing => outcome,
            () = self.world.env.sleep(patience) => None,
        };
        let wrong = match outcome {
            Some(Release::Released) => !held || gone,
            Some(_) => held && self.is_calm(),
            None => self.is_calm(),
        };
        if wrong {
            self.world.wrong(format!(
                "release of what was held: {held}, gone: {gone}, is {outcome:?}"
            ));
        }
    }

    fn does(&self, what: String) {
        self.world.does(self.index, what);
    }

    /// Is the exact order of this row known?
    fn is_ordered(&self, row: usize) -> bool {
        self.is_calm() && self.world.rows[row].lock().unwrap().shape == Shape::Mutex
    }
}
