//! Order, replays and reservations.

use std::time::Duration;

use lockcore::driver::{Bound, Driver, Intent, Lease, Released, Renewal};
use lockcore::{Claim, ErrorKind, Kind, LockName, Namespace, Resource, Token};

use crate::support::{Ask, Place, TTL, WAIT, claim, driver, resource};

fn ttl(bound: &Bound) -> Duration {
    match bound {
        Bound::Lease(ttl) => *ttl,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_free_lock_is_taken_and_released() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let claim = claim("a");
    let first = driver.grant(&claim, Intent::Try).await;
    assert_eq!(ttl(&first.bound), TTL);
    // The same call again.
    let again = driver.grant(&claim, Intent::Try).await;
    assert_eq!(again.token, first.token);
    let left = ttl(&again.bound);
    assert!(left < TTL && left > TTL - Duration::from_secs(10), "{left:?}");
    driver.free(&claim).await;
    assert_eq!(driver.release(&claim).await.unwrap(), Released::NotHeld);
    let third = driver.grant(&claim, WAIT).await;
    assert!(third.token > first.token);
    driver.close().await.unwrap();
    let error = driver.acquire(&claim, WAIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
    driver.close().await.unwrap();
}

#[tokio::test]
async fn renewals_are_for_the_holder_alone() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let (held, other, short) = (claim("a"), claim("b"), {
        let mut claim = claim("c");
        claim.ttl = Duration::from_millis(20);
        claim
    });
    let token = driver.grant(&held, Intent::Try).await.token;
    let gone = driver.grant(&short, Intent::Try).await.token;
    tokio::time::sleep(Duration::from_millis(40)).await;
    let lease =
        |claim: &Claim, token, seconds| Lease::new(claim.clone().into(), token, Duration::from_secs(seconds));
    let leases = [
        lease(&other, token, 60),
        lease(&short, gone, 60),
        lease(&held, token, 60),
        lease(&held, Token::new(1), 90),
    ];
    let renewed = driver.renew(&leases).await.unwrap();
    assert_eq!(
        renewed[..3],
        [Renewal::NotHeld, Renewal::NotHeld, Renewal::Renewed]
    );
    let inspection = driver.inspect(&resource("a")).await.unwrap();
    let left = inspection.holders[0].remaining.unwrap();
    assert!(
        left > Duration::from_secs(50) && left <= Duration::from_secs(60),
        "{left:?}"
    );
    // An expired lease stays expired.
    assert!(driver.inspect(&resource("c")).await.unwrap().holders.is_empty());
    assert!(driver.renew(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_whole_batch_is_renewed() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let mut leases = Vec::new();
    for number in 0..500 {
        let claim = claim(&format!("batch/{number}/{}", "x".repeat(number)));
        let token = driver.grant(&claim, Intent::Try).await.token;
        leases.push(Lease::new(claim.into(), token, TTL));
    }
    driver.free(&leases[7].claim).await;
    let renewed = driver.renew(&leases).await.unwrap();
    for (number, renewal) in renewed.into_iter().enumerate() {
        assert_eq!(renewal == Renewal::NotHeld, number == 7, "{number}");
    }
    let listed = driver.list(&Namespace::default(), "batch/1").await.unwrap();
    assert!(listed.len() >= 111);
    assert!(listed.iter().all(|found| found.kind == Kind::Mutex));
}

#[tokio::test]
async fn the_queue_is_served_in_order() {
    let place = Place::new();
    let (a, b) = (driver(&place.path).await, driver(&place.path).await);
    let holder = claim("q");
    let first = a.grant(&holder, WAIT).await;
    let waiters: Vec<_> = (0..6).map(|_| claim("q")).collect();
    let mut tickets = Vec::new();
    for (place, waiter) in (0..).zip(&waiters) {
        let driver = if place % 2 == 0 { &a } else { &b };
        let busy = driver.busy(waiter, WAIT).await;
        // Again, as if the answer had been lost.
        assert_eq!(driver.busy(waiter, WAIT).await.ticket, busy.ticket);
        assert_eq!(busy.ahead, Some(place));
        let occupant = busy.holder.unwrap();
        assert_eq!((&*occupant.details, occupant.token), ("someone", first.token));
        assert!(occupant.since.is_some() && busy.reserved.is_none());
        assert!(busy.free_in.unwrap() <= TTL);
        tickets.push(busy.ticket);
    }
    assert!(tickets.is_sorted());
    assert_eq!(b.inspect(&resource("q")).await.unwrap().waiters, 6);
    let mut last = (holder, first.token);
    for (place, waiter) in waiters.iter().enumerate() {
        a.free(&last.0).await;
        // Reserved: nobody else gets it.
        let refused = b.busy(&claim("q"), Intent::Try).await;
        assert!(refused.ahead.is_none() && refused.holder.is_none() && refused.reserved.is_some());
        if let Some(next) = waiters.get(place + 1) {
            let ticket = tickets[place + 1];
            assert_eq!(b.busy(next, Intent::Wait { ticket }).await.ahead, Some(1));
        }
        let ticket = tickets[place];
        let grant = a.grant(waiter, Intent::Wait { ticket }).await;
        assert!(grant.token > last.1);
        last = (waiter.clone(), grant.token);
    }
    b.free(&last.0).await;
    let end = b.inspect(&resource("q")).await.unwrap();
    assert!(end.holders.is_empty() && end.waiters == 0);
}

#[tokio::test]
async fn a_reservation_that_lapses_costs_the_place_but_not_the_ticket() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let mut holder = claim("q");
    holder.claim_window = Duration::from_millis(20);
    driver.grant(&holder, WAIT).await;
    let waiters = [claim("q"), claim("q"), claim("q")];
    let mut tickets = Vec::new();
    for waiter in &waiters {
        tickets.push(driver.busy(waiter, WAIT).await.ticket);
    }
    driver.free(&holder).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    let second = Intent::Wait { ticket: tickets[1] };
    driver.grant(&waiters[1], second).await;
    assert_eq!(driver.inspect(&resource("q")).await.unwrap().waiters, 1);
    // The late one is back where it was.
    let first = Intent::Wait { ticket: tickets[0] };
    let busy = driver.busy(&waiters[0], first).await;
    assert_eq!((busy.ahead, busy.ticket), (Some(0), tickets[0]));
    driver.free(&waiters[1]).await;
    driver.grant(&waiters[0], first).await;
}

#[tokio::test]
async fn a_late_claim_that_nobody_noticed_is_granted() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let mut holder = claim("q");
    holder.claim_window = Duration::from_millis(10);
    driver.grant(&holder, WAIT).await;
    let waiter = claim("q");
    let ticket = driver.busy(&waiter, WAIT).await.ticket;
    driver.free(&holder).await;
    tokio::time::sleep(Duration::from_millis(30)).await;
    driver.grant(&waiter, Intent::Wait { ticket }).await;
}

#[tokio::test]
async fn a_try_does_not_overtake_and_leaves_nothing() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let mut holder = claim("q");
    holder.ttl = Duration::from_millis(30);
    driver.grant(&holder, Intent::Try).await;
    let waiter = claim("q");
    let ticket = driver.busy(&waiter, WAIT).await.ticket;
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Expired, and free but for the one who waits.
    let barger = claim("q");
    let busy = driver.busy(&barger, Intent::Try).await;
    assert!(busy.holder.is_none() && busy.ahead.is_none());
    assert!(busy.reserved.unwrap() <= barger.claim_window);
    assert_eq!(driver.inspect(&resource("q")).await.unwrap().waiters, 1);
    assert_eq!(driver.release(&barger).await.unwrap(), Released::NotHeld);
    driver.grant(&waiter, Intent::Wait { ticket }).await;
    // The old holder has nothing to release.
    assert_eq!(driver.release(&holder).await.unwrap(), Released::NotHeld);
    driver.free(&waiter).await;
}

#[tokio::test]
async fn who_gives_no_sign_of_life_leaves_the_queue() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let holder = claim("q");
    driver.grant(&holder, Intent::Try).await;
    let mut silent = claim("q");
    silent.waiter_ttl = Duration::from_millis(20);
    driver.busy(&silent, WAIT).await;
    tokio::time::sleep(Duration::from_millis(40)).await;
    assert_eq!(driver.busy(&claim("q"), WAIT).await.ahead, Some(0));
}

#[tokio::test]
async fn an_abandoned_place_is_gone() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let (holder, waiter) = (claim("q"), claim("q"));
    driver.grant(&holder, Intent::Try).await;
    driver.busy(&waiter, WAIT).await;
    assert_eq!(driver.release(&waiter).await.unwrap(), Released::NotHeld);
    assert_eq!(driver.inspect(&resource("q")).await.unwrap().waiters, 0);
    // Given up with the lock reserved for it: the next one gets it.
    let (first, second) = (claim("q"), claim("q"));
    driver.busy(&first, WAIT).await;
    driver.busy(&second, WAIT).await;
    driver.free(&holder).await;
    assert_eq!(driver.release(&first).await.unwrap(), Released::NotHeld);
    driver.grant(&second, WAIT).await;
}

#[tokio::test]
async fn names_namespaces_and_kinds_are_apart() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let long = "x".repeat(1024);
    for name in ["a", "A", "a ", "a/b", "a%2Fb", "\u{e9}", "e\u{301}", "\0", &long] {
        driver.grant(&claim(name), Intent::Try).await;
    }
    let other = Namespace::new("other").unwrap();
    let mut elsewhere = claim("a");
    elsewhere.resource = Resource::new(other.clone(), Kind::Mutex, LockName::new("a").unwrap());
    driver.grant(&elsewhere, Intent::Try).await;
    assert_eq!(driver.list(&other, "").await.unwrap().len(), 1);
    assert_eq!(driver.list(&Namespace::default(), "").await.unwrap().len(), 9);
    assert_eq!(driver.list(&Namespace::default(), "a/").await.unwrap().len(), 4);
    for kind in [Kind::ReadWrite, Kind::Semaphore] {
        let mut weighted = claim("a").of(1, 2);
        weighted.resource = Resource::new(other.clone(), kind, LockName::new("a").unwrap());
        let error = driver.acquire(&weighted, Intent::Try).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}

#[tokio::test]
async fn force_takes_the_lock_from_its_holder() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let (holder, waiter) = (claim("q"), claim("q"));
    assert!(!driver.force_release(&resource("q")).await.unwrap());
    let token = driver.grant(&holder, Intent::Try).await.token;
    driver.busy(&waiter, WAIT).await;
    assert!(driver.force_release(&resource("q")).await.unwrap());
    // Reserved for the waiter now, which nobody holds.
    assert!(!driver.force_release(&resource("q")).await.unwrap());
    let lease = Lease::new(holder.clone().into(), token, TTL);
    assert_eq!(driver.renew(&[lease]).await.unwrap(), [Renewal::NotHeld]);
    assert_eq!(driver.release(&holder).await.unwrap(), Released::NotHeld);
    assert!(driver.grant(&waiter, WAIT).await.token > token);
}

#[tokio::test]
async fn a_waiter_that_no_driver_wrote_is_skipped() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    let (holder, waiter) = (claim("q"), claim("q"));
    driver.grant(&holder, Intent::Try).await;
    place
        .sql(
            "INSERT INTO leasehold_waiter (key, ticket, attempt, deadline, wake) \
             VALUES ('default/m/q', 1, 'nobody', 9223372036854775807, '../../nowhere')",
        )
        .await;
    // A ticket that no clock gave.
    let ticket = Some(u64::MAX);
    assert_eq!(driver.busy(&waiter, Intent::Wait { ticket }).await.ahead, Some(1));
    assert_eq!(driver.busy(&claim("q"), WAIT).await.ahead, Some(2));
    driver.free(&holder).await;
    driver.grant(&waiter, WAIT).await;
}
