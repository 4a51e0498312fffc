//! How far it is, on a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use leasehold_measure::{Found, Observer, Plan, Step};

use crate::output;

const TICK: Duration = Duration::from_millis(200);
const BAR: &str = "{bar:24} {pos}/{len}  {elapsed} of about {duration}  {wide_msg}";

/// A bar on stderr, when that is a terminal.
#[derive(Debug)]
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(plan: &Plan, contenders: usize, quiet: bool) -> Self {
        let steps: u64 = plan
            .cases
            .iter()
            .map(|case| u64::from(plan.rounds_of(case)))
            .sum();
        let all = steps.saturating_mul(u64::try_from(contenders).unwrap_or(u64::MAX));
        let target = match quiet {
            true => ProgressDrawTarget::hidden(),
            false => ProgressDrawTarget::stderr(),
        };
        let bar = ProgressBar::with_draw_target(Some(all), target);
        if let Ok(style) = ProgressStyle::with_template(BAR) {
            bar.set_style(style.progress_chars("=> "));
        }
        if !bar.is_hidden() {
            bar.enable_steady_tick(TICK);
        }
        Self(bar)
    }

    /// One line among others.
    pub(super) fn say(&self, message: &str) {
        self.0.suspend(|| output::note(message));
    }

    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Observer for Progress {
    fn begins(&self, step: Step<'_>) {
        let Step { case, contender, .. } = step;
        self.0.set_message(format!("{}, {contender}", case.title()));
    }

    fn ended(&self, _step: Step<'_>, _found: Result<&Found, &str>) {
        self.0.inc(1);
    }
}
