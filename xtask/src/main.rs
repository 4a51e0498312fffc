//! The project's own commands: `cargo xtask test` gets the test servers and runs everything,
//! `cargo xtask servers` only gets the servers and prints what will be used.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]
#![expect(clippy::disallowed_methods, reason = "steps of a build live in real time")]

mod count;
mod docker;
mod examples;
mod failures;
mod host;
mod image;
mod run;
mod servers;
mod steps;
mod suites;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own build and test commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Get the test servers and run every test; the last line is `N passed, N failed`
    Test {
        /// Run only this step; may be given several times
        #[arg(long, value_name = "STEP")]
        only: Vec<steps::Step>,
        /// Name the steps and stop
        #[arg(long)]
        list: bool,
    },
    /// Get the test servers (pull or build images, install programs) and print which will be used
    Servers,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let passed = match Arguments::parse().command {
        Command::Test { list: true, .. } => {
            steps::list();
            true
        }
        Command::Test { only, .. } => Box::pin(steps::test(&only)).await?,
        Command::Servers => Box::pin(servers::get()).await?.print_and_judge(),
    };
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
