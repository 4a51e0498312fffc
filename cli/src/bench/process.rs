//! Clients in processes of their own: this program again, with the URL in its environment.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use leasehold_measure::{Contender, Launch, serve};

use super::target::Target;
use crate::exit::{Code, Failure};
use crate::{guardian, output};

const CLIENT: &str = "__client";
const URL: &str = "LEASEHOLD_URL";

/// Starts clients of the contenders of a run.
#[derive(Debug)]
pub(super) struct Processes(Vec<Target>);

impl Processes {
    pub(super) const fn new(targets: Vec<Target>) -> Self {
        Self(targets)
    }
}

impl Launch for Processes {
    fn command(&self, contender: &dyn Contender) -> Option<Command> {
        let mut targets = self.0.iter();
        let target = targets.find(|target| target.label() == contender.backend())?;
        if target.is_in_this_process() {
            return None;
        }
        let mut command = guardian::ourselves().ok()?;
        // A group of its own: Ctrl-C is ours, who tell it when to end.
        command.arg(CLIENT).env(URL, target.url()).process_group(0);
        Some(command)
    }
}

/// Plays such a client, if the first argument says so.
pub(crate) fn entered() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != CLIENT {
        return None;
    }
    Some(match client() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::error(&failure);
            failure.code.into()
        }
    })
}

fn client() -> Result<(), Failure> {
    let url = std::env::var(URL)
        .map_err(|_| Failure::new(Code::Usage, "this is started by `leasehold bench` alone"))?;
    let internal = |error: &dyn std::fmt::Display| Failure::new(Code::Internal, error.to_string());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Code::System, format!("cannot start: {error}")))?;
    let target = {
        let _inside = runtime.enter();
        Target::new(&url)?
    };
    let served = runtime.block_on(serve(&target.contender()));
    runtime.shutdown_background();
    served.map_err(|error| internal(&error))
}
