//! LD: losses are told, and nothing else is told as one.

use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, Guard, Kind, LockManager, LossReason, Release};

use super::common::{expect_error, gets, is_free_within, is_pending, is_released, poll_once, refused};
use super::reach::{Reach, is_of_deletion, is_of_silence};
use crate::backend::Ability;
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("LD1", "no_loss_while_held_nor_by_release", |cx| Box::pin(ld1(cx))),
    Scenario::new("LD2", "lost_when_freed_by_force", |cx| Box::pin(ld2(cx))).needs(&[Need::ForceRelease]),
    Scenario::new("LD3", "late_listeners_hear_at_once", |cx| Box::pin(ld3(cx))),
    Scenario::new("LD4", "listening_blocks_nothing", |cx| Box::pin(ld4(cx))),
    Scenario::new("LD5", "release_during_a_renewal_is_no_loss", |cx| {
        Box::pin(ld5(cx))
    }),
    Scenario::new("LD6", "silence_is_a_loss_by_the_deadline", |cx| Box::pin(ld6(cx))),
    Scenario::new("LD7", "the_reason_is_told", |cx| Box::pin(ld7(cx))).needs(&[Need::ForceRelease]),
    Scenario::new("LD8", "the_listener_may_release", |cx| Box::pin(ld8(cx))),
    Scenario::left_out(
        "LD9",
        "one_of_several_is_all",
        "several locks at once are not built yet",
    ),
    Scenario::new("LD10", "a_lost_lock_stays_lost", |cx| Box::pin(ld10(cx))),
    Scenario::new("LD11", "what_is_not_declared_is_refused", |cx| Box::pin(ld11(cx))),
];

async fn ld1(cx: Context) -> Checked {
    let ends = [false, true].map(|drops| cx.spawn(held_and_ended(cx.clone(), drops)));
    for end in ends {
        end.await??;
    }
    Ok(())
}

async fn held_and_ended(cx: Context, drops: bool) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    // Not through `held`, whose own future writes an end into the history.
    let mut lost = Box::pin(Guard::lost(&held));
    for _ in 0..6 {
        cx.sleep(ttl / 3).await;
        ensure!(is_pending(&mut lost).await, "fired while held");
        held.check()?;
    }
    if drops {
        drop(held);
    } else {
        is_released(held).await?;
    }
    let told = cx.env().timeout(ttl * 2, &mut lost).await;
    ensure!(told.is_none(), "fired by a release: {told:?}");
    Ok(())
}

/// Somebody frees the lock by force: its holder learns of it with its next renewal at the latest.
async fn ld2(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl() * 4;
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    cx.disturbed();
    ensure!(b.force_release(&name).await?, "the lock was said to be free");
    let reason = cx
        .within("the loss is told", ttl / 3 + cx.slack(), held.lost())
        .await?;
    ensure!(is_of_deletion(&cx, reason), "lost: {reason}");
    ensure!(!held.is_held());
    ensure_eq!(held.release().await?, Release::NotHeld);
    ensure!(!b.force_release(&name).await?, "a free lock was said to be held");
    if cx.backend().abilities().contains(&Ability::DeleteLock) {
        let held = gets(a.lock(&name).ttl(ttl), cx.slack()).await?;
        let resource = a.resource(Kind::Mutex, &name)?;
        cx.disturbed();
        cx.at_home(|backend| async move { backend.delete_lock(&resource).await })
            .await?;
        cx.disturbed();
        let reason = cx
            .within("the loss is told", ttl / 3 + cx.slack(), held.lost())
            .await?;
        ensure!(is_of_deletion(&cx, reason), "lost: {reason}");
    }
    is_free_within(&b, &name, cx.slack()).await
}

async fn ld3(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let held = a
        .lock(&name)
        .ttl(cx.expiring_ttl())
        .auto_renew(false)
        .acquire()
        .await?;
    held.lost().await;
    for _ in 0..3 {
        ensure!(
            poll_once(&mut Box::pin(held.lost())).await.is_ready(),
            "a late listener waits"
        );
    }
    expect_error(held.check(), ErrorKind::Lost)?;
    let protected = held.protect(std::future::ready(())).await;
    expect_error(protected, ErrorKind::Lost)?;
    Ok(())
}

/// Many listen, while the lease is renewed and used; all of them hear.
async fn ld4(cx: Context) -> Checked {
    let (reach, name) = (Reach::new(&cx).await?, cx.name());
    let (a, ttl) = (&reach.client, cx.renewed_ttl());
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let listeners: Vec<_> = (0..100).map(|_| cx.spawn(held.lost())).collect();
    cx.sleep(ttl).await;
    held.renew().await?;
    ensure_eq!(held.protect(async { 7 }).await?, 7);
    ensure!(held.is_held());
    ensure!(!listeners.iter().any(super::super::context::Task::is_finished));
    reach.cut_off(true);
    let limit = held.remaining() + cx.slack();
    for listener in listeners {
        let reason = cx.within("everybody hears", limit, listener).await??;
        ensure!(is_of_silence(&cx, reason), "lost: {reason}");
    }
    reach.cut_off(false);
    Ok(())
}

/// A renewal under way says "not held" when the release has overtaken it. That is no loss.
async fn ld5(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    for fault in [Fault::DelayRequest(ttl / 3), Fault::DelayReply(ttl / 3)] {
        let held = a.lock(&name).ttl(ttl).acquire().await?;
        a.link().next(Call::Renew, fault);
        let before = a.link().calls(Call::Renew);
        let renewing = || async { Ok(a.link().calls(Call::Renew) > before) };
        if cx.capabilities().sessions {
            // Nobody asks but the user, who does not wait for the answer.
            drop(poll_once(&mut Box::pin(held.renew())).await);
        }
        cx.eventually("a renewal is under way", ttl, renewing).await?;
        let mut lost = Box::pin(Guard::lost(&held));
        ensure!(is_pending(&mut lost).await);
        is_released(held).await?;
        let told = cx.env().timeout(ttl * 2, &mut lost).await;
        ensure!(told.is_none(), "told as lost: {told:?}");
    }
    Ok(())
}

/// Protected work is dropped by the local deadline, before somebody else has the lock.
async fn ld6(cx: Context) -> Checked {
    let (reach, b, name) = (Reach::new(&cx).await?, cx.client().await?, cx.name());
    cx.expect_slow_hand_off();
    let ttl = cx.renewed_ttl();
    let held = reach.client.lock(&name).ttl(ttl).acquire().await?;
    ensure!(held.remaining() <= ttl, "valid for longer than its TTL");
    reach.cut_off(true);
    let limit = held.remaining() + cx.slack();
    let work = held.protect(std::future::pending::<()>());
    let ended = cx.within("the work is dropped", limit, work).await?;
    let error = expect_error(ended, ErrorKind::Lost)?;
    let silent = error.loss().is_some_and(|reason| is_of_silence(&cx, reason));
    ensure!(silent, "{error}");
    ensure!(!held.is_held());
    let next = gets(b.lock(&name), ttl + cx.late()).await?;
    reach.cut_off(false);
    is_released(next).await
}

async fn ld7(cx: Context) -> Checked {
    let ttl = cx.renewed_ttl();
    let a = cx.client().await?;
    let names: Vec<_> = (0..5).map(|_| cx.name()).collect();
    let lock = |index: usize| a.lock(&names[index]).ttl(ttl);
    let expired = lock(0).auto_renew(false).acquire().await?;
    let bounded = lock(1).max_hold(ttl / 2).acquire().await?;
    let revoked = lock(2).acquire().await?;
    cx.disturbed();
    a.force_release(&names[2]).await?;
    let reach = Reach::new(&cx).await?;
    let unreachable = reach.client.lock(&names[3]).ttl(ttl).acquire().await?;
    reach.cut_off(true);
    let closing = cx.client().await?;
    let closed = closing.lock(&names[4]).ttl(ttl).acquire().await?;
    closing.close().await?;
    for (held, expected) in [
        (expired, LossReason::Expired),
        (bounded, LossReason::MaxHold),
        (revoked, LossReason::Revoked),
        (unreachable, LossReason::Unreachable),
        (closed, LossReason::Closed),
    ] {
        let reason = cx
            .within("the loss is told", ttl + cx.slack(), held.lost())
            .await?;
        let as_good = match expected {
            LossReason::Unreachable => is_of_silence(&cx, reason),
            LossReason::Revoked => is_of_deletion(&cx, reason),
            _ => false,
        };
        let expected = if as_good { reason } else { expected };
        ensure_eq!(reason, expected);
        let error = expect_error(held.check(), ErrorKind::Lost)?;
        ensure_eq!(error.loss(), Some(expected));
        ensure!(error.to_string().contains(expected.as_str()), "{error}");
    }
    reach.cut_off(false);
    Ok(())
}

/// Who hears of the loss may release, renew or drop the guard at once.
async fn ld8(cx: Context) -> Checked {
    let (a, b) = (cx.client().await?, cx.client().await?);
    let ttl = cx.expiring_ttl();
    for reaction in ["release", "renew", "drop"] {
        let name = cx.name();
        let held = a.lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
        let listener = cx.spawn(async move {
            held.lost().await;
            match reaction {
                "release" => ensure_eq!(held.release().await?, Release::NotHeld),
                "renew" => drop(expect_error(held.renew().await, ErrorKind::Lost)?),
                _ => drop(held),
            }
            Checked::Ok(())
        });
        cx.within("the listener ends", ttl + cx.slack(), listener)
            .await???;
        is_free_within(&b, &name, cx.late()).await?;
    }
    Ok(())
}

/// When the network is back, who lost the lock is not told that it holds, and its clean-up harms nobody.
async fn ld10(cx: Context) -> Checked {
    let (reach, b, c, name) = (
        Reach::new(&cx).await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    cx.expect_slow_hand_off();
    let ttl = cx.renewed_ttl();
    let held = reach.client.lock(&name).ttl(ttl).acquire().await?;
    reach.cut_off(true);
    let next = gets(b.lock(&name).ttl(ttl), ttl + cx.late()).await?;
    ensure!(!held.is_held());
    reach.cut_off(false);
    for _ in 0..6 {
        cx.sleep(ttl / 3).await;
        ensure!(!held.is_held(), "held again after a loss");
        ensure!(next.is_held(), "lost to the clean-up of somebody else");
        refused(c.lock(&name)).await?;
    }
    expect_error(held.renew().await, ErrorKind::Lost)?;
    ensure_eq!(held.release().await?, Release::NotHeld);
    refused(c.lock(&name)).await?;
    is_released(next).await
}

/// What a backend does not declare is `Unsupported` at the call, and what it declares works.
async fn ld11(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let capabilities = cx.capabilities();
    ensure_eq!(a.capabilities(), capabilities);
    let held = a.lock(&name).acquire().await?;
    let lock = a.lock(&name).build()?;
    let checks = [
        (capabilities.inspect, a.inspect(&name).await.map(drop)),
        (capabilities.inspect, lock.inner().inspect().await.map(drop)),
        (capabilities.list, a.list("").await.map(drop)),
        (capabilities.weighted, a.read_lock(&name).build().map(drop)),
        (capabilities.weighted, a.write_lock(&name).build().map(drop)),
        (capabilities.weighted, a.semaphore(&name, 1, 2).build().map(drop)),
    ];
    for (declared, result) in checks {
        if declared {
            result?;
        } else {
            expect_error(result, ErrorKind::Unsupported)?;
        }
    }
    let other = cx.ttl(cx.settings().ttl / 2);
    if capabilities.sessions && other != held.ttl() {
        expect_error(held.renew_for(other).await, ErrorKind::Unsupported)?;
    }
    is_released(held).await?;
    let freed = a.force_release(&name).await;
    if capabilities.force_release {
        ensure!(!freed?, "a free lock was said to be held");
    } else {
        expect_error(freed, ErrorKind::Unsupported)?;
    }
    ensure!(a.ping().await? <= cx.slack());
    Ok(())
}
