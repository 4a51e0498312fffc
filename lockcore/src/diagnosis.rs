//! What a backend says about itself, and what is risky in how it is set up.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::capability::{Capabilities, ExpiryClock, FencingSource};

/// How bad a [`Finding`] is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know, and no risk for locks; or something that could not be looked at.
    Note,
    /// Locks work, and under some failure or load they will not: an acknowledged lock can be forgotten, a token can go
    /// back, a connection can be cut off.
    Warning,
    /// Locks do not work, or can be lost without any failure.
    Error,
}

impl Severity {
    /// A short lower-case name, stable for logs and scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at: the server's own word for it where it has one, such as a setting's name. The same for the same
    /// thing whatever was found, so that scripts can look for it.
    pub subject: String,
    /// What was found, and what it means for locks.
    pub found: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(severity: Severity, subject: &str, found: impl Into<String>, remedy: Option<String>) -> Self {
        Self {
            severity,
            subject: subject.to_owned(),
            found: found.into(),
            remedy,
        }
    }
}

/// The server's wall clock, read between two looks at ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockReading {
    before: SystemTime,
    server: SystemTime,
    after: SystemTime,
}

impl ClockReading {
    /// The server said `server` between `before` and `after` on [`Env::wall_clock`](crate::Env::wall_clock).
    #[must_use]
    pub const fn new(before: SystemTime, server: SystemTime, after: SystemTime) -> Self {
        Self {
            before,
            server,
            after,
        }
    }

    /// By how many microseconds the server's clock is ahead of ours; negative when it is behind. Right to half of
    /// [`ClockReading::took`].
    #[must_use]
    pub fn ahead_us(&self) -> i64 {
        let middle = self.before + self.took() / 2;
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        match self.server.duration_since(middle) {
            Ok(ahead) => micros(ahead),
            Err(behind) => -micros(behind.duration()),
        }
    }

    /// How long the reading took.
    #[must_use]
    pub fn took(&self) -> Duration {
        self.after.duration_since(self.before).unwrap_or_default()
    }
}

/// What [`LockManager::diagnose`](crate::LockManager::diagnose) found out about a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What the server calls itself.
    pub server: String,
    /// Its version, as it says it; `None` when it does not.
    pub version: Option<String>,
    /// Its wall clock against ours, where it tells.
    #[serde(rename = "clock_ahead_us", serialize_with = "ahead_us")]
    pub clock: Option<ClockReading>,
    /// What was looked at, in the order in which a person would want to read it.
    pub findings: Vec<Finding>,
}

fn ahead_us<S: Serializer>(clock: &Option<ClockReading>, to: S) -> Result<S::Ok, S::Error> {
    clock.as_ref().map(ClockReading::ahead_us).serialize(to)
}

/// A difference between two clocks that people notice, and one that somebody has to look into.
const CLOCKS_DIFFER: (i64, i64) = (1_000_000, 60_000_000);

impl Diagnosis {
    /// Of the server of this name and version, as it tells them itself.
    #[must_use]
    pub fn new(server: impl Into<String>, version: Option<impl Into<String>>) -> Self {
        Self {
            server: server.into(),
            version: version.map(Into::into),
            clock: None,
            findings: Vec::new(),
        }
    }

    /// With this reading of the server's clock. Judging it is not the driver's business.
    pub fn set_clock(&mut self, clock: ClockReading) {
        self.clock = Some(clock);
    }

    /// `subject` is as it should be.
    pub fn ok(&mut self, subject: &str, found: impl Into<String>) {
        self.findings
            .push(Finding::new(Severity::Ok, subject, found, None));
    }

    /// Good to know about `subject`, or: it could not be looked at.
    pub fn note(&mut self, subject: &str, found: impl Into<String>) {
        self.findings
            .push(Finding::new(Severity::Note, subject, found, None));
    }

    /// `subject` is a risk; `remedy` says what to do, as a command or a setting where it can be one.
    pub fn warning(&mut self, subject: &str, found: impl Into<String>, remedy: impl Into<String>) {
        let remedy = Some(remedy.into());
        self.findings
            .push(Finding::new(Severity::Warning, subject, found, remedy));
    }

    /// `subject` keeps locks from working, or can lose them without any failure; `remedy` as for
    /// [`Diagnosis::warning`].
    pub fn error(&mut self, subject: &str, found: impl Into<String>, remedy: impl Into<String>) {
        let remedy = Some(remedy.into());
        self.findings
            .push(Finding::new(Severity::Error, subject, found, remedy));
    }

    /// The worst that was found.
    #[must_use]
    pub fn severity(&self) -> Severity {
        let severities = self.findings.iter().map(|finding| finding.severity);
        severities.max().unwrap_or(Severity::Ok)
    }

    /// Says what the difference of the clocks means for a backend with these capabilities.
    pub(crate) fn judge_clock(&mut self, capabilities: &Capabilities) {
        const SUBJECT: &str = "clock";
        let Some(clock) = &self.clock else { return };
        let ahead = clock.ahead_us();
        let apart = humantime::format_duration(Duration::from_millis(ahead.unsigned_abs() / 1000));
        let side = if ahead < 0 { "behind" } else { "ahead of" };
        // No deadline compares two clocks. It is the correction of a clock that is wrong that does harm.
        let stepped = capabilities.expiry_clock == ExpiryClock::ServerWall
            || capabilities.fencing == FencingSource::CounterAndClock;
        let (notable, alarming) = CLOCKS_DIFFER;
        match i64::try_from(ahead.unsigned_abs()).unwrap_or(i64::MAX) {
            small if small < notable => self.ok(SUBJECT, "the server's clock agrees with ours"),
            large if large >= alarming && stepped => self.warning(
                SUBJECT,
                format!(
                    "the server's clock is {apart} {side} ours: when it is set right in one step, leases end too soon or \
                     too late, and tokens rely on it after a loss of data"
                ),
                "keep both clocks right with NTP, and let it slew rather than step",
            ),
            _ => self.note(
                SUBJECT,
                format!(
                    "the server's clock is {apart} {side} ours: the times that are shown for holders are off by that"
                ),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn at(ms: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(ms)
    }

    #[test]
    fn clocks_are_compared_at_the_middle_of_the_request() {
        let clock = ClockReading::new(at(1_000), at(1_060), at(1_100));
        assert_eq!(clock.ahead_us(), 10_000);
        assert_eq!(clock.took(), Duration::from_millis(100));
        assert_eq!(
            ClockReading::new(at(1_000), at(900), at(1_000)).ahead_us(),
            -100_000
        );
        // Ours was set back meanwhile.
        assert_eq!(ClockReading::new(at(1_000), at(1_000), at(900)).ahead_us(), 0);
    }

    #[test]
    fn a_clock_that_is_off_matters_where_it_ends_leases_or_makes_tokens() {
        let store = Capabilities::MUTEX
            .with_expiry(ExpiryClock::ServerMonotonic, Duration::ZERO)
            .with_fencing(FencingSource::StoreRevision);
        for (server, capabilities, expected) in [
            (1_000_000, Capabilities::MUTEX, Severity::Ok),
            (1_000_999, Capabilities::MUTEX, Severity::Ok),
            (1_002_000, Capabilities::MUTEX, Severity::Note),
            (998_000, Capabilities::MUTEX, Severity::Note),
            (1_100_000, Capabilities::MUTEX, Severity::Warning),
            (900_000, Capabilities::MUTEX, Severity::Warning),
            (900_000, store, Severity::Note),
        ] {
            let mut diagnosis = Diagnosis::new("x", None::<String>);
            diagnosis.set_clock(ClockReading::new(at(1_000_000), at(server), at(1_000_000)));
            diagnosis.judge_clock(&capabilities);
            assert_eq!(diagnosis.severity(), expected, "{diagnosis:?}");
        }
        let mut silent = Diagnosis::new("x", Some("1"));
        silent.judge_clock(&store);
        assert_eq!(silent.findings, []);
    }

    #[test]
    fn json_is_stable() {
        let mut diagnosis = Diagnosis::new("Store", Some("1.2"));
        diagnosis.set_clock(ClockReading::new(at(5), at(4), at(5)));
        diagnosis.ok("a", "fine");
        diagnosis.warning("b", "bad", "do this");
        assert_eq!(
            serde_json::to_value(&diagnosis).unwrap(),
            serde_json::json!({
                "server": "Store",
                "version": "1.2",
                "clock_ahead_us": -1000,
                "findings": [
                    { "severity": "ok", "subject": "a", "found": "fine", "remedy": null },
                    { "severity": "warning", "subject": "b", "found": "bad", "remedy": "do this" },
                ],
            })
        );
    }
}
