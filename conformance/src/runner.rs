//! Runs scenarios, each in a runtime of its own, and judges them.

use std::any::Any;
use std::panic;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, LazyLock, Mutex, Once, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::Either;
use lockcore::Env;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{RwLock, Semaphore};

use crate::backend::{Backend, Clock};
use crate::context::Context;
use crate::failure::{Checked, Failure};
use crate::history::check;
use crate::limits;
use crate::scenario::{Body, Scenario, What};
use crate::suite;

/// What became of a scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It held.
    Passed,
    /// It did not run, and why.
    LeftOut(String),
    /// It did not hold, and why.
    Failed(String),
}

/// A scenario and its verdict.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Which scenario.
    pub scenario: &'static Scenario,
    /// What became of it.
    pub verdict: Verdict,
    /// What it measured, for people.
    pub measured: Vec<String>,
    /// How long it took, without the wait for others that had the server for themselves.
    pub took: Duration,
}

/// Runs the scenarios that `wanted` picks, one after the other, for tests about the suite itself.
///
/// # Panics
/// When no runtime can be made for the backend's server.
#[must_use]
pub fn run(backend: Arc<dyn Backend>, wanted: impl Fn(&Scenario) -> bool) -> Vec<Outcome> {
    let stage = Stage::new(backend);
    let outcomes = suite::all()
        .filter(|scenario| wanted(scenario))
        .map(|scenario| stage.run(scenario, seed()))
        .collect();
    stage.finish();
    outcomes
}

/// The seed of virtual time: `LEASEHOLD_SEED`, or one that is the same every time.
pub(crate) fn seed() -> u64 {
    std::env::var("LEASEHOLD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1)
}

/// A backend with its server, made ready before the first scenario that needs it.
pub(crate) struct Stage {
    backend: Arc<dyn Backend>,
    home: OnceLock<Result<Runtime, String>>,
    /// Held alone by a scenario that concerns everybody on the server, and shared by the others.
    server: Arc<RwLock<()>>,
}

impl Stage {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Self {
        Self {
            backend,
            home: OnceLock::new(),
            server: Arc::default(),
        }
    }

    pub(crate) fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Runs one scenario, in its own thread and runtime.
    pub(crate) fn run(&self, scenario: &'static Scenario, seed: u64) -> Outcome {
        let measured = Arc::<Mutex<Vec<String>>>::default();
        let begun = Arc::<OnceLock<Instant>>::default();
        let verdict = self.judge(scenario, seed, (&measured, &begun));
        let measured = std::mem::take(&mut *measured.lock().unwrap_or_else(PoisonError::into_inner));
        Outcome {
            scenario,
            verdict,
            measured,
            took: begun.get().map_or(Duration::ZERO, Instant::elapsed),
        }
    }

    fn judge(&self, scenario: &Scenario, seed: u64, (measured, begun): Notes<'_>) -> Verdict {
        if let Some(reason) = scenario.left_out_on(self.backend.as_ref()) {
            return Verdict::LeftOut(reason);
        }
        let body = match scenario.what {
            What::Run(body) => body,
            What::LeftOut(reason) => return Verdict::LeftOut(reason.to_owned()),
        };
        let home = match self.home.get_or_init(|| self.prepare()) {
            Ok(home) => home.handle().clone(),
            Err(error) => return Verdict::Failed(error.clone()),
        };
        let play = Play {
            backend: Arc::clone(&self.backend),
            home,
            body,
            limit: match self.backend.clock() {
                Clock::Virtual => limits::VIRTUAL_SCENARIO,
                Clock::Real => limits::SCENARIO,
            },
            alone: scenario.is_exclusive(),
            measures: scenario.measures(),
            server: Arc::clone(&self.server),
            seed,
            measured: Arc::clone(measured),
            begun: Arc::clone(begun),
        };
        match play.watched(scenario.id) {
            Ok(()) => Verdict::Passed,
            Err(message) => Verdict::Failed(message),
        }
    }

    fn prepare(&self) -> Result<Runtime, String> {
        let home = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let backend = Arc::clone(&self.backend);
        home.block_on(home.spawn(async move { backend.prepare().await }))
            .map_err(|error| error.to_string())
            .and_then(|prepared| prepared.map_err(|error| error.to_string()))
            .map_err(|error| format!("the backend could not be made ready: {error}"))?;
        Ok(home)
    }

    /// Was it made ready?
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.home.get(), Some(Ok(_)))
    }

    /// Lets the backend clear up.
    pub(crate) fn finish(self) {
        if let Some(Ok(home)) = self.home.into_inner() {
            home.block_on(self.backend.finish());
            drop(self.backend);
            home.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// One run of one scenario.
struct Play {
    backend: Arc<dyn Backend>,
    home: Handle,
    body: Body,
    limit: Duration,
    alone: bool,
    measures: bool,
    server: Arc<RwLock<()>>,
    seed: u64,
    measured: Arc<Mutex<Vec<String>>>,
    begun: Arc<OnceLock<Instant>>,
}

/// What is noted while a scenario runs: what it measured, and when it began.
type Notes<'a> = (&'a Arc<Mutex<Vec<String>>>, &'a Arc<OnceLock<Instant>>);

#[expect(clippy::disallowed_methods, reason = "how long the test itself takes")]
fn now() -> Instant {
    Instant::now()
}

impl Play {
    /// Runs it in a thread that can be given up.
    fn watched(self, id: &str) -> Result<(), String> {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let name = format!("{THREADS}{id}-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        listen_for_panics();
        let patience = match self.backend.clock() {
            Clock::Real => self.limit * 2 + limits::WATCHDOG,
            Clock::Virtual => limits::WATCHDOG,
        };
        let (sender, receiver) = mpsc::channel();
        let (begin, begun) = mpsc::channel();
        let thread_name = name.clone();
        let started = thread::Builder::new().name(name.clone()).spawn(move || {
            let played = panic::catch_unwind(panic::AssertUnwindSafe(|| self.play(&thread_name, begin)));
            // Nobody listens any more when the time was over.
            sender.send(played).ok();
        });
        if let Err(error) = started {
            return Err(format!("no thread: {error}"));
        }
        // It may have to wait for the server, for as long as others need it. Either way the sender is gone then.
        if begun.recv_timeout(limits::QUEUE) == Err(RecvTimeoutError::Timeout) {
            return Err("it never had the server for itself: another scenario hung with it".to_owned());
        }
        let played = receiver
            .recv_timeout(patience)
            .map_err(|_| format!("hung: it blocked its thread for {patience:?}"))?;
        let panics: Vec<_> = PANICS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extract_if(.., |(thread, _)| *thread == name)
            .map(|(_, panic)| panic)
            .collect();
        let outcome = played.unwrap_or_else(|panic| Err(format!("panicked: {}", text_of(&*panic))));
        match outcome {
            Ok(()) if panics.is_empty() => Ok(()),
            Ok(()) => Err(format!("a task panicked: {}", panics.join("; "))),
            Err(message) if panics.is_empty() => Err(message),
            Err(message) => Err(format!("{message} (panics: {})", panics.join("; "))),
        }
    }

    fn play(self, name: &str, begin: mpsc::Sender<()>) -> Result<(), String> {
        let clock = self.backend.clock();
        let mut builder = match clock {
            Clock::Virtual => Builder::new_current_thread(),
            Clock::Real => Builder::new_multi_thread(),
        };
        builder.enable_all().thread_name(name);
        match clock {
            Clock::Virtual => builder.start_paused(true),
            Clock::Real => builder.worker_threads(2),
        };
        let runtime = builder.build().map_err(|error| format!("no runtime: {error}"))?;
        let outcome = runtime.block_on(self.judged(begin));
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    }

    async fn judged(self, begin: mpsc::Sender<()>) -> Result<(), String> {
        let env = match self.backend.clock() {
            Clock::Real => Env::system(),
            Clock::Virtual => Env::virtual_time(self.seed),
        };
        let context = Context::new(self.backend, (env.clone(), self.home), self.measured)
            .map_err(|failure| failure.to_string())?;
        // Before the server, which others are waiting for.
        let _core = match self.measures && !context.is_isolated() {
            true => CORES.acquire().await.ok(),
            false => None,
        };
        let _server = match (context.is_isolated(), self.alone) {
            (true, _) => None,
            (false, true) => Some(Either::Left(self.server.write().await)),
            (false, false) => Some(Either::Right(self.server.read().await)),
        };
        self.begun.set(now()).ok();
        drop(begin);
        let limit = self.limit;
        let hung = || Failure::new(format!("hung: not over after {limit:?}"));
        let body = (self.body)(context.clone());
        let played = env.timeout(limit, body).await.unwrap_or_else(|| Err(hung()));
        let cleared = env
            .timeout(limit, Box::pin(context.clear_up()))
            .await
            .unwrap_or_else(|| Err(Failure::new("hung: the clients were not closed")));
        let history = context.history().events();
        let violations: Vec<_> = check(&history, context.bounds())
            .iter()
            .map(ToString::to_string)
            .collect();
        // The rules of the history say more than a check that failed because one of them was broken.
        let mut failures: Vec<String> = violations;
        failures.extend(
            [played, cleared]
                .into_iter()
                .filter_map(Checked::err)
                .map(|failure| failure.to_string()),
        );
        if failures.is_empty() {
            Ok(())
        } else {
            Err(failures.join("\n"))
        }
    }
}

/// So many scenarios that measure may run at a time: each keeps a core busy, on whatever backend.
static CORES: LazyLock<Semaphore> =
    LazyLock::new(|| Semaphore::new(thread::available_parallelism().map_or(1, usize::from)));

/// What the names of a scenario's threads begin with.
const THREADS: &str = "conformance-";

/// What panicked, by the name of the thread.
static PANICS: Mutex<Vec<(String, String)>> = Mutex::new(Vec::new());

/// tokio catches the panics of tasks: a scenario fails all the same when one of its tasks, or one of the driver's,
/// panics unseen. A scenario that unwinds on purpose uses `resume_unwind`, which calls no hook.
fn listen_for_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let thread = thread::current();
            match thread.name().filter(|name| name.starts_with(THREADS)) {
                Some(name) => PANICS
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push((name.to_owned(), info.to_string())),
                None => previous(info),
            }
        }));
    });
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("with something that is no text")
}

#[cfg(test)]
mod tests;
