//! Scenarios in which connections break, stall or are refused.

use std::time::Duration;

use lockcore::{ErrorKind, LockManager, Retry};

use super::common::{expect_error, gets, is_free_within, is_released, queue, refused};
use super::network::Route;
use crate::client::Client;
use crate::context::{Context, Task};
use crate::failure::{Checked, ensure};
use crate::proxy::{Cut, Direction, Entrance, Side};

/// How long a client may take to find out that a silent connection is dead, and to be connected again.
pub(super) const RECOVERY: Duration = Duration::from_secs(15);

/// Nobody answers at the address: an error of the right kind, soon, from a new client and from one that was connected;
/// and when somebody does, all is well.
pub(super) async fn ft2(cx: Context) -> Checked {
    let (route, name) = (Route::new(&cx).await?, cx.name());
    let client = route.client(&cx).await?;
    route.proxy.set_entrance(Entrance::Refuse);
    route.proxy.cut(Side::Both, Cut::Reset);
    let driver = cx
        .within("connecting fails", RECOVERY, route.backend.driver(cx.env()))
        .await?;
    expect_error(driver, ErrorKind::Unavailable)?;
    for retry in [Retry::NONE, Retry::times(2)] {
        let tried = client.lock(&name).retry(retry).try_acquire();
        let tried = cx.within("a try fails", RECOVERY, tried).await?;
        expect_error(tried, ErrorKind::Unavailable)?;
        let waited = client
            .lock(&name)
            .retry(retry)
            .wait(Duration::from_secs(1))
            .acquire();
        let waited = cx.within("a wait fails", RECOVERY, waited).await?;
        expect_error(waited, ErrorKind::Unavailable)?;
    }
    expect_error(client.ping().await, ErrorKind::Unavailable)?;
    route.proxy.set_entrance(Entrance::Open);
    recovers(&cx, &client).await?;
    let fresh = route.client(&cx).await?;
    is_free_within(&fresh, &name, cx.slack()).await
}

/// The client can lock again, within [`RECOVERY`].
pub(super) async fn recovers(cx: &Context, client: &Client) -> Checked {
    let name = cx.name();
    cx.eventually("the client is connected again", RECOVERY, || async {
        // A request whose answer was given up may be heard long after its release: then the TTL ends what it took.
        let request = client.lock(&name).ttl(cx.renewed_ttl());
        match request.retry(Retry::NONE).try_acquire().await {
            Ok(Some(held)) => Ok(held.release().await.is_ok()),
            // Its own release of a moment ago was not answered.
            Ok(None) => Ok(false),
            Err(error) if error.is_retryable() => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Connections are cut, by the network and by the server, while locks are held and waited for: everything goes on.
pub(super) async fn ft5(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let (route, name) = (Route::new(&cx).await?, cx.name());
    let (a, b) = (route.client(&cx).await?, route.client(&cx).await?);
    let direct = cx.client().await?;
    let ttl = cx.renewed_ttl() * 2;
    let mut held = Vec::new();
    for _ in 0..5 {
        held.push(a.lock(&cx.name()).ttl(ttl).acquire().await?);
    }
    let mut turn = a.lock(&name).ttl(ttl).acquire().await?;
    for (round, how) in [Cut::Close, Cut::Reset, Cut::Close].into_iter().enumerate() {
        let waiter = queue(&cx, &b, b.lock(&name).ttl(ttl)).await?;
        for _ in 0..=round {
            route.proxy.cut(Side::Both, how);
            cx.sleep(Duration::from_millis(100)).await;
        }
        recovers(&cx, &a).await?;
        for held in &held {
            refused(direct.lock(held.name().as_str())).await?;
        }
        is_released(turn).await?;
        turn = cx.within("the waiter is served", RECOVERY, waiter).await???;
        is_released(turn).await?;
        turn = gets(a.lock(&name).ttl(ttl), RECOVERY).await?;
    }
    // Renewed on the new connection, for more than a lease.
    cx.sleep(ttl + ttl / 3).await;
    for held in held {
        ensure!(held.is_held(), "lost by a connection that was cut");
        is_released(held).await?;
    }
    is_released(turn).await
}

/// Nobody has said anything for a while, and meanwhile the connection died without a word: for the client, for the
/// server, for both. A waiter in the queue is served all the same, and so is a fresh request.
pub(super) async fn ft6(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let mut checks = Vec::new();
    for died in ["unseen by the client", "unseen by the server", "unseen by both"] {
        let cx2 = cx.clone();
        checks.push((died, cx.spawn(ft6_died(cx2, died))));
    }
    for (died, check) in checks {
        check.await?.map_err(|failure| failure.after(died))?;
    }
    Ok(())
}

async fn ft6_died(cx: Context, died: &'static str) -> Checked {
    let mut settings = cx.settings();
    settings.op_timeout = Duration::from_secs(1);
    let (route, name) = (Route::new(&cx).await?, cx.name());
    let direct = cx.client().await?;
    let idle = route.client_with(&cx, settings.clone()).await?;
    let waiting = route.client_with(&cx, settings).await?;
    let held = direct.lock(&name).acquire().await?;
    let waiter: Task<_> = queue(&cx, &waiting, waiting.lock(&name)).await?;
    for connection in route.proxy.connections() {
        match died {
            "unseen by the client" => connection.cut(Side::Server, Cut::Reset),
            "unseen by the server" => connection.cut(Side::Client, Cut::Reset),
            _ => connection.stall(true),
        }
    }
    is_released(held).await?;
    let next = cx
        .within("the waiter is served", RECOVERY + cx.slack(), waiter)
        .await???;
    is_released(next).await?;
    recovers(&cx, &idle).await
}

/// A hundred requests that nobody answers all end by their timeouts, and afterwards a hundred are answered.
pub(super) async fn ft15(cx: Context) -> Checked {
    const REQUESTS: usize = 100;
    let mut settings = cx.settings();
    // What is not answered in that time costs its connection, also in the second half, on a machine that is busy then.
    settings.op_timeout = Duration::from_secs(2);
    let route = Route::new(&cx).await?;
    let client = route.client_with(&cx, settings.clone()).await?;
    route.proxy.stall(true);
    let mut waits = Vec::new();
    for _ in 0..REQUESTS {
        let request = client.lock(&cx.name()).retry(Retry::NONE);
        waits.push(cx.spawn(request.try_acquire()));
    }
    let all = futures_util::future::try_join_all(waits);
    let limit = settings.op_timeout + cx.slack();
    for answer in cx.within("every request ends", limit, all).await?? {
        expect_error(answer, ErrorKind::Unavailable)?;
    }
    // As if it was heard after all, or not: the connection may have been given up meanwhile.
    route.proxy.heal();
    recovers(&cx, &client).await?;
    let mut held = Vec::new();
    for _ in 0..REQUESTS {
        held.push(cx.spawn(client.lock(&cx.name()).acquire()));
    }
    for held in held {
        is_released(held.await??).await?;
    }
    Ok(())
}

/// Requests are given up and sent again while nothing is answered, and then all of them are, in whatever order: each
/// attempt has its lock once, and no late answer takes it away.
pub(super) async fn ft24(cx: Context) -> Checked {
    const LOCKS: usize = 20;
    let mut settings = cx.settings();
    settings.op_timeout = Duration::from_millis(500);
    let silence = settings.op_timeout * 5 / 2;
    let (route, direct) = (Route::new(&cx).await?, cx.client().await?);
    let client = route.client_with(&cx, settings).await?;
    let ttl = cx.renewed_ttl() * 2;
    route.proxy.stall(true);
    let mut waits = Vec::new();
    for _ in 0..LOCKS {
        let name = cx.name();
        // So often that there is one under way when the network is back, and one after it.
        let request = client.lock(&name).ttl(ttl).retry(Retry::times(20));
        waits.push((name, cx.spawn(request.acquire())));
    }
    cx.sleep(silence).await;
    route.proxy.heal();
    let mut held = Vec::new();
    for (name, wait) in waits {
        held.push((name, cx.within("it is granted", RECOVERY, wait).await???));
    }
    // Longer than a lease that nobody renews.
    let end = cx.env().now().after(ttl * 3 / 2);
    while cx.env().now() < end {
        for (name, held) in &held {
            refused(direct.lock(name)).await?;
            ensure!(held.is_held(), "{name} was lost");
        }
        cx.sleep(ttl / 8).await;
    }
    for (_, held) in held {
        is_released(held).await?;
    }
    Ok(())
}

/// The network swallows everything, in one direction or both, without a word: the holder knows by its deadline, before
/// somebody else has the lock.
pub(super) async fn ft20(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let ttl = cx.renewed_ttl();
    let ways = [
        &[Direction::ToServer][..],
        &[Direction::ToClient],
        &[Direction::ToServer, Direction::ToClient],
    ];
    let mut checks = Vec::new();
    for silent in ways {
        let (cx2, silent) = (cx.clone(), silent.to_vec());
        checks.push(cx.spawn(async move {
            let (route, name) = (Route::new(&cx2).await?, cx2.name());
            let (a, b) = (route.client(&cx2).await?, cx2.client().await?);
            let held = a.lock(&name).ttl(ttl).acquire().await?;
            for direction in &silent {
                route.proxy.stall_one_way(*direction, true);
            }
            // A renewal under way may still be answered.
            let limit = ttl * 2 + cx2.slack();
            let told = cx2.within("the holder is told", limit, held.lost());
            let next = gets(b.lock(&name), limit + cx2.late());
            let (reason, next) = futures_util::future::try_join(told, next).await?;
            ensure!(!held.is_held(), "held after {reason}");
            route.proxy.heal();
            is_released(next).await?;
            recovers(&cx2, &a).await
        }));
    }
    for check in checks {
        check.await??;
    }
    Ok(())
}
