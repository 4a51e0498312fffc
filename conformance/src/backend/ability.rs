//! What the suite can do with a backend besides locking.

/// What a scenario can ask of a backend beyond its driver. Scenarios that need what is missing are left out, and the
/// run says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// Other processes reach the same locks: [`Backend::url`](super::Backend::url) and
    /// [`Backend::at`](super::Backend::at).
    Processes,
    /// Its URL has a host and a port, so that a proxy can stand in between.
    Network,
    /// [`Backend::stop`](super::Backend::stop) and [`Backend::start`](super::Backend::start).
    Stop,
    /// [`Backend::pause`](super::Backend::pause) and [`Backend::resume`](super::Backend::resume).
    Pause,
    /// [`Backend::kill_connections`](super::Backend::kill_connections).
    KillConnections,
    /// [`Backend::kill_connection`](super::Backend::kill_connection).
    KillConnection,
    /// [`Backend::wipe`](super::Backend::wipe).
    Wipe,
    /// [`Backend::delete_lock`](super::Backend::delete_lock).
    DeleteLock,
    /// [`Backend::delete_waiter`](super::Backend::delete_waiter).
    DeleteWaiter,
    /// [`Backend::end_session`](super::Backend::end_session).
    EndSession,
    /// [`Backend::clean_up`](super::Backend::clean_up).
    CleanUp,
    /// [`Backend::residue`](super::Backend::residue).
    Residue,
    /// [`Backend::usage`](super::Backend::usage).
    Usage,
    /// [`Backend::strays`](super::Backend::strays).
    Strays,
    /// [`Backend::counters`](super::Backend::counters) and [`Backend::budget`](super::Backend::budget).
    Counters,
    /// Its URL takes a login, and the server knows nobody by the name of `nobody`.
    Logins,
    /// [`Backend::limit_clients`](super::Backend::limit_clients).
    LimitClients,
    /// [`Backend::fill_disk`](super::Backend::fill_disk) and [`Backend::free_disk`](super::Backend::free_disk).
    FillDisk,
    /// [`Backend::step_clock`](super::Backend::step_clock).
    StepClock,
    /// [`Backend::cluster`](super::Backend::cluster), of three members or more.
    Cluster,
    /// [`Backend::program`](super::Backend::program).
    Program,
}

impl Ability {
    /// What it is, for the reason why a scenario was left out.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Processes => "other processes can use it",
            Self::Network => "it is reached by host and port",
            Self::Stop => "the suite can stop and start it",
            Self::Pause => "the suite can pause it",
            Self::KillConnections => "the suite can cut its connections at the server",
            Self::KillConnection => "the suite can cut one connection at the server",
            Self::Wipe => "the suite can delete all its data",
            Self::DeleteLock => "the suite can delete one lock behind the driver's back",
            Self::DeleteWaiter => "the suite can delete a place in a queue behind the driver's back",
            Self::EndSession => "the suite can end a client's session at the server",
            Self::CleanUp => "the suite can make the server remove what is not used",
            Self::Residue => "the suite can look for what is left over",
            Self::Usage => "the suite can count what clients use at the server",
            Self::Strays => "the suite can look into pooled connections",
            Self::Counters => "the server counts requests and writes, and the driver declares a budget",
            Self::Logins => "its URL takes a login",
            Self::LimitClients => "the suite can limit how many clients it takes",
            Self::FillDisk => "the suite can fill its disk",
            Self::StepClock => "the suite can step the server's clock",
            Self::Cluster => "it is a cluster",
            Self::Program => "the `leasehold` program can use it, and is given",
        }
    }

    /// Does what it tells depend on how much time the machine has? A waiter that is late costs more requests than one
    /// that is not.
    pub(crate) const fn is_measurement(self) -> bool {
        matches!(self, Self::Usage | Self::Counters)
    }

    /// Does it concern everybody on the server?
    pub(crate) const fn is_exclusive(self) -> bool {
        matches!(
            self,
            Self::Stop
                | Self::Pause
                | Self::KillConnections
                | Self::KillConnection
                | Self::Wipe
                | Self::CleanUp
                | Self::Usage
                | Self::Strays
                | Self::Counters
                | Self::LimitClients
                | Self::FillDisk
                | Self::StepClock
                | Self::Cluster
        )
    }
}
