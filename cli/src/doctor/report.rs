//! What `doctor` found, as a text for people and as JSON for scripts.

use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use leasehold::{Capabilities, Diagnosis, Error, Severity, WakeUp};
use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::{self, FAINT, STRONG};

/// Everything that was learnt; what is missing could not be.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) backend: Option<&'static str>,
    pub(crate) capabilities: Option<Capabilities>,
    pub(crate) diagnosis: Option<Diagnosis>,
    /// The median and the longest.
    pub(crate) round_trip: Option<(Duration, Duration)>,
    timings: Vec<(&'static str, Duration)>,
}

impl Report {
    pub(crate) fn took(&mut self, step: &'static str, time: Duration) {
        self.timings.push((step, time));
    }

    /// `step` ended the examination.
    pub(crate) fn failed(&mut self, step: &str, error: &Error, remedy: &str) {
        let unknown = || Diagnosis::new(self.backend.unwrap_or("unknown"), None::<String>);
        let diagnosis = self.diagnosis.get_or_insert_with(unknown);
        diagnosis.error(step, error.to_string(), remedy);
    }

    pub(crate) fn severity(&self) -> Severity {
        self.diagnosis.as_ref().map_or(Severity::Ok, Diagnosis::severity)
    }

    pub(crate) fn print(&self, json: bool) -> Result<(), Failure> {
        if json {
            return output::json(&self.to_json());
        }
        output::print(|out| self.write(out))
    }

    fn to_json(&self) -> Value {
        let diagnosis = self.diagnosis.as_ref();
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let timings: serde_json::Map<_, _> = self
            .timings
            .iter()
            .map(|(step, time)| ((*step).replace('-', "_"), json!(micros(*time))))
            .collect();
        json!({
            "backend": self.backend,
            "server": diagnosis.map(|found| &found.server),
            "version": diagnosis.and_then(|found| found.version.as_ref()),
            "verdict": self.severity(),
            "round_trip_us": self.round_trip.map(|(median, _)| micros(median)),
            "clock_ahead_us": diagnosis.and_then(|found| found.clock).map(|clock| clock.ahead_us()),
            "timings_us": timings,
            "capabilities": self.capabilities.as_ref().map(capabilities),
            "findings": diagnosis.map_or(&[][..], |found| &found.findings),
        })
    }

    fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let Some(diagnosis) = &self.diagnosis else {
            return Ok(());
        };
        let version = diagnosis.version.as_deref().unwrap_or("of unknown version");
        let title = plain(&format!("{} {version}", diagnosis.server));
        let backend = self.backend.unwrap_or("unknown");
        writeln!(out, "{STRONG}{backend}{STRONG:#}: {title}")?;
        if let Some((median, longest)) = self.round_trip {
            let (median, longest) = (output::brief(median), output::brief(longest));
            row(out, "round trip", format!("{median}, the longest {longest}"))?;
        }
        if let Some(clock) = &diagnosis.clock {
            let ahead = clock.ahead_us();
            let apart = output::brief(Duration::from_micros(ahead.unsigned_abs()));
            let side = if ahead < 0 { "behind" } else { "ahead of" };
            let doubt = output::brief(clock.took() / 2);
            row(out, "clock", format!("{apart} {side} ours, give or take {doubt}"))?;
        }
        for (step, time) in &self.timings {
            row(out, step, output::brief(*time))?;
        }
        if let Some(capabilities) = &self.capabilities {
            writeln!(out, "\n{STRONG}capabilities{STRONG:#}")?;
            for (label, value) in described(capabilities) {
                row(out, label, value)?;
            }
        }
        writeln!(out, "\n{STRONG}findings{STRONG:#}")?;
        let subjects = diagnosis
            .findings
            .iter()
            .map(|finding| finding.subject.chars().count());
        let width = subjects.max().unwrap_or(0);
        for finding in &diagnosis.findings {
            let (style, severity) = (style(finding.severity), finding.severity);
            let (subject, found) = (plain(&finding.subject), plain(&finding.found));
            writeln!(out, "  {style}{severity:<7}{style:#}  {subject:<width$}  {found}")?;
            if let Some(remedy) = &finding.remedy {
                writeln!(
                    out,
                    "  {:<7}  {:<width$}  {STRONG}do:{STRONG:#} {}",
                    "",
                    "",
                    plain(remedy)
                )?;
            }
        }
        writeln!(out, "\n{}", self.verdict())
    }

    fn verdict(&self) -> &'static str {
        match self.severity() {
            Severity::Ok | Severity::Note => "Nothing is wrong here.",
            Severity::Warning => {
                "Locks work here, and under some failure or load they will not: see the warnings."
            }
            _ => "Locks are not safe here, or do not work: see the errors.",
        }
    }
}

fn style(severity: Severity) -> Style {
    match severity {
        Severity::Ok => AnsiColor::Green.on_default(),
        Severity::Note => Style::new(),
        Severity::Warning => AnsiColor::Yellow.on_default().bold(),
        _ => AnsiColor::Red.on_default().bold(),
    }
}

fn row(out: &mut dyn Write, label: &str, value: impl std::fmt::Display) -> io::Result<()> {
    writeln!(out, "  {FAINT}{label:<12}{FAINT:#} {value}")
}

/// A server wrote it: nothing of it moves the cursor.
fn plain(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() { ' ' } else { char })
        .collect()
}

fn described(capabilities: &Capabilities) -> Vec<(&'static str, String)> {
    let span = humantime::format_duration;
    let Capabilities {
        min_ttl,
        max_ttl,
        ttl_grain,
        ..
    } = *capabilities;
    let has = |what: bool, name: &'static str| what.then_some(name);
    let administration = [
        has(capabilities.inspect, "status"),
        has(capabilities.list, "list"),
        has(capabilities.force_release, "release"),
    ];
    let administration: Vec<_> = administration.into_iter().flatten().collect();
    vec![
        (
            "ttl",
            format!(
                "{} to {}, in steps of {}",
                span(min_ttl),
                span(max_ttl),
                span(ttl_grain)
            ),
        ),
        (
            "ended by",
            format!(
                "{}, at most {} late",
                capabilities.expiry_clock,
                span(capabilities.expiry_epsilon)
            ),
        ),
        ("tokens", capabilities.fencing.to_string()),
        (
            "waiters",
            format!(
                "{}, {}",
                if capabilities.fifo {
                    "first come, first served"
                } else {
                    "in no order"
                },
                capabilities.wake_up
            ),
        ),
        ("failover", capabilities.failover.to_string()),
        (
            "kinds",
            if capabilities.weighted {
                "mutex, readers and writers, semaphore"
            } else {
                "mutex"
            }
            .to_owned(),
        ),
        (
            "sessions",
            if capabilities.sessions {
                "locks live by a session"
            } else {
                "each lock has a lease"
            }
            .to_owned(),
        ),
        ("commands", administration.join(", ")),
    ]
}

/// With numbers that scripts can compare.
fn capabilities(capabilities: &Capabilities) -> Value {
    let millis = |time: Duration| time.as_secs_f64() * 1e9 / 1e6;
    let (wake_up, interval) = match capabilities.wake_up {
        WakeUp::Poll { interval } => ("poll", Some(millis(interval))),
        _ => ("push", None),
    };
    json!({
        "min_ttl_ms": millis(capabilities.min_ttl),
        "max_ttl_ms": millis(capabilities.max_ttl),
        "ttl_grain_ms": millis(capabilities.ttl_grain),
        "expiry_epsilon_ms": millis(capabilities.expiry_epsilon),
        "expiry_clock": capabilities.expiry_clock,
        "fencing": capabilities.fencing,
        "fifo": capabilities.fifo,
        "wake_up": wake_up,
        "poll_interval_ms": interval,
        "failover": capabilities.failover,
        "weighted": capabilities.weighted,
        "inspect": capabilities.inspect,
        "list": capabilities.list,
        "force_release": capabilities.force_release,
        "cross_process": capabilities.cross_process,
        "sessions": capabilities.sessions,
        "renew_batch": capabilities.renew_batch,
    })
}
