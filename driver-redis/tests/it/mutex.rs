//! One lock, one driver call after the other.

use std::time::Duration;

use lockcore::driver::{Acquired, Bound, Intent, Lease, Released, Renewal};
use lockcore::{Driver, ErrorKind, Kind, LockName, Namespace, Resource};

use crate::support::{
    Admin, WAIT, busy, claim, claim_for, connect, driver, enqueue, granted, shared, unique,
};

#[tokio::test]
async fn grants_once_and_frees_once() {
    let (server, name) = (shared().await, unique("once"));
    let (ours, theirs, mut admin) = (
        driver(server).await,
        driver(server).await,
        Admin::new(server).await,
    );
    let (first, second) = (claim(&name), claim(&name));

    let token = granted(ours.acquire(&first, Intent::Try).await);
    let refused = busy(theirs.acquire(&second, Intent::Try).await);
    assert_eq!((refused.ahead, refused.ticket), (None, None));
    let holder = refused.holder.unwrap();
    assert_eq!(&*holder.details, "{\"host\":\"h|1\",\"pid\":7}");
    assert_eq!(holder.token, token);
    assert!(holder.remaining.unwrap() <= Duration::from_secs(30));
    assert!(holder.remaining.unwrap() > Duration::from_secs(25));
    let age = holder.since.unwrap().elapsed().unwrap_or_default();
    assert!(age < Duration::from_secs(60), "{age:?}");
    assert_eq!(admin.keys(&name).await, "LF");

    assert_eq!(theirs.release(&second).await.unwrap(), Released::NotHeld);
    assert_eq!(ours.release(&first).await.unwrap(), Released::Released);
    assert_eq!(ours.release(&first).await.unwrap(), Released::NotHeld);
    assert_eq!(admin.keys(&name).await, "F");
    assert!(granted(theirs.acquire(&second, WAIT).await) > token);
    assert_eq!(ours.release(&first).await.unwrap(), Released::NotHeld);
    assert_eq!(theirs.release(&second).await.unwrap(), Released::Released);
}

#[tokio::test]
async fn a_repeated_acquire_is_the_same_grant_and_extends_nothing() {
    let (server, name) = (shared().await, unique("replay"));
    let driver = driver(server).await;
    let claim = claim_for(&name, Duration::from_millis(600));
    let token = granted(driver.acquire(&claim, WAIT).await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    for intent in [WAIT, Intent::Try] {
        match driver.acquire(&claim, intent).await.unwrap() {
            Acquired::Granted(grant) => {
                assert_eq!(grant.token, token);
                assert!(matches!(grant.bound, Bound::Lease(ttl) if ttl <= Duration::from_millis(400)));
            }
            other => panic!("{other:?}"),
        }
    }
    tokio::time::sleep(Duration::from_millis(410)).await;
    assert_ne!(granted(driver.acquire(&claim, WAIT).await), token);
}

#[tokio::test]
async fn waiters_have_ranks_and_tickets() {
    let (server, name) = (shared().await, unique("ranks"));
    let (driver, mut admin) = (driver(server).await, Admin::new(server).await);
    let holder = claim(&name);
    granted(driver.acquire(&holder, WAIT).await);
    let waiters = enqueue(&driver, &name, 3).await;
    let mut tickets = Vec::new();
    for (rank, waiter) in waiters.iter().enumerate() {
        let answer = busy(driver.acquire(waiter, WAIT).await);
        assert_eq!(answer.ahead, Some(rank as u64));
        tickets.push(answer.ticket.unwrap());
    }
    assert!(tickets.is_sorted_by(|a, b| a < b));
    // The one in the middle leaves, and comes back to its place.
    assert_eq!(driver.release(&waiters[1]).await.unwrap(), Released::NotHeld);
    assert_eq!(busy(driver.acquire(&waiters[2], WAIT).await).ahead, Some(1));
    let again = Intent::Wait {
        ticket: Some(tickets[1]),
    };
    assert_eq!(busy(driver.acquire(&waiters[1], again).await).ahead, Some(1));
    // All is forgotten, and they come in another order.
    admin
        .run::<()>(&format!(
            "DEL leasehold:1:default:m:{{{name}}}:W leasehold:1:default:m:{{{name}}}:Q"
        ))
        .await;
    for index in [2, 0, 1] {
        let again = Intent::Wait {
            ticket: Some(tickets[index]),
        };
        busy(driver.acquire(&waiters[index], again).await);
    }
    // Who comes after them stands behind them.
    let late = enqueue(&driver, &name, 1).await;
    for (rank, waiter) in waiters.iter().chain(&late).enumerate() {
        assert_eq!(busy(driver.acquire(waiter, WAIT).await).ahead, Some(rank as u64));
    }
    for waiter in waiters.iter().chain(&late).chain([&holder]) {
        driver.release(waiter).await.unwrap();
    }
    assert_eq!(admin.keys(&name).await, "F");
}

#[tokio::test]
async fn a_try_does_not_overtake() {
    let (server, name) = (shared().await, unique("try"));
    let (driver, mut admin) = (driver(server).await, Admin::new(server).await);
    let holder = claim_for(&name, Duration::from_millis(50));
    granted(driver.acquire(&holder, WAIT).await);
    let waiters = enqueue(&driver, &name, 1).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let tried = claim(&name);
    let refused = busy(driver.acquire(&tried, Intent::Try).await);
    assert!(refused.holder.is_none() && refused.ticket.is_none());
    assert!(refused.reserved.unwrap() <= Duration::from_millis(400));
    assert_eq!(driver.inspect(&tried.resource).await.unwrap().waiters, 1);
    granted(driver.acquire(&waiters[0], WAIT).await);
    driver.release(&waiters[0]).await.unwrap();
    granted(driver.acquire(&tried, Intent::Try).await);
    driver.release(&tried).await.unwrap();
    assert_eq!(admin.keys(&name).await, "F");
}

#[tokio::test]
async fn a_try_does_not_overtake_one_who_lives_behind_many_dead() {
    let (server, name) = (shared().await, unique("behind"));
    let (live, dying, mut admin) = (
        driver(server).await,
        driver(server).await,
        Admin::new(server).await,
    );
    let holder = claim(&name);
    granted(live.acquire(&holder, WAIT).await);
    enqueue(&dying, &name, 150).await;
    let waiter = enqueue(&live, &name, 1).await.remove(0);
    dying.close().await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    admin
        .run::<()>(&format!("DEL leasehold:1:default:m:{{{name}}}:L"))
        .await;
    let tried = claim(&name);
    busy(live.acquire(&tried, Intent::Try).await);
    granted(live.acquire(&waiter, WAIT).await);
    live.release(&waiter).await.unwrap();
    assert_eq!(admin.keys(&name).await, "F");
}

#[tokio::test]
async fn a_full_queue_says_so_and_makes_room_for_the_living() {
    let (server, name) = (shared().await, unique("full"));
    let driver = connect(&format!("{}?queue=3", server.url())).await.unwrap();
    let holder = claim(&name);
    granted(driver.acquire(&holder, WAIT).await);
    let mut waiters = enqueue(&driver, &name, 2).await;
    let mut dying = claim(&name);
    dying.waiter_ttl = Duration::from_millis(100);
    busy(driver.acquire(&dying, WAIT).await);
    let late = claim(&name);
    let error = driver.acquire(&late, WAIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the queue is full"), "{error}");
    // Those who are in go on.
    assert_eq!(busy(driver.acquire(&waiters[1], WAIT).await).ahead, Some(1));
    tokio::time::sleep(Duration::from_millis(110)).await;
    assert_eq!(busy(driver.acquire(&late, WAIT).await).ahead, Some(2));
    waiters.push(late);
    for waiter in &waiters {
        driver.release(waiter).await.unwrap();
    }
}

#[tokio::test]
async fn renews_what_is_held_and_nothing_else() {
    let (server, name) = (shared().await, unique("renew"));
    let (driver, mut admin) = (driver(server).await, Admin::new(server).await);
    let mut leases = Vec::new();
    for index in 0..450 {
        let claim = claim_for(&format!("{name}-{index}"), Duration::from_secs(20));
        let token = granted(driver.acquire(&claim, Intent::Try).await);
        leases.push(Lease::new(claim.into(), token, Duration::from_secs(60)));
    }
    let absent = claim(&format!("{name}-absent"));
    let foreign = claim(&format!("{name}-0"));
    for claim in [&absent, &foreign] {
        leases.push(Lease::new(
            claim.clone().into(),
            leases[0].token,
            Duration::from_secs(60),
        ));
    }
    let renewals = driver.renew(&leases).await.unwrap();
    assert!(renewals[..450].iter().all(|renewal| *renewal == Renewal::Renewed));
    assert_eq!(renewals[450..], [Renewal::NotHeld, Renewal::NotHeld]);
    assert_eq!(admin.keys(&format!("{name}-absent")).await, "");
    for index in [0, 199, 200, 449] {
        let left: i64 = admin
            .run(&format!("PTTL leasehold:1:default:m:{{{name}-{index}}}:L"))
            .await;
        assert!(left > 50_000, "{index}: {left}");
    }
    assert!(driver.renew(&[]).await.unwrap().is_empty());
    for lease in &leases {
        driver.release(&lease.claim).await.unwrap();
    }
}

#[tokio::test]
async fn other_kinds_are_unsupported() {
    let driver = driver(shared().await).await;
    assert!(!driver.capabilities().weighted);
    for kind in [Kind::ReadWrite, Kind::Semaphore] {
        let mut claim = claim("kinds");
        claim.resource = Resource::new(Namespace::default(), kind, LockName::new("kinds").unwrap());
        for error in [
            driver.acquire(&claim, WAIT).await.unwrap_err(),
            driver.release(&claim).await.unwrap_err(),
            driver.inspect(&claim.resource).await.unwrap_err(),
            driver.force_release(&claim.resource).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
    }
}
