//! Waiters: in order, dead, removed, and of other recipes.

use std::time::{Duration, Instant};

use leasehold_driver_zk::zookeeper_client::{Acls, CreateMode};
use lockcore::driver::{Driver, Intent, Released};
use lockcore::{Env, LockManager};

use crate::support::{
    WAIT, acquire, admin, busy, claim, contenders, driver, enqueue, eventually, foreign, granted, lock,
    manager, shared, unique,
};

/// The default claim window, and what a slow machine adds.
const WINDOW: Duration = Duration::from_millis(400);
const SLACK: Duration = Duration::from_millis(400);

async fn waiters(driver: &impl Driver, name: &str) -> u64 {
    driver
        .inspect(&crate::support::resource(name))
        .await
        .unwrap()
        .waiters
}

/// They never claim, as stopped processes, though their session lives on.
#[tokio::test]
async fn three_dead_waiters_in_a_row_cost_a_window_each() {
    let server = shared().await;
    let (dead, live) = (driver(server).await, manager(server).await);
    for count in 1..=3_u32 {
        let name = unique("dead");
        let holder = claim(&name);
        granted(dead.acquire(&holder, WAIT).await);
        let places = enqueue(&dead, &name, count as usize).await;
        let waiting = acquire(&live, &name);
        eventually("it waits", || async {
            waiters(&dead, &name).await > u64::from(count)
        })
        .await;
        // The waiter may see the release before its answer is here.
        let released = Instant::now();
        dead.release(&holder).await.unwrap();
        let (guard, got) = waiting.await.unwrap();
        let took = got - released;
        assert!(took >= WINDOW * count, "{count} dead waiters: {took:?}");
        assert!(took <= WINDOW * count + SLACK, "{count} dead waiters: {took:?}");
        println!("{count} dead waiters in a row: {took:?}");
        // They were removed, and would stand in the queue anew.
        assert!(guard.is_held());
        let back = busy(dead.acquire(&places[0], WAIT).await);
        assert_eq!(back.ahead, Some(0));
        assert_eq!(dead.release(&places[0]).await.unwrap(), Released::NotHeld);
        guard.release().await.unwrap();
    }
}

/// Who comes when the holder has left already waits for the dead one's window as well.
#[tokio::test]
async fn a_newcomer_gets_past_a_dead_waiter() {
    let server = shared().await;
    let (dead, live) = (driver(server).await, manager(server).await);
    let name = unique("newcomer");
    let holder = claim(&name);
    granted(dead.acquire(&holder, WAIT).await);
    enqueue(&dead, &name, 1).await;
    dead.release(&holder).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    // A try does not overtake, and leaves nothing.
    assert!(live.lock(&name).try_acquire().await.unwrap().is_none());
    let client = admin(server).client().await.unwrap();
    assert_eq!(contenders(&client, &name).await.len(), 1);
    let start = Instant::now();
    let (guard, got) = acquire(&live, &name).await.unwrap();
    assert!(
        got - start >= WINDOW && got - start <= WINDOW + SLACK,
        "{:?}",
        got - start
    );
    guard.release().await.unwrap();
}

/// Its process was stopped after its node was created, before it could say that it waits.
#[tokio::test]
async fn a_waiter_that_died_young() {
    let server = shared().await;
    let (dead, live) = (driver(server).await, manager(server).await);
    let client = admin(server).client().await.unwrap();
    let name = unique("young");
    let holder = claim(&name);
    granted(dead.acquire(&holder, WAIT).await);
    foreign(&client, &name, b"leasehold/1 new\n{}").await;
    let waiting = acquire(&live, &name);
    eventually("it waits", || async { waiters(&dead, &name).await == 2 }).await;
    let released = Instant::now();
    dead.release(&holder).await.unwrap();
    let (guard, got) = waiting.await.unwrap();
    assert!(
        got - released >= WINDOW && got - released <= WINDOW + SLACK,
        "{:?}",
        got - released
    );
    guard.release().await.unwrap();
}

/// It may hold by its birth: nobody has seen it behind another one. Nor is anything of other recipes ever removed.
#[tokio::test]
async fn what_may_hold_is_never_removed() {
    let server = shared().await;
    let live = manager(server).await;
    let client = admin(server).client().await.unwrap();
    for data in [
        &b"leasehold/1 new\n{}"[..],
        b"leasehold/1 holds\n{}",
        b"10.0.0.1",
        b"",
    ] {
        let name = unique("holds");
        live.lock(&name).acquire().await.unwrap().release().await.unwrap();
        let node = foreign(&client, &name, data).await;
        let waiting = acquire(&live, &name);
        tokio::time::sleep(WINDOW * 3).await;
        assert!(client.check_stat(&node).await.unwrap().is_some());
        assert!(!waiting.is_finished());
        client.delete(&node, None).await.unwrap();
        let (guard, _) = waiting.await.unwrap();
        guard.release().await.unwrap();
    }
}

/// Another recipe's waiter is waited for, however long it takes.
#[tokio::test]
async fn a_foreign_waiter_keeps_its_turn() {
    let server = shared().await;
    let (other, live) = (driver(server).await, manager(server).await);
    let client = admin(server).client().await.unwrap();
    let name = unique("foreign");
    let holder = claim(&name);
    granted(other.acquire(&holder, WAIT).await);
    let theirs = foreign(&client, &name, b"10.0.0.1").await;
    let waiting = acquire(&live, &name);
    eventually("it waits", || async { waiters(&other, &name).await == 2 }).await;
    other.release(&holder).await.unwrap();
    tokio::time::sleep(WINDOW * 2).await;
    assert!(client.check_stat(&theirs).await.unwrap().is_some());
    client.delete(&theirs, None).await.unwrap();
    let released = Instant::now();
    let (guard, got) = waiting.await.unwrap();
    assert!(got - released < SLACK, "{:?}", got - released);
    guard.release().await.unwrap();
}

/// The claim of who comes back late fails: somebody has removed its node, or is about to.
#[tokio::test]
async fn a_claim_and_a_removal_exclude_each_other() {
    let server = shared().await;
    let (slow, live) = (driver(server).await, driver(server).await);
    let env = Env::system();
    for round in 0..10_u64 {
        let name = unique("race");
        let holder = claim(&name);
        granted(slow.acquire(&holder, WAIT).await);
        let late = enqueue(&slow, &name, 1).await.remove(0);
        let mut remover = claim(&name);
        remover.claim_window = Duration::from_millis(500);
        busy(live.acquire(&remover, WAIT).await);
        slow.release(&holder).await.unwrap();
        busy(live.acquire(&remover, WAIT).await);
        tokio::time::sleep(Duration::from_millis(501)).await;
        let (claimed, removed) = tokio::join!(
            async {
                env.sleep(Duration::from_micros(round * 100)).await;
                slow.acquire(&late, Intent::Wait { ticket: None }).await
            },
            live.acquire(&remover, WAIT)
        );
        let grants = [claimed, removed]
            .into_iter()
            .filter(|answer| matches!(answer, Ok(lockcore::driver::Acquired::Granted(_))));
        assert_eq!(grants.count(), 1, "round {round}");
        slow.release(&late).await.unwrap();
        live.release(&remover).await.unwrap();
    }
}

#[tokio::test]
async fn sequences_may_wrap() {
    let server = shared().await;
    let driver = driver(server).await;
    let client = admin(server).client().await.unwrap();
    let name = unique("wrap");
    granted(driver.acquire(&claim(&name), WAIT).await);
    let path = lock(&name);
    let mut queue = contenders(&client, &name).await;
    // Those before the wrap, made by hand: the server's counter is not ours to set.
    client
        .delete(&format!("{path}/{}", queue.remove(0)), None)
        .await
        .unwrap();
    let last = format!("{path}/_c_x-lock-{}", i32::MAX);
    client
        .create(&last, b"", &CreateMode::Ephemeral.with_acls(Acls::anyone_all()))
        .await
        .unwrap();
    let wrapped = format!("{path}/_c_x-lock-{}", i32::MIN);
    client
        .create(
            &wrapped,
            b"",
            &CreateMode::Ephemeral.with_acls(Acls::anyone_all()),
        )
        .await
        .unwrap();
    let seen = driver.inspect(&crate::support::resource(&name)).await.unwrap();
    let (_, first) = client.get_data(&last).await.unwrap();
    assert_eq!(
        seen.holders[0].token.get() >> 8,
        u64::try_from(first.czxid).unwrap()
    );
}
