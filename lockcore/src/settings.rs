//! What a manager does unless a lock says otherwise.

use std::time::Duration;

use crate::endpoint::Endpoint;
use crate::env::Instant;
use crate::error::{Error, ErrorKind, Result};
use crate::holder::MAX_LABEL_BYTES;
use crate::name::Namespace;

/// The lease of a lock that says nothing else.
pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// The longest lease.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);

/// How long a place in a queue lasts without a sign of life. Dead waiters are found sooner: their process does not
/// take the wake-up, or does not claim within the window; this only clears up what is left.
pub const DEFAULT_WAITER_TTL: Duration = Duration::from_secs(60);

/// How long a lock stays reserved for a waiter that was woken.
pub const DEFAULT_CLAIM_WINDOW: Duration = Duration::from_millis(400);

/// How long one request may take.
pub const DEFAULT_OP_TIMEOUT: Duration = Duration::from_secs(3);

/// For how long after its grant a lock may pass among the tasks of one process.
pub const DEFAULT_LOCAL_HANDOVER: Duration = Duration::from_millis(5);

/// How long `close` waits for held locks to be released.
pub const DEFAULT_DRAIN: Duration = Duration::from_secs(5);

/// The share of a TTL by which two clocks may disagree: 1 %, that is twenty times what NTP lets a clock stray
/// (500 ppm for each of the two).
const DRIFT_DIVISOR: u32 = 100;

/// The least drift margin, for short TTLs: the grain of timers.
const DRIFT_FLOOR: Duration = Duration::from_millis(2);

/// Until when a lease is valid here, that was given for `ttl` by a call which started at `sent`.
///
/// The server starts to count at or after `sent`, so its lease ends no sooner than `sent + ttl` by its clock; the
/// margin (1 % of the TTL, at least 2 ms, at most half of it) covers that our clock may run slower than the one
/// that ends the lease.
#[must_use]
pub fn local_deadline(sent: Instant, ttl: Duration) -> Instant {
    let margin = (ttl / DRIFT_DIVISOR).max(DRIFT_FLOOR).min(ttl / 2);
    sent.after(ttl.saturating_sub(margin))
}

/// A TTL with which [`local_deadline`] of a call at `sent` is `deadline` or a little later.
pub(crate) fn ttl_until(sent: Instant, deadline: Instant) -> Duration {
    let left = deadline.since(sent);
    left + (left / (DRIFT_DIVISOR - 2))
        .max(DRIFT_FLOOR * 2)
        .min(left + DRIFT_FLOOR)
}

/// The settings of a manager. All durations are positive; what is out of bounds is refused by [`Settings::validate`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Keeps applications on one server apart. `default`. URL: `namespace`.
    pub namespace: Namespace,
    /// The lease of a lock that says nothing else, over 0 and at most 24 h. 30 s. URL: `ttl`.
    pub ttl: Duration,
    /// How long one request may take before it counts as unanswered, 10 ms to 1 min. 3 s. URL: `op_timeout`.
    pub op_timeout: Duration,
    /// How long a place in a queue lasts without a sign of life, 1 s to 24 h. 60 s. URL: `waiter_ttl`.
    pub waiter_ttl: Duration,
    /// How long a lock stays reserved for the waiter that was woken, 10 ms to 1 min; never more than half of the
    /// TTL. 400 ms. URL: `claim_window`.
    pub claim_window: Duration,
    /// For how long after its grant a mutex that nobody elsewhere waited for may pass among the tasks of this manager
    /// without a request, each with a token of its own. It is what a waiter of another process can lose by it: up to
    /// here its own turn, and the one that began before. 0 to 1 s; 0: never. 5 ms. URL: `local_handover`.
    pub local_handover: Duration,
    /// How long `close` waits for held locks to be released before it takes them back, up to 24 h. 5 s. URL: `drain`.
    pub drain: Duration,
    /// What this process calls itself to people who look at a lock, at most 128 bytes. URL: `label`.
    pub label: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: Namespace::default(),
            ttl: DEFAULT_TTL,
            op_timeout: DEFAULT_OP_TIMEOUT,
            waiter_ttl: DEFAULT_WAITER_TTL,
            claim_window: DEFAULT_CLAIM_WINDOW,
            local_handover: DEFAULT_LOCAL_HANDOVER,
            drain: DEFAULT_DRAIN,
            label: None,
        }
    }
}

impl Settings {
    /// Takes the settings that ride in a URL's query out of `endpoint`; what is not there keeps its default.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when a value cannot be read or is out of bounds.
    pub fn from_endpoint(endpoint: &mut Endpoint) -> Result<Self> {
        let mut settings = Self::default();
        if let Some(namespace) = endpoint.take_option("namespace") {
            settings.namespace = Namespace::new(namespace)?;
        }
        for (option, value) in [
            ("ttl", &mut settings.ttl),
            ("op_timeout", &mut settings.op_timeout),
            ("waiter_ttl", &mut settings.waiter_ttl),
            ("claim_window", &mut settings.claim_window),
            ("local_handover", &mut settings.local_handover),
            ("drain", &mut settings.drain),
        ] {
            if let Some(duration) = endpoint.take_duration(option)? {
                *value = duration;
            }
        }
        settings.label = endpoint.take_option("label");
        settings.validate()?;
        Ok(settings)
    }

    /// Checks the bounds that the fields state.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid), naming the setting and its bounds.
    pub fn validate(&self) -> Result<()> {
        validate_ttl(self.ttl)?;
        within(
            "op_timeout",
            self.op_timeout,
            Duration::from_millis(10),
            Duration::from_secs(60),
        )?;
        within("waiter_ttl", self.waiter_ttl, Duration::from_secs(1), MAX_TTL)?;
        within(
            "claim_window",
            self.claim_window,
            Duration::from_millis(10),
            Duration::from_secs(60),
        )?;
        within(
            "local_handover",
            self.local_handover,
            Duration::ZERO,
            Duration::from_secs(1),
        )?;
        within("drain", self.drain, Duration::ZERO, MAX_TTL)?;
        self.label.as_deref().map_or(Ok(()), validate_label)
    }
}

pub(crate) fn validate_ttl(ttl: Duration) -> Result<()> {
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "a TTL is over 0 and at most 24h, not {}",
                humantime::format_duration(ttl)
            ),
        ));
    }
    Ok(())
}

pub(crate) fn validate_label(label: &str) -> Result<()> {
    if label.is_empty() || label.len() > MAX_LABEL_BYTES {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "a label has 1 to {MAX_LABEL_BYTES} bytes, this one has {}",
                label.len()
            ),
        ));
    }
    Ok(())
}

fn within(setting: &str, value: Duration, low: Duration, high: Duration) -> Result<()> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    let [value, low, high] =
        [value, low, high].map(|duration| humantime::format_duration(duration).to_string());
    Err(Error::new(
        ErrorKind::Invalid,
        format!("{setting} is from {low} to {high}, not {value}"),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Our clock may run up to 0.5 % slow and the server's 0.4 % fast: we still stop first.
        #[test]
        fn we_stop_before_the_server(ttl_us in 1u64..86_400_000_000, sent in 0u64..1 << 60, delay in 0u64..1 << 40) {
            let ttl = Duration::from_micros(ttl_us);
            let local = local_deadline(Instant::from_nanos(sent), ttl).as_nanos() - sent;
            let real_local = u128::from(local) * 1005 / 1000;
            let real_server = u128::from(delay) + ttl.as_nanos() * 996 / 1000;
            prop_assert!(real_local <= real_server);
            prop_assert!(local > 0);
        }
    }

    proptest! {
        /// A lease that is only looked at ends neither sooner nor much later.
        #[test]
        fn a_look_changes_little(left_us in 1u64..86_400_000_000, sent in 0u64..1 << 60) {
            let (sent, left) = (Instant::from_nanos(sent), Duration::from_micros(left_us));
            let ttl = ttl_until(sent, sent.after(left));
            prop_assert!(local_deadline(sent, ttl) >= sent.after(left));
            prop_assert!(ttl <= left + (left / 90).max(DRIFT_FLOOR * 2));
        }
    }

    #[test]
    fn bounds_are_named() {
        let settings = Settings {
            op_timeout: Duration::from_secs(600),
            ..Settings::default()
        };
        assert_eq!(
            settings.validate().unwrap_err().to_string(),
            "op_timeout is from 10ms to 1m, not 10m"
        );
        for ttl in [Duration::ZERO, MAX_TTL + Duration::from_nanos(1), Duration::MAX] {
            assert_eq!(validate_ttl(ttl).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
