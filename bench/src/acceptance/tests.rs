use std::collections::HashSet;

use leasehold_conformance::servers::Origin;
use leasehold_measure::{Plan, Reference, Runner};

use super::*;
use crate::ours;

#[test]
fn every_ratio_is_of_a_case_that_is_run() {
    let plan = Plan::full(Duration::from_secs(1), 1);
    let mut cases: HashSet<_> = plan.cases.iter().map(leasehold_measure::Case::id).collect();
    // With `--large`.
    cases.insert("held-100000".to_owned());
    for ratio in RATIOS {
        assert!(cases.contains(ratio.case), "{ratio:?}");
        let figures = plan.cases.iter().find(|case| case.id() == ratio.case);
        let known = figures.is_none_or(|case| case.scenario.figures().contains(&ratio.figure));
        assert!(known, "{ratio:?}");
        for backend in ratio.backends {
            assert!(
                Backend::ALL.iter().any(|known| known.name() == *backend),
                "{ratio:?}"
            );
        }
    }
}

#[test]
fn a_verdict_says_what_was_measured() {
    let verdict = |measured| Verdict {
        backend: "redis".to_owned(),
        what: "x".to_owned(),
        bound: Bound::AtMost(1.1),
        measured,
    };
    let verdicts = [verdict(Some(1.1)), verdict(Some(1.11)), verdict(None)];
    let words: Vec<_> = verdicts.iter().map(Verdict::word).collect();
    assert_eq!(words, ["met", "MISSED", "not measured"]);
    let text = to_text(&verdicts);
    assert!(
        text.contains("redis    x       <= 1.1  1.11      MISSED\n"),
        "{text}"
    );
    assert!(
        text.ends_with("1 targets met, 1 missed, 1 not measured.\n"),
        "{text}"
    );
    assert!(to_markdown(&verdicts).contains("| redis | x | <= 1.1 | - | not measured |"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_judged() {
    let place = Place::start(Backend::Memory, Origin::Any).await.unwrap();
    let scenarios = [Scenario::Contended, Scenario::Local];
    let plan = Plan::full(Duration::from_millis(30), 1).only(&scenarios);
    let report = Runner::new(ours::all(&place, Vec::new()), plan, "t")
        .reference(Reference::Named("leasehold".to_owned()))
        .run()
        .await;
    let verdicts = judge(&report, &Limits::default());
    let stale = verdicts
        .iter()
        .find(|verdict| verdict.what.contains("stale tokens"));
    assert_eq!(stale.map(Verdict::word), Some("met"), "{verdicts:?}");
    let waits = verdicts
        .iter()
        .filter(|verdict| verdict.what.contains("longest wait"));
    assert_eq!(waits.count(), 1, "{verdicts:?}");
}
