//! EX: leases end by themselves.

use std::time::Duration;

use lockcore::driver::{Acquired, Intent, Lease, Released, Renewal};
use lockcore::memory::{Call, Fault};
use lockcore::{Driver, ErrorKind, Guard, LossReason, Release, Retry, local_deadline};

use super::common::{expect_error, gets, is_free_within, is_released, refused};
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("EX1", "an_abandoned_lease_ends_on_time", |cx| Box::pin(ex1(cx))),
    Scenario::new("EX2", "a_late_release_frees_nobody_else", |cx| Box::pin(ex2(cx))),
    Scenario::new("EX3", "a_late_renewal_revives_nothing", |cx| Box::pin(ex3(cx))),
    Scenario::new("EX12", "the_driver_refuses_a_late_renewal", |cx| {
        Box::pin(ex12(cx))
    })
    .needs(&[Need::Leases]),
    Scenario::new("EX4", "odd_ttls_are_rounded_up", |cx| Box::pin(ex4(cx))),
    Scenario::new("EX5", "ttls_out_of_bounds_are_refused", |cx| Box::pin(ex5(cx))),
    Scenario::new(
        "EX8",
        "a_grant_that_came_too_late_is_refused_and_cleaned_up",
        |cx| Box::pin(ex8(cx)),
    ),
    Scenario::left_out(
        "EX9",
        "held_at_least",
        "holding a lock for a least time is not built yet",
    ),
];

/// Not while the holder is valid, and not long after its TTL.
async fn ex1(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.expiring_ttl();
    let sent = cx.now();
    let held = a.lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
    let granted = cx.now();
    ensure_eq!(held.ttl(), ttl);
    ensure!(held.remaining() <= ttl);
    let lost = held.lost();
    let next = loop {
        let was_held = held.is_held();
        if let Some(next) = b.lock(&name).try_acquire().await? {
            ensure!(!held.is_held(), "granted while the holder is valid");
            break next;
        }
        let age = cx.now().since(granted);
        ensure!(age <= ttl + cx.late(), "still refused {age:?} after the grant");
        ensure!(
            was_held || cx.now() >= local_deadline(sent, ttl),
            "lost after {age:?}"
        );
        cx.sleep(Duration::from_millis(20)).await;
    };
    ensure_eq!(lost.await, LossReason::Expired);
    is_released(next).await
}

/// Who lost the lock by expiry releases nothing, neither by hand nor in its clean-up.
async fn ex2(cx: Context) -> Checked {
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let ttl = cx.expiring_ttl();
    let held = a.lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
    let next = gets(b.lock(&name), ttl + cx.late()).await?;
    ensure_eq!(held.release().await?, Release::NotHeld);
    // The clean-up after the loss is under way in the background.
    for _ in 0..5 {
        cx.sleep(Duration::from_millis(100)).await;
        refused(c.lock(&name)).await?;
        ensure!(next.is_held());
    }
    is_released(next).await
}

/// Renewing an expired lease brings nothing back, whether or not somebody else has the lock meanwhile.
async fn ex3(cx: Context) -> Checked {
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let ttl = cx.expiring_ttl();
    let held = a.lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
    let next = gets(b.lock(&name), ttl + cx.late()).await?;
    let error = expect_error(Guard::renew(&held).await, ErrorKind::Lost)?;
    ensure_eq!(error.loss(), Some(LossReason::Expired));
    ensure!(!held.is_held());
    refused(c.lock(&name)).await?;
    is_released(next).await?;
    Ok(())
}

/// The engine does not ask for what is over. The driver itself has to refuse as well.
async fn ex12(cx: Context) -> Checked {
    let (name, ttl) = (cx.name(), cx.expiring_ttl());
    let driver = cx.driver().await?;
    let (old, new) = (cx.claim(&name, ttl)?, cx.claim(&name, Duration::from_secs(60))?);
    let Acquired::Granted(grant) = driver.acquire(&old, Intent::Try).await? else {
        fail!("a free lock was refused");
    };
    cx.sleep(cx.surely_over(ttl)).await;
    let renew = |claim: &lockcore::Claim, token| Lease::new(claim.clone().into(), token, ttl);
    ensure_eq!(
        driver.renew(&[renew(&old, grant.token)]).await?,
        [Renewal::NotHeld]
    );
    let Acquired::Granted(successor) = driver.acquire(&new, Intent::Try).await? else {
        fail!("a late renewal brought an expired lease back");
    };
    ensure!(successor.token > grant.token);
    ensure_eq!(
        driver.renew(&[renew(&old, grant.token)]).await?,
        [Renewal::NotHeld]
    );
    ensure_eq!(driver.release(&old).await?, Released::NotHeld);
    let lease = Lease::new(new.clone().into(), successor.token, new.ttl);
    ensure_eq!(driver.renew(&[lease]).await?, [Renewal::Renewed]);
    ensure_eq!(driver.release(&new).await?, Released::Released);
    Ok(driver.close().await?)
}

/// Whatever is asked for is given or more, is told, and ends.
async fn ex4(cx: Context) -> Checked {
    let (a, b) = (cx.client().await?, cx.client().await?);
    let mut checks = Vec::new();
    for ttl in [
        1,
        1_000,
        999_000,
        1_000_000,
        1_500_000,
        250_000_000,
        1_000_500_000,
    ]
    .map(Duration::from_nanos)
    {
        let (a, b, cx2, name) = (a.clone(), b.clone(), cx.clone(), cx.name());
        checks.push(cx.spawn(async move {
            let given = cx2.capabilities().effective_ttl(ttl);
            ensure!(given >= ttl, "{ttl:?} was rounded down to {given:?}");
            let request = a.lock(&name).ttl(ttl).auto_renew(false).retry(Retry::NONE);
            match request.acquire().await {
                Ok(held) => {
                    ensure_eq!(held.ttl(), given);
                    ensure!(held.remaining() <= given);
                    // What is said to be held is held.
                    let next = b.lock(&name).try_acquire().await?;
                    ensure!(next.is_none() || !held.is_held(), "{ttl:?}: granted to two");
                    drop(next);
                    let lost = cx2
                        .within("the lease ends", given + cx2.slack(), held.lost())
                        .await?;
                    ensure_eq!(lost, LossReason::Expired);
                }
                // The answer took longer than so short a lease.
                Err(error) => drop(expect_error(Err::<(), _>(error), ErrorKind::Unavailable)?),
            }
            is_free_within(&b, &name, given + cx2.late()).await
        }));
    }
    for check in checks {
        check.await??;
    }
    Ok(())
}

async fn ex5(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let day = Duration::from_secs(24 * 3600);
    for ttl in [Duration::ZERO, day + Duration::from_nanos(1), Duration::MAX] {
        for request in [a.lock(&name).ttl(ttl), a.lock(&name).ttl(ttl).exact_ttl()] {
            expect_error(request.try_acquire().await, ErrorKind::Invalid)?;
        }
    }
    ensure_eq!(a.link().all_calls(), 0);
    let odd = [Duration::from_nanos(1), Duration::from_nanos(1_000_000_001), day];
    for ttl in odd {
        let given = cx.capabilities().effective_ttl(ttl);
        let exact = a.lock(&name).ttl(ttl).exact_ttl().build();
        if given == ttl {
            drop(exact?);
        } else {
            expect_error(exact, ErrorKind::Unsupported)?;
        }
    }
    let exact = a.lock(&name).ttl(cx.expiring_ttl()).exact_ttl().acquire().await?;
    ensure_eq!(exact.ttl(), cx.expiring_ttl());
    is_released(exact).await
}

/// A grant whose answer took longer than its lease is no grant, and is given back at once.
async fn ex8(cx: Context) -> Checked {
    let ttl = cx.renewed_ttl() * 2;
    let mut late = Vec::new();
    for how in ["acquire", "try", "retry"] {
        let mut settings = cx.settings();
        settings.op_timeout = Duration::from_secs(30);
        let (a, b, name) = (cx.client_with(settings).await?, cx.client().await?, cx.name());
        let cx = cx.clone();
        late.push(cx.clone().spawn(async move {
            // Applied late, so that the lease at the backend outlives ours by as much.
            a.link().next(Call::Acquire, Fault::DelayRequest(ttl));
            let once = a.lock(&name).ttl(ttl).retry(Retry::NONE);
            // A session goes on meanwhile, and a grant under it is good.
            let once = once.auto_renew(!cx.capabilities().sessions);
            match how {
                "acquire" => drop(expect_error(once.acquire().await, ErrorKind::Unavailable)?),
                "try" => drop(expect_error(once.try_acquire().await, ErrorKind::Unavailable)?),
                // One that has tries left asks again, and gets it.
                _ => {
                    let held = once.retry(Retry::times(1)).acquire().await?;
                    ensure!(held.is_held());
                    refused(b.lock(&name)).await?;
                    is_released(held).await?;
                }
            }
            is_free_within(&b, &name, ttl / 2).await
        }));
    }
    for late in late {
        late.await??;
    }
    Ok(())
}
