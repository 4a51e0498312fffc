//! The targets that Leasehold has set itself, and whether a run meets them. Ratios only, of contenders in the same run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use leasehold_measure::{Failure, Figure, Report, Scenario};

use crate::backend::Backend;
use crate::place::Place;

mod ratios;

use ratios::RATIOS;

/// What has to be known besides the report.
#[derive(Clone, Debug, Default)]
pub(crate) struct Limits {
    /// By how much each backend says that it may be late to end a lease.
    late: BTreeMap<&'static str, Duration>,
}

impl Limits {
    pub(crate) async fn of(places: &[Arc<Place>]) -> Result<Self, Failure> {
        let mut late = BTreeMap::new();
        for place in places.iter().filter(|place| place.backend() != Backend::Memory) {
            let locks = leasehold::connect(place.url()).await?;
            late.insert(place.backend().name(), locks.capabilities().expiry_epsilon);
            locks.close().await?;
        }
        Ok(Self { late })
    }
}

/// A bound of a target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Bound {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(most) => value <= most,
            Self::AtLeast(least) => value >= least,
        }
    }
}

impl std::fmt::Display for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::AtMost(most) => write!(f, "<= {most}"),
            Self::AtLeast(least) => write!(f, ">= {least}"),
        }
    }
}

/// A target, and what was measured.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    backend: String,
    what: String,
    bound: Bound,
    /// `None` when the run does not tell.
    measured: Option<f64>,
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self.measured {
            None => "not measured",
            Some(value) if self.bound.holds(value) => "met",
            Some(_) => "MISSED",
        }
    }

    fn columns(&self) -> [String; 5] {
        let measured = match self.measured {
            None => "-".to_owned(),
            Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
            Some(value) => format!("{value:.2}"),
        };
        [
            self.backend.clone(),
            self.what.clone(),
            self.bound.to_string(),
            measured,
            self.word().to_owned(),
        ]
    }
}

const HEAD: [&str; 5] = ["backend", "target", "bound", "measured", ""];

/// A report that is asked for single numbers.
struct Facts<'a>(&'a Report);

impl Facts<'_> {
    /// A contender's number in a case, unless it failed there.
    fn get(&self, case: &str, backend: &str, name: &str, figure: Figure) -> Option<f64> {
        let entrant = self
            .0
            .entrants
            .iter()
            .find(|entrant| entrant.backend == backend && entrant.name == name)?;
        let section = self.0.sections.iter().find(|section| section.id == case)?;
        let standing = section
            .results
            .iter()
            .find(|result| result.entrant == entrant.id)?;
        standing.median.figures.get(&figure).copied()
    }

    /// Leasehold in each of its modes, on each backend.
    fn ours(&self) -> impl Iterator<Item = (&str, &str)> {
        let ours = |name: &str| name == "leasehold" || name.starts_with("leasehold-");
        let entrants = self.0.entrants.iter();
        entrants
            .filter(move |entrant| ours(&entrant.name))
            .map(|entrant| (&*entrant.backend, &*entrant.name))
    }

    fn cases(&self, scenario: Scenario) -> impl Iterator<Item = &leasehold_measure::Section> {
        let sections = self.0.sections.iter();
        sections.filter(move |section| section.case.scenario == scenario)
    }
}

/// All that the run can tell, in the order of the scenarios.
pub(crate) fn judge(report: &Report, limits: &Limits) -> Vec<Verdict> {
    let facts = Facts(report);
    let mut verdicts = Vec::new();
    ratios(&facts, &mut verdicts);
    for (backend, name) in facts.ours() {
        let mut judge = Judge {
            facts: &facts,
            backend,
            name,
            verdicts: &mut verdicts,
        };
        judge.queues();
        judge.fairness();
        judge.held();
        judge.recovery(limits);
        judge.local();
    }
    verdicts
}

fn ratios(facts: &Facts<'_>, verdicts: &mut Vec<Verdict>) {
    for ratio in RATIOS {
        for backend in ratio.backends {
            let number = |name| facts.get(ratio.case, backend, name, ratio.figure);
            // Nothing is said of backends, cases and contenders that were not asked for.
            let (Some(ours), other) = (number(ratio.ours), number(ratio.other)) else {
                continue;
            };
            verdicts.push(Verdict {
                backend: (*backend).to_owned(),
                what: format!(
                    "{}: {} of {} / {}",
                    ratio.case,
                    ratio.figure.heading(),
                    ratio.ours,
                    ratio.other
                ),
                bound: ratio.bound,
                measured: other.map(|other| ours / other),
            });
        }
    }
}

/// From so many held locks on it is judged what each of them costs.
const MANY: usize = 10_000;

/// What is said of one mode of Leasehold.
struct Judge<'a> {
    facts: &'a Facts<'a>,
    backend: &'a str,
    name: &'a str,
    verdicts: &'a mut Vec<Verdict>,
}

impl Judge<'_> {
    fn number(&self, case: &str, figure: Figure) -> Option<f64> {
        self.facts.get(case, self.backend, self.name, figure)
    }

    fn say(&mut self, case: &str, what: &str, bound: Bound, measured: Option<f64>) {
        self.verdicts.push(Verdict {
            backend: self.backend.to_owned(),
            what: format!("{case}: {what} of {}", self.name),
            bound,
            measured,
        });
    }

    /// Hand-offs with a hold: how even they are, and that requests do not grow with the queue.
    fn queues(&mut self) {
        let mut requests = Vec::new();
        for section in self.facts.cases(Scenario::Growth) {
            let case = &*section.id;
            let Some(p50) = self.number(case, Figure::HandOffP50) else {
                continue;
            };
            let p99 = self.number(case, Figure::HandOffP99);
            self.say(
                case,
                "hand-off p99 / p50",
                Bound::AtMost(4.0),
                p99.map(|p99| p99 / p50),
            );
            if matches!(self.backend, "redis" | "valkey") && section.case.tasks <= 128 {
                let round_trip = self
                    .facts
                    .get("latency", self.backend, "raw", Figure::RoundTripP50);
                let ratio = round_trip.map(|round_trip| p50 / round_trip);
                self.say(case, "hand-off p50 / round trip", Bound::AtMost(2.5), ratio);
                // Who is handed the lock was asleep for as long as it was held.
                let rested = self
                    .facts
                    .get("latency", self.backend, "raw", Figure::RestedRoundTripP50);
                let ratio = rested.map(|rested| p50 / rested);
                let what = "hand-off p50 / round trip after 10 ms of rest";
                self.say(case, what, Bound::AtMost(2.5), ratio);
            }
            requests.extend(self.number(case, Figure::ServerRequests));
        }
        if requests.len() > 1 {
            let least = requests.iter().copied().fold(f64::INFINITY, f64::min);
            let most = requests.iter().copied().fold(0.0, f64::max);
            // Twenty percent up or down from the middle.
            let what = "requests/acq, most / least over all sizes";
            self.say("growth", what, Bound::AtMost(1.5), Some(most / least));
        }
    }

    fn fairness(&mut self) {
        for section in self.facts.cases(Scenario::Contended) {
            let case = &*section.id;
            if let (Some(wait), Some(p50)) = (
                self.number(case, Figure::LongestWait),
                self.number(case, Figure::HandOffP50),
            ) {
                let turn = section.case.hold.as_secs_f64() * 1e3 + p50 / 1e3;
                let fair = turn * f64::from(u32::try_from(section.case.tasks).unwrap_or(u32::MAX));
                if !section.case.hold.is_zero() {
                    self.say(
                        case,
                        "longest wait / fair share",
                        Bound::AtMost(1.5),
                        Some(wait / fair),
                    );
                }
            }
            if let (Some(least), Some(median), Some(most)) = (
                self.number(case, Figure::ShareLeast),
                self.number(case, Figure::ShareMedian),
                self.number(case, Figure::ShareMost),
            ) {
                // When time is up one may have had a turn more than another.
                let spread = (median > 0.0).then(|| (most - least - 1.0).max(0.0) / median);
                self.say(case, "spread of acq / median", Bound::AtMost(0.02), spread);
            }
        }
    }

    fn held(&mut self) {
        for section in self.facts.cases(Scenario::Held) {
            let case = &*section.id;
            // Of fewer locks the most is what is there for any number of them.
            if section.case.names >= MANY
                && let Some(memory) = self.number(case, Figure::MemoryPerLock)
            {
                self.say(case, "bytes/lock", Bound::AtMost(1024.0), Some(memory));
            }
            if let Some(losses) = self.number(case, Figure::Losses) {
                self.say(case, "losses", Bound::AtMost(0.0), Some(losses));
            }
        }
    }

    fn recovery(&mut self, limits: &Limits) {
        for section in self.facts.cases(Scenario::Recovery) {
            let late = limits.late.get(self.backend).copied().unwrap_or_default();
            let most = (section.case.ttl + late).as_secs_f64() * 1e3;
            if let Some(recovery) = self.number(&section.id, Figure::Recovery) {
                let what = "recovery in ms, against TTL + declared epsilon,";
                self.say(&section.id, what, Bound::AtMost(most), Some(recovery));
            }
        }
    }

    /// Against the best of the others on the same backend, raw clients left aside.
    fn local(&mut self) {
        for section in self.facts.cases(Scenario::Local) {
            let case = &*section.id;
            let Some(ours) = self.number(case, Figure::PerSecond) else {
                continue;
            };
            let others = self.facts.0.entrants.iter().filter(|entrant| {
                let known = ["leasehold", "raw"];
                entrant.backend == self.backend && !known.iter().any(|known| entrant.name.starts_with(known))
            });
            let best = others
                .filter_map(|entrant| {
                    self.facts
                        .get(case, self.backend, &entrant.name, Figure::PerSecond)
                })
                .fold(None, |best: Option<f64>, one| {
                    Some(best.map_or(one, |best| best.max(one)))
                });
            if let Some(best) = best {
                self.say(
                    case,
                    "acq/s against the best library,",
                    Bound::AtLeast(3.0),
                    Some(ours / best),
                );
            }
            let stale = self.number(case, Figure::StaleTokens);
            self.say(case, "stale tokens", Bound::AtMost(0.0), stale);
        }
    }
}

/// In columns.
pub(crate) fn to_text(verdicts: &[Verdict]) -> String {
    let rows: Vec<_> = verdicts.iter().map(Verdict::columns).collect();
    let mut text = String::from("Targets\n");
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(&rows);
    let widths: [usize; 5] = std::array::from_fn(|column| {
        let lengths = all().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    });
    for row in all() {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text.push_str(&summary(verdicts));
    text
}

pub(crate) fn to_markdown(verdicts: &[Verdict]) -> String {
    let mut text = format!(
        "{}\n| {} |\n|---|---|---|---:|---|\n",
        summary(verdicts),
        HEAD.join(" | ")
    );
    for verdict in verdicts {
        writeln!(text, "| {} |", verdict.columns().join(" | ")).unwrap_or_default();
    }
    text
}

fn summary(verdicts: &[Verdict]) -> String {
    let count = |word: &str| verdicts.iter().filter(|verdict| verdict.word() == word).count();
    format!(
        "{} targets met, {} missed, {} not measured.\n",
        count("met"),
        count("MISSED"),
        count("not measured")
    )
}

#[cfg(test)]
mod tests;
