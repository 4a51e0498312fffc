//! In which order the trials begin.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::Stages;
use crate::runner::Stage;
use crate::scenario::Scenario;

/// When a trial begins: after those of the phases before, and in a phase by a number from 0 to 1.
type Turn = (Phase, f64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Beside each other.
    Beside,
    /// They need a server for themselves, and there is one.
    Alone,
    /// They measure what other scenarios would disturb.
    Quiet,
}

/// Every scenario on every backend. What mostly waits and what keeps the machine busy are mixed well, so that it is as
/// busy at any time, and the same way each time. Those that need a server for themselves are spread evenly where they
/// have a second one, and come later where they would keep the others waiting.
pub(super) fn in_order<'a>(
    stages: &'a [Stages],
    scenarios: &[&'static Scenario],
) -> Vec<(&'a Arc<Stage>, &'static Scenario)> {
    let (alone, shared): (Vec<&'static Scenario>, Vec<_>) = scenarios
        .iter()
        .copied()
        .partition(|scenario| scenario.is_exclusive());
    let (measuring, alone): (Vec<_>, Vec<_>) = alone.into_iter().partition(|scenario| scenario.measures());
    let mut order: Vec<(Turn, _)> = Vec::new();
    for Stages {
        shared: stage,
        alone: second,
    } in stages
    {
        let name = stage.backend().name();
        for &scenario in &shared {
            order.push(((Phase::Beside, part(&name, scenario.id)), (stage, scenario)));
        }
        let offset = part(&name, "");
        let beside = if second.is_some() {
            Phase::Beside
        } else {
            Phase::Alone
        };
        let stage = second.as_ref().unwrap_or(stage);
        for (phase, scenarios) in [(beside, &alone), (Phase::Quiet, &measuring)] {
            for (index, &scenario) in scenarios.iter().enumerate() {
                let turn = (lossy(index) + offset) / lossy(scenarios.len());
                order.push(((phase, turn), (stage, scenario)));
            }
        }
    }
    order.sort_by(|((phase, one), _), ((other, two), _)| phase.cmp(other).then(one.total_cmp(two)));
    order.into_iter().map(|(_, trial)| trial).collect()
}

/// From 0 to 1, by chance and the same every time.
fn part(backend: &str, id: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    (backend, id).hash(&mut hasher);
    f64::from(u32::try_from(hasher.finish() >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

fn lossy(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Clock;
    use crate::memory::MemoryBackend;
    use crate::suite;

    fn stages(second: bool) -> Vec<Stages> {
        let stage = || Arc::new(Stage::new(Arc::new(MemoryBackend::new(Clock::Virtual))));
        let one = || Stages {
            shared: stage(),
            alone: second.then(stage),
        };
        vec![one(), one()]
    }

    #[test]
    fn each_once_on_each() {
        let scenarios: Vec<_> = suite::all().collect();
        for second in [false, true] {
            let stages = stages(second);
            let order = in_order(&stages, &scenarios);
            assert_eq!(order.len(), 2 * scenarios.len());
            for Stages { shared, alone } in &stages {
                let mut ids: Vec<_> = order
                    .iter()
                    .filter(|(stage, _)| {
                        let mut ours = [Some(shared), alone.as_ref()].into_iter().flatten();
                        ours.any(|ours| Arc::ptr_eq(ours, stage))
                    })
                    .map(|(_, scenario)| scenario.id)
                    .collect();
                ids.sort_unstable();
                let mut all: Vec<_> = scenarios.iter().map(|scenario| scenario.id).collect();
                all.sort_unstable();
                assert_eq!(ids, all);
            }
        }
    }

    #[test]
    fn what_would_keep_others_waiting_comes_later() {
        let scenarios: Vec<_> = suite::all().collect();
        let needs = |(_, scenario): &(_, &Scenario)| scenario.is_exclusive();
        let (only, second) = (stages(false), stages(true));
        let order = in_order(&only, &scenarios);
        let first = order.iter().position(needs).unwrap();
        assert!(order[first..].iter().all(needs));
        // With a server of their own they are everywhere, but for those that measure.
        let order = in_order(&second, &scenarios);
        let quiet = order
            .iter()
            .position(|(_, scenario)| scenario.measures())
            .unwrap();
        assert!(order[quiet..].iter().all(|(_, scenario)| scenario.measures()));
        let halves = order[..quiet].split_at(quiet / 2);
        let count = |half: &[_]| half.iter().filter(|trial| needs(trial)).count();
        assert!(count(halves.0).abs_diff(count(halves.1)) <= 2);
    }
}
