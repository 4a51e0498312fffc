//! WT: waits end as they should.

use std::collections::BTreeSet;
use std::time::Duration;

use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, Retry, Wait};

use super::common::{expect_error, gets, is_released, queue, refused};
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq};
use crate::scenario::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("WT1", "a_timeout_comes_on_time", |cx| Box::pin(wt1(cx))),
    Scenario::new("WT2", "tiny_timeouts_end", |cx| Box::pin(wt2(cx))),
    Scenario::new("WT3", "huge_timeouts_are_no_overflow", |cx| Box::pin(wt3(cx))),
    Scenario::new("WT4", "waiting_for_ever_ends_with_the_release", |cx| {
        Box::pin(wt4(cx))
    }),
    Scenario::new("WT5", "a_waiter_gets_an_expired_lock", |cx| Box::pin(wt5(cx))),
    Scenario::new("WT6", "fifty_waiters_are_served_once", |cx| Box::pin(wt6(cx))),
    Scenario::new("WT7", "retries_are_counted_and_spread", |cx| Box::pin(wt7(cx))),
    Scenario::new("WT8", "an_outage_is_an_error_not_a_busy_lock", |cx| {
        Box::pin(wt8(cx))
    }),
    Scenario::new("WT9", "a_waiter_blocks_no_releaser", |cx| Box::pin(wt9(cx))),
    Scenario::new("WT10", "the_error_says_where_and_who", |cx| Box::pin(wt10(cx))),
];

/// Not before the time, and not long after; a try is one request.
async fn wt1(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let _held = a.lock(&name).acquire().await?;
    for wait in [300, 700].map(Duration::from_millis) {
        let start = cx.now();
        expect_error(b.lock(&name).wait(wait).acquire().await, ErrorKind::Timeout)?;
        let took = cx.now().since(start);
        ensure!(took >= wait, "{took:?} is before {wait:?}");
        ensure!(took <= wait + cx.slack(), "{took:?} is long after {wait:?}");
    }
    let before = b.link().calls(Call::Acquire);
    refused(b.lock(&name)).await?;
    ensure_eq!(b.link().calls(Call::Acquire) - before, 1);
    Ok(())
}

async fn wt2(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let _held = a.lock(&name).acquire().await?;
    let tiny = [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_micros(999),
    ];
    for wait in tiny.map(Wait::For).into_iter().chain([Wait::No]) {
        let acquire = b.lock(&name).wait(wait).acquire();
        let ended = cx.within("a tiny wait ends", cx.slack(), acquire).await?;
        expect_error(ended, ErrorKind::Timeout)?;
    }
    // A free lock is had with any of them.
    for wait in tiny {
        is_released(b.lock(&cx.name()).wait(wait).acquire().await?).await?;
    }
    Ok(())
}

async fn wt3(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.lock(&name).acquire().await?;
    let day = Duration::from_secs(24 * 3600);
    for ttl in [Duration::MAX, day + Duration::from_nanos(1)] {
        expect_error(b.lock(&name).ttl(ttl).try_acquire().await, ErrorKind::Invalid)?;
    }
    let endless = b.lock(&name).wait(Duration::MAX).max_hold(Duration::MAX);
    let waiter = queue(&cx, &b, endless).await?;
    cx.sleep(Duration::from_millis(50)).await;
    ensure!(!waiter.is_finished(), "the longest wait is none");
    is_released(held).await?;
    let next = cx.within("the waiter is served", cx.slack(), waiter).await???;
    ensure!(next.is_held());
    Ok(())
}

async fn wt4(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.lock(&name).acquire().await?;
    let waiter = queue(&cx, &b, b.lock(&name).wait(Wait::Forever)).await?;
    cx.sleep(Duration::from_millis(200)).await;
    ensure!(!waiter.is_finished());
    is_released(held).await?;
    let next = cx.within("the waiter is served", cx.slack(), waiter).await???;
    is_released(next).await
}

/// Nobody announces an expiry: the waiter has to look by itself.
async fn wt5(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.expiring_ttl();
    let sent = cx.now();
    let held = a.lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
    let valid_to = cx.now().after(held.remaining());
    let granted = cx.now();
    let next = gets(b.lock(&name), ttl + cx.late()).await?;
    let took = cx.now();
    ensure!(
        took >= sent.after(valid_to.since(granted)),
        "granted while the holder was valid"
    );
    ensure!(
        took.since(granted) <= ttl + cx.late(),
        "{:?} after the grant",
        took.since(granted)
    );
    ensure!(!held.is_held(), "two holders");
    is_released(next).await?;
    // No push arrives at all: who waits asks by itself, at least every third of the life of its place.
    cx.expect_slow_hand_off();
    let mut settings = cx.settings();
    settings.waiter_ttl = Duration::from_secs(3);
    let held = a.lock(&name).acquire().await?;
    let mut waiters = Vec::new();
    for _ in 0..3 {
        let deaf = cx.deaf_client(settings.clone()).await?;
        let waiter = queue(&cx, &deaf, deaf.lock(&name)).await?;
        waiters.push(cx.spawn(async move { is_released(waiter.await??).await }));
    }
    is_released(held).await?;
    let limit = (Duration::from_secs(1) + settings.claim_window) * 3 + cx.slack();
    for waiter in waiters {
        cx.within("a waiter that hears nothing is served", limit, waiter)
            .await???;
    }
    Ok(())
}

/// Everybody who waits is served, once: on several connections, several to each.
async fn wt6(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let held = a.lock(&name).acquire().await?;
    let mut waiters = Vec::new();
    for _ in 0..10 {
        let client = cx.client().await?;
        for _ in 0..5 {
            let request = client.lock(&name);
            waiters.push(cx.spawn(async move {
                let held = request.acquire().await?;
                let token = held.token();
                is_released(held).await?;
                Checked::Ok(token)
            }));
        }
    }
    cx.sleep(Duration::from_millis(100)).await;
    is_released(held).await?;
    let mut tokens = BTreeSet::new();
    for waiter in waiters {
        tokens.insert(waiter.await??);
    }
    ensure_eq!(tokens.len(), 50);
    Ok(())
}

/// As many requests as the retry policy says, with pauses that differ.
async fn wt7(cx: Context) -> Checked {
    let a = cx.client().await?;
    let mut took = BTreeSet::new();
    for times in [0, 1, 3, 3, 3, 3] {
        let faults = vec![Some(Fault::Refuse(ErrorKind::Unavailable)); times as usize + 1];
        a.link().script_faults(Call::Acquire, faults);
        let retry = Retry::times(times).pauses(Duration::from_millis(40), Duration::from_millis(80));
        let (before, start) = (a.link().calls(Call::Acquire), cx.now());
        let failed = a.lock(&cx.name()).retry(retry).acquire().await;
        expect_error(failed, ErrorKind::Unavailable)?;
        ensure_eq!(a.link().calls(Call::Acquire) - before, u64::from(times) + 1);
        if times == 3 {
            let pauses = cx.now().since(start);
            // 40, 80 and 80 ms with jitter: no less than half of them, no more than all.
            ensure!(pauses >= Duration::from_millis(100), "{pauses:?}");
            ensure!(pauses <= Duration::from_millis(200) + cx.slack(), "{pauses:?}");
            took.insert(pauses);
        }
    }
    ensure!(took.len() > 1, "the pauses have no jitter: {took:?}");
    // The next one is not refused.
    is_released(a.lock(&cx.name()).acquire().await?).await
}

/// Errors of the backend are told by kind, before and during a wait.
async fn wt8(cx: Context) -> Checked {
    let mut settings = cx.settings();
    settings.waiter_ttl = Duration::from_secs(3);
    settings.op_timeout = Duration::from_millis(500);
    let (a, b, name) = (cx.client().await?, cx.client_with(settings).await?, cx.name());
    for kind in [ErrorKind::Unavailable, ErrorKind::Denied, ErrorKind::Internal] {
        let once = || b.lock(&name).retry(Retry::NONE);
        b.link().next(Call::Acquire, Fault::Refuse(kind));
        expect_error(once().try_acquire().await, kind)?;
        b.link().next(Call::Acquire, Fault::Refuse(kind));
        expect_error(once().wait(Duration::from_secs(1)).acquire().await, kind)?;
    }
    // A waiter gives a sign of life every second. What is final ends its wait then.
    let _held = a.lock(&name).acquire().await?;
    let waiter = queue(&cx, &b, b.lock(&name)).await?;
    b.link().next(Call::Acquire, Fault::Refuse(ErrorKind::Denied));
    let limit = Duration::from_secs(1) + cx.slack();
    let ended = cx.within("the wait ends", limit, waiter).await??;
    expect_error(ended, ErrorKind::Denied)?;
    // An outage is waited out, up to the end of the wait, and told then.
    cx.expect_slow_hand_off();
    let waiter = queue(&cx, &b, b.lock(&name).wait(Duration::from_secs(4))).await?;
    b.link().partition(true);
    let limit = Duration::from_secs(4) + cx.slack();
    let ended = cx.within("the wait ends", limit, waiter).await??;
    expect_error(ended, ErrorKind::Unavailable)?;
    b.link().partition(false);
    Ok(())
}

/// Waiters of a manager leave room for its releases, for the same name and for others.
async fn wt9(cx: Context) -> Checked {
    let (a, name, other) = (cx.client().await?, cx.name(), cx.name());
    let held = a.lock(&name).acquire().await?;
    let busy = a.lock(&other).acquire().await?;
    let first = queue(&cx, &a, a.lock(&name)).await?;
    // Each gives it back by itself: in which order the tasks get in line, nobody knows.
    let more: Vec<_> = (0..20)
        .map(|_| {
            let request = a.lock(&name);
            cx.spawn(async move { is_released(request.acquire().await?).await })
        })
        .collect();
    let elsewhere = queue(&cx, &a, a.lock(&other)).await?;
    cx.within("the release", cx.slack(), is_released(held)).await??;
    let next = cx.within("the waiter is served", cx.slack(), first).await???;
    is_released(next).await?;
    for waiter in more {
        cx.within("everybody is served", cx.slack() * 2, waiter)
            .await???;
    }
    ensure!(!elsewhere.is_finished(), "granted to two");
    is_released(busy).await
}

async fn wt10(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.lock(&name).label("the holder").acquire().await?;
    let waited = b.lock(&name).wait(Duration::from_millis(50)).acquire().await;
    let error = expect_error(waited, ErrorKind::Timeout)?;
    ensure_eq!(error.operation(), Some("acquire"));
    ensure_eq!(error.name().map(|name| name.as_str()), Some(name.as_str()));
    ensure!(error.backend().is_some());
    ensure!(error.to_string().contains(&name), "{error}");
    ensure!(!error.is_retryable());
    // A backend tells the holder only if it comes for free with its answer. Then it is the right one.
    if let Some(holder) = error.holder() {
        ensure_eq!(holder.token, held.token());
        let label = holder.owner.as_ref().and_then(|owner| owner.label.as_deref());
        ensure_eq!(label, Some("the holder"));
    }
    Ok(())
}
