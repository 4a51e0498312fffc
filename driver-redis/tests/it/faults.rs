//! What servers and networks do to us.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use leasehold_conformance::servers::{Server, ServerKind, ServerRequest};
use lockcore::driver::{Intent, Lease, Released, Renewal};
use lockcore::{Driver, ErrorKind, LockManager, LossReason};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::support::{
    Admin, WAIT, busy, claim, connect, driver, enqueue, eventually, granted, manager, own, resource,
};

#[tokio::test]
async fn forgotten_scripts_are_sent_again() {
    let server = own().await;
    let (driver, mut admin) = (driver(&server).await, Admin::new(&server).await);
    let (first, second) = (claim("flushed"), claim("flushed"));
    let mut lease = None;
    for round in 0..7 {
        admin.run::<()>("SCRIPT FLUSH").await;
        match round {
            0 => {
                let token = granted(driver.acquire(&first, Intent::Try).await);
                lease = Some(Lease::new(first.clone().into(), token, Duration::from_secs(30)));
            }
            1 => drop(busy(driver.acquire(&second, WAIT).await)),
            2 => {
                let renewals = driver.renew(&[lease.clone().unwrap()]).await.unwrap();
                assert_eq!(renewals, [Renewal::Renewed]);
            }
            3 => assert_eq!(
                driver.list(first.resource.namespace(), "").await.unwrap().len(),
                1
            ),
            4 => assert_eq!(driver.inspect(&first.resource).await.unwrap().waiters, 1),
            5 => assert!(driver.force_release(&first.resource).await.unwrap()),
            _ => assert_eq!(driver.release(&second).await.unwrap(), Released::NotHeld),
        }
    }
}

#[tokio::test]
async fn tokens_and_places_survive_a_flush() {
    let server = own().await;
    let (driver, mut admin) = (driver(&server).await, Admin::new(&server).await);
    let (holder, other) = (claim("lost"), claim("lost"));
    let token = granted(driver.acquire(&holder, WAIT).await);
    let waiters = enqueue(&driver, "lost", 2).await;
    let mut tickets = Vec::new();
    for waiter in &waiters {
        tickets.push(busy(driver.acquire(waiter, WAIT).await).ticket);
    }
    admin.run::<()>("FLUSHALL").await;
    let lease = Lease::new(holder.into(), token, Duration::from_secs(30));
    assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::NotHeld]);
    assert!(granted(driver.acquire(&other, WAIT).await) > token);
    for (index, rank) in [(1, 0), (0, 0), (1, 1)] {
        let intent = Intent::Wait {
            ticket: tickets[index],
        };
        assert_eq!(
            busy(driver.acquire(&waiters[index], intent).await).ahead,
            Some(rank)
        );
    }
}

#[tokio::test]
async fn a_killed_connection_comes_back_with_its_subscription() {
    let server = own().await;
    let (ours, theirs) = (manager(&server).await, manager(&server).await);
    let guard = ours.lock("killed").acquire().await.unwrap();
    let waiting = tokio::spawn({
        let theirs = theirs.clone();
        async move {
            theirs
                .lock("killed")
                .wait(Duration::from_secs(20))
                .acquire()
                .await
                .unwrap()
        }
    });
    let driver = driver(&server).await;
    let queued = || async {
        driver
            .inspect(&resource("killed"))
            .await
            .is_ok_and(|seen| seen.waiters == 1)
    };
    eventually("it waits", queued).await;
    for kind in ["pubsub", "normal"] {
        let mut killer = Admin::new(&server).await;
        killer
            .run::<u64>(&format!("CLIENT KILL TYPE {kind} SKIPME yes"))
            .await;
        eventually("they are back", || async {
            let channels: Vec<String> = Admin::new(&server).await.run("PUBSUB CHANNELS leasehold:*").await;
            channels.len() == 3
        })
        .await;
    }
    eventually("it waits again", queued).await;
    let start = Instant::now();
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[tokio::test]
async fn a_restart_keeps_waiters_and_tokens() {
    let server = own().await;
    let (ours, theirs) = (manager(&server).await, manager(&server).await);
    let guard = ours.lock("restarted").acquire().await.unwrap();
    let token = guard.token();
    let waiting = tokio::spawn({
        let theirs = theirs.clone();
        async move {
            theirs
                .lock("restarted")
                .wait(Duration::from_secs(30))
                .acquire()
                .await
                .unwrap()
        }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.restart().await.unwrap();
    // The lock is in the append-only file, so it is still ours.
    eventually("it answers", || async { ours.ping().await.is_ok() }).await;
    assert!(guard.is_held());
    guard.release().await.unwrap();
    let next = waiting.await.unwrap();
    assert!(next.token() > token);
    next.release().await.unwrap();
}

#[tokio::test]
async fn a_full_server_renews_and_releases() {
    let server = own().await;
    let (driver, mut admin) = (driver(&server).await, Admin::new(&server).await);
    let holder = claim("full");
    let token = granted(driver.acquire(&holder, WAIT).await);
    let waiters = enqueue(&driver, "full", 2).await;
    admin.run::<()>("CONFIG SET maxmemory-policy noeviction").await;
    admin.run::<()>("CONFIG SET maxmemory 1").await;
    let error = driver.acquire(&claim("another"), WAIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("out of memory"), "{error}");
    let lease = Lease::new(holder.clone().into(), token, Duration::from_secs(60));
    assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::Renewed]);
    assert_eq!(driver.release(&waiters[1]).await.unwrap(), Released::NotHeld);
    assert_eq!(driver.release(&holder).await.unwrap(), Released::Released);
    assert!(driver.inspect(&holder.resource).await.unwrap().holders.is_empty());
    assert_eq!(driver.release(&waiters[0]).await.unwrap(), Released::NotHeld);
    assert_eq!(admin.keys("full").await, "F");
    admin.run::<()>("CONFIG SET maxmemory 0").await;
    granted(driver.acquire(&claim("another"), WAIT).await);
}

#[tokio::test]
async fn a_primary_that_becomes_a_replica_is_left() {
    let server = own().await;
    let (driver, mut admin) = (driver(&server).await, Admin::new(&server).await);
    granted(driver.acquire(&claim("before"), WAIT).await);
    admin.run::<()>("REPLICAOF 127.0.0.1 1").await;
    let error = driver.acquire(&claim("demoted"), WAIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let error = connect(server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("connect to its primary"), "{error}");
    eventually("it is told", || async {
        let error = driver.acquire(&claim("demoted"), WAIT).await.unwrap_err();
        error.to_string().contains("connect to its primary")
    })
    .await;
    admin.run::<()>("REPLICAOF NO ONE").await;
    eventually("it is back", || async {
        driver.acquire(&claim("after"), Intent::Try).await.is_ok()
    })
    .await;
}

/// Passes bytes on until it is told to swallow them: the connections stay open.
async fn proxy(server: &Server) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    let (silent, target) = (Arc::new(AtomicBool::new(false)), server.address().to_owned());
    tokio::spawn({
        let silent = Arc::clone(&silent);
        async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let (silent, target) = (Arc::clone(&silent), target.clone());
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        () = async { while !silent.load(Ordering::Relaxed) { tokio::time::sleep(Duration::from_millis(5)).await } } => {}
                    }
                    // Nothing is read any more, nothing is closed.
                    std::future::pending::<()>().await;
                });
            }
        }
    });
    (url, silent)
}

#[tokio::test]
async fn a_half_open_connection_is_replaced() {
    let server = own().await;
    let (url, silent) = proxy(&server).await;
    let driver = Arc::new(connect(&format!("{url}?keep_alive=100ms")).await.unwrap());
    driver.ping().await.unwrap();
    silent.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let stuck = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.ping().await.unwrap_err() }
    });
    silent.store(false, Ordering::Relaxed);
    let start = Instant::now();
    let error = stuck.await.unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    driver.ping().await.unwrap();
}

#[tokio::test]
async fn a_silent_server_means_loss_by_the_deadline() {
    let server = own().await;
    let manager = manager(&server).await;
    let guard = manager
        .lock("paused")
        .ttl(Duration::from_secs(1))
        .acquire()
        .await
        .unwrap();
    let start = Instant::now();
    server.pause().await.unwrap();
    assert_eq!(guard.lost().await, LossReason::Unreachable);
    assert!(
        start.elapsed() < Duration::from_millis(1_500),
        "{:?}",
        start.elapsed()
    );
    server.resume().await.unwrap();
    eventually("it can be had again", || async {
        match manager.lock("paused").try_acquire().await {
            Ok(guard) => guard.is_some(),
            Err(_) => false,
        }
    })
    .await;
}

#[tokio::test]
async fn valkey_works_too() {
    let request = ServerRequest::new(ServerKind::Valkey);
    let server = match request.start().await {
        Ok(server) => server,
        Err(error) => return println!("left out: {error}"),
    };
    let manager = manager(&server).await;
    let guard = manager.lock("valkey").acquire().await.unwrap();
    assert!(manager.lock("valkey").try_acquire().await.unwrap().is_none());
    guard.release().await.unwrap();
}
