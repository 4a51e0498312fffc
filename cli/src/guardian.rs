//! The two small parts that this program plays for itself in other processes, so that CMD never outlives its lock.
//!
//! - `leasehold __exec PID FD -- CMD ARGS..` becomes CMD, after it has asked the kernel to kill it when process PID, its
//!   parent, dies, and has told the guard at its parent's descriptor FD whom to kill (Linux): what CMD starts must not
//!   be there before the guard knows of CMD.
//! - `leasehold __guard` kills CMD, and where it may all of its process group, when its parent is gone, and when the
//!   lock's deadline has passed: its parent may be stopped and unable to do it. It reads from its stdin, of which only the
//!   parent has the other end, messages of eight bytes: whom to kill, then deadlines on the clock of [`Env`]. Zero is an
//!   orderly end.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitCode, Stdio};

use leasehold::{Env, Instant};
use rustix::process::{Pid, Signal, getpgrp, getpid, kill_process, kill_process_group};
use tokio::net::unix::pipe::Receiver;

use crate::exit::{Code, Failure};
use crate::output;

const EXEC: &str = "__exec";
const GUARD: &str = "__guard";
/// What an orderly parent says at the end.
const DISMISSED: [u8; 8] = [0; 8];
/// Does the kernel kill CMD when its parent dies?
const KERNEL_KILLS: bool = cfg!(any(target_os = "linux", target_os = "android"));

/// Plays the part that the first argument asks for, if it does.
pub(crate) fn entered() -> Option<ExitCode> {
    let mut args = env::args_os().skip(1);
    let part = args.next()?;
    if part == EXEC {
        let (parent, guard, _dashes) = (number(args.next())?, args.next()?, args.next()?);
        return Some(become_command(parent, &guard, &args.collect::<Vec<_>>()));
    }
    (part == GUARD).then(guard)
}

fn number(text: Option<OsString>) -> Option<Pid> {
    Pid::from_raw(text?.to_str()?.parse().ok()?)
}

/// A command line that runs `argv`, watched over by `guard`, and makes it die with this process; `None` where that cannot
/// be had.
pub(crate) fn bound_to_us(argv: &[OsString], guard: &Guard) -> Option<Command> {
    if !KERNEL_KILLS {
        return None;
    }
    let mut command = ourselves().ok()?;
    let guard = guard.pipe().map_or(-1, AsRawFd::as_raw_fd);
    command
        .args([EXEC, &std::process::id().to_string(), &guard.to_string(), "--"])
        .args(argv);
    Some(command)
}

/// This program, to be run again.
pub(crate) fn ourselves() -> io::Result<Command> {
    let program = if KERNEL_KILLS {
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

fn become_command(parent: Pid, guard: &OsStr, argv: &[OsString]) -> ExitCode {
    let Some((program, args)) = argv.split_first() else {
        return Code::Usage.into();
    };
    let error = match die_with(parent) {
        Ok(()) => {
            // Where `/proc` is closed to us, the parent alone tells it.
            tell_guard(parent, guard).ok();
            Command::new(program).args(args).exec()
        }
        Err(error) => error,
    };
    let failure = cannot_run(program, &error);
    output::error(&failure);
    failure.code.into()
}

/// Says to the guard that CMD is who we are.
fn tell_guard(parent: Pid, guard: &OsStr) -> io::Result<()> {
    let pipe = Path::new("/proc").join(parent.to_string()).join("fd").join(guard);
    let (us, group) = (getpid(), getpgrp());
    let prey = if us == group {
        Prey::Group(us)
    } else {
        Prey::Process(us)
    };
    OpenOptions::new()
        .write(true)
        .open(pipe)?
        .write_all(&prey.to_message())
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

/// What a guard kills.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prey {
    /// A process group.
    Group(Pid),
    /// A process, because its group has others in it.
    Process(Pid),
}

impl Prey {
    /// As for `kill(2)`: a group's id is negative.
    fn from_message(message: [u8; 8]) -> Option<Self> {
        let id = i32::try_from(i64::from_ne_bytes(message)).ok()?;
        match id.signum() {
            1 => Pid::from_raw(id).map(Self::Process),
            _ => Pid::from_raw(id.checked_neg()?).map(Self::Group),
        }
    }

    fn to_message(self) -> [u8; 8] {
        let id = match self {
            Self::Group(id) => -id.as_raw_nonzero().get(),
            Self::Process(id) => id.as_raw_nonzero().get(),
        };
        i64::from(id).to_ne_bytes()
    }

    fn kill(self) {
        // It fails when there is nobody left.
        match self {
            Self::Group(id) => kill_process_group(id, Signal::KILL).ok(),
            Self::Process(id) => kill_process(id, Signal::KILL).ok(),
        };
    }
}

fn guard() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let mut prey = None;
    let end = runtime.and_then(|runtime| runtime.block_on(watch(&mut prey)));
    match (end, prey) {
        (Ok(End::Dismissed), _) | (_, None) => {}
        // The process is killed by the kernel then, and its id may be somebody else's by now.
        (Ok(End::Orphaned), Some(Prey::Process(_))) if KERNEL_KILLS => {}
        (Ok(End::Orphaned | End::Overdue) | Err(_), Some(prey)) => prey.kill(),
    }
    ExitCode::SUCCESS
}

/// How a guard's time ends.
enum End {
    Dismissed,
    /// The parent is gone.
    Orphaned,
    /// The deadline has passed, and the parent is there: its end would have been seen first.
    Overdue,
}

async fn watch(prey: &mut Option<Prey>) -> io::Result<End> {
    let env = Env::system();
    let pipe = Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
    let mut deadline = Instant::FAR_FUTURE;
    loop {
        tokio::select! {
            biased;
            readable = pipe.readable() => readable?,
            () = env.sleep_until(deadline) => return Ok(End::Overdue),
        }
        let mut message = [0; 8];
        match pipe.try_read(&mut message) {
            Ok(0) => return Ok(End::Orphaned),
            Ok(_) if message == DISMISSED => return Ok(End::Dismissed),
            Ok(_) if prey.is_none() => *prey = Prey::from_message(message),
            // Told by CMD and by its parent.
            Ok(_) if *prey == Prey::from_message(message) => {}
            Ok(_) => deadline = Instant::from_nanos(u64::from_ne_bytes(message)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// A process that kills CMD when this one cannot.
#[derive(Debug)]
pub(crate) struct Guard {
    process: Option<Child>,
    told: Instant,
}

impl Guard {
    /// Starts it. A guard that cannot be had is no reason not to run CMD.
    pub(crate) fn start() -> Self {
        let started = ourselves().and_then(|mut command| {
            command
                .arg(GUARD)
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                // Out of reach of Ctrl-C and of signals to CMD's group.
                .process_group(0)
                .spawn()
        });
        if let Err(error) = &started {
            output::note(format_args!(
                "nobody watches over CMD should this program be stopped or killed: {error}"
            ));
        }
        let guard = Self {
            process: started.ok(),
            told: Instant::default(),
        };
        if let Some(pipe) = guard.pipe() {
            // One that does not read must not hold us up.
            rustix::io::ioctl_fionbio(pipe, true).ok();
        }
        guard
    }

    /// Says what to kill.
    pub(crate) fn watch_over(&mut self, prey: Prey) {
        self.tell(prey.to_message());
    }

    /// CMD may run until `deadline`.
    pub(crate) fn extend(&mut self, deadline: Instant) {
        if deadline != self.told {
            self.told = deadline;
            self.tell(deadline.as_nanos().to_ne_bytes());
        }
    }

    fn pipe(&self) -> Option<&ChildStdin> {
        self.process.as_ref()?.stdin.as_ref()
    }

    fn tell(&mut self, message: [u8; 8]) {
        // Eight bytes go through a pipe as a whole.
        if let Some(mut pipe) = self.pipe() {
            pipe.write_all(&message).ok();
        }
    }

    /// Ends it. To be called while CMD's ids cannot be anybody else's.
    pub(crate) fn dismiss(&mut self) {
        self.tell(DISMISSED);
        if let Some(mut process) = self.process.take() {
            // Killed, lest one that does not read be waited for.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.dismiss();
    }
}
