//! SM: semaphores.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lockcore::driver::{Acquired, Intent, Released};
use lockcore::{Driver, ErrorKind, Kind, LockManager, Release, Resource};

use super::common::{expect_error, gets, is_released, queue, refused};
use super::mutex_like;
use super::reach::Reach;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("SM1", "no_more_than_there_are", |cx| Box::pin(sm1(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM2", "drained_and_filled_again", |cx| Box::pin(sm2(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM3", "one_permit_is_a_mutex", |cx| {
        Box::pin(mutex_like::check(cx, |client, name| client.semaphore(name, 1, 1)))
    })
    .needs(&[Need::Weighted]),
    Scenario::new("SM4", "a_hundred_tasks_for_ten_permits", |cx| Box::pin(sm4(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM5", "a_dead_holders_permit_returns", |cx| Box::pin(sm5(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM6", "another_size_is_refused", |cx| Box::pin(sm6(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM7", "all_permits_or_none", |cx| Box::pin(sm7(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM8", "the_count_is_right", |cx| Box::pin(sm8(cx)))
        .needs(&[Need::Weighted, Need::Inspect]),
    Scenario::new("SM9", "the_size_can_change_when_idle", |cx| Box::pin(sm9(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM10", "permits_live_apart", |cx| Box::pin(sm10(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM11", "a_huge_size_is_cheap", |cx| Box::pin(sm11(cx))).needs(&[Need::Weighted]),
    Scenario::new("SM12", "cancelled_waiters_leave_nothing", |cx| Box::pin(sm12(cx)))
        .needs(&[Need::Weighted]),
    Scenario::left_out(
        "SM13",
        "no_quorum_of_semaphores",
        "no driver that asks several servers is built yet",
    ),
];

async fn sm1(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let mut held = Vec::new();
    for number in 0..4 {
        let client = if number % 2 == 0 { &a } else { &b };
        let Some(permit) = client.semaphore(&name, 1, 4).try_acquire().await? else {
            fail!("permit {number} of 4 was refused");
        };
        ensure_eq!(permit.weight(), 1);
        held.push(permit);
    }
    refused(a.semaphore(&name, 1, 4)).await?;
    refused(b.semaphore(&name, 1, 4)).await?;
    let waiter = queue(&cx, &b, b.semaphore(&name, 1, 4)).await?;
    for permit in held {
        is_released(permit).await?;
    }
    let permit = cx.within("the waiter is served", cx.slack(), waiter).await???;
    is_released(permit).await
}

async fn sm2(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    for _ in 0..3 {
        let mut held = Vec::new();
        for client in [&a, &b, &a] {
            held.push(gets(client.semaphore(&name, 1, 3), cx.slack()).await?);
        }
        refused(b.semaphore(&name, 1, 3)).await?;
        drop(held);
        is_released(gets(b.semaphore(&name, 3, 3), cx.slack()).await?).await?;
    }
    Ok(())
}

async fn sm4(cx: Context) -> Checked {
    let name = cx.name();
    let inside = Arc::<AtomicU32>::default();
    let mut clients = Vec::new();
    for _ in 0..cx.pick(10, 50) {
        clients.push(cx.client().await?);
    }
    let tasks: Vec<_> = (0..100)
        .map(|number: usize| {
            let permits = 1 + u32::from(number.is_multiple_of(7));
            let request = clients[number % clients.len()].semaphore(&name, permits, 10);
            let (inside, env) = (Arc::clone(&inside), cx.env().clone());
            cx.spawn(async move {
                let held = request.acquire().await?;
                let now = inside.fetch_add(permits, Ordering::SeqCst) + permits;
                ensure!(now <= 10, "{now} permits of 10");
                env.sleep(Duration::from_millis(2)).await;
                inside.fetch_sub(permits, Ordering::SeqCst);
                is_released(held).await
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn sm5(cx: Context) -> Checked {
    let (reach, b, name) = (Reach::new(&cx).await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let live = b.semaphore(&name, 1, 2).ttl(ttl).acquire().await?;
    let dead = reach.client.semaphore(&name, 1, 2).ttl(ttl).acquire().await?;
    reach.cut_off(true);
    refused(b.semaphore(&name, 1, 2)).await?;
    let next = gets(b.semaphore(&name, 1, 2), ttl + cx.late()).await?;
    ensure!(!dead.is_held() && live.is_held());
    reach.cut_off(false);
    is_released(next).await?;
    is_released(live).await
}

/// All users give the same size: another one is an error, not another semaphore.
async fn sm6(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.semaphore(&name, 1, 3).acquire().await?;
    for size in [2, 4, u32::MAX] {
        expect_error(
            b.semaphore(&name, 1, size).try_acquire().await,
            ErrorKind::Invalid,
        )?;
        let waited = b
            .semaphore(&name, 1, size)
            .wait(Duration::from_secs(1))
            .acquire()
            .await;
        expect_error(waited, ErrorKind::Invalid)?;
    }
    for (permits, size) in [(0, 3), (4, 3), (1, 0), (0, 0)] {
        expect_error(b.semaphore(&name, permits, size).build(), ErrorKind::Invalid)?;
    }
    let second = b.semaphore(&name, 2, 3).try_acquire().await?;
    ensure!(
        second.is_some(),
        "the semaphore was harmed by those who were refused"
    );
    is_released(held).await
}

async fn sm7(cx: Context) -> Checked {
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let three = a.semaphore(&name, 3, 5).acquire().await?;
    ensure_eq!(three.weight(), 3);
    refused(b.semaphore(&name, 3, 5)).await?;
    // The refused one took none of the two that are left.
    let two = b.semaphore(&name, 2, 5).try_acquire().await?;
    let Some(two) = two else {
        fail!("a refused try keeps permits")
    };
    let waiter = queue(&cx, &c, c.semaphore(&name, 4, 5)).await?;
    is_released(two).await?;
    cx.sleep(Duration::from_millis(50)).await;
    ensure!(!waiter.is_finished(), "six permits of five");
    is_released(three).await?;
    let four = cx.within("the waiter is served", cx.slack(), waiter).await???;
    ensure_eq!(four.weight(), 4);
    refused(a.semaphore(&name, 2, 5)).await?;
    is_released(four).await
}

/// What `name` weighs at the backend.
async fn weight(client: &Client, name: &str) -> Checked<u32> {
    let found = client.inspect(name).await?;
    let semaphore = found.iter().find(|status| status.kind == Kind::Semaphore);
    Ok(semaphore.map_or(0, |status| {
        status.holders.iter().map(|holder| holder.weight).sum()
    }))
}

async fn sm8(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    ensure_eq!(weight(&b, &name).await?, 0);
    let one = a.semaphore(&name, 1, 4).acquire().await?;
    let two = b.semaphore(&name, 2, 4).acquire().await?;
    ensure_eq!(weight(&a, &name).await?, 3);
    is_released(one).await?;
    ensure_eq!(weight(&a, &name).await?, 2);
    // Released twice at the driver: that gives back no more than there was.
    let driver = cx.driver().await?;
    let mut claim = cx.claim(&name, Duration::from_secs(60))?.of(2, 4);
    claim.resource = Resource::new(
        a.namespace().clone(),
        Kind::Semaphore,
        claim.resource.name().clone(),
    );
    let Acquired::Granted(_) = driver.acquire(&claim, Intent::Try).await? else {
        fail!("two of four permits were refused");
    };
    ensure_eq!(driver.release(&claim).await?, Released::Released);
    ensure_eq!(driver.release(&claim).await?, Released::NotHeld);
    driver.close().await?;
    ensure_eq!(weight(&a, &name).await?, 2);
    refused(a.semaphore(&name, 3, 4)).await?;
    let rest = gets(a.semaphore(&name, 2, 4), cx.slack()).await?;
    ensure_eq!(weight(&a, &name).await?, 4);
    is_released(rest).await?;
    is_released(two).await?;
    ensure_eq!(weight(&a, &name).await?, 0);
    Ok(())
}

async fn sm9(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    for size in [2, 5, 1, 3] {
        let mut held = Vec::new();
        for number in 0..size {
            let client = if number % 2 == 0 { &a } else { &b };
            held.push(gets(client.semaphore(&name, 1, size), cx.slack()).await?);
        }
        refused(a.semaphore(&name, 1, size)).await?;
        for permit in held {
            is_released(permit).await?;
        }
    }
    Ok(())
}

async fn sm10(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let renewed = a.semaphore(&name, 1, 3).ttl(ttl).acquire().await?;
    let brief = a
        .semaphore(&name, 1, 3)
        .ttl(cx.expiring_ttl())
        .auto_renew(false)
        .acquire()
        .await?;
    let given_back = a.semaphore(&name, 1, 3).ttl(ttl).acquire().await?;
    refused(b.semaphore(&name, 1, 3)).await?;
    brief.lost().await;
    is_released(given_back).await?;
    let two = gets(b.semaphore(&name, 2, 3), cx.expiring_ttl() + cx.late()).await?;
    ensure_eq!(brief.release().await?, Release::NotHeld);
    cx.sleep(ttl * 2).await;
    ensure!(renewed.is_held() && two.is_held());
    refused(b.semaphore(&name, 1, 3)).await?;
    is_released(two).await?;
    is_released(renewed).await
}

async fn sm11(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let most = a.semaphore(&name, u32::MAX - 1, u32::MAX).acquire().await?;
    let last = gets(b.semaphore(&name, 1, u32::MAX), cx.slack()).await?;
    refused(b.semaphore(&name, 1, u32::MAX)).await?;
    is_released(most).await?;
    let again = gets(b.semaphore(&name, u32::MAX - 1, u32::MAX), cx.slack()).await?;
    is_released(again).await?;
    is_released(last).await
}

async fn sm12(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.semaphore(&name, 2, 2).acquire().await?;
    for permits in [1, 2, 1] {
        let waiter = queue(&cx, &b, b.semaphore(&name, permits, 2)).await?;
        waiter.abort();
        ensure!(waiter.await.is_err());
    }
    if cx.capabilities().inspect {
        let lock = a.semaphore(&name, 1, 2).build()?;
        let nobody = || async { Ok(lockcore::DistributedLock::inspect(lock.inner()).await?.waiters == 0) };
        cx.eventually("nobody waits", cx.slack(), nobody).await?;
    }
    is_released(held).await?;
    is_released(gets(a.semaphore(&name, 2, 2), cx.slack()).await?).await
}
