//! The `leasehold` program: runs a command under a distributed lock, shows who holds what, and frees it by force.

#[cfg(not(unix))]
compile_error!(
    "the program needs process groups and signals, which only Unix has; the libraries build everywhere"
);

mod args;
mod bench;
mod child;
mod doctor;
mod exit;
mod guardian;
mod help;
mod hold;
mod leash;
mod logging;
mod output;
mod pages;
mod place;
mod run;
mod signals;
mod status;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use exit::{Code, Failure};

fn main() -> ExitCode {
    if let Some(code) = guardian::entered().or_else(bench::entered) {
        return code;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let text = error.render().ansi().to_string();
            let text = text.replacen("error:", "leasehold:", 1);
            std::io::Write::write_all(&mut anstream::stderr(), text.as_bytes()).ok();
            return Code::Usage.into();
        }
        Err(help) => {
            return done(
                output::print(|out| write!(out, "{}", help.render().ansi())).map(|()| ExitCode::SUCCESS),
            );
        }
    };
    done(dispatch(cli))
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { common, command } = cli;
    let busy = matches!(command, Command::Bench(_));
    let work = async move {
        match command {
            Command::Bench(args) => return Box::pin(bench::bench(&common, &args)).await,
            Command::Run(args) => return run::run(&common, args).await,
            Command::Doctor(args) => return doctor::doctor(&common, &args).await,
            Command::Status(args) => status::status(&common, &args).await,
            Command::List(args) => status::list(&common, &args).await,
            Command::Release(args) => status::release(&common, &args).await,
            Command::Completions(args) => pages::completions(&args),
            Command::Man(args) => pages::man(&args),
        }
        .map(|()| ExitCode::SUCCESS)
    };
    // One thread: the signal that kills CMD with its parent is sent when the thread that started it ends, so that has
    // to be the main thread. A load is made by as many threads as the machine has.
    let mut runtime = match busy {
        true => tokio::runtime::Builder::new_multi_thread(),
        false => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::System, format!("cannot start: {error}")))?;
    let result = runtime.block_on(work);
    // A look-up of a host that does not answer would hold us up.
    runtime.shutdown_background();
    result
}

fn done(result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(|failure| {
        output::error(&failure);
        failure.code.into()
    })
}
