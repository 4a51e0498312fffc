//! Clusters of etcd and ZooKeeper.

use std::time::{Duration, Instant};

use leasehold_conformance::servers::{ClusterRequest, Origin, ServerError, ServerKind, Target};

use tokio::time::{sleep, timeout};

use crate::{SOON, ask, planned};

async fn changes_its_leader(target: Target) {
    let start = Instant::now();
    let request = ClusterRequest::new(target.kind).origin(target.origin);
    let cluster = request.start().await.unwrap();
    println!("{cluster:?} in {:?}", start.elapsed());
    assert_eq!(cluster.url().matches("127.0.0.1:").count(), 3);

    let first = cluster.leader().await.unwrap();
    cluster.node(first).pause().await.unwrap();
    let start = Instant::now();
    let second = cluster.leader().await.unwrap();
    println!("another leads after {:?}", start.elapsed());
    assert_ne!(first, second);
    cluster.node(first).resume().await.unwrap();

    cluster.node(second).stop().await.unwrap();
    let third = cluster.leader().await.unwrap();
    assert_ne!(second, third);
    // It may have to be elected once more, when the node that was paused has come back.
    let well = async {
        while let Err(error) = ask::is_well(target.kind, cluster.node(third).address()).await {
            println!("not well yet: {error:?}");
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(4 * SOON, well).await.unwrap();
    cluster.node(second).start_again().await.unwrap();
    cluster.restart().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_etcd_changes() {
    for target in planned()
        .into_iter()
        .filter(|target| target.kind == ServerKind::Etcd)
    {
        changes_its_leader(target).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_leader_of_zookeeper_changes() {
    for target in planned()
        .into_iter()
        .filter(|target| target.kind == ServerKind::ZooKeeper)
    {
        changes_its_leader(target).await;
    }
}

#[tokio::test]
async fn what_has_no_clusters_is_refused() {
    let error = ClusterRequest::new(ServerKind::Redis).start().await.unwrap_err();
    assert!(matches!(error, ServerError::Unsupported { .. }), "{error}");
    let request = ClusterRequest::new(ServerKind::Etcd).origin(Origin::Url);
    request.start().await.unwrap_err();
}
