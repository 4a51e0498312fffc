//! A server that is a child process of ours, with a folder of its own.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};

use tempfile::TempDir;

use super::{ServerError, reaper::Reaper};

#[derive(Debug)]
pub(super) struct Process {
    program: PathBuf,
    args: Vec<String>,
    /// `None` while it is stopped.
    running: Mutex<Option<Running>>,
    /// Last, so that the process is gone before its folder.
    folder: TempDir,
}

#[derive(Debug)]
struct Running {
    child: Child,
    _reaper: Reaper,
}

/// The path of a program, from `PATH` and the folders of system programs that users often lack there.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/bin", "/usr/bin", "/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}

pub(super) fn folder() -> Result<TempDir, ServerError> {
    tempfile::Builder::new()
        .prefix("leasehold-test-")
        .tempdir()
        .map_err(ServerError::io("make a folder for the server"))
}

impl Process {
    pub(super) fn start(program: PathBuf, args: Vec<String>, folder: TempDir) -> Result<Self, ServerError> {
        let process = Self {
            program,
            args,
            running: Mutex::new(None),
            folder,
        };
        process.start_again()?;
        Ok(process)
    }

    pub(super) fn start_again(&self) -> Result<(), ServerError> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if running.is_some() {
            return Ok(());
        }
        let action = || format!("start {}", self.program.display());
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log_file())
            .map_err(ServerError::io("open the server's log"))?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
            .stderr(
                log.try_clone()
                    .map_err(ServerError::io("open the server's log"))?,
            )
            .stdout(log);
        // A group of its own: Ctrl-C at the terminal is for the test, which then stops its server.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut child = command.spawn().map_err(ServerError::io(action()))?;
        match Reaper::of_process(child.id(), self.folder.path()) {
            Ok(reaper) => {
                *running = Some(Running {
                    child,
                    _reaper: reaper,
                })
            }
            Err(error) => {
                end(&mut child);
                return Err(ServerError::io("start the watcher of a server")(error));
            }
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) fn stop(&self) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Running { mut child, _reaper }) = running {
            end(&mut child);
        }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .as_ref()
            .map(|running| running.child.id())
    }

    /// Whether it ended by itself, as it does on a bad argument or a taken port.
    pub(super) fn has_ended(&self) -> bool {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running
            .as_mut()
            .is_some_and(|running| matches!(running.child.try_wait(), Ok(Some(_))))
    }

    #[cfg(unix)]
    pub(super) fn signal(&self, signal: Signal) -> Result<(), ServerError> {
        use rustix::process::{Pid, Signal as Unix, kill_process};
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the process cannot be waited for, and its id given away, meanwhile.
        let Some(pid) = running
            .as_ref()
            .and_then(|running| i32::try_from(running.child.id()).ok())
        else {
            return Ok(());
        };
        let (signal, action) = match signal {
            Signal::Pause => (Unix::STOP, "pause the server"),
            Signal::Resume => (Unix::CONT, "resume the server"),
        };
        let Some(pid) = Pid::from_raw(pid) else {
            return Ok(());
        };
        kill_process(pid, signal).map_err(|error| ServerError::io(action)(error.into()))
    }

    #[cfg(not(unix))]
    pub(super) fn signal(&self, _: Signal) -> Result<(), ServerError> {
        let action = "pause a process";
        Err(ServerError::io(action)(std::io::ErrorKind::Unsupported.into()))
    }

    /// The end of what it wrote to its log.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().rev().take(8).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }
}

/// What can be done to a running server short of ending it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    Pause,
    Resume,
}

fn end(child: &mut Child) {
    // Both fail only when it has ended and been waited for, which is what is wanted.
    child.kill().ok();
    child.wait().ok();
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}
