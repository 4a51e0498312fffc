//! Small disks, and clocks that are stepped.

use std::time::Duration;

use leasehold_conformance::servers::{Origin, ServerError, ServerKind, ServerRequest, Target};

use crate::{ask, planned};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn targets(of: &[ServerKind]) -> impl Iterator<Item = Target> {
    planned()
        .into_iter()
        .filter(move |target| of.contains(&target.kind))
}

#[tokio::test]
async fn a_full_disk_takes_no_more_writes() {
    for target in targets(&[ServerKind::Redis, ServerKind::Valkey]) {
        let request = target.request().disk_limit(4 << 20);
        if target.origin == Origin::LocalProcess && !is_root() {
            let error = request.start().await.unwrap_err();
            assert!(error.to_string().contains("root"), "{error}");
            continue;
        }
        let server = request.start().await.unwrap();
        let address = server.address();
        server.fill_disk().await.unwrap();
        // What fits into the page that its file already has is still written.
        let long = format!("SET long {}", "x".repeat(20_000));
        let mut refused = false;
        for _ in 0..20 {
            let reply = ask::redis(address, &long, "\n").await.unwrap();
            refused |= !reply.starts_with("+OK");
        }
        assert!(refused, "{server:?}");
        server.free_disk().await.unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let reply = ask::redis(address, "SET short 1", "\n").await.unwrap();
        assert!(reply.starts_with("+OK"), "{reply}");
    }
}

#[tokio::test]
async fn every_kind_starts_on_a_small_disk() {
    let rest = [
        ServerKind::Etcd,
        ServerKind::ZooKeeper,
        ServerKind::MySql,
        ServerKind::MariaDb,
        ServerKind::Postgres,
    ];
    for target in targets(&rest) {
        if target.origin == Origin::LocalProcess && !is_root() {
            continue;
        }
        let megabytes = match target.kind {
            ServerKind::ZooKeeper => 4,
            ServerKind::MySql | ServerKind::MariaDb => 200,
            _ => 150,
        };
        let request = target.request().disk_limit(megabytes << 20);
        let server = request.start().await.unwrap();
        ask::is_well(target.kind, server.address()).await.unwrap();
        server.fill_disk().await.unwrap();
        server.free_disk().await.unwrap();
    }
}

#[tokio::test]
async fn a_disk_without_a_limit_cannot_be_filled() {
    for target in targets(&[ServerKind::Redis]) {
        let server = target.request().own().start().await.unwrap();
        let error = server.fill_disk().await.unwrap_err();
        assert!(matches!(error, ServerError::Unsupported { .. }), "{error}");
        server.step_clock(Duration::from_secs(1), true).unwrap_err();
    }
}

/// The server's clock, in seconds.
async fn time(address: &str) -> u64 {
    let reply = ask::redis(address, "TIME", "\r\n$").await.unwrap();
    let seconds = reply.lines().nth(2).unwrap();
    seconds.parse().unwrap()
}

#[tokio::test]
async fn a_wall_clock_is_stepped() {
    let targets = targets(&[ServerKind::Redis]).filter(|target| target.origin == Origin::LocalProcess);
    for target in targets {
        let server = target.request().wall_clock().start().await.unwrap();
        let address = server.address();
        let before = time(address).await;
        server.step_clock(Duration::from_secs(3600), true).unwrap();
        let after = time(address).await;
        assert!((3600..3660).contains(&(after - before)), "{before} {after}");
        server.step_clock(Duration::from_secs(7200), false).unwrap();
        let after = time(address).await;
        assert!((3540..=3600).contains(&(before - after)), "{before} {after}");
    }
}

#[tokio::test]
async fn every_process_starts_with_a_wall_clock() {
    let rest = [ServerKind::ZooKeeper, ServerKind::MariaDb, ServerKind::Postgres];
    for target in targets(&rest).filter(|target| target.origin == Origin::LocalProcess) {
        let server = target.request().wall_clock().start().await.unwrap();
        server.step_clock(Duration::from_secs(3600), true).unwrap();
        ask::is_well(target.kind, server.address()).await.unwrap();
    }
    let error = ServerRequest::new(ServerKind::Etcd).wall_clock().start().await;
    assert!(matches!(error, Err(ServerError::Unsupported { .. })));
}
