//! `bench`: how fast locks are on the user's own servers.

mod process;
mod progress;
mod target;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use leasehold::Env;
use leasehold_measure::{Contender, Plan, Report, Runner, Scenario, Standing};
use tokio_util::sync::CancellationToken;

use crate::args::{Bench, Common};
use crate::exit::{Code, Failure};
use crate::signals::{self, Signals};
use crate::{logging, output, place};
use process::Processes;
use progress::Progress;
use target::Target;

pub(crate) use process::entered;

/// How long the look for what was left behind may take, for each URL.
const TIDY: Duration = Duration::from_secs(10);

pub(crate) async fn bench(common: &Common, args: &Bench) -> Result<ExitCode, Failure> {
    let mut signals = Signals::passed_on()?;
    // Hundreds of clients would say the same, such as that a TTL was rounded.
    let quiet = common.quiet || common.verbose == 0;
    logging::start(&Common {
        quiet,
        ..common.clone()
    })?;
    let targets = targets(common, args)?;
    let page = args.html.as_deref().map(create).transpose()?;
    let mut plan = Plan::brief(args.seconds, args.rounds);
    if !args.scenario.is_empty() {
        plan = plan.only(&args.scenario);
    }
    let prefix = format!("leasehold-bench/{:032x}", Env::system().random_u128()?);
    let mut runner = Runner::new(contenders(&targets), plan.clone(), &prefix);
    for target in &targets {
        let version = tokio::select! {
            version = target.version() => version?,
            signal = signals.recv() => return Ok(signals::exit_status(signal).into()),
        };
        runner = runner.version(target.label(), version);
    }
    let stop = CancellationToken::new();
    let progress = Arc::new(Progress::new(&plan, targets.len(), common.quiet));
    let running = runner
        .version("Leasehold", env!("CARGO_PKG_VERSION"))
        .launch(Arc::new(Processes::new(targets.clone())))
        .observer(Arc::<Progress>::clone(&progress))
        .unless(refused(&targets))
        .stop(stop.clone())
        .run();
    let mut running = pin!(running);
    let mut stopped = None;
    let report = loop {
        tokio::select! {
            report = &mut running => break report,
            signal = signals.recv() => match stopped {
                Some(first) => return Ok(signals::exit_status(first).into()),
                None => {
                    stopped = Some(signal);
                    stop.cancel();
                    progress.say("ending with what was measured so far; once more to end at once");
                }
            }
        }
    };
    progress.finish();
    tidy(&targets, &prefix).await;
    if let (Some(mut file), Some(path)) = (page, &args.html) {
        let text = report
            .to_html()
            .map_err(|error| Failure::new(Code::Internal, format!("cannot draw the charts: {error}")))?;
        let written = file.write_all(text.as_bytes()).and_then(|()| file.flush());
        written.map_err(|error| cannot_write(path, &error))?;
    }
    if args.format.json {
        output::json(&report)?;
    } else {
        output::print(|out| out.write_all(report.to_text().as_bytes()))?;
    }
    match stopped {
        Some(signal) => Ok(signals::exit_status(signal).into()),
        None => verdict(&report),
    }
}

/// The URLs, each with a name of its own.
fn targets(common: &Common, args: &Bench) -> Result<Vec<Target>, Failure> {
    let mut urls = args.servers.clone();
    if urls.is_empty() {
        urls.push(place::url(common.url.as_deref())?);
    }
    urls.iter().map(|url| Ok(Target::new(url)?)).collect()
}

fn contenders(targets: &[Target]) -> Vec<Arc<dyn Contender>> {
    let contender = |target: &Target| Arc::new(target.contender()) as Arc<dyn Contender>;
    targets.iter().map(contender).collect()
}

/// What a URL cannot do.
fn refused(
    targets: &[Target],
) -> impl Fn(&dyn Contender, &leasehold_measure::Case) -> Option<String> + Send + Sync + use<> {
    let by_connection: Vec<_> = targets
        .iter()
        .filter(|target| target.is_by_connection())
        .map(|target| target.label().to_owned())
        .collect();
    move |contender, case| {
        let one_each = by_connection.iter().any(|label| label == contender.backend());
        (one_each && case.scenario == Scenario::Held)
            .then(|| "each held lock takes a connection, so many cannot be held".to_owned())
    }
}

/// Where the page goes, before anything is measured for it.
fn create(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Code::Output, format!("cannot write {}: {error}", path.display()))
}

/// Frees what is still locked under `prefix`, as after a holder that was killed.
async fn tidy(targets: &[Target], prefix: &str) {
    let env = Env::system();
    for target in targets {
        let tidying = async {
            let locks = target.connect().await?;
            if locks.capabilities().list && locks.capabilities().force_release {
                for left in locks.list(prefix).await? {
                    locks.force_release(left.name.as_str()).await?;
                }
            }
            locks.close().await
        };
        // The lease of what cannot be freed ends by itself.
        env.timeout(TIDY, Box::pin(tidying)).await;
    }
}

fn verdict(report: &Report) -> Result<ExitCode, Failure> {
    if report.is_alarming() {
        return Ok(Code::Risky.into());
    }
    let mut standings = report.sections.iter().flat_map(|section| {
        let results = section.results.iter();
        results.map(move |standing: &Standing| (section, standing))
    });
    let failed = standings.find_map(|(section, standing)| {
        let failure = standing.failure.as_ref()?;
        Some(format!(
            "{}, {}: {failure}",
            report.label(&standing.entrant),
            section.title
        ))
    });
    failed.map_or(Ok(ExitCode::SUCCESS), |failure| {
        Err(Failure::new(Code::Unavailable, failure))
    })
}
