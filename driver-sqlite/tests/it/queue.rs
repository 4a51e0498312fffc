//! Order, replays and reservations.

use std::time::Duration;

use lockcore::driver::{Bound, Driver, Intent, Lease, Released, Renewal};
use lockcore::Token;

use crate::support::{TTL, WAIT, claim, node, place, resource};

#[tokio::test]
async fn a_free_lock_is_taken_and_released() {
    let place = place();
    let node = node(&place.path).await;
    let claim = claim("a");
    let first = node.grant(&claim, Intent::Try).await;
    let Bound::Lease(ttl) = first.bound else { panic!() };
    assert_eq!(ttl, TTL);
    // The same call again.
    let again = node.grant(&claim, Intent::Try).await;
    assert_eq!(again.token, first.token);
    let Bound::Lease(left) = again.bound else { panic!() };
    assert!(left < TTL && left > TTL - Duration::from_secs(5), "{left:?}");
    assert_eq!(node.driver.release(&claim).await.unwrap(), Released::Released);
    assert_eq!(node.driver.release(&claim).await.unwrap(), Released::NotHeld);
    let third = node.grant(&claim, WAIT).await;
    assert!(third.token > first.token);
    node.driver.close().await.unwrap();
}

#[tokio::test]
async fn renewals_are_for_the_holder_alone() {
    let place = place();
    let node = node(&place.path).await;
    let (held, other) = (claim("a"), claim("b"));
    let token = node.grant(&held, Intent::Try).await.token;
    let lease = |claim: &lockcore::Claim, token| Lease::new(claim.clone().into(), token, TTL);
    let leases = [
        lease(&other, token),
        lease(&held, token),
        lease(&held, Token::new(1)),
    ];
    let renewed = node.driver.renew(&leases).await.unwrap();
    assert_eq!(renewed, [Renewal::NotHeld, Renewal::Renewed, Renewal::Renewed]);
    assert!(node.driver.renew(&[]).await.unwrap().is_empty());
    node.driver.close().await.unwrap();
}

#[tokio::test]
async fn the_queue_is_served_in_order() {
    let place = place();
    let (a, b) = (node(&place.path).await, node(&place.path).await);
    let holder = claim("q");
    let first = a.grant(&holder, WAIT).await;
    let waiters: Vec<_> = (0..6).map(|_| claim("q")).collect();
    let mut tickets = Vec::new();
    for (place, waiter) in (0..).zip(&waiters) {
        let node = if place % 2 == 0 { &a } else { &b };
        let busy = node.busy(waiter, WAIT).await;
        assert_eq!(busy.ahead, Some(place));
        let occupant = busy.holder.unwrap();
        assert_eq!((&*occupant.details, occupant.token), ("someone", first.token));
        assert!(busy.free_in.unwrap() <= TTL);
        tickets.push(busy.ticket.unwrap());
    }
    assert!(tickets.is_sorted());
    assert_eq!(b.driver.inspect(&resource("q")).await.unwrap().waiters, 6);
    let mut last = (holder, first.token);
    for (place, waiter) in waiters.iter().enumerate() {
        assert_eq!(a.driver.release(&last.0).await.unwrap(), Released::Released);
        // Reserved: nobody else gets it.
        let barger = claim("q");
        assert_eq!(b.busy(&barger, Intent::Try).await.ahead, None);
        if let Some(next) = waiters.get(place + 1) {
            let ticket = Some(tickets[place + 1]);
            assert_eq!(b.busy(next, Intent::Wait { ticket }).await.ahead, Some(1));
        }
        let ticket = Some(tickets[place]);
        let grant = a.grant(waiter, Intent::Wait { ticket }).await;
        assert!(grant.token > last.1);
        last = (waiter.clone(), grant.token);
    }
    assert_eq!(b.driver.release(&last.0).await.unwrap(), Released::Released);
    let end = b.driver.inspect(&resource("q")).await.unwrap();
    assert!(end.holders.is_empty() && end.waiters == 0);
}
