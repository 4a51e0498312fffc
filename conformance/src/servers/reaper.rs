//! A watcher process that cleans up after a test process that was killed.

use std::{
    io,
    process::{Child, Command, Stdio},
};

/// A small shell that waits for the end of its standard input, which comes when this process ends for whatever
/// reason, SIGKILL included, and then runs a command. Dropping the reaper calls it off.
///
/// A parent-death signal would not do: Linux sends it when the *thread* that started the child ends, and tests
/// start servers on threads that come and go.
#[derive(Debug)]
pub(super) struct Reaper(Child);

impl Reaper {
    /// Kills a process with what it started and removes its folder.
    pub(super) fn of_process(pid: u32, folder: &std::path::Path) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        let script =
            r#"read -r _; kill -9 "$1" $(cat /proc/$1/task/*/children); umount -l "$2/data"; rm -rf "$2""#;
        shell.args(["-c", script, "reaper"]);
        shell.arg(pid.to_string()).arg(folder);
        Self::spawn(shell)
    }

    /// Removes the containers with this label, and their volumes, where there is a `docker` program.
    pub(super) fn of_containers(label: &str) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        let script = r#"read -r _; docker ps -aq --filter "label=$1" | xargs docker rm -fv"#;
        shell.args(["-c", script, "reaper", label]);
        Self::spawn(shell)
    }

    fn spawn(mut shell: Command) -> io::Result<Self> {
        shell
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // A group of its own: what ends the test's whole group must not end its reaper.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut shell, 0);
        shell.spawn().map(Self)
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        // Killed before its input closes, so that it never sees the end.
        let killed = self.0.kill();
        debug_assert!(killed.is_ok(), "reaper: {killed:?}");
        self.0.wait().ok();
    }
}
