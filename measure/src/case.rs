//! The scenarios: what is done to every contender.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::figure::Figure;

/// A question that is put to every contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// What a lock costs that nobody else wants.
    Latency,
    /// What many tasks of one client get done on names of their own.
    Throughput,
    /// How a lock goes from client to client.
    Contended,
    /// How that changes with the number of waiters.
    Growth,
    /// What it costs to hold many locks.
    Held,
    /// How long a lock is blocked by a holder that was killed.
    Recovery,
    /// How a lock goes around among the tasks of one client, and what a client elsewhere has of it.
    Local,
    /// Many names of which a few are popular.
    Popular,
}

impl Scenario {
    /// All of them, in the order of a report.
    pub const ALL: [Self; 8] = [
        Self::Latency,
        Self::Throughput,
        Self::Contended,
        Self::Growth,
        Self::Held,
        Self::Recovery,
        Self::Local,
        Self::Popular,
    ];

    /// Its name in one word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Contended => "contended",
            Self::Growth => "growth",
            Self::Held => "held",
            Self::Recovery => "recovery",
            Self::Local => "local",
            Self::Popular => "popular",
        }
    }

    /// Its number, from `S1`.
    #[must_use]
    pub const fn number(self) -> &'static str {
        match self {
            Self::Latency => "S1",
            Self::Throughput => "S2",
            Self::Contended => "S3",
            Self::Growth => "S4",
            Self::Held => "S5",
            Self::Recovery => "S6",
            Self::Local => "S7",
            Self::Popular => "S8",
        }
    }

    /// What it is about, in a few words.
    #[must_use]
    pub const fn summary(self) -> &'static str {
        match self {
            Self::Latency => "what a lock costs that nobody else wants",
            Self::Throughput => "what many tasks get done on locks of their own",
            Self::Contended => "how a lock goes from client to client",
            Self::Growth => "how that changes with the number of clients",
            Self::Held => "what it costs to hold many locks",
            Self::Recovery => "how long a killed holder blocks a lock",
            Self::Local => "how a lock goes around in one client",
            Self::Popular => "many locks of which a few are popular",
        }
    }

    /// What is done, in a sentence.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::Latency => "One task takes and frees locks that nobody else wants, on a thread of its own.",
            Self::Throughput => {
                "Many tasks of one client take and free locks; each task has names of its own."
            }
            Self::Contended => {
                "Clients with connections of their own want the same lock. A hand-off is the time from the start of a \
                 release until the next client has the lock."
            }
            Self::Growth => "The same, held for a while each time, with more and more clients.",
            Self::Held => {
                "One client holds many locks for three times their TTL, which have to be renewed meanwhile."
            }
            Self::Recovery => {
                "The process that holds the lock is killed, at no special moment between two renewals, while another \
                 one waits."
            }
            Self::Local => {
                "Tasks of one client want the same lock, and a client elsewhere asks for it now and then."
            }
            Self::Popular => {
                "Tasks of several clients want locks by Zipf's law: the second most popular name is asked for half as \
                 often as the first, the third a third as often."
            }
        }
    }

    /// What is told of it, in the order of a table's columns. The first one tells most.
    #[must_use]
    pub const fn figures(self) -> &'static [Figure] {
        use Figure as F;
        match self {
            Self::Latency => &[
                F::PairP50,
                F::PairP99,
                F::AcquireP50,
                F::AcquireP99,
                F::ReleaseP50,
                F::ReleaseP99,
                F::RoundTripP50,
                F::RestedRoundTripP50,
                F::ClientCpu,
                F::ServerCpu,
                F::ServerRequests,
                F::ServerWrites,
            ],
            Self::Throughput => &[
                F::PerSecond,
                F::PairP50,
                F::PairP99,
                F::ClientCpu,
                F::ServerCpu,
                F::ServerRequests,
                F::ServerWrites,
            ],
            Self::Contended | Self::Growth => &[
                F::HandOffP50,
                F::HandOffP99,
                F::PerSecond,
                F::HandOffsPerSecond,
                F::LongestWait,
                F::ShareLeast,
                F::ShareMedian,
                F::ShareMost,
                F::ClientCpu,
                F::ServerCpu,
                F::ServerRequests,
                F::ServerWrites,
                F::Violations,
                F::StaleTokens,
            ],
            Self::Held => &[
                F::ServerRequestsPerSecond,
                F::ClientLoad,
                F::ServerLoad,
                F::MemoryPerLock,
                F::Losses,
            ],
            Self::Recovery => &[F::Recovery],
            Self::Local => &[
                F::PerSecond,
                F::RemoteWaitP50,
                F::RemoteWaitLongest,
                F::ClientCpu,
                F::ServerCpu,
                F::ServerRequests,
                F::ServerWrites,
                F::Violations,
                F::StaleTokens,
            ],
            Self::Popular => &[
                F::PerSecond,
                F::AcquireP50,
                F::AcquireP99,
                F::LongestWait,
                F::ClientCpu,
                F::ServerCpu,
                F::ServerRequests,
                F::ServerWrites,
                F::Violations,
                F::StaleTokens,
            ],
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How often each client has the lock in [`Case::growth`], if a hand-off takes no longer than [`HAND_OFF`].
const TURNS: u32 = 3;
/// What a backend with a disk takes, give or take.
const HAND_OFF: Duration = Duration::from_millis(2);

/// A scenario with its numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Case {
    /// Of which it is a case.
    pub scenario: Scenario,
    /// Tasks that want locks: of one client, but in `Contended`, `Growth` and `Popular`.
    pub tasks: usize,
    /// Names of locks: for each task in `Throughput`, held at once in `Held`.
    pub names: usize,
    /// How long each lock is held.
    #[serde(rename = "hold_us", with = "micros")]
    pub hold: Duration,
    /// The TTL that is asked for.
    #[serde(rename = "ttl_us", with = "micros")]
    pub ttl: Duration,
    /// How long a round takes for each contender; `Held` and `Recovery` go by the TTL instead.
    #[serde(rename = "time_us", with = "micros")]
    pub time: Duration,
    /// Acquisitions after which a round ends sooner.
    pub most: u64,
    /// Rounds, where they are others than the plan's.
    pub rounds: Option<u32>,
}

impl Case {
    /// One task, names of its own.
    #[must_use]
    pub fn latency(time: Duration) -> Self {
        Self::new(Scenario::Latency, 1, 64, time)
    }

    /// `tasks` of one client, 64 names for each.
    #[must_use]
    pub fn throughput(tasks: usize, time: Duration) -> Self {
        Self::new(Scenario::Throughput, tasks, 64, time)
    }

    /// `clients` want one name and hold it for `hold`.
    #[must_use]
    pub fn contended(clients: usize, hold: Duration, time: Duration) -> Self {
        Self {
            hold,
            ..Self::new(Scenario::Contended, clients, 1, time)
        }
    }

    /// The same, for the row of growing numbers; for so long that each client has a few turns, or all that is seen of a long
    /// queue is how it forms.
    #[must_use]
    pub fn growth(clients: usize, hold: Duration, time: Duration) -> Self {
        let turns = u32::try_from(clients).unwrap_or(u32::MAX).saturating_mul(TURNS);
        let enough = (hold + HAND_OFF).saturating_mul(turns);
        Self {
            scenario: Scenario::Growth,
            ..Self::contended(clients, hold, time.max(enough))
        }
    }

    /// `locks` held for three times their `ttl`; one round.
    #[must_use]
    pub fn held(locks: usize, ttl: Duration) -> Self {
        Self {
            ttl,
            rounds: Some(1),
            ..Self::new(Scenario::Held, 1, locks, ttl * 3)
        }
    }

    /// A holder is killed that asked for `ttl`.
    #[must_use]
    pub fn recovery(ttl: Duration) -> Self {
        Self {
            ttl,
            ..Self::new(Scenario::Recovery, 1, 1, ttl * 2)
        }
    }

    /// `tasks` of one client want one name, and a client elsewhere does.
    #[must_use]
    pub fn local(tasks: usize, time: Duration) -> Self {
        Self::new(Scenario::Local, tasks, 1, time)
    }

    /// `tasks` of four clients want `names`.
    #[must_use]
    pub fn popular(names: usize, tasks: usize, time: Duration) -> Self {
        Self::new(Scenario::Popular, tasks, names, time)
    }

    const fn new(scenario: Scenario, tasks: usize, names: usize, time: Duration) -> Self {
        Self {
            scenario,
            tasks,
            names,
            hold: Duration::ZERO,
            // Longer than anybody waits for the next renewal: only `Held` is about those.
            ttl: Duration::from_secs(30),
            time,
            most: 5_000_000,
            rounds: None,
        }
    }

    /// In one word, different for each case of a plan: `contended-16-10ms`.
    #[must_use]
    pub fn id(&self) -> String {
        let hold = self.hold.as_millis();
        match self.scenario {
            Scenario::Latency => "latency".to_owned(),
            Scenario::Contended | Scenario::Growth => format!("{}-{}-{hold}ms", self.scenario, self.tasks),
            Scenario::Throughput | Scenario::Local => format!("{}-{}", self.scenario, self.tasks),
            Scenario::Held => format!("{}-{}", self.scenario, self.names),
            Scenario::Recovery => format!("{}-{}ms", self.scenario, self.ttl.as_millis()),
            Scenario::Popular => format!("{}-{}x{}", self.scenario, self.names, self.tasks),
        }
    }

    /// For a heading.
    #[must_use]
    pub fn title(&self) -> String {
        let Self { tasks, names, .. } = self;
        let (hold, ttl) = (self.hold.as_millis(), self.ttl.as_secs_f64());
        let what = match self.scenario {
            Scenario::Latency => "latency without contention".to_owned(),
            Scenario::Throughput => format!("throughput of {tasks} tasks"),
            Scenario::Contended | Scenario::Growth => {
                format!("{tasks} clients on one lock, held for {hold} ms")
            }
            Scenario::Held => format!("{names} held locks, TTL {ttl} s"),
            Scenario::Recovery => format!("recovery from a killed holder, TTL {ttl} s"),
            Scenario::Local => format!("{tasks} tasks of one client on one lock"),
            Scenario::Popular => format!("{tasks} tasks on {names} locks, some of them popular"),
        };
        format!("{}: {what}", self.scenario.number())
    }
}

/// Durations as whole microseconds, which every reader of JSON can compare.
mod micros {
    use super::{Deserialize, Duration};

    pub(super) fn serialize<S: serde::Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'a, D: serde::Deserializer<'a>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_micros)
    }
}
