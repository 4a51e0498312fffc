//! The steps of `cargo xtask test`.

use std::{
    env,
    io::IsTerminal,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::ValueEnum;
use tokio::process::Command;

use crate::{
    count::Count,
    examples,
    failures::Failures,
    host,
    run::{self, Limits},
    servers::{self, Servers},
    suites::{self, Results, SUITE},
    workspace::{Workspace, cargo},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// Get the test servers. Always run, because the others need to know what there is
    Servers,
    /// Unit and integration tests of every package
    Tests,
    /// The examples in the documentation
    Doctests,
    /// The conformance suite, on every backend and server
    Conformance,
    /// The programs in examples/, on every backend and server
    Examples,
}

/// How a step went.
struct Report {
    step: Step,
    count: Count,
    time: Duration,
}

impl Step {
    fn name(self) -> String {
        self.to_possible_value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}

/// Prints the steps and what they do.
pub(crate) fn list() {
    for step in Step::value_variants() {
        let help = step
            .to_possible_value()
            .and_then(|value| value.get_help().map(ToString::to_string));
        println!("{:12} {}", step.name(), help.unwrap_or_default());
    }
}

/// Runs the steps, all of them unless `only` names some; whether everything passed.
pub(crate) async fn test(only: &[Step]) -> Result<bool> {
    let workspace = Workspace::read().await?;
    let start = Instant::now();
    heading(Step::Servers);
    // Getting servers mostly waits for the network, and compiling does not. What goes wrong shows when it is done again.
    let build = cargo(["test", "--workspace", "--all-features", "--no-run"]);
    let is_built = [Step::Tests, Step::Conformance];
    let build = async {
        match only.is_empty() || is_built.iter().any(|step| only.contains(step)) {
            true => run::collect(build, Limits::minutes(30)).await.map(drop),
            false => Ok(()),
        }
    };
    let (servers, built) = tokio::join!(Box::pin(servers::get()), build);
    let servers = servers?;
    if let Err(error) = built {
        println!("{error:#}");
    }
    servers.print_and_judge();
    let mut reports = vec![Report {
        step: Step::Servers,
        count: servers.count(),
        time: start.elapsed(),
    }];
    let mut shown_last = ShownLast::default();
    for &step in Step::value_variants() {
        if run::is_interrupted() {
            bail!("interrupted");
        }
        if step == Step::Servers || !(only.is_empty() || only.contains(&step)) {
            continue;
        }
        heading(step);
        let start = Instant::now();
        let count = match Box::pin(one(step, &workspace, &servers, &mut shown_last)).await {
            Ok(count) if count.passed + count.failed > 0 => count,
            Ok(_) => {
                println!("{}: FAILED (it ran no test)", step.name());
                Count::one(false)
            }
            Err(error) => {
                println!("{}: FAILED ({error:#})", step.name());
                Count::one(false)
            }
        };
        reports.push(Report {
            step,
            count,
            time: start.elapsed(),
        });
    }
    if run::is_interrupted() {
        bail!("interrupted");
    }
    servers.print_and_judge();
    for line in shown_last.table {
        println!("{line}");
    }
    let is_good = summary(&reports);
    for line in shown_last.failures {
        println!("{line}");
    }
    Ok(is_good)
}

/// What would be lost in the output of everything else.
#[derive(Default)]
struct ShownLast {
    table: Vec<String>,
    failures: Vec<String>,
}

impl ShownLast {
    fn failures(&mut self, step: Step, failures: Failures) {
        let lines = failures.lines();
        if !lines.is_empty() {
            self.failures.push(format!("{}:", step.name()));
            self.failures.extend(lines);
        }
    }
}

fn heading(step: Step) {
    println!("\n=== {} ===", step.name());
}

/// Runs a step.
async fn one(step: Step, workspace: &Workspace, servers: &Servers, last: &mut ShownLast) -> Result<Count> {
    let (command, read): (_, fn(&mut Count, &str)) = match step {
        Step::Servers => return Ok(servers.count()),
        Step::Examples => return examples::run(workspace, servers.ready()).await,
        Step::Conformance => {
            let Results {
                count,
                table,
                failures,
            } = suites::run(workspace, servers).await?;
            last.table = table;
            last.failures(step, failures);
            return Ok(count);
        }
        Step::Tests => return Box::pin(tests(workspace, servers, last)).await,
        Step::Doctests => {
            let command = cargo(["test", "--doc", "--workspace", "--all-features", "--no-fail-fast"]);
            (command, Count::libtest)
        }
    };
    let (count, failures) = counted(command, servers, read).await?;
    last.failures(step, failures);
    Ok(count)
}

/// The package whose tests run on a server of each kind.
const CLI: &str = "leasehold-cli";

/// Everything but the conformance suites: nextest would start a process, and with it a server, for each trial.
async fn tests(workspace: &Workspace, servers: &Servers, last: &mut ShownLast) -> Result<Count> {
    if !host::has("cargo-nextest") {
        println!("cargo-nextest is not installed: using `cargo test`");
        let mut command = cargo([
            "test",
            "--workspace",
            "--all-features",
            "--no-fail-fast",
            "--lib",
            "--bins",
        ]);
        for name in workspace.named("test").into_iter().filter(|name| *name != SUITE) {
            command.args(["--test", name]);
        }
        let (count, failures) = counted(command, servers, Count::libtest).await?;
        last.failures(Step::Tests, failures);
        return Ok(count);
    }
    let (others, cli) = (format!("not package(={CLI})"), format!("package(={CLI})"));
    let (mut count, failures) = counted(nextest(&others), servers, Count::nextest).await?;
    last.failures(Step::Tests, failures);
    let mut command = nextest(&cli);
    // Each of these tests would start them anew, which takes longer than the test.
    let shared = servers.start_one_of_each().await;
    for (variable, server) in &shared {
        command.env(variable, server.url());
    }
    let (more, failures) = counted(command, servers, Count::nextest).await?;
    last.failures(Step::Tests, failures);
    count.add(more);
    Ok(count)
}

fn nextest(packages: &str) -> Command {
    cargo([
        "nextest",
        "run",
        "--workspace",
        "--all-features",
        "--no-fail-fast",
        // They mostly wait, for servers to start and for time to pass.
        &format!("--test-threads={}", 2 * suites::cores()),
        "-E",
        &format!("{packages} and not binary(={SUITE})"),
    ])
}

/// Runs a test command and counts what it reports. A failure that it does not report as a test, such as code
/// that does not compile, counts as one.
async fn counted(
    mut command: Command,
    servers: &Servers,
    read: fn(&mut Count, &str),
) -> Result<(Count, Failures)> {
    servers.tell(&mut command);
    if std::io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let (mut count, mut failures) = (Count::default(), Failures::default());
    let end = run::stream(command, Limits::minutes(45), |line| {
        read(&mut count, line);
        failures.read(line);
    });
    let end = end.await?;
    if !end.is_success() {
        println!("FAILED ({end})");
        count.failed = count.failed.max(1);
    }
    Ok((count, failures))
}

/// Prints the table; whether nothing failed.
fn summary(reports: &[Report]) -> bool {
    println!(
        "\n{:12} {:>8} {:>8} {:>8} {:>9}",
        "step", "passed", "failed", "skipped", "time"
    );
    let mut total = Count::default();
    for Report { step, count, time } in reports {
        let Count {
            passed,
            failed,
            ignored,
        } = count;
        println!(
            "{:12} {passed:>8} {failed:>8} {ignored:>8} {:>7.1} s",
            step.name(),
            time.as_secs_f64()
        );
        total.add(*count);
    }
    println!("\n{} passed, {} failed", total.passed, total.failed);
    total.failed == 0
}
