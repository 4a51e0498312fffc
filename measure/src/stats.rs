//! Distributions of times, and medians over rounds.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

/// Where a distribution is looked at, in percent.
pub const PERCENTILES: [f64; 12] = [
    0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 98.0, 99.0, 99.5, 99.9, 100.0,
];

/// The longest time that is told from longer ones.
const LONGEST: u64 = 3_600_000_000_000;
/// Three digits of a time are told apart.
const DIGITS: u8 = 3;

/// Times, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Times(Histogram<u64>);

impl Default for Times {
    fn default() -> Self {
        // The bounds are in order and the digits few, which is all that can be wrong.
        let empty = Histogram::new_with_bounds(1, LONGEST, DIGITS);
        Self(empty.unwrap_or_else(|_| unreachable!("constant bounds")))
    }
}

impl Times {
    pub(crate) fn record(&mut self, time: Duration) {
        self.0.saturating_record(nanos(time));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn number(&self) -> u64 {
        self.0.len()
    }

    /// In microseconds.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        micros(self.0.value_at_percentile(percent))
    }

    /// In microseconds.
    pub(crate) fn longest(&self) -> f64 {
        micros(self.0.max())
    }

    /// In microseconds at each of [`PERCENTILES`].
    pub(crate) fn curve(&self) -> Vec<f64> {
        PERCENTILES
            .iter()
            .map(|percent| self.percentile(*percent))
            .collect()
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
fn micros(nanos: u64) -> f64 {
    nanos as f64 / 1e3
}

/// A number of things as a factor.
#[expect(clippy::cast_precision_loss, reason = "nobody counts to 2^53 here")]
pub(crate) fn count(number: u64) -> f64 {
    number as f64
}

/// How long acquires and releases took, of all tasks of a run.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    pub(crate) acquire: Times,
    pub(crate) release: Times,
    pub(crate) pair: Times,
}

/// One task's part of [`Pairs`]: a histogram for each task would take too much memory, a lock at each pair too much time.
pub(crate) struct PairsOfTask<'a> {
    all: &'a Mutex<Pairs>,
    pairs: Vec<(Duration, Duration)>,
}

impl<'a> PairsOfTask<'a> {
    const AT_ONCE: usize = 256;

    pub(crate) fn new(all: &'a Mutex<Pairs>) -> Self {
        let pairs = Vec::with_capacity(Self::AT_ONCE);
        Self { all, pairs }
    }

    pub(crate) fn record(&mut self, acquire: Duration, release: Duration) {
        self.pairs.push((acquire, release));
        if self.pairs.len() == Self::AT_ONCE {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        for (acquire, release) in self.pairs.drain(..) {
            all.acquire.record(acquire);
            all.release.record(release);
            all.pair.record(acquire + release);
        }
    }
}

impl Drop for PairsOfTask<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// To a thousandth: no clock here tells more, and all readers of a report get the same number.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

/// The median; of an even number, the mean of the two in the middle.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(values[middle - 1], upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), Some(3.0));
    }

    #[test]
    fn times_keep_three_digits() {
        let mut times = Times::default();
        assert!(times.is_empty());
        for micros in 1..=1000 {
            times.record(Duration::from_micros(micros));
        }
        times.record(Duration::from_secs(1 << 40));
        for (percent, expected) in [(0.0, 1.0), (50.0, 501.0), (99.0, 991.0)] {
            let found = times.percentile(percent);
            assert!((found / expected - 1.0).abs() < 0.002, "{percent}: {found}");
        }
        assert!(times.longest() >= 3.5e9);
        let curve = times.curve();
        assert!(curve.is_sorted() && curve.len() == PERCENTILES.len());
    }

    #[test]
    fn tasks_add_up() {
        let all = Mutex::default();
        for tasks in 1..=3 {
            let mut task = PairsOfTask::new(&all);
            for _ in 0..PairsOfTask::AT_ONCE + 1 {
                task.record(Duration::from_micros(tasks), Duration::from_micros(1));
            }
        }
        let pairs = all.into_inner().unwrap();
        assert_eq!(pairs.pair.0.len(), 3 * (PairsOfTask::AT_ONCE as u64 + 1));
        assert!((pairs.pair.longest() - 4.0).abs() < 0.01);
    }
}
