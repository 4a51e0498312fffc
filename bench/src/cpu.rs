//! The time that processes have had on a processor, and on which.

use std::fs;
use std::time::Duration;

/// Of `root` and all below it, those that have ended included. `None` where there is no `/proc`.
pub(crate) fn of_processes(root: u32) -> Option<Duration> {
    let ticks: u64 = tree(root)?.into_iter().map(|(_, ticks)| ticks).sum();
    let nanos = ticks.checked_mul(1_000_000_000 / rustix::param::clock_ticks_per_second())?;
    Some(Duration::from_nanos(nanos))
}

/// `root` and all below it, with their ticks.
fn tree(root: u32) -> Option<Vec<(u32, u64)>> {
    let processes: Vec<_> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| {
            let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let (parent, ticks) = parse(&stat)?;
            Some((pid, parent, ticks))
        })
        .collect();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = processes.iter().filter(|(_, of, _)| *of == parent);
        found.extend(children.map(|(pid, ..)| *pid));
        next += 1;
    }
    let ours = processes.into_iter().filter(|(pid, ..)| found.contains(pid));
    Some(ours.map(|(pid, _, ticks)| (pid, ticks)).collect())
}

/// Keeps `root` and all below it off the last processor that this process may use, or lets them go anywhere again. Where
/// that is not possible, or there is no other processor, nothing changes.
#[cfg(target_os = "linux")]
pub(crate) fn keep_off_the_last(root: u32, off: bool) {
    use rustix::process::Pid;
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(mut allowed) = sched_getaffinity(Pid::from_raw(std::process::id().cast_signed())) else {
        return;
    };
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu));
    if let Some(last) = last.filter(|_| off && allowed.count() > 1) {
        allowed.unset(last);
    }
    for (pid, _) in tree(root).unwrap_or_default() {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
        for thread in threads.flatten() {
            let id = thread.file_name().to_str().and_then(|id| id.parse().ok());
            if let Some(id) = id.and_then(Pid::from_raw) {
                // One that has ended meanwhile needs no place.
                sched_setaffinity(Some(id), &allowed).ok();
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn keep_off_the_last(_root: u32, _off: bool) {}

/// Parent and ticks: its own, and those of its children that have ended. The name, in parentheses, may have spaces and
/// parentheses.
fn parse(stat: &str) -> Option<(u32, u64)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let words: Vec<_> = rest.split(' ').collect();
    let parent = words.get(1)?.parse().ok()?;
    let ticks = words
        .get(11..15)?
        .iter()
        .map(|word| word.parse::<u64>().unwrap_or(0));
    Some((parent, ticks.sum()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read_behind_any_name() {
        let stat = "7 (a ) b) S 3 7 7 0 -1 4194304 1 2 3 4 10 20 30 40 20 0 1 0 5 6 7";
        assert_eq!(parse(stat), Some((3, 100)));
        assert_eq!(parse("nothing"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_server_is_kept_off_the_last_processor() {
        use rustix::process::Pid;
        use rustix::thread::sched_getaffinity;
        let mut server = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let processors = || {
            let id = Pid::from_raw(server.id().cast_signed());
            sched_getaffinity(id).unwrap().count()
        };
        let all = processors();
        keep_off_the_last(server.id(), true);
        assert_eq!(processors(), (all - 1).max(1));
        keep_off_the_last(server.id(), false);
        assert_eq!(processors(), all);
        server.kill().unwrap();
        server.wait().unwrap();
    }

    #[test]
    fn this_process_has_had_some() {
        let before = of_processes(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while of_processes(std::process::id()).unwrap() == before {
            sum = (0..1_000_000_u64).fold(sum, |sum, number| sum.rotate_left(1) ^ number);
        }
        assert_ne!(sum, 1);
    }
}
