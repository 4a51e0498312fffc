//! Servers that die, sessions that end, answers that are lost.

use std::time::{Duration, Instant};

use lockcore::driver::{Driver, Intent, Lease, Released, Renewal};
use lockcore::{LockManager, LossReason, Release};

use crate::support::{
    WAIT, acquire, admin, busy, claim, claim_for, contenders, driver, eventually, granted, lock, manager,
    own, shared, unique,
};

/// The server is killed and comes back within the session's timeout: locks and places in the queue are still there.
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_is_survived() {
    let server = own().await;
    let (a, b) = (manager(&server).await, manager(&server).await);
    let name = unique("restart");
    let guard = a
        .lock(&name)
        .ttl(Duration::from_secs(30))
        .acquire()
        .await
        .unwrap();
    let waiting = acquire(&b, &name);
    tokio::time::sleep(Duration::from_millis(200)).await;
    server.restart().await.unwrap();
    let probe = driver(&server).await;
    eventually("both are there", || async {
        probe
            .inspect(&crate::support::resource(&name))
            .await
            .is_ok_and(|seen| seen.waiters == 1)
    })
    .await;
    assert!(guard.is_held() && !waiting.is_finished());
    let token = guard.token();
    eventually("it is renewed", || async { guard.renew().await.is_ok() }).await;
    assert_eq!(guard.release().await.unwrap(), Release::Released);
    let (next, _) = waiting.await.unwrap();
    assert!(next.token() > token);
    next.release().await.unwrap();
}

/// The holder's and the waiter's session end at the server, as if they had expired.
#[tokio::test(flavor = "multi_thread")]
async fn an_expired_session_is_told() {
    let server = shared().await;
    let admin = admin(server);
    let (a, b) = (manager(server).await, manager(server).await);
    let name = unique("expired");
    let guard = a
        .lock(&name)
        .ttl(Duration::from_secs(10))
        .acquire()
        .await
        .unwrap();
    let waiting = acquire(&b, &name);
    let client = admin.client().await.unwrap();
    eventually("it waits", || async {
        contenders(&client, &name).await.len() == 2
    })
    .await;
    // The waiter's first: it would get the lock from the holder, and lose it again.
    for node in contenders(&client, &name).await.into_iter().rev() {
        let stat = client
            .check_stat(&format!("{}/{node}", lock(&name)))
            .await
            .unwrap()
            .unwrap();
        admin.end(stat.ephemeral_owner).await.unwrap();
    }
    let start = Instant::now();
    assert_eq!(guard.lost().await, LossReason::SessionEnded);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(!guard.is_held());
    // The waiter has a new session and stands in the queue anew.
    let (next, _) = waiting.await.unwrap();
    assert!(next.token() > guard.token());
    assert_eq!(guard.release().await.unwrap(), Release::NotHeld);
    assert!(next.is_held());
}

/// A connection that is cut is no loss: the session goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_is_no_loss() {
    let server = own().await;
    let admin = admin(&server);
    let (a, b) = (manager(&server).await, manager(&server).await);
    let name = unique("cut");
    let mut guard = a
        .lock(&name)
        .ttl(Duration::from_secs(10))
        .acquire()
        .await
        .unwrap();
    for _ in 0..5 {
        let waiting = acquire(&b, &name);
        tokio::time::sleep(Duration::from_millis(100)).await;
        for session in admin.sessions().await.unwrap() {
            admin.cut(session).await.ok();
        }
        assert!(guard.is_held());
        let mut released = guard.release().await;
        while let Err(error) = released {
            assert!(error.error().is_retryable(), "{error}");
            released = error.retry().await;
        }
        guard = waiting.await.unwrap().0;
    }
    guard.release().await.unwrap();
}

/// The caller gives up at any point of its request, and asks again: one node, and one token.
#[tokio::test]
async fn a_lost_answer_is_asked_for_again() {
    let server = shared().await;
    let (driver, other) = (driver(server).await, driver(server).await);
    let client = admin(server).client().await.unwrap();
    for held in [false, true] {
        for polls in 1..12 {
            let name = unique("lost");
            let holder = claim(&name);
            if held {
                granted(other.acquire(&holder, WAIT).await);
            }
            let claim = claim(&name);
            let mut left = polls;
            let mut call = Box::pin(driver.acquire(&claim, WAIT));
            std::future::poll_fn(|poller| match call.as_mut().poll(poller) {
                std::task::Poll::Ready(_) => std::task::Poll::Ready(()),
                std::task::Poll::Pending => {
                    left -= 1;
                    if left == 0 {
                        std::task::Poll::Ready(())
                    } else {
                        std::task::Poll::Pending
                    }
                }
            })
            .await;
            drop(call);
            if held {
                busy(driver.acquire(&claim, WAIT).await);
                assert_eq!(contenders(&client, &name).await.len(), 2, "{polls} polls");
                other.release(&holder).await.unwrap();
            }
            let token = granted(driver.acquire(&claim, WAIT).await);
            assert_eq!(granted(driver.acquire(&claim, WAIT).await), token);
            assert_eq!(contenders(&client, &name).await.len(), 1, "{polls} polls");
            assert_eq!(driver.release(&claim).await.unwrap(), Released::Released);
            assert_eq!(contenders(&client, &name).await.len(), 0, "{polls} polls");
        }
    }
}

/// A request that nobody waits for any more is cleaned up by a release, whatever became of it.
#[tokio::test]
async fn a_release_takes_back_what_was_under_way() {
    let server = shared().await;
    let driver = driver(server).await;
    let client = admin(server).client().await.unwrap();
    granted(driver.acquire(&claim(&unique("open")), WAIT).await);
    for polls in 1..12 {
        let name = unique("ghost");
        let claim = claim(&name);
        let mut call = Box::pin(driver.acquire(&claim, if polls % 2 == 0 { WAIT } else { Intent::Try }));
        for _ in 0..polls {
            if futures_util::poll!(&mut call).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(call);
        driver.release(&claim).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(contenders(&client, &name).await, [""; 0], "{polls} polls");
    }
}

/// Nobody gives a sign of life any more: the nodes go with the session, and no sooner.
#[tokio::test(flavor = "multi_thread")]
async fn an_abandoned_lock_is_free_after_its_ttl() {
    let server = own().await;
    let name = unique("abandoned");
    let holder = claim_for(&name, Duration::from_secs(2));
    let (sender, receiver) = std::sync::mpsc::channel();
    let (url, theirs) = (server.url().to_owned(), holder.clone());
    // A process that stands still: a runtime that nobody runs.
    let stopped = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let driver = runtime.block_on(async {
            let driver = crate::support::connect(&url).await.unwrap();
            granted(driver.acquire(&theirs, WAIT).await);
            driver
        });
        sender.send(()).unwrap();
        std::thread::sleep(Duration::from_secs(8));
        // It runs again, and knows nothing.
        let look = runtime.block_on(async {
            let token = lockcore::Token::new(1);
            let lease = Lease::new(theirs.into(), token, Duration::from_secs(2));
            driver.renew(&[lease]).await
        });
        assert_eq!(look.unwrap(), [Renewal::NotHeld]);
    });
    let locks = manager(&server).await;
    receiver.recv().unwrap();
    let start = Instant::now();
    let (guard, got) = acquire(&locks, &name).await.unwrap();
    let took = got - start;
    println!("free after {took:?}");
    // Its last sign of life was up to a ping before.
    assert!(
        took > Duration::from_millis(1500) && took < Duration::from_millis(3500),
        "{took:?}"
    );
    guard.release().await.unwrap();
    stopped.join().unwrap();
}
