//! How exact things have to be. One place, so that nobody tunes a scenario until it is quiet.

use std::time::Duration;

/// How much later than promised something may be seen on the real clock. Generous: test machines have two slow
/// cores that other tests and servers share. What it bounds is "at all, and not by the next timer": those are longer.
pub const REAL_SLACK: Duration = Duration::from_secs(4);

/// The same on virtual time, where nothing is slow: the engine's own pauses (retries start at 50 ms, waiters look at
/// an expired lock up to 500 ms apart).
pub const VIRTUAL_SLACK: Duration = Duration::from_millis(600);

/// The lease of locks that are meant to run out, on the real clock: a test waits for it.
pub const EXPIRING_TTL: Duration = Duration::from_secs(1);

/// The lease of locks that are meant to be renewed, on the real clock: renewal comes after a third, so this machine
/// may stand still for two seconds before the lock is lost for that reason alone.
pub const RENEWED_TTL: Duration = Duration::from_secs(3);

/// The claim window of scenarios on the real clock: the longest that a stall may last before a waiter loses its
/// place, which would look like a queue out of order.
pub const REAL_CLAIM_WINDOW: Duration = Duration::from_secs(2);

/// After a clean release the next waiter has the lock within this; longer than a poll interval or a reconnect,
/// shorter than every timer that makes up for a lost wake-up with the default settings.
pub const REAL_HAND_OFF: Duration = Duration::from_secs(5);

/// The same on virtual time.
pub const VIRTUAL_HAND_OFF: Duration = Duration::from_millis(100);

/// How long a scenario may take, in its own time. Then it counts as hung.
pub const SCENARIO: Duration = Duration::from_secs(90);

/// The same on virtual time, where waiting costs nothing.
pub const VIRTUAL_SCENARIO: Duration = Duration::from_secs(48 * 3600);

/// How long a scenario may take in real time beyond its limit before its thread is given up.
pub const WATCHDOG: Duration = Duration::from_secs(60);

/// How long a scenario may wait for others that need the server for themselves.
pub const QUEUE: Duration = Duration::from_secs(1800);

/// How long after its end a scenario's locks and waiters may be seen at the backend.
pub const RESIDUE: Duration = Duration::from_secs(10);

/// How long a thousand cancelled acquires and their clean-up may take, which are two thousand requests at once.
pub const CANCELLED: Duration = Duration::from_secs(40);

/// How many scenarios run at once on a backend in real time, unless `--test-threads` says otherwise. They mostly wait.
pub const PARALLEL: usize = 16;
