//! A server that is a child process of ours, with a folder of its own.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use tempfile::TempDir;
use tokio::time::timeout;

use super::{
    ServerError,
    clock::WallClock,
    disk::Disk,
    engine::{Before, Recipe, excerpt},
    reaper::Reaper,
    tree,
    user::{self, User},
};

#[derive(Debug)]
pub(super) struct Process {
    /// What a person knows it by.
    program: PathBuf,
    command: Vec<String>,
    env: Vec<(&'static str, String)>,
    user: Option<User>,
    asked_to_quit: bool,
    /// `None` while it is stopped.
    running: Mutex<Option<Running>>,
    disk: Option<Disk>,
    clock: Option<WallClock>,
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

/// A folder for a server; in memory, if that is wanted and the machine has plenty.
pub(super) fn folder(in_memory: bool) -> Result<TempDir, ServerError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("leasehold-test-");
    let memory = in_memory.then(memory).flatten();
    let folder = memory.and_then(|memory| builder.tempdir_in(memory).ok());
    folder
        .map_or_else(|| builder.tempdir(), Ok)
        .map_err(ServerError::io("make a folder for the server"))
}

/// A file system in memory, with room for a cluster.
fn memory() -> Option<&'static Path> {
    const ENOUGH: u64 = 2 << 30;
    let memory = Path::new("/dev/shm");
    #[cfg(unix)]
    let free = rustix::fs::statvfs(memory).map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    #[cfg(not(unix))]
    let free = 0;
    (free >= ENOUGH).then_some(memory)
}

impl Process {
    /// Writes the recipe's files, runs what has to run before, and starts the server, all of it as `user`.
    pub(super) async fn start(
        program: PathBuf,
        mut recipe: Recipe,
        folder: TempDir,
        (user, disk, clock): (Option<User>, Option<Disk>, Option<WallClock>),
    ) -> Result<Self, ServerError> {
        recipe
            .env
            .extend(clock.iter().flat_map(|clock| clock.env(folder.path())));
        for (path, content) in &recipe.files {
            fs::write(path, content).map_err(ServerError::io(format!("write {path}")))?;
        }
        user::own_all(folder.path(), user)
            .map_err(ServerError::io("give the folder to the server's user"))?;
        for before in recipe.before {
            fill(before, folder.path(), user).await?;
        }
        let process = Self {
            program,
            command: recipe.command,
            env: recipe.env,
            user,
            asked_to_quit: recipe.asked_to_quit,
            running: Mutex::new(None),
            disk,
            clock,
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
        let mut words = self.command.iter();
        let mut command = Command::new(words.next().map_or("", String::as_str));
        command
            .args(words)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        user::become_user(&mut command, self.user);
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
            // What it started must be gone, too: a server that comes back on its data refuses to share them.
            let others = tree::stop(child.id());
            end(&mut child);
            tree::end(&others);
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
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that the process cannot be waited for, and its id given away, meanwhile.
        let Some(pid) = running.as_ref().map(|running| running.child.id()) else {
            return Ok(());
        };
        match signal {
            Signal::Pause => tree::pause(pid).map_err(ServerError::io("pause the server")),
            Signal::Resume => tree::resume(pid).map_err(ServerError::io("resume the server")),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn signal(&self, _: Signal) -> Result<(), ServerError> {
        let action = "pause a process";
        Err(ServerError::io(action)(std::io::ErrorKind::Unsupported.into()))
    }

    /// The beginning and the end of what it wrote to its log.
    pub(super) fn log_excerpt(&self) -> String {
        excerpt(&fs::read(self.log_file()).unwrap_or_default())
    }

    pub(super) fn disk(&self) -> Option<&Disk> {
        self.disk.as_ref()
    }

    pub(super) fn clock(&self) -> Option<&WallClock> {
        self.clock.as_ref()
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

/// How long filling a data folder may take.
const FILL_LIMIT: Duration = Duration::from_secs(120);

/// What a program prints.
pub(super) async fn output_of(command: &[String]) -> Result<String, ServerError> {
    let name = command.join(" ");
    let mut words = command.iter();
    let mut program = tokio::process::Command::new(words.next().map_or("", String::as_str));
    let running = program.args(words).kill_on_drop(true).output();
    let output = timeout(FILL_LIMIT, running).await;
    let output = output.unwrap_or_else(|late| Err(late.into()));
    let output = output.map_err(ServerError::io(format!("run `{name}`")))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How often, ten milliseconds apart, we look whether a process that was asked to quit is gone.
const QUIT_LOOKS: u32 = 200;

/// Runs a program that fills the data folder.
async fn fill(before: Before, folder: &Path, user: Option<User>) -> Result<(), ServerError> {
    let name = before.command.join(" ");
    let failed = |source| ServerError::Io {
        action: format!("run `{name}`"),
        source,
    };
    let input = folder.join("input");
    fs::write(&input, &before.input).map_err(failed)?;
    let mut words = before.command.iter();
    let mut command = Command::new(words.next().map_or("", String::as_str));
    command.args(words).current_dir(folder);
    command.stdin(fs::File::open(&input).map_err(failed)?);
    user::become_user(&mut command, user);
    let mut command = tokio::process::Command::from(command);
    let running = command.kill_on_drop(true).output();
    let output = timeout(FILL_LIMIT, running).await;
    let output = output.map_err(|late| failed(late.into()))?.map_err(failed)?;
    fs::remove_file(&input).map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    Err(failed(io::Error::other(format!(
        "{}: {}",
        output.status,
        said.trim()
    ))))
}

fn end(child: &mut Child) {
    // Both fail only when it has ended and been waited for, which is what is wanted.
    child.kill().ok();
    child.wait().ok();
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.asked_to_quit
            && let Some(pid) = self.pid()
        {
            tree::ask_to_quit(pid);
            let mut looks = 0..QUIT_LOOKS;
            while !self.has_ended() && looks.next().is_some() {
                thread::sleep(Duration::from_millis(10));
            }
        }
        self.stop();
    }
}
