//! What is measured in a run.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::case::{Case, Scenario};

/// Rounds of `Latency` in a comparison, at least.
const LATENCY_ROUNDS: u32 = 5;

/// The cases of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// What is done, in this order.
    pub cases: Vec<Case>,
    /// How often; a report has the medians.
    pub rounds: u32,
}

impl Plan {
    /// For a comparison with time to spare: the numbers of tasks, clients and locks at which designs differ.
    #[must_use]
    pub fn full(time: Duration, rounds: u32) -> Self {
        let hold = Duration::from_millis(10);
        let cases = vec![
            // The least work, and the most easily disturbed.
            Case {
                rounds: Some(rounds.max(LATENCY_ROUNDS)),
                ..Case::latency(time)
            },
            Case::throughput(64, time),
            Case::throughput(512, time),
            Case::contended(16, Duration::ZERO, time),
            Case::contended(16, hold, time * 2),
            Case::growth(2, hold, time * 2),
            Case::growth(16, hold, time * 2),
            Case::growth(128, hold, time * 2),
            Case::held(1000, Duration::from_secs(10)),
            Case::held(10_000, Duration::from_secs(10)),
            Case::recovery(Duration::from_secs(2)),
            Case::local(16, time),
            Case::popular(1000, 16, time),
        ];
        Self { cases, rounds }
    }

    /// For a look at a server that others use as well: the same scenarios, with few names and clients.
    #[must_use]
    pub fn brief(time: Duration, rounds: u32) -> Self {
        let hold = Duration::from_millis(5);
        let few = |case: Case| Case {
            most: 200_000,
            ..case
        };
        let once = |case: Case| Case {
            rounds: Some(1),
            ..case
        };
        let cases = vec![
            Case::latency(time),
            Case::throughput(16, time),
            Case::throughput(64, time),
            Case::contended(8, Duration::ZERO, time),
            Case::growth(2, hold, time),
            Case::growth(4, hold, time),
            // Each client has connections, of which a server may not have many.
            Case::growth(16, hold, time),
            Case::held(1000, Duration::from_secs(2)),
            once(Case::recovery(Duration::from_secs(2))),
            Case::local(16, time),
            Case::popular(200, 16, time),
        ];
        Self {
            cases: cases.into_iter().map(few).collect(),
            rounds,
        }
    }

    /// Only the cases of these scenarios.
    #[must_use]
    pub fn only(mut self, scenarios: &[Scenario]) -> Self {
        self.cases.retain(|case| scenarios.contains(&case.scenario));
        self
    }

    /// The rounds of `case`.
    #[must_use]
    pub fn rounds_of(&self, case: &Case) -> u32 {
        case.rounds.unwrap_or(self.rounds)
    }

    /// About how long it takes for one contender, without the time to connect.
    #[must_use]
    pub fn about(&self) -> Duration {
        self.cases
            .iter()
            .map(|case| case.time * self.rounds_of(case))
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_case_has_an_id_of_its_own() {
        let second = Duration::from_secs(1);
        for plan in [Plan::full(second, 3), Plan::brief(second, 3)] {
            let ids: HashSet<_> = plan.cases.iter().map(Case::id).collect();
            assert_eq!(ids.len(), plan.cases.len());
            let titles: HashSet<_> = plan.cases.iter().map(Case::title).collect();
            assert_eq!(titles.len(), plan.cases.len());
            for scenario in Scenario::ALL {
                assert!(!plan.clone().only(&[scenario]).cases.is_empty(), "{scenario}");
            }
            let json = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<Plan>(&json).unwrap(), plan);
        }
    }

    #[test]
    fn a_brief_look_takes_less_than_a_minute() {
        let about = Plan::brief(Duration::from_secs(1), 3).about();
        assert!(about < Duration::from_secs(45), "{about:?}");
    }
}
