//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use leasehold::{MAX_TTL, Wait};
use leasehold_measure::Scenario;

use crate::help;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

/// Distributed locks for shell scripts and services.
///
/// `leasehold run NAME -- CMD` runs CMD while this machine, or the whole fleet, has nobody else running something under
/// the same name. The lock is renewed while CMD runs, and freed when CMD has ended, however it ended.
#[derive(Debug, Parser)]
#[command(name = "leasehold", version, styles = STYLES, max_term_width = 100, after_long_help = help::PROGRAM)]
#[command(subcommand_required = true, arg_required_else_help = false)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command understands.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// The backend, such as redis://host, sqlite:/path/locks.db or memory:
    ///
    /// The default is a SQLite file of this user on this machine: leasehold/locks.db in $XDG_STATE_HOME or
    /// ~/.local/state.
    #[arg(long, global = true, env = "LEASEHOLD_URL", hide_env_values = true, value_hint = ValueHint::Url)]
    pub(crate) url: Option<String>,
    /// Say more on stderr: -v what happens, -vv every request
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing on stderr but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    Status(Status),
    List(List),
    Release(Release),
    Doctor(Doctor),
    Bench(Bench),
    Completions(Completions),
    Man(Man),
}

/// Run CMD under a lock
///
/// Waits for the lock, runs CMD while it is held, renews it as long as CMD runs, and frees it when CMD has ended. Ends
/// with CMD's exit status.
#[derive(Debug, Args)]
#[command(after_long_help = help::RUN)]
pub(crate) struct Run {
    /// How long the lock outlives this program if it dies: over 0, at most 24h [default: 30s]
    ///
    /// It is renewed long before. Rounded up to what the backend can do.
    #[arg(long, value_name = "DURATION", value_parser = ttl)]
    pub(crate) ttl: Option<Duration>,
    /// How long to wait for the lock: a duration, 0 for not at all, or forever
    #[arg(long, value_name = "DURATION", default_value = "forever", value_parser = wait)]
    pub(crate) wait: Wait,
    /// What CMD gets when the lock is lost
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnLost::Term)]
    pub(crate) on_lost: OnLost,
    /// How long CMD has between TERM and KILL when the lock is lost; at most a third of the TTL
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub(crate) grace: Duration,
    /// What others are told about the holder besides host and process id, up to 128 bytes
    #[arg(long, value_name = "TEXT")]
    pub(crate) label: Option<String>,
    /// The lock's name: 1 to 1024 bytes of UTF-8, case-sensitive
    pub(crate) name: String,
    /// The command and its arguments
    #[arg(last = true, required = true, num_args = 1.., value_name = "CMD", value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

/// What happens to CMD when the lock is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnLost {
    /// TERM, then KILL after the grace period
    Term,
    /// KILL
    Kill,
    /// Nothing: CMD runs on without the lock
    Ignore,
}

/// Show who holds a lock, since when and for how long
///
/// The exit status is 0 whether it is held or free.
#[derive(Debug, Args)]
#[command(after_long_help = help::STATUS)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) format: Format,
    /// The lock's name
    pub(crate) name: String,
}

/// List the locks that are held
#[derive(Debug, Args)]
#[command(after_long_help = help::LIST)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) format: Format,
    /// Only names that start with this
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
}

/// Take a lock away from whoever holds it
///
/// For when you know that the holder is wrong. A holder that lives learns of it at once or with its next renewal, and
/// `leasehold run` then stops its CMD. Until then two may work at the same time: only fencing tokens help there.
#[derive(Debug, Args)]
#[command(after_long_help = help::RELEASE)]
pub(crate) struct Release {
    /// Yes, take it away from its holder
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) format: Format,
    /// The lock's name
    pub(crate) name: String,
}

/// Try a backend out, and say what is risky in how it is set up
///
/// Connects, measures the round trip and the difference of the clocks, takes a scratch lock through all that happens to
/// one, and looks at the server's settings. It changes none of them.
#[derive(Debug, Args)]
#[command(after_long_help = help::DOCTOR)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) format: Format,
    /// The backend; the same as --url
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) server: Option<String>,
}

/// Measure how fast locks are on your own servers, and compare them
///
/// Takes and frees locks of its own under all kinds of load, on each URL in turn, and prints medians. It is a load on the
/// server, of some tens of connections at most.
#[derive(Debug, Args)]
#[command(after_long_help = help::BENCH)]
pub(crate) struct Bench {
    #[command(flatten)]
    pub(crate) format: Format,
    /// Write a page with charts to FILE, for a browser
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) html: Option<PathBuf>,
    /// Only these scenarios, separated by commas or by --scenario
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = scenarios())]
    pub(crate) scenario: Vec<Scenario>,
    /// How long each case is measured in each round, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "0.7", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// How often each case is measured; the medians are printed
    #[arg(long, value_name = "NUMBER", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// The backends; --url when left out
    #[arg(value_name = "URL", value_hint = ValueHint::Url)]
    pub(crate) servers: Vec<String>,
}

/// Print a completion script for a shell
#[derive(Debug, Args)]
#[command(after_long_help = help::COMPLETIONS)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

/// Print the manual page of the program or of a command
#[derive(Debug, Args)]
#[command(after_long_help = help::MAN)]
pub(crate) struct Man {
    /// The command; the program itself when left out
    pub(crate) command: Option<String>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Format {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn duration(text: &str) -> Result<Duration, String> {
    if text != "0" && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("it lacks a unit: write e.g. 10s, 500ms or 2m".into());
    }
    humantime::parse_duration(text)
        .map_err(|error| format!("it is no duration such as 10s, 500ms or 2m: {error}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .trim_end_matches('s')
        .parse()
        .map_err(|_| "it is no number of seconds".to_owned())?;
    if !(0.02..=300.0).contains(&seconds) {
        return Err("it is from 0.02 to 300 seconds".into());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The scenarios by name or number, with what they are for in the help.
fn scenarios() -> impl TypedValueParser<Value = Scenario> {
    let possible = Scenario::ALL.map(|scenario| {
        let summary = scenario.summary();
        PossibleValue::new(scenario.name())
            .alias(scenario.number())
            .help(summary)
    });
    PossibleValuesParser::new(possible).map(|text| {
        let mut all = Scenario::ALL.into_iter();
        let named = |scenario: &Scenario| scenario.name() == text || scenario.number() == text;
        all.find(named).unwrap_or(Scenario::Latency)
    })
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err("a TTL is over 0 and at most 24h".into());
    }
    Ok(ttl)
}

fn wait(text: &str) -> Result<Wait, String> {
    match text {
        "forever" => Ok(Wait::Forever),
        _ => duration(text).map(Wait::from),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(wait("0"), Ok(Wait::No));
        assert_eq!(wait("forever"), Ok(Wait::Forever));
        assert_eq!(wait("1m 30s"), Ok(Wait::For(Duration::from_secs(90))));
        for wrong in ["", "10", "-1s", "1x", "0s1", "ever"] {
            assert!(wait(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ttl("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "0s", "25h", "30", "forever"] {
            assert!(ttl(wrong).is_err(), "{wrong}");
        }
    }
}
