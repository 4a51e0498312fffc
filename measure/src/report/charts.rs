//! Which charts a report has.

use crate::case::Scenario;
use crate::contender::Failure;
use crate::figure::{Curve, Figure};
use crate::report::chart::{self, AT_MOST, Axis, Bar, Line, Scale, bars, lines};
use crate::report::{Entrant, Report, Section, Standing};

/// A chart with its heading.
pub(super) struct Chart {
    /// Of the section below which it stands.
    pub(super) section: String,
    pub(super) title: String,
    pub(super) svg: String,
}

/// Entrants that are shown together.
struct Group<'a> {
    /// What is said of it in a heading, where there are several.
    name: Option<&'a str>,
    members: Vec<&'a Entrant>,
}

impl Report {
    pub(super) fn charts(&self) -> Result<Vec<Chart>, Failure> {
        let mut charts = Vec::new();
        for group in self.groups() {
            let mut last = None;
            for section in &self.sections {
                let scenario = section.case.scenario;
                let first = last.replace(scenario) != Some(scenario);
                let drawn = match scenario {
                    Scenario::Latency => vec![self.distribution(&group, section, Curve::Pair)?],
                    Scenario::Throughput if first => vec![self.throughput(&group)?],
                    Scenario::Throughput => vec![self.distribution(&group, section, Curve::Pair)?],
                    Scenario::Contended => vec![
                        self.distribution(&group, section, Curve::HandOff)?,
                        self.fairness(&group, section)?,
                    ],
                    Scenario::Growth if first => vec![
                        self.growth(&group)?,
                        self.distribution(&group, section, Curve::HandOff)?,
                        self.fairness(&group, section)?,
                    ],
                    Scenario::Growth => vec![
                        self.distribution(&group, section, Curve::HandOff)?,
                        self.fairness(&group, section)?,
                    ],
                    Scenario::Held => vec![
                        self.compare(&group, section, Figure::ClientLoad, "client CPU, % of one core")?,
                        self.compare(
                            &group,
                            section,
                            Figure::MemoryPerLock,
                            "client memory per lock, bytes",
                        )?,
                    ],
                    Scenario::Recovery => {
                        vec![self.compare(
                            &group,
                            section,
                            Figure::Recovery,
                            "time until the next holder, ms",
                        )?]
                    }
                    Scenario::Local => vec![
                        self.compare(&group, section, Figure::PerSecond, "acquisitions per second")?,
                        self.compare(
                            &group,
                            section,
                            Figure::RemoteWaitP50,
                            "median wait of the other client, us",
                        )?,
                    ],
                    Scenario::Popular => vec![
                        self.compare(&group, section, Figure::PerSecond, "acquisitions per second")?,
                        self.distribution(&group, section, Curve::Acquire)?,
                    ],
                };
                for (title, svg) in drawn.into_iter().flatten() {
                    let title = match group.name {
                        Some(name) => format!("{name}: {title}"),
                        None => title,
                    };
                    charts.push(Chart {
                        section: section.id.clone(),
                        title,
                        svg,
                    });
                }
            }
        }
        Ok(charts)
    }

    /// All together, or each backend by itself where they are too many for one chart.
    fn groups(&self) -> Vec<Group<'_>> {
        let all: Vec<_> = self.entrants.iter().collect();
        if all.len() <= AT_MOST {
            return vec![Group {
                name: None,
                members: all,
            }];
        }
        let mut groups: Vec<(&str, Vec<&Entrant>)> = Vec::new();
        for entrant in all {
            match groups.iter_mut().find(|(backend, _)| *backend == entrant.backend) {
                Some((_, members)) => members.push(entrant),
                None => groups.push((&entrant.backend, vec![entrant])),
            }
        }
        let halves = groups.iter().flat_map(|(backend, members)| {
            members.chunks(AT_MOST).map(|members| Group {
                name: Some(backend),
                members: members.to_vec(),
            })
        });
        halves.collect()
    }

    /// Each member of the group that took part in `section`, with its colour.
    fn standings<'a>(
        &'a self,
        group: &'a Group<'_>,
        section: &'a Section,
    ) -> impl Iterator<Item = (usize, String, &'a Standing)> {
        group.members.iter().enumerate().filter_map(|(colour, entrant)| {
            let mut results = section.results.iter();
            let standing = results.find(|standing| standing.entrant == entrant.id)?;
            Some((colour, self.label(&entrant.id), standing))
        })
    }

    /// Times at the percentiles.
    fn distribution(
        &self,
        group: &Group<'_>,
        section: &Section,
        curve: Curve,
    ) -> Result<Option<(String, String)>, Failure> {
        let mut found = Vec::new();
        for (colour, label, standing) in self.standings(group, section) {
            if let Some(values) = standing.median.curves.get(&curve) {
                let places = (0_u32..).map(f64::from);
                found.push(Line {
                    label,
                    colour,
                    dashed: false,
                    points: places.zip(values.iter().copied()).collect(),
                });
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let what = match curve {
            Curve::Pair => "acquire and release",
            Curve::Acquire => "acquire",
            Curve::HandOff => "hand-off",
        };
        let names = self.percentiles.iter().map(|percent| match percent {
            0.0 => "min".to_owned(),
            100.0 => "max".to_owned(),
            percent => format!("{percent}"),
        });
        let x = axis("percentile of the times", Scale::Names(names.collect()));
        let svg = lines(&x, &axis(format!("{what}, us (log)"), Scale::Log), &found)?;
        Ok(Some((format!("{what}, distribution; {}", section.title), svg)))
    }

    /// Acquisitions over tasks.
    fn throughput(&self, group: &Group<'_>) -> Result<Option<(String, String)>, Failure> {
        let scenarios = [Scenario::Latency, Scenario::Throughput];
        let found = self.over_tasks(group, &scenarios, Figure::PerSecond, "", false);
        if found.is_empty() {
            return Ok(None);
        }
        let x = axis("tasks (log)", at(&found));
        let svg = lines(&x, &axis("acquisitions per second (log)", Scale::Log), &found)?;
        Ok(Some((
            "throughput against tasks, without contention".to_owned(),
            svg,
        )))
    }

    /// Hand-offs over waiters.
    fn growth(&self, group: &Group<'_>) -> Result<Option<(String, String)>, Failure> {
        let mut found = self.over_tasks(group, &[Scenario::Growth], Figure::HandOffP50, " p50", false);
        found.extend(self.over_tasks(group, &[Scenario::Growth], Figure::HandOffP99, " p99", true));
        found.sort_by_key(|line| (line.colour, line.dashed));
        if found.is_empty() {
            return Ok(None);
        }
        let x = axis("clients that want the lock (log)", at(&found));
        let svg = lines(&x, &axis("hand-off, us (log)", Scale::Log), &found)?;
        Ok(Some(("hand-off against clients".to_owned(), svg)))
    }

    fn over_tasks(
        &self,
        group: &Group<'_>,
        scenarios: &[Scenario],
        figure: Figure,
        suffix: &str,
        dashed: bool,
    ) -> Vec<Line> {
        let sections = || {
            self.sections
                .iter()
                .filter(|section| scenarios.contains(&section.case.scenario))
        };
        let member = |(colour, entrant): (usize, &&Entrant)| {
            let at = |section: &Section| {
                let mut results = section.results.iter();
                let standing = results.find(|standing| standing.entrant == entrant.id)?;
                let tasks = f64::from(u32::try_from(section.case.tasks).ok()?);
                Some((tasks, *standing.median.figures.get(&figure)?))
            };
            Line {
                label: format!("{}{suffix}", self.label(&entrant.id)),
                colour,
                dashed,
                points: sections().filter_map(at).collect(),
            }
        };
        let lines = group.members.iter().enumerate().map(member);
        lines.filter(|line| !line.points.is_empty()).collect()
    }

    /// How the acquisitions are spread over the clients, to what each would have if all had the same.
    fn fairness(&self, group: &Group<'_>, section: &Section) -> Result<Option<(String, String)>, Failure> {
        let mut found = Vec::new();
        for (colour, label, standing) in self.standings(group, section) {
            let share = |figure| standing.median.figures.get(&figure).copied();
            let (Some(least), Some(median), Some(most)) = (
                share(Figure::ShareLeast),
                share(Figure::ShareMedian),
                share(Figure::ShareMost),
            ) else {
                continue;
            };
            let to_median = |value: f64| 100.0 * value / median.max(1.0);
            found.push(Bar {
                label,
                colour,
                from: to_median(least),
                mark: Some(to_median(median)),
                to: to_median(most),
                value: format!("{least:.0} to {most:.0}"),
            });
        }
        if found.is_empty() {
            return Ok(None);
        }
        let x = axis(
            "acquisitions of the client with the fewest to the one with the most, % of the median client's",
            Scale::Linear,
        );
        Ok(Some((format!("fairness; {}", section.title), bars(&x, &found)?)))
    }

    /// One figure of each.
    fn compare(
        &self,
        group: &Group<'_>,
        section: &Section,
        figure: Figure,
        name: &str,
    ) -> Result<Option<(String, String)>, Failure> {
        let mut found = Vec::new();
        for (colour, label, standing) in self.standings(group, section) {
            if let Some(value) = standing.median.figures.get(&figure) {
                found.push(Bar {
                    label,
                    colour,
                    from: 0.0,
                    mark: None,
                    to: *value,
                    value: chart::short(*value),
                });
            }
        }
        if found.is_empty() {
            return Ok(None);
        }
        let title = name.split(',').next().unwrap_or(name);
        let svg = bars(&axis(name, Scale::Linear), &found)?;
        Ok(Some((format!("{title}; {}", section.title), svg)))
    }
}

/// Where the lines have points.
fn at(lines: &[Line]) -> Scale {
    let mut at: Vec<_> = lines
        .iter()
        .flat_map(|line| &line.points)
        .map(|point| point.0)
        .collect();
    at.sort_unstable_by(f64::total_cmp);
    at.dedup();
    Scale::LogAt(at)
}

fn axis(name: impl Into<String>, scale: Scale) -> Axis {
    let name = name.into();
    Axis { name, scale }
}
