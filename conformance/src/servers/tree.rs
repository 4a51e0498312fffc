//! Signals for a server with all the processes that it started: PostgreSQL has one for each connection, and each in a
//! group of its own.

#[cfg(unix)]
pub(crate) use unix::stopped;
#[cfg(unix)]
pub(super) use unix::{ask_to_quit, end, pause, resume, stop};

#[cfg(unix)]
mod unix {
    use std::{
        fs, io,
        path::{Path, PathBuf},
        thread,
        time::Duration,
    };

    use rustix::process::{Pid, Signal, kill_process};

    /// How long processes that were killed may take to go, and stopped ones to stand.
    const LOOKS: u32 = 500;

    pub(in super::super) fn pause(root: u32) -> io::Result<()> {
        send(root, Signal::STOP)?;
        for pid in below(root) {
            // One that ended meanwhile is as good as paused.
            send(pid, Signal::STOP).ok();
        }
        stopped(root);
        Ok(())
    }

    /// Waits until every thread of the process, and of those that it started, has come to a stop: SIGSTOP is only on its
    /// way when it has been sent, and on a busy machine a thread goes on for a while. No wait where there is no `/proc`.
    pub(crate) fn stopped(root: u32) {
        let mut pids = below(root);
        pids.push(root);
        let mut looks = 0..LOOKS;
        while pids.iter().any(|pid| moves(*pid)) && looks.next().is_some() {
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(in super::super) fn resume(root: u32) -> io::Result<()> {
        for pid in below(root) {
            send(pid, Signal::CONT).ok();
        }
        send(root, Signal::CONT)
    }

    /// SIGQUIT, paused or not.
    pub(in super::super) fn ask_to_quit(root: u32) {
        resume(root).ok();
        send(root, Signal::QUIT).ok();
    }

    /// Keeps the first one from starting more; all that it started.
    pub(in super::super) fn stop(root: u32) -> Vec<u32> {
        send(root, Signal::STOP).ok();
        below(root)
    }

    /// Kills them, and waits until they are gone.
    pub(in super::super) fn end(pids: &[u32]) {
        for pid in pids {
            send(*pid, Signal::KILL).ok();
        }
        let mut looks = 0..LOOKS;
        while pids.iter().any(|pid| runs(*pid)) && looks.next().is_some() {
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn send(pid: u32, signal: Signal) -> io::Result<()> {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(kill_process(pid, signal)?)
    }

    /// The children of `root`, and theirs. None where there is no `/proc`.
    fn below(root: u32) -> Vec<u32> {
        let processes: Vec<_> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
                Some((pid, status(pid)?.1))
            })
            .collect();
        let mut found = vec![root];
        let mut next = 0;
        while let Some(parent) = found.get(next).copied() {
            let children = processes.iter().filter(|(_, of)| *of == parent);
            found.extend(children.map(|(pid, _)| *pid));
            next += 1;
        }
        found.split_off(1)
    }

    /// Whether it is there and not just waiting to be waited for.
    fn runs(pid: u32) -> bool {
        status(pid).is_some_and(|(state, _)| !"ZX".contains(state))
    }

    /// Whether a thread of it is neither stopped nor gone.
    fn moves(pid: u32) -> bool {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        threads.into_iter().flatten().flatten().any(|thread| {
            let status = status_of(&thread.path());
            status.is_some_and(|(state, _)| !"TtZX".contains(state))
        })
    }

    fn status(pid: u32) -> Option<(char, u32)> {
        status_of(&PathBuf::from(format!("/proc/{pid}")))
    }

    /// State and parent of a process or thread. Its name, in parentheses, may have spaces and parentheses.
    fn status_of(folder: &Path) -> Option<(char, u32)> {
        let text = fs::read_to_string(folder.join("stat")).ok()?;
        let (_, rest) = text.rsplit_once(") ")?;
        let mut words = rest.split(' ');
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn grandchildren_are_found_and_ended() {
            let mut shell = std::process::Command::new("sh")
                .args(["-c", "sh -c 'sleep 60; :' & sleep 60"])
                .spawn()
                .unwrap();
            while below(shell.id()).len() < 3 {
                thread::sleep(Duration::from_millis(10));
            }
            let all = || below(shell.id()).into_iter().chain([shell.id()]);
            assert!(all().all(moves));
            pause(shell.id()).unwrap();
            assert!(!all().any(moves));
            resume(shell.id()).unwrap();
            let others = stop(shell.id());
            assert_eq!(others.len(), 3);
            shell.kill().unwrap();
            shell.wait().unwrap();
            end(&others);
            assert!(!others.into_iter().any(runs));
        }
    }
}

#[cfg(not(unix))]
pub(super) fn ask_to_quit(_: u32) {}

#[cfg(not(unix))]
pub(super) fn stop(_: u32) -> Vec<u32> {
    Vec::new()
}

#[cfg(not(unix))]
pub(super) fn end(_: &[u32]) {}
