//! The one audited place for time, randomness and task spawning.
//!
//! Nothing else in lockcore or in a driver reads a clock, sleeps, spawns or draws random bits: that is what lets
//! the whole engine run on virtual time with a seed.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorKind};

/// A point on the clock that deadlines use, in nanoseconds since an arbitrary start.
///
/// On Linux this is `CLOCK_BOOTTIME`, on other Unix systems `CLOCK_MONOTONIC`, elsewhere the standard library's
/// monotonic clock. It goes on while the machine is suspended where the system has such a clock, so a lease that
/// ran out during suspend is seen as run out. It is meaningful inside one process on one boot only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// A point that is never reached.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The point `nanos` nanoseconds after the clock's start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the clock's start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self + duration`, at most [`Instant::FAR_FUTURE`].
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(duration)))
    }

    /// `self - duration`, not before the clock's start.
    #[must_use]
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_nanos(duration)))
    }
}

/// `duration` in nanoseconds, `u64::MAX` where it does not fit (584 years).
pub(crate) fn saturating_nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

enum Clock {
    /// The operating system's clock that goes on during suspend.
    System,
    /// tokio's clock, which a test can pause and advance; `SystemTime` is derived from it.
    Virtual { start: tokio::time::Instant },
}

enum Randomness {
    Os,
    Seeded(Mutex<fastrand::Rng>),
}

struct Inner {
    clock: Clock,
    randomness: Randomness,
    tasks: TaskTracker,
    runtime: tokio::runtime::Handle,
}

/// Time, randomness and task spawning, handed to the engine and to every driver. Cheap to clone.
#[derive(Clone)]
pub struct Env(Arc<Inner>);

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clock = match self.0.clock {
            Clock::System => "system",
            Clock::Virtual { .. } => "virtual",
        };
        f.debug_struct("Env")
            .field("clock", &clock)
            .field("tasks", &self.0.tasks.len())
            .finish()
    }
}

/// How long one tokio timer may run before the clock is looked at again: tokio's timers stand still in suspend,
/// the deadline clock does not.
const LONGEST_TIMER: Duration = Duration::from_secs(1);

#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that the ban points to"
)]
impl Env {
    /// The operating system's clock and random bits; tasks run on the current tokio runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Clock::System, Randomness::Os)
    }

    /// tokio's clock, which tests pause and advance, and random bits that follow from `seed` alone.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn virtual_time(seed: u64) -> Self {
        Self::new(
            Clock::Virtual {
                start: tokio::time::Instant::now(),
            },
            Randomness::Seeded(Mutex::new(fastrand::Rng::with_seed(seed))),
        )
    }

    fn new(clock: Clock, randomness: Randomness) -> Self {
        let runtime = tokio::runtime::Handle::current();
        Self(Arc::new(Inner {
            clock,
            randomness,
            tasks: TaskTracker::new(),
            runtime,
        }))
    }

    /// The clock that deadlines use.
    #[must_use]
    pub fn now(&self) -> Instant {
        match &self.0.clock {
            Clock::System => system_now(),
            // An hour in, so that `before` has room.
            Clock::Virtual { start } => {
                // A thread of another runtime, or of none, has another tokio clock.
                let _entered = self.0.runtime.enter();
                Instant(saturating_nanos(start.elapsed()).saturating_add(3_600_000_000_000))
            }
        }
    }

    /// The wall clock, for what people read; it can be stepped, so nothing is decided by it.
    #[must_use]
    pub fn wall_clock(&self) -> SystemTime {
        match &self.0.clock {
            Clock::System => SystemTime::now(),
            Clock::Virtual { .. } => {
                UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_nanos(self.now().as_nanos())
            }
        }
    }

    /// Microseconds of the wall clock since 1970, zero before it. The floor of a fencing token.
    #[must_use]
    pub fn unix_micros(&self) -> u64 {
        let since = self.wall_clock().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }

    /// Sleeps for `duration` on the deadline clock.
    pub async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now().after(duration)).await;
    }

    /// Sleeps until `deadline`; returns at once when it has passed.
    pub async fn sleep_until(&self, deadline: Instant) {
        loop {
            let left = deadline.since(self.now());
            if left.is_zero() {
                return;
            }
            match self.0.clock {
                // Rounded up: tokio's timers have a grain of 1 ms and must not return early into a spin.
                Clock::System => tokio::time::sleep(left.min(LONGEST_TIMER)).await,
                Clock::Virtual { .. } => tokio::time::sleep(left).await,
            }
        }
    }

    /// The output of `future`, or `None` when `duration` passes first. The future is then still the caller's.
    pub async fn timeout<F: Future + Unpin>(&self, duration: Duration, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.sleep(duration) => None,
        }
    }

    /// Runs `future` on the runtime in which this `Env` was made, from any thread, in a runtime or not.
    ///
    /// The task is counted: [`Env::tasks`] lets a closing manager wait for it.
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.0.tasks.spawn_on(future, &self.0.runtime)
    }

    /// Runs `call` to its end, whether or not the caller goes on to poll this, or drops it: for what has something in its
    /// hands, such as a connection, that others wait for, or must not be overtaken by the call that follows.
    ///
    /// # Errors
    /// Those of `call`; [`Internal`](ErrorKind::Internal) when it panics or its runtime ends.
    pub async fn to_the_end<T, F>(&self, call: F) -> crate::Result<T>
    where
        F: Future<Output = crate::Result<T>> + Send + 'static,
        T: Send + 'static,
    {
        let done = self.spawn(call).await;
        done.map_err(|error| Error::new(ErrorKind::Internal, "a call failed").with_source(error))?
    }

    /// The tasks that were spawned here and have not ended.
    #[must_use]
    pub fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    /// 128 random bits: from the operating system, or from the seed under virtual time.
    ///
    /// # Errors
    /// [`Internal`](crate::ErrorKind::Internal) when the operating system has no random bits to give. There is no
    /// fallback to a clock: two attempts with one id would be one holder.
    pub fn random_u128(&self) -> crate::Result<u128> {
        match &self.0.randomness {
            Randomness::Os => {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes).map_err(|error| {
                    Error::new(ErrorKind::Internal, "the operating system gave no random bits")
                        .with_source(error)
                })?;
                Ok(u128::from_ne_bytes(bytes))
            }
            Randomness::Seeded(rng) => Ok(rng.lock().unwrap_or_else(PoisonError::into_inner).u128(..)),
        }
    }

    /// A random duration in `[low, high]`, for jitter; `low` when random bits cannot be had.
    #[must_use]
    pub fn jitter(&self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low);
        let unit = self.random_u128().map_or(0, |bits| bits & 0xffff);
        #[expect(clippy::cast_possible_truncation, reason = "masked to 16 bits")]
        let unit = unit as u32;
        low + span / 0xffff * unit
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn system_now() -> Instant {
    from_timespec(rustix::time::clock_gettime(rustix::time::ClockId::Boottime))
}

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
fn system_now() -> Instant {
    from_timespec(rustix::time::clock_gettime(rustix::time::ClockId::Monotonic))
}

#[cfg(unix)]
fn from_timespec(time: rustix::time::Timespec) -> Instant {
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant(secs.saturating_mul(1_000_000_000).saturating_add(nanos))
}

#[cfg(not(unix))]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the place that the ban points to"
)]
fn system_now() -> Instant {
    use std::sync::OnceLock;
    static START: OnceLock<std::time::Instant> = OnceLock::new();
    Instant(
        saturating_nanos(START.get_or_init(std::time::Instant::now).elapsed())
            .saturating_add(3_600_000_000_000),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn virtual_time_follows_tokio() {
        let env = Env::virtual_time(1);
        let start = env.now();
        env.sleep(Duration::from_secs(7200)).await;
        assert_eq!(env.now().since(start), Duration::from_secs(7200));
    }

    #[tokio::test(start_paused = true)]
    async fn virtual_time_is_the_same_in_every_thread() {
        let env = Env::virtual_time(1);
        env.sleep(Duration::from_secs(3600)).await;
        let (here, there) = (env.now(), std::thread::spawn(move || env.now()).join().unwrap());
        assert_eq!(here, there);
    }

    #[tokio::test]
    async fn a_seed_decides_the_random_bits() {
        let draw = |seed| Env::virtual_time(seed).random_u128().unwrap();
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(
            Env::system().random_u128().unwrap(),
            Env::system().random_u128().unwrap()
        );
    }

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(
            Instant::from_nanos(5).before(Duration::MAX),
            Instant::from_nanos(0)
        );
        assert_eq!(Instant::from_nanos(5).after(Duration::MAX), Instant::FAR_FUTURE);
        assert_eq!(Instant::from_nanos(5).since(Instant::FAR_FUTURE), Duration::ZERO);
    }
}
