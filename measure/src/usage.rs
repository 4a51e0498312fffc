//! What this process has used of the machine.

use std::time::Duration;

/// Time of this process on a processor, where the system tells.
#[cfg(unix)]
pub(crate) fn cpu() -> Option<Duration> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (
        u64::try_from(time.tv_sec).ok()?,
        u32::try_from(time.tv_nsec).ok()?,
    );
    Some(Duration::new(seconds, nanos))
}

#[cfg(not(unix))]
pub(crate) fn cpu() -> Option<Duration> {
    None
}

/// Resident memory of this process in bytes, without pages of files, which are there for any number of locks; where the
/// system tells.
#[cfg(target_os = "linux")]
pub(crate) fn memory() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = statm.split(' ').skip(1).map(str::parse::<u64>);
    let (resident, of_files) = (pages.next()?.ok()?, pages.next()?.ok()?);
    let pages = resident.saturating_sub(of_files);
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn memory() -> Option<u64> {
    None
}

/// Keeps this thread, and those that it starts, to the last of the processors that it may use, where the system can. Who is
/// woken by turns with a server is otherwise put beside it or not, as the scheduler likes: on a virtual machine that is a
/// difference of several times, between runs of the same program.
#[cfg(target_os = "linux")]
pub(crate) fn keep_to_one_processor() {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    if let Some(last) = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)) {
        let mut one = CpuSet::new();
        one.set(last);
        // Where that is not allowed, it is measured as it comes.
        sched_setaffinity(None, &one).ok();
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn keep_to_one_processor() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_uses_something() {
        let before = cpu().unwrap();
        let block = vec![1_u8; 32 << 20];
        assert!(memory().unwrap() >= 32 << 20);
        assert!(block.iter().map(|byte| u64::from(*byte)).sum::<u64>() == 32 << 20);
        assert!(cpu().unwrap() > before);
    }

    #[test]
    fn a_thread_is_kept_to_one_processor() {
        let count = || rustix::thread::sched_getaffinity(None).unwrap().count();
        let before = count();
        let kept = std::thread::spawn(move || {
            keep_to_one_processor();
            count()
        });
        assert_eq!(kept.join().unwrap(), 1);
        assert_eq!(count(), before, "the others go where they like");
    }
}
