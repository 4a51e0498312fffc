//! Each scenario finds what it is about, and a run ends when it should.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use leasehold_measure::{Case, Curve, Figure, Found, Observer, Outcome, Reference, Report, Scenario, Step};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::support::{SHORT, memory, of, one_of_each, runner};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_scenario_finds_what_it_is_about() {
    let report = runner(vec![memory("leasehold")], one_of_each(), 2).run().await;
    assert!(
        !report.interrupted && !report.is_alarming(),
        "{:?}",
        report.alarms
    );
    assert!(report.machine.cores > 0 && !report.machine.kernel.is_empty());
    for section in &report.sections {
        let standing = &section.results[0];
        assert_eq!(standing.failure, None, "{}", section.id);
        let rounds = if section.case.scenario == Scenario::Held {
            1
        } else {
            2
        };
        assert_eq!(standing.rounds.len(), rounds, "{}", section.id);
        for (figure, value) in &standing.median.figures {
            assert!(
                value.is_finite() && *value >= 0.0,
                "{}: {figure:?} {value}",
                section.id
            );
        }
    }
    let figure = |id: &str, figure| {
        let figures = &of(&report.sections, id).results[0].median.figures;
        figures
            .get(&figure)
            .copied()
            .unwrap_or_else(|| panic!("{id} has no {figure:?}"))
    };
    let curve = |id: &str, curve| {
        let curves = &of(&report.sections, id).results[0].median.curves;
        let values = &curves[&curve];
        assert!(
            values.len() == report.percentiles.len() && values.is_sorted(),
            "{values:?}"
        );
    };
    let (p50, p99) = (
        figure("latency", Figure::PairP50),
        figure("latency", Figure::PairP99),
    );
    assert!(p50 > 0.0 && p50 <= p99, "{p50} {p99}");
    assert!(figure("latency", Figure::RoundTripP50) <= p99);
    curve("latency", Curve::Pair);
    curve("throughput-8", Curve::Pair);
    for id in ["throughput-8", "contended-4-0ms", "local-4", "popular-20x8"] {
        assert!(figure(id, Figure::PerSecond) > 100.0, "{id}");
    }
    for id in ["contended-4-0ms", "growth-2-2ms", "growth-6-2ms"] {
        assert!(
            figure(id, Figure::HandOffP50) <= figure(id, Figure::HandOffP99),
            "{id}"
        );
        assert!(
            figure(id, Figure::HandOffsPerSecond) <= figure(id, Figure::PerSecond),
            "{id}"
        );
        let [least, median, most] =
            [Figure::ShareLeast, Figure::ShareMedian, Figure::ShareMost].map(|share| figure(id, share));
        assert!(
            0.0 < least && least <= median && median <= most,
            "{id}: {least} {median} {most}"
        );
        curve(id, Curve::HandOff);
    }
    // It is held for 2 ms each time, so it cannot be had more often.
    assert!(figure("growth-6-2ms", Figure::PerSecond) <= 500.0);
    assert!(figure("growth-6-2ms", Figure::LongestWait) >= 2.0);
    assert!(figure("held-300", Figure::Losses) <= 300.0);
    assert!(figure("local-4", Figure::RemoteWaitP50) <= 1e3 * figure("local-4", Figure::RemoteWaitLongest));
    if cfg!(target_os = "linux") {
        assert!(figure("latency", Figure::ClientCpu) > 0.0);
        figure("held-300", Figure::MemoryPerLock);
    }
    let recovery = &of(&report.sections, "recovery-200ms").results[0].median;
    assert!(
        recovery.figures.is_empty() && recovery.notes[0].contains("nothing to kill"),
        "{recovery:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn contenders_are_compared_and_take_turns() {
    #[derive(Default)]
    struct Watch(Mutex<Vec<String>>);
    impl Observer for Watch {
        fn begins(&self, step: Step<'_>) {
            self.0
                .lock()
                .unwrap()
                .push(format!("{} {}", step.round, step.contender));
        }

        fn ended(&self, _step: Step<'_>, found: Result<&Found, &str>) {
            assert!(found.is_ok());
        }
    }

    let watch = Arc::new(Watch::default());
    let cases = vec![Case::latency(Duration::from_millis(20))];
    let report = runner(vec![memory("a"), memory("b"), memory("b")], cases, 2)
        .observer(Arc::<Watch>::clone(&watch))
        .reference(Reference::Named("a".into()))
        .version("of this", "1.0")
        .run()
        .await;
    assert_eq!(
        *watch.0.lock().unwrap(),
        [
            "1 memory/a",
            "1 memory/b",
            "1 memory/b#2",
            "2 memory/b#2",
            "2 memory/b",
            "2 memory/a"
        ]
    );
    let [a, b, _] = &report.sections[0].results[..] else {
        panic!("three")
    };
    assert!(a.reference.is_none() && a.ratios.is_empty());
    assert_eq!(b.reference.as_deref(), Some("memory/a"));
    let [ours, theirs] = [a, b].map(|standing| standing.median.figures[&Figure::PairP50]);
    assert!((b.ratios[&Figure::PairP50] - theirs / ours).abs() < 1e-3);
    // What programs read is what was found.
    let read: Report = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!(read, report);
    for text in [report.to_text(), report.to_markdown()] {
        for part in [
            "S1: latency without contention",
            "memory/b#2",
            "x ",
            "No lock was granted twice",
        ] {
            assert!(text.contains(part), "{part:?}: {text}");
        }
    }
    assert!(report.to_markdown().contains("of this: 1.0"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_ends_a_run_with_what_there_is() {
    /// Says when the second scenario begins.
    #[derive(Default)]
    struct Second(Notify);
    impl Observer for Second {
        fn begins(&self, step: Step<'_>) {
            if step.case.scenario == Scenario::Contended {
                self.0.notify_one();
            }
        }

        fn ended(&self, _step: Step<'_>, _found: Result<&Found, &str>) {}
    }

    let (stop, second) = (CancellationToken::new(), Arc::new(Second::default()));
    let minute = Duration::from_secs(60);
    let cases = vec![
        Case::latency(SHORT),
        Case::contended(4, Duration::from_millis(1), minute),
        Case::throughput(4, minute),
    ];
    let run = runner(vec![memory("a")], cases, 3)
        .observer(Arc::<Second>::clone(&second))
        .stop(stop.clone())
        .run();
    let stopping = async {
        second.0.notified().await;
        tokio::time::sleep(SHORT).await;
        stop.cancel();
    };
    let both = async { tokio::join!(run, stopping).0 };
    let report = tokio::time::timeout(minute / 2, both).await.unwrap();
    assert!(report.interrupted);
    assert_eq!(report.sections.len(), 2);
    assert_eq!(report.sections[0].results[0].rounds.len(), 3);
    assert!(
        report.sections[1].results[0]
            .median
            .figures
            .contains_key(&Figure::PerSecond)
    );
    assert!(report.to_text().contains("Ended before its time"));
}

#[tokio::test]
async fn acquisitions_have_a_bound_too() {
    let few = |case: Case| Case { most: 5, ..case };
    let minute = Duration::from_secs(60);
    let cases = vec![
        few(Case::latency(minute)),
        few(Case::contended(3, Duration::ZERO, minute)),
    ];
    let run = runner(vec![memory("a")], cases, 1).run();
    let report = tokio::time::timeout(minute / 2, run).await.unwrap();
    for section in &report.sections {
        assert_eq!(section.results[0].failure, None);
        assert!(section.results[0].median.figures.contains_key(&Figure::PerSecond));
    }
}

#[tokio::test]
async fn what_a_contender_cannot_do_is_left_out_with_the_reason() {
    let cases = vec![Case::latency(SHORT), Case::throughput(2, SHORT)];
    let report = runner(vec![memory("a")], cases, 1)
        .unless(|contender, case| {
            (case.tasks > 1).then(|| format!("{} has one connection", contender.name()))
        })
        .run()
        .await;
    let [done, left_out] = &report.sections[..] else {
        panic!("two")
    };
    assert!(matches!(&done.results[0].rounds[0], Outcome::Found(found) if !found.figures.is_empty()));
    assert!(left_out.results[0].median.figures.is_empty());
    assert!(
        report.to_text().contains("memory: a has one connection"),
        "{}",
        report.to_text()
    );
}
