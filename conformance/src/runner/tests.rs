//! The runner finds what goes wrong, however it goes wrong.

use std::time::Duration;

use lockcore::Driver;

use super::*;
use crate::MemoryBackend;
use crate::failure::fail;

fn verdict_on(clock: Clock, body: Body) -> Verdict {
    let stage = Stage::new(Arc::new(MemoryBackend::new(clock)));
    // The id decides nothing but the names of threads.
    let made_up = Box::leak(Box::new(Scenario::new("ME1", "made_up", body)));
    let outcome = stage.run(made_up, 1);
    stage.finish();
    outcome.verdict
}

/// It fails on either clock, and says all of these.
fn fails_with(body: Body, words: &[&str]) {
    for clock in [Clock::Virtual, Clock::Real] {
        match verdict_on(clock, body) {
            Verdict::Failed(message) => assert!(words.iter().all(|word| message.contains(word)), "{message}"),
            other => panic!("{other:?} on {clock:?}"),
        }
    }
}

#[test]
fn passes_what_is_right() {
    let body: Body = |cx| {
        Box::pin(async move {
            let client = cx.client().await?;
            client.lock("a").acquire().await?.release().await?;
            Ok(())
        })
    };
    assert_eq!(verdict_on(Clock::Virtual, body), Verdict::Passed);
    assert_eq!(verdict_on(Clock::Real, body), Verdict::Passed);
}

#[test]
fn a_failure_and_its_line() {
    fails_with(
        |_| Box::pin(async { fail!("so it is") }),
        &["runner/tests.rs", "so it is"],
    );
}

#[test]
fn panics_of_the_scenario_and_of_tasks() {
    fails_with(|_| Box::pin(async { panic!("here") }), &["here"]);
    let unseen: Body = |cx| {
        Box::pin(async move {
            // Nobody waits for it.
            drop(cx.spawn(async { panic!("there") }));
            cx.sleep(Duration::from_millis(50)).await;
            Ok(())
        })
    };
    fails_with(unseen, &["a task panicked", "there"]);
}

#[test]
fn a_scenario_that_never_ends() {
    let body: Body = |_| Box::pin(std::future::pending());
    let Verdict::Failed(message) = verdict_on(Clock::Virtual, body) else {
        panic!("passed")
    };
    assert!(message.contains("hung"), "{message}");
}

#[test]
fn what_is_left_at_the_backend() {
    let body: Body = |cx| {
        Box::pin(async move {
            let driver = cx.driver().await?;
            let claim = cx.claim("a", Duration::from_secs(3600))?;
            driver.acquire(&claim, lockcore::driver::Intent::Try).await?;
            // Somebody has to use the namespace for it to be looked at.
            cx.client().await?;
            Ok(())
        })
    };
    fails_with(body, &["left at the backend"]);
}

#[test]
fn a_history_that_breaks_the_rules() {
    let body: Body = |cx| {
        Box::pin(async move {
            for (token, at) in [(1, 10), (2, 20)] {
                cx.history().record(crate::history::Event::Held {
                    key: "k".into(),
                    token,
                    at,
                    until: 30,
                });
            }
            Ok(())
        })
    };
    fails_with(body, &["held by too many"]);
}

#[test]
fn a_backend_that_does_not_start() {
    #[derive(Debug)]
    struct Broken;
    #[async_trait::async_trait]
    impl Backend for Broken {
        fn name(&self) -> String {
            "broken".into()
        }
        fn capabilities(&self) -> lockcore::Capabilities {
            lockcore::Capabilities::MUTEX
        }
        async fn driver(&self, _: &Env) -> lockcore::Result<(lockcore::DynDriver, lockcore::DriverContext)> {
            Err(lockcore::Error::new(lockcore::ErrorKind::Internal, "no driver"))
        }
        async fn prepare(&self) -> lockcore::Result<()> {
            Err(lockcore::Error::new(
                lockcore::ErrorKind::Unavailable,
                "no server",
            ))
        }
    }
    let outcomes = run(Arc::new(Broken), |scenario| {
        ["ME1", "RW1", "MK1"].contains(&scenario.id)
    });
    let verdicts: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome.scenario.id, &outcome.verdict))
        .collect();
    assert!(matches!(verdicts[0], ("ME1", Verdict::Failed(message)) if message.contains("no server")));
    assert!(matches!(verdicts[1], ("RW1", Verdict::LeftOut(reason)) if reason.contains("does not declare")));
    assert!(matches!(verdicts[2], ("MK1", Verdict::LeftOut(reason)) if reason.contains("not built")));
}
