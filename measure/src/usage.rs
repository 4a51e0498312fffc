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

/// Resident memory of this process in bytes, where the system tells.
#[cfg(target_os = "linux")]
pub(crate) fn memory() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split(' ').nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn memory() -> Option<u64> {
    None
}

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
}
