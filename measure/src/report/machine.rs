//! The machine that a run was on.

use serde::{Deserialize, Serialize};

/// What a reader has to know of a machine to compare his own with it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// The system, such as `Debian GNU/Linux 12 (bookworm)`.
    pub os: String,
    /// Its kernel.
    pub kernel: String,
    /// The model of the processors, where it is known.
    pub cpu: Option<String>,
    /// Processors that this process may use.
    pub cores: usize,
    /// Main memory, where it is known.
    pub memory_mib: Option<u64>,
}

impl Machine {
    /// This one.
    #[must_use]
    pub fn this() -> Self {
        Self {
            os: os().unwrap_or_else(|| std::env::consts::OS.to_owned()),
            kernel: kernel(),
            cpu: entry("/proc/cpuinfo", "model name", ':'),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: entry("/proc/meminfo", "MemTotal", ':')
                .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
                .map(|kib| kib / 1024),
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{} cores", self.cores);
        if let Some(cpu) = &self.cpu {
            line = format!("{line} of {cpu}");
        }
        if let Some(memory) = self.memory_mib {
            line = format!("{line}, {} MiB", memory);
        }
        format!("{line}, {}, kernel {}", self.os, self.kernel)
    }
}

fn os() -> Option<String> {
    entry("/etc/os-release", "PRETTY_NAME", '=').map(|name| name.trim_matches('"').to_owned())
}

#[cfg(unix)]
fn kernel() -> String {
    let name = rustix::system::uname();
    format!(
        "{} {}",
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy()
    )
}

#[cfg(not(unix))]
fn kernel() -> String {
    std::env::consts::OS.to_owned()
}

/// The first value of `key` in a file of keys and values.
fn entry(file: &str, key: &str, separator: char) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut entries = text.lines().filter_map(|line| line.split_once(separator));
    let (_, value) = entries.find(|(found, _)| found.trim() == key)?;
    Some(value.trim().to_owned())
}
