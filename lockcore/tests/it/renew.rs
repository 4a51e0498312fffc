use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, LockManager, LossReason};

use crate::{World, ms, secs};

#[tokio::test(start_paused = true)]
async fn held_for_a_hundred_ttls() {
    let world = World::new();
    let guard = world.manager().lock("a").ttl(secs(3)).acquire().await.unwrap();
    for _ in 0..300 {
        world.env.sleep(secs(1)).await;
        assert!(guard.is_held());
        assert!(guard.remaining() > secs(1));
    }
    let renewals = world.store.calls(Call::Renew);
    assert!((300..=600).contains(&renewals), "{renewals} renewals in 100 TTLs");
}

#[tokio::test(start_paused = true)]
async fn renewal_ends_with_the_guard() {
    let world = World::new();
    let manager = world.manager();
    let released = manager.lock("a").ttl(secs(3)).acquire().await.unwrap();
    let dropped = manager.lock("b").ttl(secs(3)).acquire().await.unwrap();
    released.release().await.unwrap();
    drop(dropped);
    world.settle().await;
    world.env.sleep(secs(30)).await;
    assert_eq!(world.store.calls(Call::Renew), 0);
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_in_twenty_batches() {
    let world = World::new();
    let manager = world.manager();
    let mut guards = Vec::new();
    for i in 0..10_000 {
        guards.push(
            manager
                .lock(&format!("lock-{i}"))
                .ttl(secs(10))
                .acquire()
                .await
                .unwrap(),
        );
        if i % 10 == 0 {
            world.env.sleep(ms(3)).await;
        }
    }
    world.env.sleep(secs(20)).await;
    let before = world.store.calls(Call::Renew);
    world.env.sleep(secs(60)).await;
    let batches = world.store.calls(Call::Renew) - before;
    assert!(batches <= 20 * 18, "{batches} batches in 18 renewal periods");
    assert!(guards.iter().all(lockcore::Guard::is_held));
}

#[tokio::test(start_paused = true)]
async fn one_failed_renewal_is_no_loss() {
    let world = World::new();
    let guard = world.manager().lock("a").ttl(secs(6)).acquire().await.unwrap();
    for fault in [
        Fault::Refuse(ErrorKind::Unavailable),
        Fault::LoseReply,
        Fault::SwallowReply,
        Fault::SwallowRequest,
    ] {
        world.store.script(Call::Renew, [Some(fault)]);
        world.env.sleep(secs(12)).await;
        assert!(guard.is_held(), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_is_refused_is_a_loss_at_once() {
    let world = World::new();
    let guard = world.manager().lock("a").ttl(secs(30)).acquire().await.unwrap();
    world.store.expire_now("a").unwrap();
    let start = world.env.now();
    assert_eq!(guard.lost().await, LossReason::Revoked);
    assert!(world.env.now().since(start) <= secs(10) + ms(1));
    assert_eq!(guard.check().unwrap_err().loss(), Some(LossReason::Revoked));
}

#[tokio::test(start_paused = true)]
async fn theft_is_noticed_at_once() {
    let world = World::new();
    let guard = world.manager().lock("a").acquire().await.unwrap();
    world.store.steal("a", secs(5)).unwrap();
    let start = world.env.now();
    assert_eq!(guard.lost().await, LossReason::Revoked);
    assert!(world.env.now().since(start) < ms(10));
}

#[tokio::test(start_paused = true)]
async fn max_hold_ends_it() {
    let world = World::new();
    let guard = world
        .manager()
        .lock("a")
        .ttl(secs(2))
        .max_hold(secs(7))
        .acquire()
        .await
        .unwrap();
    let start = world.env.now();
    assert_eq!(guard.lost().await, LossReason::MaxHold);
    let held = world.env.now().since(start);
    assert!(held >= secs(7) - ms(1) && held < secs(7) + ms(5), "{held:?}");
    world.settle().await;
    assert_eq!(world.store.resources(), 0, "it is free at once");
}

#[tokio::test(start_paused = true)]
async fn renewal_by_hand() {
    let world = World::new();
    let guard = world
        .manager()
        .lock("a")
        .ttl(secs(2))
        .auto_renew(false)
        .acquire()
        .await
        .unwrap();
    let token = guard.token();
    for _ in 0..5 {
        world.env.sleep(ms(1500)).await;
        guard.renew().await.unwrap();
    }
    assert_eq!(world.store.calls(Call::Renew), 5);
    guard.renew_for(secs(20)).await.unwrap();
    assert!(guard.remaining() > secs(19) && guard.remaining() < secs(20));
    guard.renew_for(secs(1)).await.unwrap();
    assert!(
        guard.remaining() < secs(1),
        "it replaces the term, it adds nothing"
    );
    assert_eq!(guard.token(), token);
    world.env.sleep(secs(1)).await;
    assert_eq!(guard.renew().await.unwrap_err().kind(), ErrorKind::Lost);
    assert_eq!(guard.lost().await, LossReason::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_reconnect_checks_a_lease_without_extending_it() {
    let world = World::new();
    let guard = world
        .manager()
        .lock("a")
        .ttl(secs(2))
        .auto_renew(false)
        .acquire()
        .await
        .unwrap();
    world.env.sleep(secs(1)).await;
    let before = guard.remaining();
    world.store.partition(true);
    world.store.partition(false);
    world.settle().await;
    assert_eq!(world.store.calls(Call::Renew), 1);
    assert!(guard.remaining() <= before);
    world.store.restart_empty();
    assert_eq!(guard.lost().await, LossReason::Revoked);
}
