//! The clock that ends leases, and the boot that it belongs to.

use std::fs;
use std::time::UNIX_EPOCH;

use lockcore::{Env, ExpiryClock};

/// A clock that all processes of this machine share.
///
/// On Linux it is `CLOCK_BOOTTIME`, which nobody can step and which goes on in suspend, with the kernel's boot id; on
/// macOS the continuous clock with the boot session's UUID. Where no boot id can be had it is the wall clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootClock {
    /// Names the boot; a fixed word for the wall clock, which outlives boots.
    pub(crate) boot: String,
    /// By how much a time namespace has moved this process's clock, in ns.
    shift: i64,
    wall: bool,
}

impl BootClock {
    pub(crate) fn detect() -> Self {
        boot_id().map_or_else(
            || Self {
                boot: "any".to_owned(),
                shift: 0,
                wall: true,
            },
            |boot| Self {
                boot,
                shift: fs::read_to_string("/proc/self/timens_offsets").map_or(0, |text| shift(&text)),
                wall: false,
            },
        )
    }

    /// Nanoseconds on this clock.
    pub(crate) fn now(&self, env: &Env) -> i64 {
        if self.wall {
            let since = env.wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
            return i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        }
        let now = i64::try_from(env.now().as_nanos()).unwrap_or(i64::MAX);
        now.saturating_sub(self.shift)
    }

    /// What the file says about the clock that it was written with.
    pub(crate) const fn name(&self) -> &'static str {
        if self.wall { "wall" } else { "boot" }
    }

    pub(crate) const fn kind(&self) -> ExpiryClock {
        if self.wall {
            ExpiryClock::ServerWall
        } else {
            ExpiryClock::Boot
        }
    }
}

fn boot_id() -> Option<String> {
    let id = if cfg!(any(target_os = "linux", target_os = "android")) {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?
    } else if cfg!(target_os = "macos") {
        let output = std::process::Command::new("/usr/sbin/sysctl")
            .args(["-n", "kern.bootsessionuuid"])
            .output()
            .ok()?;
        String::from_utf8(output.stdout).ok()?
    } else {
        return None;
    };
    let id = id.trim();
    (!id.is_empty()).then(|| id.to_owned())
}

/// Reads the line `boottime SECONDS NANOSECONDS`; see time_namespaces(7).
fn shift(offsets: &str) -> i64 {
    let fields = |line: &str| {
        let mut fields = line.strip_prefix("boottime")?.split_whitespace();
        let seconds: i64 = fields.next()?.parse().ok()?;
        let nanos: i64 = fields.next()?.parse().ok()?;
        seconds.checked_mul(1_000_000_000)?.checked_add(nanos)
    };
    offsets.lines().find_map(fields).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_namespace_is_taken_out() {
        assert_eq!(shift("monotonic 0 0\nboottime           0         0\n"), 0);
        assert_eq!(shift("monotonic 5 0\nboottime  -3   500000000\n"), -2_500_000_000);
        assert_eq!(shift(""), 0);
        assert_eq!(shift("boottime x y"), 0);
    }

    #[tokio::test]
    async fn every_process_of_a_boot_has_one_clock() {
        let (a, b) = (BootClock::detect(), BootClock::detect());
        assert_eq!(a, b);
        let env = Env::system();
        let first = a.now(&env);
        assert!(first > 0 && b.now(&env) >= first);
    }
}
