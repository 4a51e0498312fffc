//! What a number of a measurement is: its unit, and which way is better.

use serde::{Deserialize, Serialize};

/// A number that a scenario finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Figure {
    /// Acquisitions in a second, all tasks together.
    PerSecond,
    /// The median of the least request's time to the server and back.
    RoundTripP50,
    /// The same for a client that did nothing for 10 ms before.
    RestedRoundTripP50,
    /// The median time of an acquire.
    AcquireP50,
    /// The 99th percentile of the time of an acquire.
    AcquireP99,
    /// The median time of a release.
    ReleaseP50,
    /// The 99th percentile of the time of a release.
    ReleaseP99,
    /// The median time of an acquire and its release together.
    PairP50,
    /// The 99th percentile of the time of an acquire and its release together.
    PairP99,
    /// Changes of the holder in a second.
    HandOffsPerSecond,
    /// The median time from the start of a release until the next holder has the lock.
    HandOffP50,
    /// The 99th percentile of the time from the start of a release until the next holder has the lock.
    HandOffP99,
    /// The longest time that one acquire took, or had taken when the run ended.
    LongestWait,
    /// Acquisitions of the client that had the fewest.
    ShareLeast,
    /// Acquisitions of the median client.
    ShareMedian,
    /// Acquisitions of the client that had the most.
    ShareMost,
    /// The median wait of a client elsewhere, while one client passes the lock around among its tasks.
    RemoteWaitP50,
    /// The longest wait of that client.
    RemoteWaitLongest,
    /// From the death of the holder's process until the next one has the lock.
    Recovery,
    /// Resident memory of the client's process for each held lock, without pages of files.
    MemoryPerLock,
    /// Requests that the server got in a second.
    ServerRequestsPerSecond,
    /// Processor time of the client's process, as a share of one processor.
    ClientLoad,
    /// Processor time of the server, as a share of one processor.
    ServerLoad,
    /// Locks that were lost while they were held.
    Losses,
    /// Processor time of the client's process for each acquisition.
    ClientCpu,
    /// Processor time of the server for each acquisition.
    ServerCpu,
    /// Requests that the server got for each acquisition.
    ServerRequests,
    /// Durable changes that the server made for each acquisition.
    ServerWrites,
    /// How often somebody got the lock while another had it. Anything but 0 is a broken lock.
    Violations,
    /// How often a token was not larger than the one before. Anything but 0 is a broken fence.
    StaleTokens,
}

/// What a figure counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Microseconds.
    Micros,
    /// Milliseconds.
    Millis,
    /// Of anything, in a second.
    PerSecond,
    /// A number of anything.
    Count,
    /// Bytes.
    Bytes,
    /// Percent.
    Percent,
}

impl Figure {
    /// What it counts in.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::PerSecond | Self::HandOffsPerSecond | Self::ServerRequestsPerSecond => Unit::PerSecond,
            Self::RoundTripP50
            | Self::RestedRoundTripP50
            | Self::AcquireP50
            | Self::AcquireP99
            | Self::ReleaseP50
            | Self::ReleaseP99
            | Self::PairP50
            | Self::PairP99
            | Self::HandOffP50
            | Self::HandOffP99
            | Self::RemoteWaitP50
            | Self::ClientCpu
            | Self::ServerCpu => Unit::Micros,
            Self::LongestWait | Self::RemoteWaitLongest | Self::Recovery => Unit::Millis,
            Self::MemoryPerLock => Unit::Bytes,
            Self::ClientLoad | Self::ServerLoad => Unit::Percent,
            Self::ShareLeast
            | Self::ShareMedian
            | Self::ShareMost
            | Self::Losses
            | Self::ServerRequests
            | Self::ServerWrites
            | Self::Violations
            | Self::StaleTokens => Unit::Count,
        }
    }

    /// Whether less of it is better, where it is clear.
    #[must_use]
    pub const fn less_is_better(self) -> Option<bool> {
        match self {
            Self::PerSecond | Self::HandOffsPerSecond | Self::ShareLeast => Some(false),
            Self::ShareMedian | Self::ShareMost => None,
            _ => Some(true),
        }
    }

    /// A short heading, with its unit.
    #[must_use]
    pub const fn heading(self) -> &'static str {
        match self {
            Self::PerSecond => "acq/s",
            Self::RoundTripP50 => "round trip us",
            Self::RestedRoundTripP50 => "rested round trip us",
            Self::AcquireP50 => "acquire p50 us",
            Self::AcquireP99 => "acquire p99 us",
            Self::ReleaseP50 => "release p50 us",
            Self::ReleaseP99 => "release p99 us",
            Self::PairP50 => "pair p50 us",
            Self::PairP99 => "pair p99 us",
            Self::HandOffsPerSecond => "hand-offs/s",
            Self::HandOffP50 => "hand-off p50 us",
            Self::HandOffP99 => "hand-off p99 us",
            Self::LongestWait => "longest wait ms",
            Self::ShareLeast => "least acq",
            Self::ShareMedian => "median acq",
            Self::ShareMost => "most acq",
            Self::RemoteWaitP50 => "remote wait p50 us",
            Self::RemoteWaitLongest => "remote longest ms",
            Self::Recovery => "recovery ms",
            Self::MemoryPerLock => "bytes/lock",
            Self::ServerRequestsPerSecond => "server req/s",
            Self::ClientLoad => "client CPU %",
            Self::ServerLoad => "server CPU %",
            Self::Losses => "losses",
            Self::ClientCpu => "client CPU us/acq",
            Self::ServerCpu => "server CPU us/acq",
            Self::ServerRequests => "requests/acq",
            Self::ServerWrites => "writes/acq",
            Self::Violations => "violations",
            Self::StaleTokens => "stale tokens",
        }
    }

    /// `value` to three digits or so, without its unit.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        let whole = matches!(
            self,
            Self::Violations
                | Self::StaleTokens
                | Self::Losses
                | Self::ShareLeast
                | Self::ShareMedian
                | Self::ShareMost
                | Self::MemoryPerLock
        );
        match value.abs() {
            _ if whole => format!("{value:.0}"),
            0.0 => "0".to_owned(),
            ..0.995 => format!("{value:.2}"),
            ..99.95 => format!("{value:.1}"),
            _ => format!("{value:.0}"),
        }
    }
}

/// A distribution of times that a scenario finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Curve {
    /// An acquire and its release together.
    Pair,
    /// Acquires.
    Acquire,
    /// From the start of a release until the next holder has the lock.
    HandOff,
}
