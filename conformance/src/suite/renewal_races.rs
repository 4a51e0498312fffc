//! RN: renewals that come too late, or not at all because everything stands still.

use std::sync::Arc;
use std::time::Duration;

use lockcore::driver::{Acquired, Intent, Lease, Released, Renewal};
use lockcore::memory::{Call, Fault};
use lockcore::{Driver, ErrorKind, LossReason};

use super::common::{
    expect_error, gets, in_another_runtime, is_free_within, is_released, poll_once, random, stand_still,
};
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("RN3", "a_release_is_not_undone_by_a_renewal", |cx| {
        Box::pin(rn3(cx))
    }),
    Scenario::new("RN7", "nobody_renews_the_successors_lock", |cx| Box::pin(rn7(cx))).needs(&[Need::Leases]),
    Scenario::new("RN9", "a_blocked_executor_holds_nothing", |cx| Box::pin(rn9(cx))).needs(&[Need::Stall]),
];

/// Whatever the order in which a renewal and a release arrive, the lock is free in the end.
async fn rn3(cx: Context) -> Checked {
    let (a, b) = (cx.client().await?, cx.client().await?);
    let name = cx.name();
    for round in 0..cx.pick(20_u32, 200) {
        let held = a.lock(&name).acquire().await?;
        // Held up on its way, at random: it arrives before the release, or after it.
        let delay = Duration::from_millis(1 + u64::from(random(cx.env(), 9)));
        a.link().next(Call::Renew, Fault::DelayRequest(delay));
        {
            let mut renewing = Box::pin(held.renew());
            ensure!(
                poll_once(&mut renewing).await.is_pending(),
                "round {round}: renewed at once"
            );
        }
        cx.sleep(Duration::from_millis(u64::from(random(cx.env(), 10))))
            .await;
        is_released(held).await?;
        cx.sleep(Duration::from_millis(10)).await;
        is_free_within(&b, &name, cx.slack()).await?;
    }
    // The same at the driver, as close together as can be.
    let driver = cx.driver().await?;
    let ttl = cx.ttl(Duration::from_secs(60));
    for round in 0..cx.pick(200_u32, 1000) {
        let claim = cx.claim(&name, ttl)?;
        let Acquired::Granted(grant) = driver.acquire(&claim, Intent::Try).await? else {
            fail!("round {round}: a renewal undid the release before");
        };
        let leases = [Lease::new(claim.clone().into(), grant.token, ttl)];
        let (renewed, released) = if round % 2 == 0 {
            tokio::join!(driver.renew(&leases), driver.release(&claim))
        } else {
            let (released, renewed) = tokio::join!(driver.release(&claim), driver.renew(&leases));
            (renewed, released)
        };
        ensure_eq!(released?, Released::Released);
        ensure!(matches!(renewed?[..], [Renewal::Renewed | Renewal::NotHeld]));
    }
    is_free_within(&b, &name, cx.slack()).await?;
    Ok(driver.close().await?)
}

/// A renewal that arrives when the lock is somebody else's does not prolong it.
async fn rn7(cx: Context) -> Checked {
    let mut settings = cx.settings();
    settings.op_timeout = Duration::from_secs(60);
    let (a, b, c) = (
        cx.client_with(settings).await?,
        cx.client().await?,
        cx.client().await?,
    );
    let (name, ttl) = (cx.name(), cx.expiring_ttl());
    // Renewed after at most a third of the TTL; it arrives when the next lease has begun.
    let late = ttl + cx.late();
    a.link().next(Call::Renew, Fault::DelayRequest(late));
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    held.lost().await;
    let next_ttl = late + ttl;
    let next = gets(b.lock(&name).ttl(next_ttl).auto_renew(false), ttl + cx.late()).await?;
    let sent = cx.now();
    cx.within("the late renewal arrives", late * 2, next.lost())
        .await?;
    is_free_within(&c, &name, cx.late()).await?;
    let took = cx.now().since(sent);
    ensure!(
        took <= next_ttl + cx.late(),
        "the next lease lasted {took:?}, not {next_ttl:?}"
    );
    ensure!(!held.is_held());
    Ok(())
}

/// A process that stands still for longer than its lease finds that it holds nothing, at the first look.
async fn rn9(cx: Context) -> Checked {
    let (b, name, ttl) = (cx.client().await?, cx.name(), cx.expiring_ttl());
    if cx.is_virtual() {
        let held = cx.client().await?.lock(&name).ttl(ttl).acquire().await?;
        stand_still(ttl).await;
        ensure!(!held.is_held(), "held at the first look");
        ensure!(held.remaining().is_zero());
        expect_error(held.check(), ErrorKind::Lost)?;
        // A session was not confirmed in time; of a lease it is known that nobody asked.
        let reason = cx.capabilities().sessions.then_some(LossReason::Unreachable);
        ensure_eq!(held.lost().await, reason.unwrap_or(LossReason::Expired));
        return is_free_within(&b, &name, cx.late()).await;
    }
    cx.expect_residue();
    let (backend, settings, lock, late) = (Arc::clone(cx.backend()), cx.settings(), name.clone(), cx.late());
    let (holds, begun) = tokio::sync::oneshot::channel();
    let stalled = in_another_runtime(move || async move {
        let env = lockcore::Env::system();
        let (driver, context) = backend.driver(&env).await?;
        let manager = lockcore::Manager::from_dyn(driver, context, settings)?;
        let guard = lockcore::LockManager::lock(&manager, &lock)
            .ttl(ttl)
            .acquire()
            .await?;
        holds.send(()).ok();
        block_this_thread(ttl + late);
        Ok((guard.is_held(), guard.token()))
    });
    begun.await?;
    let next = gets(b.lock(&name), ttl + cx.late()).await;
    let joined = tokio::task::spawn_blocking(move || stalled.join()).await?;
    let Ok(stalled) = joined else {
        fail!("the stalled thread panicked")
    };
    let (still_held, token) = stalled?;
    ensure!(!still_held, "held at the first look");
    let next = next?;
    ensure!(next.token() > token);
    is_released(next).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "a runtime that is blocked is what is wanted"
)]
fn block_this_thread(duration: Duration) {
    std::thread::sleep(duration);
}
