//! CMD as a process: started, signalled, waited for.

use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, ExitStatus};

use leasehold::Instant;
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_process, kill_process_group, waitid,
};
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::exit::{Code, Failure};
use crate::guardian::{self, Guard, Prey};
use crate::{output, signals};

/// The group of processes that CMD is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// One of its own: signals go to all that CMD has started.
    Own,
    /// Ours, the foreground group of the terminal. Only there may CMD read it; what is typed reaches CMD from it.
    Terminal,
}

impl Group {
    /// The one for a program that was started as we were.
    pub(crate) fn choose() -> Self {
        let stdin = std::io::stdin();
        if stdin.is_terminal() && tcgetpgrp(&stdin).is_ok_and(|group| group == getpgrp()) {
            Self::Terminal
        } else {
            Self::Own
        }
    }

    /// Does CMD get this signal from somebody else when we get it?
    pub(crate) fn gets_by_itself(self, signal: Signal) -> bool {
        self == Self::Terminal && [Signal::INT, Signal::QUIT].contains(&signal)
    }
}

/// A started CMD. Until it is reaped its process id is nobody else's, so a signal cannot hit a stranger.
pub(crate) struct Child {
    process: process::Child,
    pid: Pid,
    group: Group,
    guard: Guard,
    changes: Stream,
}

impl Child {
    /// Starts CMD. The calling thread has to live as long as CMD shall.
    pub(crate) fn start(
        argv: &[OsString],
        environment: &[(&str, String)],
        group: Group,
    ) -> Result<Self, Failure> {
        // First, so that it is there when CMD starts something.
        let mut guard = Guard::start();
        let system = |error: std::io::Error| Failure::new(Code::System, format!("cannot start CMD: {error}"));
        let changes = signal(SignalKind::child()).map_err(system)?;
        let (program, args) = argv
            .split_first()
            .ok_or_else(|| Failure::new(Code::Usage, "there is no command to run"))?;
        let start = |mut command: process::Command| {
            command.envs(environment.iter().map(|(name, value)| (name, value)));
            if group == Group::Own {
                command.process_group(0);
            }
            command.spawn()
        };
        let plain = || {
            let mut command = process::Command::new(program);
            command.args(args);
            start(command).map_err(|error| guardian::cannot_run(program, &error))
        };
        let process = match guardian::bound_to_us(argv, &guard).map(start) {
            Some(Ok(process)) => process,
            Some(Err(error)) => {
                let process = plain()?;
                output::note(format_args!(
                    "the kernel will not kill CMD with this program: cannot run /proc/self/exe: {error}"
                ));
                process
            }
            None => plain()?,
        };
        let pid = Pid::from_child(&process);
        guard.watch_over(match group {
            Group::Own => Prey::Group(pid),
            Group::Terminal => Prey::Process(pid),
        });
        Ok(Self {
            process,
            pid,
            group,
            guard,
            changes,
        })
    }

    /// Sends a signal to CMD, and to its group where it has one of its own.
    pub(crate) fn signal(&self, signal: Signal) {
        // It can only fail when CMD may not be signalled, having changed its user.
        let sent = match self.group {
            Group::Own => kill_process_group(self.pid, signal),
            Group::Terminal => kill_process(self.pid, signal),
        };
        if let Err(error) = sent {
            output::error(format_args!(
                "cannot send {} to CMD: {error}",
                signals::name(signal)
            ));
        }
    }

    /// CMD is killed at `deadline`, unless a later one is said before, even when this program is stopped then.
    pub(crate) fn may_run_until(&mut self, deadline: Instant) {
        self.guard.extend(deadline);
    }

    /// Comes when CMD has ended. It is not reaped by that.
    pub(crate) async fn ended(&mut self) {
        // A signal that came before is not lost: the stream was made before CMD.
        while !self.has_ended() {
            self.changes.recv().await;
        }
    }

    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // When it is not there to be waited for, it is not there.
        waitid(WaitId::Pid(self.pid), options).map_or(true, |status| status.is_some())
    }

    /// Takes note of CMD's end and waits for it if need be.
    pub(crate) fn reap(mut self) -> Result<ExitStatus, Failure> {
        self.guard.dismiss();
        self.process
            .wait()
            .map_err(|error| Failure::new(Code::System, format!("cannot tell how CMD ended: {error}")))
    }
}

/// CMD's exit status as a shell tells it.
pub(crate) fn exit_status(status: ExitStatus) -> u8 {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
