//! The two small parts that this program plays for itself in other processes, so that CMD does not outlive it.
//!
//! - `leasehold __exec PID -- CMD ARGS..` becomes CMD, after it has asked the kernel to kill it when process PID, its
//!   parent, dies (Linux).
//! - `leasehold __guard GROUP` waits for the end of its stdin, which only its parent has the other end of, and then kills
//!   the process group: what CMD has started. Its parent says a word before it ends in an orderly way.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::exit::{Code, Failure};
use crate::output;

const EXEC: &str = "__exec";
const GUARD: &str = "__guard";
/// What an orderly parent says.
const DISMISSED: u8 = b'.';

/// Plays the part that the first argument asks for, if it does.
pub(crate) fn entered() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    let part = args.next()?;
    let number = |text: Option<OsString>| Pid::from_raw(text?.to_str()?.parse().ok()?);
    if part == EXEC {
        let (parent, _dashes) = (number(args.next())?, args.next()?);
        return Some(become_command(parent, &args.collect::<Vec<_>>()));
    }
    (part == GUARD).then_some(())?;
    Some(guard(number(args.next())?))
}

/// A command line that runs `argv` and makes it die with this process; just `argv` where that cannot be had.
pub(crate) fn bound_to_us(argv: &[OsString]) -> Option<Command> {
    if !cfg!(any(target_os = "linux", target_os = "android")) {
        return None;
    }
    let mut command = ourselves().ok()?;
    command
        .args([EXEC, &std::process::id().to_string(), "--"])
        .args(argv);
    Some(command)
}

/// This program, to be run again.
fn ourselves() -> io::Result<Command> {
    let program = if cfg!(any(target_os = "linux", target_os = "android")) {
        // Not the path behind it: an upgrade may have put another program there, or none.
        PathBuf::from("/proc/self/exe")
    } else {
        env::current_exe()?
    };
    let mut command = Command::new(program);
    command.arg0("leasehold");
    Ok(command)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn die_with(parent: Pid) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before we asked.
    if rustix::process::getppid() != Some(parent) {
        return Err(io::Error::other("the process that holds the lock is gone"));
    }
    Ok(())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn die_with(_parent: Pid) -> io::Result<()> {
    Ok(())
}

fn become_command(parent: Pid, argv: &[OsString]) -> ExitCode {
    let Some((program, args)) = argv.split_first() else {
        return Code::Usage.into();
    };
    let error = match die_with(parent) {
        Ok(()) => Command::new(program).args(args).exec(),
        Err(error) => error,
    };
    let failure = cannot_run(program, &error);
    output::error(&failure);
    failure.code.into()
}

/// Why `program` cannot be run.
pub(crate) fn cannot_run(program: &OsStr, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::NotFound => Code::NotFound,
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => Code::System,
        _ => Code::NotExecutable,
    };
    Failure::new(code, format!("cannot run {}: {error}", program.display()))
}

fn guard(group: Pid) -> ExitCode {
    let mut word = [0];
    // An error is an end as well.
    let dismissed = matches!(io::stdin().read(&mut word), Ok(1)) && word[0] == DISMISSED;
    if !dismissed {
        kill_process_group(group, Signal::KILL).ok();
    }
    ExitCode::SUCCESS
}

/// A process that kills a process group when this one is killed.
#[derive(Debug)]
pub(crate) struct Guard(Option<Child>);

impl Guard {
    /// Watches over `group`. Without it CMD still dies with us where the kernel does that, and what CMD has started
    /// does not: no reason not to run CMD.
    pub(crate) fn over(group: Pid) -> Self {
        let started = ourselves().and_then(|mut command| {
            command
                .args([GUARD, &group.as_raw_nonzero().to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // Out of reach of Ctrl-C and of signals to CMD's group.
                .process_group(0)
                .spawn()
        });
        Self(started.ok())
    }

    /// Ends it. To be called while the group's id cannot be anybody else's.
    pub(crate) fn dismiss(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&[DISMISSED]).ok();
        }
        child.wait().ok();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.dismiss();
    }
}
