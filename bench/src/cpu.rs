//! The time that processes have had on a processor.

use std::fs;
use std::time::Duration;

/// Of `root` and all below it, those that have ended included. `None` where there is no `/proc`.
pub(crate) fn of_processes(root: u32) -> Option<Duration> {
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
    let ours = processes.iter().filter(|(pid, ..)| found.contains(pid));
    let ticks: u64 = ours.map(|(.., ticks)| ticks).sum();
    let nanos = ticks.checked_mul(1_000_000_000 / rustix::param::clock_ticks_per_second())?;
    Some(Duration::from_nanos(nanos))
}

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
