//! RN: leases that live are renewed, and only those.

use std::time::Duration;

use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, LossReason};

use super::common::{expect_error, gets, is_free_within, is_pending, is_released, poll_once, refused};
use super::reach::{Reach, is_of_deletion, is_of_silence};
use crate::backend::Ability;
use crate::client::Held;
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("RN1", "held_for_ten_ttls", |cx| Box::pin(rn1(cx))),
    Scenario::new("RN2", "renewal_stops_with_the_lock", |cx| Box::pin(rn2(cx))),
    Scenario::new("RN4", "failed_renewals_are_survived", |cx| Box::pin(rn4(cx))).needs(&[Need::Leases]),
    Scenario::new("RN5", "a_refused_renewal_is_a_loss", |cx| Box::pin(rn5(cx)))
        .needs(&[Need::Can(Ability::DeleteLock)]),
    Scenario::new("RN6", "unanswered_renewals_are_a_loss_in_time", |cx| {
        Box::pin(rn6(cx))
    }),
    Scenario::new("RN8", "locks_of_one_manager_are_renewed_apart", |cx| {
        Box::pin(rn8(cx))
    }),
    Scenario::new("RN10", "max_hold_ends_it", |cx| Box::pin(rn10(cx))),
    Scenario::new("RN11", "a_thousand_locks_in_few_requests", |cx| {
        Box::pin(rn11(cx))
    }),
    Scenario::new("RN12", "renew_for_sets_the_rest", |cx| Box::pin(rn12(cx))),
    Scenario::new("RN13", "renewal_survives_a_reconnect", |cx| Box::pin(rn13(cx)))
        .needs(&[Need::OutlivesConnection, Need::Can(Ability::KillConnections)]),
    Scenario::new("RN15", "a_short_silence_ends_no_session", |cx| Box::pin(rn15(cx)))
        .needs(&[Need::Sessions]),
    Scenario::new("RN16", "requests_that_nobody_polls_hold_up_nothing", |cx| {
        Box::pin(rn16(cx))
    }),
];

async fn rn1(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    for _ in 0..cx.pick(15, 30) {
        cx.sleep(ttl / 3).await;
        ensure!(held.is_held(), "lost under renewal");
        refused(b.lock(&name)).await?;
    }
    is_released(held).await
}

/// After a release, a drop, a cancelled holder and a loss nothing is sent any more.
async fn rn2(cx: Context) -> Checked {
    let mut ends = Vec::new();
    for end in ["release", "drop", "cancel", "loss"] {
        let (reach, cx2, name) = (Reach::new(&cx).await?, cx.clone(), cx.name());
        ends.push(cx.spawn(async move {
            let (ttl, client) = (cx2.renewed_ttl(), reach.client.clone());
            let held = client.lock(&name).ttl(ttl).acquire().await?;
            cx2.sleep(ttl).await;
            // What keeps a session alive is not seen here.
            let renewed = client.link().calls(Call::Renew) > 0;
            ensure_eq!(renewed, !cx2.capabilities().sessions);
            match end {
                "release" => is_released(held).await?,
                "drop" => drop(held),
                "cancel" => {
                    let holder = cx2.spawn(async move {
                        let _held = held;
                        std::future::pending::<()>().await;
                    });
                    cx2.sleep(Duration::from_millis(10)).await;
                    holder.abort();
                    ensure!(holder.await.is_err());
                }
                _ => {
                    reach.cut_off(true);
                    held.lost().await;
                    reach.cut_off(false);
                }
            }
            // Clean-up, and answers under way.
            cx2.sleep(Duration::from_secs(1)).await;
            let before = client.link().all_calls();
            cx2.sleep(ttl * 3).await;
            let after = client.link().all_calls();
            ensure!(
                after == before,
                "{} requests long after the {end}",
                after - before
            );
            Checked::Ok(())
        }));
    }
    for end in ends {
        end.await??;
    }
    Ok(())
}

/// Renewals that fail, one or several, leave the lock held if one comes through in time.
async fn rn4(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl() * 2;
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let mut lost = Box::pin(held.lost());
    let refuse = Some(Fault::Refuse(ErrorKind::Unavailable));
    for faults in [
        vec![refuse],
        vec![Some(Fault::LoseReply)],
        vec![refuse, refuse, Some(Fault::LoseReply)],
    ] {
        let struck = a.link().calls(Call::Renew) + u64::try_from(faults.len())?;
        a.link().script_faults(Call::Renew, faults);
        cx.eventually("the faults have struck", ttl, || async {
            Ok(a.link().calls(Call::Renew) > struck)
        })
        .await?;
        ensure!(held.is_held(), "lost by a failed renewal");
    }
    cx.sleep(ttl).await;
    ensure!(held.is_held());
    ensure!(poll_once(&mut lost).await.is_pending());
    refused(b.lock(&name)).await?;
    is_released(held).await
}

/// The backend says that the lock is gone: it is lost with the next renewal.
async fn rn5(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl() * 4;
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let lost = held.lost();
    let resource = a.resource(lockcore::Kind::Mutex, &name)?;
    cx.disturbed();
    cx.at_home(|backend| async move { backend.delete_lock(&resource).await })
        .await?;
    cx.disturbed();
    let reason = cx.within("the loss is told", ttl / 3 + cx.slack(), lost).await?;
    ensure!(is_of_deletion(&cx, reason), "lost: {reason}");
    ensure!(!held.is_held());
    is_free_within(&b, &name, cx.slack()).await
}

/// Silence changes nothing: the loss is told by the local deadline, before somebody else can have the lock.
async fn rn6(cx: Context) -> Checked {
    let (reach, b, name) = (Reach::new(&cx).await?, cx.client().await?, cx.name());
    let a = &reach.client;
    cx.expect_slow_hand_off();
    let ttl = cx.renewed_ttl();
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    cx.sleep(ttl).await;
    let lost = held.lost();
    reach.cut_off(true);
    let left = held.remaining();
    let waiting = cx.spawn(b.lock(&name).acquire());
    let reason = cx.within("the loss is told", left + cx.slack(), lost).await?;
    ensure!(is_of_silence(&cx, reason), "lost: {reason}");
    ensure!(!held.is_held());
    ensure!(
        cx.pick(true, !waiting.is_finished()),
        "granted before the loss was told"
    );
    let next = cx
        .within("the next one has it", ttl + cx.late(), waiting)
        .await???;
    ensure!(next.token() > held.token());
    reach.cut_off(false);
    is_released(next).await
}

async fn rn8(cx: Context) -> Checked {
    let (a, b, one, two) = (cx.client().await?, cx.client().await?, cx.name(), cx.name());
    let ttl = cx.renewed_ttl();
    let first = a.lock(&one).ttl(ttl).acquire().await?;
    let second = a.lock(&two).ttl(ttl).acquire().await?;
    cx.sleep(ttl * 3 / 2).await;
    is_released(first).await?;
    let first = b.lock(&one).ttl(ttl).acquire().await?;
    cx.sleep(ttl * 3 / 2).await;
    ensure!(
        second.is_held(),
        "lost when another lock of its manager was released"
    );
    refused(b.lock(&two)).await?;
    is_released(second).await?;
    cx.sleep(ttl * 3 / 2).await;
    ensure!(first.is_held());
    is_released(first).await
}

async fn rn10(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let max_hold = ttl * 2 + ttl / 2;
    let start = cx.now();
    let held = a.lock(&name).ttl(ttl).max_hold(max_hold).acquire().await?;
    let next = cx.spawn(b.lock(&name).acquire());
    let reason = cx.within("the end", max_hold + cx.slack(), held.lost()).await?;
    ensure_eq!(reason, LossReason::MaxHold);
    let took = cx.now().since(start);
    ensure!(took >= max_hold, "it ended after {took:?}");
    ensure!(!held.is_held());
    // It is given back, not left to its TTL; but a slow machine may take as long.
    let next = cx.within("the next one has it", cx.slack(), next).await???;
    is_released(next).await
}

/// Many leases share requests, and none is lost.
async fn rn11(cx: Context) -> Checked {
    const LOCKS: usize = 1000;
    // Not all at once: how long that takes is not what is looked at.
    const AT_ONCE: usize = 50;
    let a = cx.client().await?;
    let ttl = cx.capabilities().effective_ttl(Duration::from_secs(12));
    let mut held: Vec<Held> = Vec::new();
    for _ in 0..LOCKS / AT_ONCE {
        let requests = (0..AT_ONCE).map(|_| a.lock(&cx.name()).ttl(ttl).acquire());
        for acquired in futures_util::future::join_all(requests).await {
            held.push(acquired?);
        }
    }
    let (before, start) = (a.link().calls(Call::Renew), cx.now());
    cx.sleep(ttl + ttl / 8).await;
    let lost = held.iter().filter(|held| !held.is_held()).count();
    ensure_eq!(lost, 0);
    // Each is renewed after a sixth to a third of its TTL; in that time they fall into five slots at most.
    let periods = cx.now().since(start).as_millis() / (ttl / 6).as_millis() + 1;
    let batch = cx.capabilities().renew_batch.max(1);
    let most = u64::try_from(periods)? * (5 + u64::try_from(LOCKS.div_ceil(batch))?);
    let calls = a.link().calls(Call::Renew) - before;
    ensure!(
        calls <= most,
        "{calls} requests to renew {LOCKS} locks, {most} at most"
    );
    ensure_eq!(calls == 0, cx.capabilities().sessions);
    while !held.is_empty() {
        let some = held.split_off(held.len().saturating_sub(AT_ONCE));
        for released in futures_util::future::join_all(some.into_iter().map(is_released)).await {
            released?;
        }
    }
    Ok(())
}

/// An explicit renewal replaces what is left, by more or by less.
async fn rn12(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let (short, long) = (cx.expiring_ttl(), cx.ttl(cx.renewed_ttl() * 10));
    let held = a
        .lock(&name)
        .ttl(cx.ttl(cx.renewed_ttl() * 2))
        .auto_renew(false)
        .acquire()
        .await?;
    let token = held.token();
    for _ in 0..2 {
        held.renew_for(long).await?;
        let left = held.remaining();
        ensure!(left <= long, "{left:?} are more than {long:?}");
        // Under a session nothing is sure for longer than that is.
        ensure!(
            cx.capabilities().sessions || left + cx.slack() + long / 50 >= long,
            "{left:?} are less than {long:?}"
        );
    }
    let prolonged = a.lock(&cx.name()).ttl(short).auto_renew(false).acquire().await?;
    prolonged.renew_for(long).await?;
    cx.sleep(cx.surely_over(short)).await;
    ensure!(prolonged.is_held(), "the longer term is not longer");
    is_released(prolonged).await?;
    for bad in [Duration::ZERO, Duration::MAX] {
        expect_error(held.renew_for(bad).await, ErrorKind::Invalid)?;
    }
    ensure!(held.is_held());
    ensure_eq!(held.token(), token);
    held.renew_for(short).await?;
    ensure!(held.remaining() <= short);
    ensure_eq!(held.ttl(), short);
    let next = gets(b.lock(&name), short + cx.late()).await?;
    ensure!(!held.is_held());
    is_released(next).await
}

/// Connections that the server cuts are made again before a lease runs out.
async fn rn13(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.ttl(cx.renewed_ttl() * 2);
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    for _ in 0..2 {
        cx.at_home(|backend| async move { backend.kill_connections().await })
            .await?;
        cx.sleep(ttl / 3).await;
        ensure!(held.is_held(), "lost by a reconnect");
    }
    cx.sleep(ttl).await;
    ensure!(held.is_held(), "not renewed after a reconnect");
    refused(b.lock(&name)).await?;
    is_released(held).await
}

/// Keep-alives that come to nothing for a while are made up for before the session is over.
async fn rn15(cx: Context) -> Checked {
    let (reach, b, name) = (Reach::new(&cx).await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let held = reach.client.lock(&name).ttl(ttl).acquire().await?;
    let mut lost = Box::pin(held.lost());
    for _ in 0..2 {
        cx.sleep(ttl / 2).await;
        reach.cut_off(true);
        cx.sleep(ttl / 3).await;
        reach.cut_off(false);
    }
    cx.sleep(ttl * 3 / 2).await;
    ensure!(held.is_held(), "lost by a short silence");
    ensure!(poll_once(&mut lost).await.is_pending());
    refused(b.lock(&name)).await?;
    is_released(held).await
}

/// A future that was begun and is not polled any more, as beside a branch of `select!` that takes long, keeps to itself no
/// connection that the locks of its process are renewed by.
async fn rn16(cx: Context) -> Checked {
    let (a, name, ttl) = (cx.client().await?, cx.name(), cx.renewed_ttl());
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let (mut begun, mut released) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let mut acquiring = Box::pin(a.lock(&cx.name()).acquire());
        if is_pending(&mut acquiring).await {
            begun.push(acquiring);
        }
        let other = a.lock(&cx.name()).acquire().await?;
        let mut releasing = Box::pin(other.release());
        if is_pending(&mut releasing).await {
            released.push(releasing);
        }
    }
    cx.sleep(ttl * 2).await;
    ensure!(
        held.is_held(),
        "lost while {} requests were not polled",
        begun.len()
    );
    is_released(gets(a.lock(&cx.name()), cx.slack()).await?).await?;
    for acquiring in begun {
        is_released(cx.within("it is polled again", cx.slack(), acquiring).await??).await?;
    }
    for releasing in released {
        cx.within("it is polled again", cx.slack(), releasing).await?.ok();
    }
    is_released(held).await
}
