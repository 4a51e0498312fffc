//! Three servers: the one that leads dies, and the one that a client is connected to.

use std::time::Duration;

use leasehold_conformance::servers::{ClusterRequest, ServerKind};
use leasehold_driver_zk::ZkLockManager;
use lockcore::LockManager;

use crate::support::{acquire, eventually, unique};

/// Each in turn, the leader among them, while a lock is held and waited for: nothing that was acknowledged is lost, the
/// session moves to another server, and tokens grow over every change of leaders.
#[tokio::test(flavor = "multi_thread")]
async fn whichever_server_dies_locks_go_on() {
    let cluster = ClusterRequest::new(ServerKind::ZooKeeper).start().await.unwrap();
    let (a, b) = (
        ZkLockManager::connect(cluster.url()).await.unwrap(),
        ZkLockManager::connect(cluster.url()).await.unwrap(),
    );
    let name = unique("ensemble");
    let mut last = None;
    for dead in 0..cluster.nodes().len() {
        let leader = cluster.leader().await.unwrap();
        println!("server {dead} dies, {leader} leads");
        let guard = a
            .lock(&name)
            .ttl(Duration::from_secs(20))
            .wait(Duration::from_secs(20))
            .acquire()
            .await
            .unwrap();
        assert!(Some(guard.token()) > last);
        last = Some(guard.token());
        let waiting = acquire(&b, &name);
        tokio::time::sleep(Duration::from_millis(300)).await;
        cluster.node(dead).stop().await.unwrap();
        assert!(guard.is_held());
        cluster.leader().await.unwrap();
        eventually("the holder is connected again", || async {
            guard.renew().await.is_ok()
        })
        .await;
        assert!(!waiting.is_finished(), "granted while it is held");
        let mut released = guard.release().await;
        while let Err(error) = released {
            released = error.retry().await;
        }
        let (next, _) = tokio::time::timeout(Duration::from_secs(30), waiting)
            .await
            .unwrap()
            .unwrap();
        assert!(Some(next.token()) > last);
        last = Some(next.token());
        next.release().await.unwrap();
        cluster.node(dead).start_again().await.unwrap();
    }
}
