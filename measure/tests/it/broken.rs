//! Locks that are none are found out, and failures are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use leasehold_measure::{Case, Client, Contender, Failure, Figure, Hold, Offers, ServerUse};

use crate::support::{SHORT, memory, runner};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Everybody gets it at once.
    LetsAllIn,
    /// It is a lock, and its tokens stay the same.
    SameToken,
    /// It says that it was lost.
    Loses,
    /// It cannot be freed.
    FailsAtRelease,
    /// It costs three requests and nothing else.
    Counts,
}

#[derive(Debug)]
struct Broken(Fault, AtomicU64);

#[derive(Debug)]
struct BrokenClient(Fault, Option<Box<dyn Client>>);

#[derive(Debug)]
struct BrokenHold(Fault, Option<Box<dyn Hold>>);

impl Broken {
    fn with(fault: Fault) -> Arc<dyn Contender> {
        Arc::new(Self(fault, AtomicU64::new(0)))
    }
}

#[async_trait]
impl Contender for Broken {
    fn name(&self) -> &str {
        "broken"
    }

    fn backend(&self) -> &str {
        "none"
    }

    fn offers(&self) -> Offers {
        Offers {
            queue: false,
            tokens: true,
            renewal: true,
        }
    }

    async fn client(&self) -> Result<Box<dyn Client>, Failure> {
        // All clients of one process share one store, but for the fault.
        let inner = match self.0 {
            Fault::LetsAllIn => None,
            _ => Some(STORE.with(Arc::clone).client().await?),
        };
        Ok(Box::new(BrokenClient(self.0, inner)))
    }

    async fn server_use(&self) -> Result<ServerUse, Failure> {
        let asked = self.1.fetch_add(1, Ordering::SeqCst);
        match self.0 {
            Fault::Counts => Ok(ServerUse {
                requests: Some(asked * 300),
                cpu: Some(Duration::from_millis(asked)),
                ..ServerUse::default()
            }),
            _ => Ok(ServerUse::default()),
        }
    }
}

thread_local! {
    /// Of this test's thread.
    static STORE: Arc<dyn Contender> = memory("inner");
}

#[async_trait]
impl Client for BrokenClient {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        tokio::task::yield_now().await;
        let inner = match &self.1 {
            Some(inner) => Some(inner.acquire(name, ttl).await?),
            None => None,
        };
        Ok(Box::new(BrokenHold(self.0, inner)))
    }
}

#[async_trait]
impl Hold for BrokenHold {
    fn token(&self) -> Option<u64> {
        match self.0 {
            Fault::SameToken => Some(7),
            _ => self.1.as_ref().and_then(|inner| inner.token()),
        }
    }

    fn is_held(&self) -> bool {
        self.0 != Fault::Loses
    }

    async fn release(self: Box<Self>) -> Result<(), Failure> {
        tokio::task::yield_now().await;
        if self.0 == Fault::FailsAtRelease {
            return Err("the server is on fire".into());
        }
        match self.1 {
            Some(inner) => inner.release().await,
            None => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_lock_that_lets_two_in_is_found_out() {
    let cases = vec![
        Case::contended(4, Duration::from_millis(1), SHORT),
        Case::local(4, SHORT),
        Case::popular(2, 8, SHORT),
    ];
    let report = runner(vec![Broken::with(Fault::LetsAllIn)], cases, 2).run().await;
    assert!(report.is_alarming());
    for section in &report.sections {
        let standing = &section.results[0];
        let violations = standing.median.figures[&Figure::Violations];
        assert!(violations > 0.0, "{}", section.id);
        let alarm = format!(
            "none/broken, {}: the lock was granted while somebody had it",
            section.title
        );
        assert!(
            report.alarms.iter().any(|found| found.starts_with(&alarm)),
            "{:?}",
            report.alarms
        );
    }
    for text in [report.to_text(), report.to_markdown(), report.to_html().unwrap()] {
        assert!(text.contains("DO NOT RELY ON THIS"), "{text}");
    }
}

#[tokio::test]
async fn tokens_that_do_not_grow_are_found_out() {
    let cases = vec![Case::contended(2, Duration::ZERO, SHORT)];
    let report = runner(vec![Broken::with(Fault::SameToken)], cases, 1).run().await;
    let figures = &report.sections[0].results[0].median.figures;
    assert_eq!(figures[&Figure::Violations], 0.0, "{:?}", report.alarms);
    assert!(figures[&Figure::StaleTokens] > 0.0);
    assert!(
        report.alarms.len() == 1 && report.alarms[0].contains("token"),
        "{:?}",
        report.alarms
    );
}

#[tokio::test]
async fn held_locks_that_are_lost_are_counted() {
    let cases = vec![Case::held(30, Duration::from_millis(50))];
    let report = runner(vec![Broken::with(Fault::Loses)], cases, 1).run().await;
    assert_eq!(
        report.sections[0].results[0].median.figures[&Figure::Losses],
        30.0
    );
    assert!(report.is_alarming());
}

#[tokio::test]
async fn a_failure_is_told_and_the_others_go_on() {
    let cases = vec![
        Case::throughput(3, SHORT),
        Case::contended(3, Duration::ZERO, SHORT),
    ];
    let report = runner(
        vec![Broken::with(Fault::FailsAtRelease), memory("fine")],
        cases,
        1,
    )
    .run()
    .await;
    for section in &report.sections {
        let [broken, fine] = &section.results[..] else {
            panic!("two")
        };
        assert_eq!(broken.failure.as_deref(), Some("the server is on fire"));
        assert_eq!(fine.failure, None);
        assert!(fine.median.figures[&Figure::PerSecond] > 0.0);
    }
    assert!(report.to_text().contains("failed: the server is on fire"));
}

#[tokio::test]
async fn what_the_server_used_is_spread_over_the_acquisitions() {
    let cases = vec![Case {
        most: 100,
        ..Case::throughput(1, Duration::from_secs(30))
    }];
    let report = runner(vec![Broken::with(Fault::Counts)], cases, 1).run().await;
    let figures = &report.sections[0].results[0].median.figures;
    assert_eq!(figures[&Figure::ServerRequests], 3.0);
    assert_eq!(figures[&Figure::ServerCpu], 10.0);
    assert!(!figures.contains_key(&Figure::ServerWrites));
}
