//! What is special to locks that live by a session: EX, LD and FQ.

use std::time::Duration;

use lockcore::driver::{Acquired, Intent};
use lockcore::{AttemptId, Driver, Kind, LossReason, Release};

use super::common::{gets, is_free_within, is_released, queue, refused};
use super::connections::RECOVERY;
use super::reach::is_of_silence;
use crate::backend::Ability;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Checked, Failure, ensure, fail};
use crate::scenario::{Need, Scenario};

/// A session that the suite can end.
const ENDED: &[Need] = &[Need::Sessions, Need::Can(Ability::EndSession)];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("EX7", "a_session_ends_with_its_client", |cx| Box::pin(ex7(cx))).needs(&[Need::Sessions]),
    Scenario::new("EX13", "a_cut_connection_ends_its_session", |cx| {
        Box::pin(ex13(cx))
    })
    .needs(&[Need::EndsWithConnection, Need::Can(Ability::KillConnections)]),
    Scenario::new("LD12", "lost_when_the_server_ends_the_session", |cx| {
        Box::pin(ld12(cx))
    })
    .needs(ENDED),
    Scenario::new("FQ4", "a_waiter_whose_session_ended_is_told", |cx| {
        Box::pin(fq4(cx))
    })
    .needs(ENDED),
];

/// The attempt that the client sent last.
pub(super) fn attempt_of(client: &Client) -> Checked<AttemptId> {
    let sent = client.link().attempt();
    sent.ok_or_else(|| Failure::new("the client has not asked for a lock"))
}

/// Ends the session of the client's last attempt, which is about `name`.
async fn end_session(cx: &Context, client: &Client, name: &str) -> Checked {
    let (resource, attempt) = (client.resource(Kind::Mutex, name)?, attempt_of(client)?);
    cx.disturbed();
    cx.at_home(|backend| async move { backend.end_session(&resource, attempt).await })
        .await?;
    cx.disturbed();
    Ok(())
}

/// Whether somebody whose session the server ended may give this reason: a look at the lock says less.
fn is_of_its_end(reason: LossReason) -> bool {
    matches!(reason, LossReason::SessionEnded | LossReason::Revoked)
}

/// A driver that is dropped without a goodbye, as its process would be: the lock is free when its session is over.
async fn ex7(cx: Context) -> Checked {
    let (b, name, ttl) = (cx.client().await?, cx.name(), cx.renewed_ttl());
    let dead = cx.driver().await?;
    let claim = cx.claim(&name, ttl)?;
    let Acquired::Granted(grant) = dead.acquire(&claim, Intent::Try).await? else {
        fail!("a free lock was refused");
    };
    // It is kept for longer than a term.
    cx.sleep(ttl + ttl / 3).await;
    refused(b.lock(&name)).await?;
    drop(dead);
    let died = cx.now();
    let next = gets(b.lock(&name), ttl + cx.late()).await?;
    cx.measured("free after the client is gone", cx.now().since(died), ttl);
    ensure!(next.token() > grant.token);
    is_released(next).await
}

/// The server cuts the holder's connection: the lock is free at once, and the holder is told.
async fn ex13(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    cx.expect_no_order();
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.ttl(Duration::from_secs(60));
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let waiter = queue(&cx, &b, b.lock(&name).ttl(ttl)).await?;
    cx.disturbed();
    let cut = cx.now();
    cx.at_home(|backend| async move { backend.kill_connections().await })
        .await?;
    cx.disturbed();
    let reason = cx.within("the holder is told", cx.slack(), held.lost()).await?;
    ensure!(
        is_of_its_end(reason) || is_of_silence(&cx, reason),
        "lost: {reason}"
    );
    let next = cx.within("the waiter is served", RECOVERY, waiter).await???;
    cx.measured("free after the connection was cut", cx.now().since(cut), ttl);
    ensure!(next.token() > held.token());
    // It may have had the lock for a moment when its own connection was cut.
    if next.release().await? != Release::Released {
        is_released(gets(b.lock(&name).ttl(ttl), RECOVERY).await?).await?;
    }
    is_free_within(&a, &name, RECOVERY).await
}

/// The server ends a session under which a lock is held: the holder is told with the next keep-alive at the latest, who
/// waits has the lock, other clients' sessions go on, and the client opens another one.
async fn ld12(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl() * 2;
    let elsewhere = b.lock(&cx.name()).ttl(ttl).acquire().await?;
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let lost = held.lost();
    let waiter = queue(&cx, &b, b.lock(&name).ttl(ttl)).await?;
    end_session(&cx, &a, &name).await?;
    let ended = cx.now();
    let reason = cx.within("the loss is told", ttl / 3 + cx.slack(), lost).await?;
    cx.measured("told of the end of the session", cx.now().since(ended), ttl);
    ensure!(is_of_its_end(reason), "lost: {reason}");
    ensure!(!held.is_held());
    let next = cx.within("the waiter is served", cx.slack(), waiter).await???;
    ensure!(next.token() > held.token());
    ensure!(elsewhere.is_held(), "lost with somebody else's session");
    refused(a.lock(&name)).await?;
    is_released(next).await?;
    let again = gets(a.lock(&name).ttl(ttl), RECOVERY).await?;
    cx.sleep(ttl + ttl / 3).await;
    ensure!(
        again.is_held() && elsewhere.is_held(),
        "the new session is not kept"
    );
    is_released(again).await?;
    is_released(elsewhere).await
}

/// The server ends the session of somebody who waits: the waiter is told soon, not when its turn would have come, and
/// stands in the queue again, under another session. Nobody behind it is delayed.
async fn fq4(cx: Context) -> Checked {
    // It has lost its place, and may come before or after the other one.
    cx.expect_no_order();
    cx.expect_slow_hand_off();
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let ttl = cx.renewed_ttl();
    let held = a.lock(&name).acquire().await?;
    let first = queue(&cx, &b, b.lock(&name).ttl(ttl)).await?;
    let second = queue(&cx, &c, c.lock(&name).ttl(ttl)).await?;
    let before = b.link().calls(lockcore::memory::Call::Acquire);
    end_session(&cx, &b, &name).await?;
    let asks = || async { Ok(b.link().calls(lockcore::memory::Call::Acquire) > before) };
    cx.eventually("the waiter asks again", ttl / 3 + cx.slack(), asks)
        .await?;
    if cx.capabilities().inspect {
        let lock = a.lock(&name).build()?;
        cx.eventually("both wait again", RECOVERY, || async {
            Ok(lockcore::DistributedLock::inspect(lock.inner()).await?.waiters == 2)
        })
        .await?;
    }
    ensure!(held.is_held(), "lost with somebody else's session");
    is_released(held).await?;
    let both = [first, second].map(|waiter| {
        cx.spawn(async move {
            let held = waiter.await??;
            is_released(held).await
        })
    });
    for served in both {
        cx.within("everybody is served", cx.slack() * 2, served)
            .await???;
    }
    Ok(())
}
