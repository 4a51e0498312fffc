//! A run: all cases, all rounds, all contenders in turn.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio_util::sync::CancellationToken;

use crate::case::{Case, Scenario};
use crate::contender::{Contender, Failure};
use crate::load;
use crate::plan::Plan;
use crate::process::Launch;
use crate::report::{Entrant, Machine, Reference, Report};
use crate::trial::{Found, Trial};

/// What a trial takes besides its own time at most: to connect, and to wait for what does not end.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long each contender warms up at most.
const WARM_UP: Duration = Duration::from_millis(500);

/// One round of one case for one contender.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// What is done.
    pub case: &'a Case,
    /// To whom, by [`Entrant::id`].
    pub contender: &'a str,
    /// From 1.
    pub round: u32,
}

/// Somebody who watches a run.
pub trait Observer: Send + Sync {
    /// A step begins.
    fn begins(&self, step: Step<'_>);

    /// It has ended; `Err` says why nothing was found.
    fn ended(&self, step: Step<'_>, found: Result<&Found, &str>);
}

type Refuses = dyn Fn(&dyn Contender, &Case) -> Option<String> + Send + Sync;

/// Measures contenders side by side.
#[must_use = "nothing is measured until it runs"]
pub struct Runner {
    contenders: Vec<Arc<dyn Contender>>,
    plan: Plan,
    prefix: String,
    reference: Reference,
    launch: Option<Arc<dyn Launch>>,
    observer: Option<Arc<dyn Observer>>,
    refuses: Option<Box<Refuses>>,
    stop: CancellationToken,
    versions: Vec<(String, String)>,
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("contenders", &self.contenders)
            .field("plan", &self.plan)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Will do what `plan` says to each of `contenders`. The names of all locks start with `prefix`, which has to be new
    /// for each run: what a contender leaves behind must not be in the way of the next run.
    pub fn new(contenders: Vec<Arc<dyn Contender>>, plan: Plan, prefix: impl Into<String>) -> Self {
        Self {
            contenders,
            plan,
            prefix: prefix.into(),
            reference: Reference::First,
            launch: None,
            observer: None,
            refuses: None,
            stop: CancellationToken::new(),
            versions: Vec::new(),
        }
    }

    /// With whom the others are compared; by default the first one.
    pub fn reference(mut self, reference: Reference) -> Self {
        self.reference = reference;
        self
    }

    /// How this program plays a client in a process of its own. Without it nobody is killed, and memory is measured in
    /// this process.
    pub fn launch(mut self, launch: Arc<dyn Launch>) -> Self {
        self.launch = Some(launch);
        self
    }

    /// Who watches.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Leaves out what a contender cannot do; `refuses` says why.
    pub fn unless(
        mut self,
        refuses: impl Fn(&dyn Contender, &Case) -> Option<String> + Send + Sync + 'static,
    ) -> Self {
        self.refuses = Some(Box::new(refuses));
        self
    }

    /// Ends the run when it is cancelled, with what was measured so far.
    pub fn stop(mut self, stop: CancellationToken) -> Self {
        self.stop = stop;
        self
    }

    /// Says in the report that `what` had this version.
    pub fn version(mut self, what: impl Into<String>, version: impl Into<String>) -> Self {
        self.versions.push((what.into(), version.into()));
        self
    }

    /// Measures.
    pub async fn run(self) -> Report {
        let (machine, begun) = (Machine::this(), Instant::now());
        let mut report = Report::new(machine, self.plan.clone(), SystemTime::now());
        report.versions.extend(self.versions.iter().cloned());
        for contender in &self.contenders {
            report.enter(&**contender);
        }
        let ids: Vec<_> = report.entrants.iter().map(|entrant| entrant.id.clone()).collect();
        self.warm_up().await;
        for (index, case) in self.plan.cases.iter().enumerate() {
            report.begin(case);
            for round in 1..=self.plan.rounds_of(case) {
                let mut order: Vec<_> = (0..self.contenders.len()).collect();
                // Nobody always comes after the same one, nor is always the first of a server's.
                if round % 2 == 0 {
                    order.reverse();
                }
                for who in order {
                    if self.stop.is_cancelled() {
                        break;
                    }
                    let step = Step {
                        case,
                        contender: &ids[who],
                        round,
                    };
                    let outcome = self.step(step, who, index).await;
                    report.add(index, who, outcome);
                }
            }
            if self.stop.is_cancelled() {
                report.interrupted = true;
                break;
            }
        }
        report.seconds = begun.elapsed().as_secs_f64();
        report.finish(&self.reference);
        report
    }

    /// Everybody has a turn that does not count: what a server does for the first time, and what it compiles as it goes, is
    /// not the first contender's.
    async fn warm_up(&self) {
        let time = self.plan.cases.iter().map(|case| case.time).min();
        let case = Case::latency(time.unwrap_or_default().min(WARM_UP));
        for (who, contender) in self.contenders.iter().enumerate() {
            let trial = Trial {
                contender: Arc::clone(contender),
                case: case.clone(),
                prefix: format!("{}/{who}-warm-up", self.prefix),
                stop: self.stop.clone(),
                launch: None,
            };
            if !self.stop.is_cancelled() {
                // Whatever fails here will fail again where it counts.
                let warming = load::run(Arc::new(trial));
                tokio::time::timeout(case.time * 3 + PATIENCE, Box::pin(warming))
                    .await
                    .ok();
            }
        }
    }

    async fn step(&self, step: Step<'_>, who: usize, index: usize) -> Result<Found, String> {
        if let Some(observer) = &self.observer {
            observer.begins(step);
        }
        let found = self
            .measure(step, who, index)
            .await
            .map_err(|failure| told(&*failure));
        if let Some(observer) = &self.observer {
            observer.ended(step, found.as_ref().map_err(String::as_str));
        }
        found
    }

    async fn measure(&self, step: Step<'_>, who: usize, index: usize) -> Result<Found, Failure> {
        let contender = &self.contenders[who];
        if let Some(why) = self
            .refuses
            .as_ref()
            .and_then(|refuses| refuses(&**contender, step.case))
        {
            return Ok(Found {
                notes: vec![why],
                ..Found::default()
            });
        }
        let trial = Trial {
            contender: Arc::clone(contender),
            case: step.case.clone(),
            prefix: match step.case.scenario {
                // Nobody waits for a lock when the round ends, so the next one can have it too.
                Scenario::Latency | Scenario::Throughput => format!("{}/{who}-{index}", self.prefix),
                _ => format!("{}/{who}-{index}-{}", self.prefix, step.round),
            },
            stop: self.stop.clone(),
            launch: self.launch.clone(),
        };
        let limit = step.case.time * 3 + PATIENCE;
        let measuring = load::run(Arc::new(trial));
        match tokio::time::timeout(limit, Box::pin(measuring)).await {
            Ok(found) => found,
            Err(_) => Err(format!("given up after {} s", limit.as_secs()).into()),
        }
    }
}

/// An error and its causes on one line.
fn told(failure: &(dyn std::error::Error + 'static)) -> String {
    let mut text = failure.to_string();
    let mut cause = failure.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl Entrant {
    pub(crate) fn of(contender: &dyn Contender, id: String) -> Self {
        Self {
            id,
            name: contender.name().to_owned(),
            backend: contender.backend().to_owned(),
            offers: contender.offers(),
        }
    }
}
