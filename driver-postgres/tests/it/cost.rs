//! Statements and commits, counted by the server.

use std::time::Duration;

use leasehold_conformance::servers::Server;
use lockcore::driver::{Driver, Intent, Lease, Renewal};

use crate::support::{Admin, WAIT, busy, claim, driver, enqueue, granted, own};

struct Meter(Admin);

impl Meter {
    async fn new(server: &Server) -> Self {
        let mut admin = Admin::new(server).await;
        admin
            .run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            .await;
        Self(admin)
    }

    /// Statements of drivers, and transactions that wrote.
    async fn read(&mut self) -> (i64, i64) {
        let statements = "SELECT sum(calls) FROM pg_stat_statements AS s JOIN pg_roles AS r ON r.oid = s.userid \
             WHERE r.rolname = 'leasehold'";
        let commits = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
        (self.0.number(statements).await, self.0.number(commits).await)
    }

    async fn cost(&mut self, of: impl Future<Output = ()>) -> (i64, i64) {
        let before = self.read().await;
        of.await;
        let after = self.read().await;
        (after.0 - before.0, after.1 - before.1)
    }
}

#[tokio::test]
async fn each_operation_is_one_statement_and_one_commit() {
    let server = own().await;
    let driver = driver(&server).await;
    let mut meter = Meter::new(&server).await;
    // Everything is prepared once, and rows are there.
    let warm = claim("cheap");
    granted(driver.acquire(&warm, Intent::Try).await);
    driver.release(&warm).await.unwrap();
    let one = claim("cheap");
    let cost = meter
        .cost(async { assert!(granted(driver.acquire(&one, Intent::Try).await).get() > 0) })
        .await;
    assert_eq!(cost, (1, 1), "acquire");
    let cost = meter
        .cost(async { drop(busy(driver.acquire(&claim("cheap"), Intent::Try).await)) })
        .await;
    assert_eq!(cost, (1, 0), "a refused try");
    let cost = meter.cost(async { drop(driver.release(&one).await) }).await;
    assert_eq!(cost, (1, 1), "release");
    let cost = meter
        .cost(async { assert!(granted(driver.acquire(&claim("new"), Intent::Try).await).get() > 0) })
        .await;
    assert_eq!(cost, (1, 1), "a name that was never used");
    driver.close().await.unwrap();
}

#[tokio::test]
async fn a_thousand_leases_are_renewed_in_two_statements() {
    let server = own().await;
    let driver = driver(&server).await;
    let mut meter = Meter::new(&server).await;
    let mut leases = Vec::new();
    for number in 0..1_000 {
        let claim = claim(&format!("many-{number}"));
        let token = granted(driver.acquire(&claim, Intent::Try).await);
        leases.push(Lease::new(claim.into(), token, Duration::from_secs(60)));
    }
    let cost = meter
        .cost(async {
            for batch in leases.chunks(500) {
                let answers = driver.renew(batch).await.unwrap();
                assert!(answers.iter().all(|answer| *answer == Renewal::Renewed));
            }
        })
        .await;
    assert_eq!(cost, (2, 2));
    driver.close().await.unwrap();
}

#[tokio::test]
async fn a_hand_off_costs_the_same_for_any_number_of_waiters() {
    let server = own().await;
    let (holding, waiting) = (driver(&server).await, driver(&server).await);
    let mut meter = Meter::new(&server).await;
    for waiters in [1, 16, 128] {
        let name = format!("crowd-{waiters}");
        let holder = claim(&name);
        granted(holding.acquire(&holder, Intent::Try).await);
        let queue = enqueue(&waiting, &name, waiters).await;
        let cost = meter
            .cost(async {
                holding.release(&holder).await.unwrap();
                granted(waiting.acquire(&queue[0], WAIT).await);
            })
            .await;
        assert_eq!(cost, (2, 2), "{waiters} waiters");
        // A sign of life that was given of late is not written again.
        if let Some(second) = queue.get(1) {
            let ask = async { drop(busy(waiting.acquire(second, WAIT).await)) };
            assert_eq!(meter.cost(ask).await, (1, 0));
        }
    }
    holding.close().await.unwrap();
    waiting.close().await.unwrap();
}
