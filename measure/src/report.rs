//! What a run has found, and its medians, for people and for programs.

mod chart;
mod charts;
mod html;
mod machine;
mod markdown;
mod table;
mod text;

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::case::Case;
use crate::contender::{Contender, Offers};
use crate::figure::Figure;
use crate::plan::Plan;
use crate::stats::{PERCENTILES, median, rounded};
use crate::trial::Found;

pub use machine::Machine;

/// Of the form of a report, for programs that read one.
const FORMAT: u32 = 1;

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The version of this form: 1.
    pub format: u32,
    /// When it began, by RFC 3339.
    pub started: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// It was ended before its time: what is there was measured as it should be, but for the last round.
    pub interrupted: bool,
    /// Where.
    pub machine: Machine,
    /// Of what was measured.
    pub versions: BTreeMap<String, String>,
    /// What was asked for.
    pub plan: Plan,
    /// In percent: where the curves were looked at.
    pub percentiles: Vec<f64>,
    /// Who was measured.
    pub entrants: Vec<Entrant>,
    /// What was found, case by case.
    pub sections: Vec<Section>,
    /// What is wrong with a contender, and nobody may overlook.
    pub alarms: Vec<String>,
}

/// A contender in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entrant {
    /// Different from all others: `redis/leasehold`.
    pub id: String,
    /// The contender's name.
    pub name: String,
    /// Its backend.
    pub backend: String,
    /// What it does for its users.
    pub offers: Offers,
}

/// What was found in one case.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Section {
    /// The case's, in one word.
    pub id: String,
    /// The case's, for people.
    pub title: String,
    /// What was done.
    pub case: Case,
    /// One for each contender, in the order of [`Report::entrants`].
    pub results: Vec<Standing>,
}

/// What one contender came to in one case.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Standing {
    /// [`Entrant::id`].
    pub entrant: String,
    /// Each round.
    pub rounds: Vec<Outcome>,
    /// The medians over the rounds; sums of what must not happen at all.
    pub median: Found,
    /// Why it failed, when it did in any round.
    pub failure: Option<String>,
    /// With whom it is compared, by [`Entrant::id`].
    pub reference: Option<String>,
    /// Its medians, divided by those of the reference.
    pub ratios: BTreeMap<Figure, f64>,
}

/// A round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// What it found.
    Found(Found),
    /// Why it found nothing.
    Failed(String),
}

/// With whom contenders are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// With the first of all.
    First,
    /// With the contender of this name on their own backend.
    Named(String),
}

impl Report {
    pub(crate) fn new(machine: Machine, plan: Plan, started: SystemTime) -> Self {
        Self {
            format: FORMAT,
            started: humantime::format_rfc3339_seconds(started).to_string(),
            seconds: 0.0,
            interrupted: false,
            machine,
            versions: BTreeMap::new(),
            plan,
            percentiles: PERCENTILES.to_vec(),
            entrants: Vec::new(),
            sections: Vec::new(),
            alarms: Vec::new(),
        }
    }

    pub(crate) fn enter(&mut self, contender: &dyn Contender) {
        let plain = format!("{}/{}", contender.backend(), contender.name());
        let taken = |id: &str| self.entrants.iter().any(|entrant| entrant.id == id);
        let numbered = (2_u32..).map(|number| format!("{plain}#{number}"));
        let mut ids = std::iter::once(plain.clone()).chain(numbered);
        let id = ids.find(|id| !taken(id)).unwrap_or_default();
        self.entrants.push(Entrant::of(contender, id));
    }

    pub(crate) fn begin(&mut self, case: &Case) {
        let standing = |entrant: &Entrant| Standing {
            entrant: entrant.id.clone(),
            ..Standing::default()
        };
        self.sections.push(Section {
            id: case.id(),
            title: case.title(),
            case: case.clone(),
            results: self.entrants.iter().map(standing).collect(),
        });
    }

    pub(crate) fn add(&mut self, section: usize, entrant: usize, outcome: Result<Found, String>) {
        let standing = &mut self.sections[section].results[entrant];
        standing.rounds.push(match outcome {
            Ok(found) => Outcome::Found(found),
            Err(failure) => Outcome::Failed(failure),
        });
    }

    /// Medians, ratios and alarms.
    pub(crate) fn finish(&mut self, reference: &Reference) {
        for section in &mut self.sections {
            for standing in &mut section.results {
                standing.settle();
            }
            for (index, entrant) in self.entrants.iter().enumerate() {
                let other = match reference {
                    Reference::First => Some(0),
                    Reference::Named(name) => self
                        .entrants
                        .iter()
                        .position(|other| other.backend == entrant.backend && other.name == *name),
                };
                if let Some(other) = other.filter(|other| *other != index) {
                    let base = section.results[other].median.figures.clone();
                    let standing = &mut section.results[index];
                    standing.reference = Some(self.entrants[other].id.clone());
                    standing.compare(&base);
                }
                self.alarms.extend(section.results[index].alarms(&section.title));
            }
        }
    }

    /// The shortest name of an entrant that tells it from the others.
    #[must_use]
    pub fn label(&self, id: &str) -> String {
        let Some(entrant) = self.entrants.iter().find(|entrant| entrant.id == id) else {
            return id.to_owned();
        };
        let number = |same: fn(&Entrant) -> &str| {
            let those = self.entrants.iter();
            those.filter(|other| same(other) == same(entrant)).count()
        };
        match entrant {
            _ if number(|entrant| &entrant.id) > 1 || entrant.id.contains('#') => entrant.id.clone(),
            _ if number(|entrant| &entrant.name) == self.entrants.len() => entrant.backend.clone(),
            _ if number(|entrant| &entrant.backend) == self.entrants.len() => entrant.name.clone(),
            _ => format!("{} {}", entrant.backend, entrant.name),
        }
    }

    /// True when a lock was none or a token no fence.
    #[must_use]
    pub fn is_alarming(&self) -> bool {
        !self.alarms.is_empty()
    }

    /// As JSON.
    ///
    /// # Errors
    /// None that is known: everything in it has a form in JSON.
    pub fn to_json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }
}

impl Standing {
    /// What every round of it found.
    fn found(&self) -> impl Iterator<Item = &Found> {
        self.rounds.iter().filter_map(|round| match round {
            Outcome::Found(found) => Some(found),
            Outcome::Failed(_) => None,
        })
    }

    fn settle(&mut self) {
        let mut settled = Found::default();
        let mut figures = BTreeMap::<_, Vec<f64>>::new();
        let mut curves = BTreeMap::<_, Vec<&[f64]>>::new();
        for found in self.found() {
            for (figure, value) in &found.figures {
                figures.entry(*figure).or_default().push(*value);
            }
            for (curve, values) in &found.curves {
                curves.entry(*curve).or_default().push(values);
            }
            for note in &found.notes {
                if !settled.notes.contains(note) {
                    settled.notes.push(note.clone());
                }
            }
        }
        for (figure, values) in figures {
            let value = match figure {
                Figure::Violations | Figure::StaleTokens | Figure::Losses => Some(values.iter().sum()),
                _ => median(values),
            };
            settled
                .figures
                .extend(value.map(|value| (figure, rounded(value))));
        }
        for (curve, rounds) in curves {
            let points = rounds.iter().map(|values| values.len()).min().unwrap_or(0);
            let at = |point: usize| median(rounds.iter().map(|values| values[point]).collect()).map(rounded);
            settled.curves.insert(curve, (0..points).filter_map(at).collect());
        }
        self.median = settled;
        self.failure = self.rounds.iter().find_map(|round| match round {
            Outcome::Found(_) => None,
            Outcome::Failed(failure) => Some(failure.clone()),
        });
    }

    fn compare(&mut self, base: &BTreeMap<Figure, f64>) {
        for (figure, value) in &self.median.figures {
            let ratio = base.get(figure).map(|base| rounded(value / base));
            if let Some(ratio) = ratio.filter(|ratio| ratio.is_finite()) {
                self.ratios.insert(*figure, ratio);
            }
        }
    }

    fn alarms(&self, title: &str) -> Vec<String> {
        let (id, figures) = (&self.entrant, &self.median.figures);
        let happened = |figure| figures.get(&figure).copied().filter(|times| *times > 0.0);
        [
            (
                Figure::Violations,
                "the lock was granted while somebody had it, times:",
            ),
            (
                Figure::StaleTokens,
                "a token was not larger than the one before, times:",
            ),
            (Figure::Losses, "locks that were lost while they were held:"),
        ]
        .into_iter()
        .filter_map(|(figure, what)| Some(format!("{id}, {title}: {what} {:.0}", happened(figure)?)))
        .collect()
    }
}
