//! Scenarios: what is run, and what it needs.

use futures_util::future::BoxFuture;
use lockcore::{Capabilities, WakeUp};

use crate::backend::{Ability, Backend, Clock};
use crate::context::Context;
use crate::failure::Checked;

/// What a scenario checks; the first word of its trial's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Group {
    /// ME: at most one holder.
    Exclusion,
    /// WT: waits end as they should.
    Waiting,
    /// EX: leases end by themselves.
    Expiry,
    /// RN: leases that live are renewed.
    Renewal,
    /// LD: losses are told.
    Loss,
    /// CX: what is dropped leaves nothing.
    Cancel,
    /// FQ: the queue.
    Fairness,
    /// RW: readers and writers.
    ReadWrite,
    /// SM: semaphores.
    Semaphore,
    /// MK: several locks at once.
    MultiKey,
    /// FE: fencing tokens.
    Fencing,
    /// HL: the life of handles.
    Handles,
    /// NM: names.
    Names,
    /// FT: faults of the server and the network.
    Faults,
    /// LE: elections.
    Leader,
    /// CL: the program.
    Program,
    /// CO: what operations cost at the server.
    Cost,
}

impl Group {
    /// Every group.
    pub const ALL: [Self; 17] = [
        Self::Exclusion,
        Self::Waiting,
        Self::Expiry,
        Self::Renewal,
        Self::Loss,
        Self::Cancel,
        Self::Fairness,
        Self::ReadWrite,
        Self::Semaphore,
        Self::MultiKey,
        Self::Fencing,
        Self::Handles,
        Self::Names,
        Self::Faults,
        Self::Leader,
        Self::Program,
        Self::Cost,
    ];

    /// The two letters before the number of its ids.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Exclusion => "ME",
            Self::Waiting => "WT",
            Self::Expiry => "EX",
            Self::Renewal => "RN",
            Self::Loss => "LD",
            Self::Cancel => "CX",
            Self::Fairness => "FQ",
            Self::ReadWrite => "RW",
            Self::Semaphore => "SM",
            Self::MultiKey => "MK",
            Self::Fencing => "FE",
            Self::Handles => "HL",
            Self::Names => "NM",
            Self::Faults => "FT",
            Self::Leader => "LE",
            Self::Program => "CL",
            Self::Cost => "CO",
        }
    }

    /// The word in the names of trials.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exclusion => "exclusion",
            Self::Waiting => "waiting",
            Self::Expiry => "expiry",
            Self::Renewal => "renewal",
            Self::Loss => "loss",
            Self::Cancel => "cancel",
            Self::Fairness => "fairness",
            Self::ReadWrite => "read_write",
            Self::Semaphore => "semaphore",
            Self::MultiKey => "multi_key",
            Self::Fencing => "fencing",
            Self::Handles => "handles",
            Self::Names => "names",
            Self::Faults => "faults",
            Self::Leader => "leader",
            Self::Program => "program",
            Self::Cost => "cost",
        }
    }

    /// The group of an id such as `ME1`.
    #[must_use]
    pub fn of(id: &str) -> Option<Self> {
        let letters = id.trim_end_matches(|c: char| c.is_ascii_digit());
        Self::ALL.into_iter().find(|group| group.code() == letters)
    }
}

/// What a scenario needs of the backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Waiters in order of arrival.
    Fifo,
    /// No order among waiters: what is checked of those who declare none.
    NoFifo,
    /// Waiters are told, and do not ask.
    Push,
    /// Readers, writers, semaphores.
    Weighted,
    /// Leases of their own: lockcore renews them, and they end by themselves.
    Leases,
    /// Locks that live by a session of their client.
    Sessions,
    /// Sessions that go on when their connection is cut, or leases.
    OutlivesConnection,
    /// Sessions that end with their connection.
    EndsWithConnection,
    /// `inspect`.
    Inspect,
    /// `list`.
    List,
    /// `force_release`.
    ForceRelease,
    /// Locks exclude other processes.
    CrossProcess,
    /// Time that passes by itself, with threads.
    RealTime,
    /// A client's whole process can be made to stand still: on virtual time, or with a runtime of its own.
    Stall,
    /// Something that the suite's side of the backend can do.
    Can(Ability),
}

impl Need {
    /// Why `backend` does not have it; `None` when it does.
    fn missing(self, backend: &dyn Backend) -> Option<String> {
        let capabilities: Capabilities = backend.capabilities();
        let (has, what) = match self {
            Self::Fifo => (capabilities.fifo, "a queue in order of arrival"),
            Self::NoFifo => (!capabilities.fifo, "waiters in no particular order"),
            Self::Push => (capabilities.wake_up == WakeUp::Push, "wake-ups by push"),
            Self::Weighted => (capabilities.weighted, "readers, writers and semaphores"),
            Self::Inspect => (capabilities.inspect, "`inspect`"),
            Self::Sessions => (capabilities.sessions, "locks that live by a session"),
            Self::Leases => {
                let why =
                    "the driver declares locks that live by a session: none is renewed or expires by itself";
                return capabilities.sessions.then(|| why.to_owned());
            }
            Self::OutlivesConnection => {
                let why = "the driver declares sessions that end with their connection";
                return ends_with_connection(backend).then(|| why.to_owned());
            }
            Self::EndsWithConnection => (
                ends_with_connection(backend),
                "sessions that end with their connection",
            ),
            Self::List => (capabilities.list, "`list`"),
            Self::ForceRelease => (capabilities.force_release, "`force_release`"),
            Self::CrossProcess => (capabilities.cross_process, "locks between processes"),
            Self::RealTime => {
                let has = backend.clock() == Clock::Real;
                return (!has).then(|| "it needs threads and the real clock".to_owned());
            }
            Self::Stall => {
                let outside = backend.abilities().contains(&Ability::Processes);
                let has = backend.clock() == Clock::Virtual || outside;
                return (!has).then(|| "it needs virtual time, or a backend outside this process".to_owned());
            }
            Self::Can(ability) => {
                let has = backend.abilities().contains(&ability);
                return (!has).then(|| format!("it needs a backend of which holds: {}", ability.as_str()));
            }
        };
        (!has).then(|| format!("the driver does not declare {what}"))
    }
}

pub(crate) fn ends_with_connection(backend: &dyn Backend) -> bool {
    backend.capabilities().sessions && backend.session_is_connection()
}

/// What runs.
pub(crate) type Body = fn(Context) -> BoxFuture<'static, Checked>;

/// One row of the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its id: `ME1`.
    pub id: &'static str,
    /// What it checks, in words joined by `_`.
    pub title: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Run(Body),
    LeftOut(&'static str),
}

impl Scenario {
    pub(crate) const fn new(id: &'static str, title: &'static str, body: Body) -> Self {
        Self {
            id,
            title,
            needs: &[],
            what: What::Run(body),
        }
    }

    /// One that is not run on any backend, and why.
    pub(crate) const fn left_out(id: &'static str, title: &'static str, reason: &'static str) -> Self {
        Self {
            id,
            title,
            needs: &[],
            what: What::LeftOut(reason),
        }
    }

    pub(crate) const fn needs(mut self, needs: &'static [Need]) -> Self {
        self.needs = needs;
        self
    }

    /// Its group.
    #[must_use]
    pub fn group(&self) -> Group {
        Group::of(self.id).unwrap_or(Group::Exclusion)
    }

    /// The name of its trial: `exclusion/ME1_title`.
    #[must_use]
    pub fn trial(&self) -> String {
        format!("{}/{}_{}", self.group().as_str(), self.id, self.title)
    }

    /// Why it cannot run on `backend`; `None` when it can.
    #[must_use]
    pub fn left_out_on(&self, backend: &dyn Backend) -> Option<String> {
        match self.what {
            What::LeftOut(reason) => Some(reason.to_owned()),
            What::Run(_) => {
                let missing = self.needs.iter().find_map(|need| need.missing(backend));
                missing.or_else(|| backend.exempt(self.id).map(str::to_owned))
            }
        }
    }

    /// Does it concern everybody on the server?
    pub(crate) fn is_exclusive(&self) -> bool {
        self.can(Ability::is_exclusive)
    }

    /// Does it measure what only a machine with time for it shows?
    pub(crate) fn measures(&self) -> bool {
        self.can(Ability::is_measurement)
    }

    fn can(&self, is: fn(Ability) -> bool) -> bool {
        self.needs
            .iter()
            .any(|need| matches!(need, Need::Can(ability) if is(*ability)))
    }
}
