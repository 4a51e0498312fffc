//! The program: starts the servers, lets all contenders run, and judges.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use clap::Parser as _;
use leasehold_conformance::servers::Origin;
use leasehold_measure::{
    Case, Contender, Failure, Found, Observer, Plan, Reference, Report, Runner, Scenario, Step,
};
use tokio_util::sync::CancellationToken;

use crate::acceptance;
use crate::backend::Backend;
use crate::contender::Entry;
use crate::ours;
use crate::place::Place;
use crate::reason;
use crate::serve::{self, Again};

/// Contenders that this crate does not know of.
pub trait Others: std::fmt::Debug + Send + Sync {
    /// Those at `place`.
    fn contenders(&self, place: &Arc<Place>) -> Vec<Entry>;

    /// What is not there, and how to get it.
    fn missing(&self) -> Vec<String> {
        Vec::new()
    }

    /// What they are, and their versions.
    fn versions(&self) -> Vec<(String, String)> {
        Vec::new()
    }
}

/// No others.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Others for Nobody {
    fn contenders(&self, _: &Arc<Place>) -> Vec<Entry> {
        Vec::new()
    }
}

/// Compares Leasehold with what each backend can do at best.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "leasehold-bench", version, max_term_width = 100)]
struct Options {
    /// Backends: redis, valkey, etcd, zk, mysql, mariadb, postgres, sqlite, memory.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "redis,etcd,zk,mariadb,postgres,sqlite,memory"
    )]
    backend: Vec<Backend>,

    /// Scenarios, S1 to S8 or by name; by default all.
    #[arg(long, value_delimiter = ',', value_parser = scenario)]
    scenario: Vec<Scenario>,

    /// Contenders, by name; by default all.
    #[arg(long, value_delimiter = ',')]
    contender: Vec<String>,

    /// How often everybody has a turn.
    #[arg(long, default_value_t = 3)]
    rounds: u32,

    /// How many seconds a turn takes, in most scenarios.
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,

    /// What takes long as well: 1,000 waiters, and 100,000 held locks.
    #[arg(long)]
    large: bool,

    /// Where servers come from: process, container, url or any.
    #[arg(long, default_value = "process")]
    origin: Origin,

    /// A file for the report, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,

    /// A file for the report with charts.
    #[arg(long)]
    html: Option<PathBuf>,

    /// A file for the report as a page of the documentation.
    #[arg(long)]
    markdown: Option<PathBuf>,

    /// Plays a client of a contender, as the one says that started this.
    #[arg(long, hide = true)]
    serve: Option<String>,
}

fn scenario(text: &str) -> Result<Scenario, String> {
    let known = |scenario: &Scenario| scenario.name() == text || scenario.number().eq_ignore_ascii_case(text);
    Scenario::ALL
        .into_iter()
        .find(known)
        .ok_or_else(|| format!("unknown scenario `{text}`"))
}

/// Does what the command line says.
#[expect(clippy::print_stderr, reason = "a program says why it failed")]
pub fn main(others: impl Others) -> ExitCode {
    match run(Options::parse(), &others) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("leasehold-bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options, others: &dyn Others) -> Result<ExitCode, Failure> {
    if !(0.01..=600.0).contains(&options.seconds) || !(1..=100).contains(&options.rounds) {
        return Err("--seconds is from 0.01 to 600, --rounds from 1 to 100".into());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(async {
        match &options.serve {
            Some(id) => serve::play(id, others).await.map(|()| ExitCode::SUCCESS),
            None => compare(&options, others).await,
        }
    });
    // Clients that were given up may still be at work.
    runtime.shutdown_background();
    code
}

#[expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it is what the program is for"
)]
async fn compare(options: &Options, others: &dyn Others) -> Result<ExitCode, Failure> {
    let mut places = Vec::new();
    for backend in &options.backend {
        eprintln!("starting {backend}");
        places.push(Place::start(*backend, options.origin).await?);
    }
    let wanted = |contender: &Arc<dyn Contender>| {
        options.contender.is_empty() || options.contender.iter().any(|name| name == contender.name())
    };
    let mut contenders = Vec::new();
    for place in &places {
        let all = ours::all(place, others.contenders(place));
        contenders.extend(all.into_iter().filter(wanted));
    }
    if contenders.is_empty() {
        return Err("there is nobody to measure: see --backend and --contender".into());
    }
    let plan = plan(options);
    let limits = acceptance::Limits::of(&places).await?;
    let seed = SystemTime::UNIX_EPOCH.elapsed()?.as_millis();
    let stop = CancellationToken::new();
    let mut runner = Runner::new(contenders, plan, format!("b{seed:x}"))
        .reference(Reference::Named("leasehold".to_owned()))
        .launch(Arc::new(Again::new(&places)))
        .observer(Arc::new(Progress(places.clone())))
        .unless(reason::to_leave_out)
        .stop(stop.clone());
    for place in &places {
        runner = runner.version(place.backend().name(), place.describe());
    }
    for (what, version) in others.versions() {
        runner = runner.version(what, version);
    }
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.cancel();
        }
    });
    let report = Box::pin(runner.run()).await;
    let verdicts = acceptance::judge(&report, &limits);
    let missing = others.missing();
    print!("{}", report.to_text());
    print!("\n{}", acceptance::to_text(&verdicts));
    for missing in &missing {
        println!("not run: {missing}");
    }
    save(options, &report, &verdicts, &missing)?;
    Ok(match report.is_alarming() {
        // A lock that is none is no result.
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

fn plan(options: &Options) -> Plan {
    let time = Duration::from_secs_f64(options.seconds);
    let mut plan = Plan::full(time, options.rounds);
    if options.large {
        let hold = Duration::from_millis(10);
        let growth = Case {
            rounds: Some(1),
            ..Case::growth(1000, hold, time * 2)
        };
        let place = |scenario| plan.cases.iter().rposition(|case| case.scenario == scenario);
        let (growing, holding) = (place(Scenario::Growth), place(Scenario::Held));
        // The later one first, so that the other's place stays.
        if let Some(after) = holding {
            plan.cases
                .insert(after + 1, Case::held(100_000, Duration::from_secs(10)));
        }
        if let Some(after) = growing {
            plan.cases.insert(after + 1, growth);
        }
    }
    match options.scenario.is_empty() {
        true => plan,
        false => plan.only(&options.scenario),
    }
}

fn save(
    options: &Options,
    report: &Report,
    verdicts: &[acceptance::Verdict],
    missing: &[String],
) -> Result<(), Failure> {
    if let Some(file) = &options.json {
        write(file, &report.to_json()?)?;
    }
    if let Some(file) = &options.html {
        write(file, &report.to_html()?)?;
    }
    if let Some(file) = &options.markdown {
        let Options { rounds, seconds, .. } = options;
        let with = format!("This run had `--rounds {rounds} --seconds {seconds}`.");
        let mut page = format!("{TOP}{with}\n\n{}\n", report.to_markdown());
        write!(page, "## Targets\n\n{}", acceptance::to_markdown(verdicts))?;
        if !missing.is_empty() {
            page.push_str("\n## Not run\n\n");
        }
        for missing in missing {
            writeln!(page, "- {missing}")?;
        }
        write(file, &page)?;
    }
    Ok(())
}

const TOP: &str = "\
# Benchmarks

Made by `cargo run --release -p leasehold-bench -- --markdown docs/benchmarks.md`, or in `bench/rivals` by the same with
other libraries; do not edit. `bench/README.md` says what is measured, and what can be compared with what: contenders of one
backend in one run.
";

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()).into())
}

/// A line for each turn. Sees to it that in S1 nobody shares a processor with the server, as if that were elsewhere.
#[derive(Debug)]
struct Progress(Vec<Arc<Place>>);

impl Progress {
    fn keep_apart(&self, step: Step<'_>, apart: bool) {
        if step.case.scenario == Scenario::Latency {
            self.0.iter().for_each(|place| place.keep_apart(apart));
        }
    }
}

impl Observer for Progress {
    fn begins(&self, step: Step<'_>) {
        self.keep_apart(step, true);
    }

    #[expect(clippy::print_stderr, reason = "it is for who waits")]
    fn ended(&self, step: Step<'_>, found: Result<&Found, &str>) {
        self.keep_apart(step, false);
        let (id, round, case) = (step.contender, step.round, step.case);
        match found {
            Err(failure) => eprintln!("{} round {round}, {id}: {failure}", case.id()),
            Ok(found) => {
                let figures = case.scenario.figures().iter();
                let first = figures
                    .filter_map(|figure| Some((figure, found.figures.get(figure)?)))
                    .next();
                if let Some((figure, value)) = first {
                    let value = figure.show(*value);
                    eprintln!("{} round {round}, {id}: {} {value}", case.id(), figure.heading());
                }
            }
        }
    }
}
