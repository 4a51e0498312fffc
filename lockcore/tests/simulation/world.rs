//! One run: a store, nodes, actors, and what is known about them.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use lockcore::memory::MemoryStore;
use lockcore::{DynDriver, Env, Instant, LockManager, Manager, Release, Settings};
use tokio_util::sync::CancellationToken;

use crate::link::{Bug, Link};
use crate::queue::Line;
use crate::table::{Given, Row, Shape, Start};
use crate::{Shared, actor, faults, ms};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing goes wrong and every request is instantaneous: order and promptness are exact.
    Calm,
    /// Everything goes wrong.
    Storm,
}

impl Weather {
    /// The test that it is run by.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Storm => "storms",
        }
    }
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) trace: String,
    pub(crate) violations: Vec<String>,
    pub(crate) grants: u64,
    pub(crate) losses: u64,
}

/// The longest lease that anybody asks for.
pub(crate) const LONGEST_TTL: Duration = ms(5000);
/// The longest that anybody keeps a lock.
pub(crate) const LONGEST_HOLD: Duration = ms(8000);

/// One process.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) manager: Manager,
    pub(crate) link: Arc<Link>,
    /// Its process is over.
    pub(crate) gone: CancellationToken,
}

pub(crate) struct World {
    pub(crate) env: Env,
    pub(crate) store: MemoryStore,
    pub(crate) weather: Weather,
    pub(crate) rows: Vec<Mutex<Row>>,
    /// Who is next, by row.
    pub(crate) lines: Vec<Mutex<Line>>,
    pub(crate) actors: usize,
    pub(crate) nodes: Mutex<Vec<Node>>,
    /// Those that died, for their end.
    pub(crate) buried: Mutex<Vec<Node>>,
    settings: Settings,
    bug: Option<Bug>,
    /// What each actor does.
    doing: Vec<Mutex<String>>,
    over: AtomicBool,
    healed: Mutex<Instant>,
    grants: AtomicU64,
    losses: AtomicU64,
    trace: Shared<String>,
    violations: Shared<Vec<String>>,
}

impl World {
    fn draw(seed: u64, weather: Weather, bug: Option<Bug>, random: &mut Rng) -> Self {
        let env = Env::virtual_time(seed);
        let mut settings = Settings::default();
        settings.op_timeout = ms(random.u64(200..3000));
        settings.waiter_ttl = ms(random.u64(1000..60_000));
        settings.claim_window = ms(random.u64(10..400));
        settings.drain = ms(random.u64(0..3000));
        let shapes = [Shape::Mutex, Shape::Mutex, Shape::ReadWrite, Shape::Semaphore];
        let rows: Vec<_> = (0..random.usize(1..4))
            .map(|row| {
                Mutex::new(Row::new(
                    format!("row{row}"),
                    shapes[random.usize(..shapes.len())],
                ))
            })
            .collect();
        let actors = random.usize(2..9);
        Self {
            store: MemoryStore::new(&env),
            lines: rows.iter().map(|_| Mutex::default()).collect(),
            rows,
            actors,
            nodes: Mutex::default(),
            buried: Mutex::default(),
            settings,
            bug,
            doing: (0..actors).map(|_| Mutex::default()).collect(),
            over: AtomicBool::new(false),
            healed: Mutex::new(Instant::FAR_FUTURE),
            grants: AtomicU64::new(0),
            losses: AtomicU64::new(0),
            trace: Shared::default(),
            violations: Shared::default(),
            weather,
            env,
        }
    }

    pub(crate) async fn run(seed: u64, weather: Weather, bug: Option<Bug>) -> Outcome {
        let mut random = Rng::with_seed(seed);
        let world = Arc::new(Self::draw(seed, weather, bug, &mut random));
        let nodes = (0..random.usize(1..5)).map(|_| world.new_node()).collect();
        *world.nodes.lock().unwrap() = nodes;
        let actors: Vec<_> = (0..world.actors)
            .map(|index| tokio::spawn(actor::live(Arc::clone(&world), index, random.fork())))
            .collect();
        let storm = tokio::spawn(faults::rage(Arc::clone(&world), random.fork()));
        world.env.sleep(ms(random.u64(3000..20_000))).await;
        world.over.store(true, Ordering::Relaxed);
        storm.await.unwrap();
        world.heal();
        let limit = (world.patience() + LONGEST_HOLD) * u32::try_from(world.actors + 1).unwrap();
        let end = world.env.now().after(limit);
        for (index, actor) in actors.into_iter().enumerate() {
            let left = end.since(world.env.now());
            match world.env.timeout(left, actor).await {
                Some(Ok(())) => {}
                Some(Err(error)) => world.wrong(format!("actor {index}: {error}")),
                None => {
                    let doing = world.doing[index].lock().unwrap().clone();
                    world.wrong(format!("actor {index} hangs: {doing}"));
                }
            }
        }
        world.close().await;
        let trace = world.trace.lock().unwrap().clone();
        let violations = world.violations.lock().unwrap().clone();
        Outcome {
            trace,
            violations,
            grants: world.grants.load(Ordering::Relaxed),
            losses: world.losses.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(crate) fn note(&self, what: impl std::fmt::Display) {
        let millis = self.env.now().as_nanos() as f64 / 1e6 - 3_600_000.0;
        writeln!(self.trace.lock().unwrap(), "{millis:>10.3} {what}").unwrap();
    }

    pub(crate) fn does(&self, actor: usize, what: String) {
        self.note(format_args!("actor {actor}: {what}"));
        *self.doing[actor].lock().unwrap() = what;
    }

    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.note(format_args!("WRONG: {what}"));
        self.violations.lock().unwrap().push(what);
    }

    pub(crate) fn new_node(&self) -> Node {
        let (driver, context) = self.store.driver();
        let link = Arc::new(Link::new(self.env.clone(), driver, self.bug));
        let driver = DynDriver::from(Arc::clone(&link));
        let manager = Manager::from_dyn(driver, context, self.settings.clone()).unwrap();
        let gone = CancellationToken::new();
        Node { manager, link, gone }
    }

    /// How long a lock that nobody holds may be kept from those who wait, when nothing goes wrong any more: by a lease
    /// that nobody holds, by requests that are not answered, and by waiters that do not come.
    fn patience(&self) -> Duration {
        let lost_waiters = u32::try_from(self.buried.lock().unwrap().len() + 2).unwrap();
        let Settings {
            op_timeout,
            claim_window,
            ..
        } = self.settings;
        LONGEST_TTL + 3 * op_timeout + lost_waiters * claim_window + ms(3000)
    }

    fn heal(&self) {
        self.note("healed");
        self.store.heal();
        for node in &*self.nodes.lock().unwrap() {
            node.link.set_down(false);
        }
        *self.healed.lock().unwrap() = self.env.now();
    }

    pub(crate) fn give(self: &Arc<Self>, row: usize, start: Start, guard: lockcore::Guard) -> Arc<Given> {
        let now = self.env.now();
        let lost = guard.lost();
        self.note(format_args!("row {row}: token {} is given", guard.token()));
        self.grants.fetch_add(1, Ordering::Relaxed);
        let mut held = self.rows[row].lock().unwrap();
        let idle = held.idle(start, now).min(now.since(*self.healed.lock().unwrap()));
        if idle > self.patience() {
            self.wrong(format!("row {row} was free for {idle:?} while somebody waited"));
        }
        let (given, wrong) = held.give(start, guard);
        drop(held);
        wrong
            .into_iter()
            .for_each(|wrong| self.wrong(format!("row {row}: {wrong}")));
        let (world, watched) = (Arc::clone(self), Arc::clone(&given));
        drop(tokio::spawn(async move {
            let reason = lost.await;
            world.note(format_args!(
                "row {row}: token {} is lost: {reason}",
                watched.token
            ));
            world.losses.fetch_add(1, Ordering::Relaxed);
            watched
                .lost(reason)
                .into_iter()
                .for_each(|wrong| world.wrong(wrong));
            world.rows[row].lock().unwrap().sweep(world.env.now());
            if world.weather == Weather::Calm {
                world.wrong(format!("token {} was lost: {reason}", watched.token));
            }
        }));
        given
    }

    pub(crate) fn check(&self) {
        let now = self.env.now();
        let wrong: Vec<_> = self
            .rows
            .iter()
            .flat_map(|row| row.lock().unwrap().check(now))
            .collect();
        wrong.into_iter().for_each(|wrong| self.wrong(wrong));
    }

    /// Everything ends, and nothing is left.
    async fn close(self: &Arc<Self>) {
        self.env.sleep(ms(1)).await;
        let calm = self.weather == Weather::Calm;
        if calm && self.store.resources() > 0 {
            self.wrong(format!("{} rows are left in the store", self.store.resources()));
        }
        let nodes = std::mem::take(&mut *self.nodes.lock().unwrap());
        let buried = std::mem::take(&mut *self.buried.lock().unwrap());
        for node in nodes.into_iter().chain(buried) {
            self.close_node(node.manager).await;
        }
        let limit = self.patience().max(self.settings.waiter_ttl);
        self.env.sleep(limit).await;
        self.check();
        let last = self.store.manager(self.settings.clone()).unwrap();
        for row in &self.rows {
            let name = row.lock().unwrap().name.clone();
            for lock in [
                last.lock(&name),
                last.write_lock(&name),
                last.semaphore(&name, 3, 3),
            ] {
                match lock.wait(limit).acquire().await {
                    Ok(guard) => assert_eq!(guard.release().await.unwrap(), Release::Released),
                    Err(error) => self.wrong(format!("it stays taken: {error}")),
                }
            }
        }
        last.close().await.unwrap();
        if self.store.resources() > 0 {
            self.wrong(format!("{} rows stay in the store", self.store.resources()));
        }
        drop(last);
        if calm {
            self.rows
                .iter()
                .for_each(|row| row.lock().unwrap().sweep(self.env.now()));
            self.env.sleep(ms(1)).await;
            let tasks = self.env.tasks().len();
            if tasks > 0 {
                self.wrong(format!("{tasks} tasks are left"));
            }
        }
    }

    /// Closing has an end, whatever the node's line is like.
    pub(crate) async fn close_node(&self, manager: Manager) {
        let start = self.env.now();
        let closed = self.env.timeout(ms(60_000), manager.close()).await;
        let took = self.env.now().since(start);
        let limit = self.settings.drain + 3 * self.settings.op_timeout + ms(10);
        if closed.is_none() || took > limit {
            self.wrong(format!("closing took {took:?}, its limit is {limit:?}"));
        }
    }
}
