//! FT: faults of the server and of the network.

use std::time::Duration;

use lockcore::{ErrorKind, Guard, LockManager, LossReason, Retry};
use url::Url;

use super::common::{expect_error, gets, is_free_within, is_released, queue, refused};
use super::network::{self, Route};
use crate::backend::Ability;
use crate::client::{Client, Held};
use crate::context::{Context, Task};
use crate::failure::{Checked, Failure, ensure, ensure_eq, fail};
use crate::proxy::{Cut, Direction, Entrance, Side};
use crate::scenario::{Need, Scenario};

const NETWORK: &[Need] = &[Need::Can(Ability::Network)];

/// How long a client may take to find out that a silent connection is dead, and to be connected again.
pub(super) const RECOVERY: Duration = Duration::from_secs(15);

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("FT1", "a_server_restarts", |cx| Box::pin(ft1(cx))).needs(&[Need::Can(Ability::Stop)]),
    Scenario::new("FT2", "nobody_listens_at_acquire", |cx| Box::pin(ft2(cx))).needs(NETWORK),
    Scenario::new("FT3", "a_server_forgets_everything_at_any_request", |cx| {
        Box::pin(ft3(cx))
    })
    .needs(&[Need::Can(Ability::Wipe)]),
    Scenario::new("FT4", "a_network_fault_at_each_request", |cx| {
        Box::pin(network::ft4(cx))
    })
    .needs(NETWORK),
    Scenario::new("FT5", "broken_connections_poison_nothing", |cx| Box::pin(ft5(cx))).needs(NETWORK),
    Scenario::new("FT6", "idle_connections_that_died_are_replaced", |cx| {
        Box::pin(ft6(cx))
    })
    .needs(NETWORK),
    Scenario::left_out(
        "FT7",
        "connections_are_given_back_clean",
        "no driver that takes locks in sessions of a pool is built yet",
    ),
    Scenario::left_out(
        "FT8",
        "quorum_faults",
        "locks on a quorum of servers are not built yet",
    ),
    Scenario::left_out(
        "FT9",
        "failover",
        "the suite's servers have no replicas: drivers test what they make of a server that is one",
    ),
    Scenario::left_out(
        "FT10",
        "leader_changes",
        "no driver on a cluster with elections is built yet",
    ),
    Scenario::left_out(
        "FT11",
        "clock_jumps",
        "the suite steps no clock of a machine that others use; leases here follow a clock that nobody steps",
    ),
    Scenario::left_out(
        "FT12",
        "eviction_is_warned_of",
        "it is about one kind of server: its driver tests it",
    ),
    Scenario::left_out(
        "FT13",
        "deadlock_reports",
        "no driver on a server that reports deadlocks is built yet",
    ),
    Scenario::left_out(
        "FT14",
        "late_grant_errors",
        "no driver on a server with lock timeouts is built yet",
    ),
    Scenario::new("FT15", "requests_that_nobody_answers_end_in_time", |cx| {
        Box::pin(ft15(cx))
    })
    .needs(NETWORK),
    Scenario::new("FT16", "bad_logins_are_told", |cx| Box::pin(ft16(cx)))
        .needs(&[Need::Can(Ability::Logins)]),
    Scenario::left_out(
        "FT17",
        "container_clean_up",
        "no driver on a server with containers is built yet",
    ),
    Scenario::new("FT18", "too_many_clients", |cx| Box::pin(ft18(cx)))
        .needs(&[Need::Can(Ability::LimitClients)]),
    Scenario::new("FT19", "a_storm_breaks_no_promise", |cx| {
        Box::pin(network::ft19(cx))
    })
    .needs(NETWORK),
    Scenario::new("FT20", "silence_on_the_wire_is_a_loss", |cx| Box::pin(ft20(cx))).needs(NETWORK),
];

/// The server is killed and started again while a lock is held and waited for: at once, and after longer than the
/// lease. The holder goes on or hears of its loss in time, the waiter is served, and tokens grow.
async fn ft1(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let ttl = cx.renewed_ttl();
    for outage in [Duration::ZERO, ttl + ttl / 2] {
        let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
        let held = a.lock(&name).ttl(ttl).acquire().await?;
        let token = held.token();
        let waiter = queue(&cx, &b, b.lock(&name).ttl(ttl)).await?;
        cx.disturbed();
        cx.at_home(|backend| async move { backend.stop().await }).await?;
        if outage.is_zero() {
            cx.at_home(|backend| async move { backend.start().await }).await?;
            cx.disturbed();
            goes_on_or_is_lost(&cx, &held, ttl).await?;
        } else {
            let limit = held.remaining() + cx.slack();
            let reason = cx.within("the holder is told", limit, held.lost()).await?;
            ensure_eq!(reason, LossReason::Unreachable);
            ensure!(!waiter.is_finished(), "granted by a server that is down");
            cx.sleep(outage).await;
            cx.at_home(|backend| async move { backend.start().await }).await?;
            cx.disturbed();
        }
        drop(held);
        let limit = ttl + cx.late() + RECOVERY;
        let next = cx.within("the waiter is served", limit, waiter).await???;
        ensure!(next.token() > token, "the token did not grow over the restart");
        is_released(next).await?;
        is_free_within(&a, &name, RECOVERY).await?;
    }
    Ok(())
}

/// After a hiccup: still held when two leases have passed, so it was renewed; or lost.
async fn goes_on_or_is_lost(cx: &Context, held: &Held, ttl: Duration) -> Checked {
    let lost = cx.env().timeout(ttl * 2, Box::pin(held.lost())).await;
    ensure_eq!(held.is_held(), lost.is_none());
    Ok(())
}

/// Nobody answers at the address: an error of the right kind, soon, from a new client and from one that was connected;
/// and when somebody does, all is well.
async fn ft2(cx: Context) -> Checked {
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
        match client.lock(&name).retry(Retry::NONE).try_acquire().await {
            Ok(Some(held)) => Ok(held.release().await.is_ok()),
            // Its own release of a moment ago was not answered.
            Ok(None) => Ok(false),
            Err(error) if error.is_retryable() => Ok(false),
            Err(error) => Err(error.into()),
        }
    })
    .await
}

/// Whatever is asked for first after the server has lost its data, and all scripts, works.
async fn ft3(cx: Context) -> Checked {
    let (a, b) = (cx.client().await?, cx.client().await?);
    let ttl = cx.renewed_ttl();
    let forget = || async {
        cx.disturbed();
        cx.at_home(|backend| async move { backend.wipe().await }).await?;
        cx.disturbed();
        Checked::Ok(())
    };
    cx.expect_slow_hand_off();
    forget().await?;
    let name = cx.name();
    is_free_within(&a, &name, cx.slack()).await?;
    // A wait, whose sign of life brings it back into the queue.
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let token = held.token();
    let waiter = queue(&cx, &b, b.lock(&name).ttl(ttl)).await?;
    forget().await?;
    let lost = cx.within("the holder is told", ttl + cx.slack(), held.lost());
    ensure_eq!(lost.await?, LossReason::Revoked);
    let again = cx.env().timeout(cx.slack() + RECOVERY, waiter).await;
    // Without a push it may take until its next sign of life.
    if let Some(next) = again {
        let next = next??;
        ensure!(
            next.token() > token,
            "the token did not grow over the loss of data"
        );
        is_released(next).await?;
    }
    // A renewal, a release, a look, a list, and one by force.
    let held = gets(a.lock(&cx.name()).ttl(ttl), cx.slack()).await?;
    forget().await?;
    expect_error(held.renew().await, ErrorKind::Lost)?;
    let held = gets(a.lock(&cx.name()).ttl(ttl), cx.slack()).await?;
    forget().await?;
    ensure!(
        held.release().await? == lockcore::Release::NotHeld,
        "a lock that nobody knows was released"
    );
    let capabilities = cx.capabilities();
    if capabilities.inspect {
        forget().await?;
        ensure!(!a.inspect(&cx.name()).await?[0].is_held());
    }
    if capabilities.list {
        forget().await?;
        ensure!(a.list("").await?.is_empty(), "a list of locks that were lost");
    }
    if capabilities.force_release {
        forget().await?;
        ensure!(!a.force_release(&cx.name()).await?);
    }
    is_free_within(&b, &cx.name(), cx.slack()).await
}

/// Connections are cut, by the network and by the server, while locks are held and waited for: everything goes on.
async fn ft5(cx: Context) -> Checked {
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
async fn ft6(cx: Context) -> Checked {
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
async fn ft15(cx: Context) -> Checked {
    const REQUESTS: usize = 100;
    let mut settings = cx.settings();
    settings.op_timeout = Duration::from_millis(500);
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

/// A wrong login is `Denied`, at once, and no message shows it.
async fn ft16(cx: Context) -> Checked {
    let Some(url) = cx.backend().url() else {
        fail!("the backend has no URL");
    };
    let mut url = Url::parse(&url)?;
    let secret = "open-sesame";
    let refused = |()| Failure::new("the URL takes no login");
    url.set_username("nobody").map_err(refused)?;
    url.set_password(Some(secret)).map_err(refused)?;
    let backend = cx.backend().at(url.as_str())?;
    let driver = cx
        .within("the login is refused", cx.slack(), backend.driver(cx.env()))
        .await?;
    let error = expect_error(driver, ErrorKind::Denied)?;
    for text in [error.to_string(), format!("{error:?}")] {
        ensure!(!text.contains(secret), "a message shows the password: {text}");
    }
    let client = cx.client().await?;
    is_free_within(&client, &cx.name(), cx.slack()).await
}

/// When the server takes no more clients, a new one is told so, and those that are in go on.
async fn ft18(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    cx.at_home(|backend| async move { backend.limit_clients(true).await })
        .await?;
    let late = cx.within("it is refused", RECOVERY, cx.driver()).await?;
    let went_on = async {
        cx.sleep(ttl * 2).await;
        ensure!(held.is_held(), "a client that was in lost its lock");
        Guard::renew(&held).await?;
        Checked::Ok(())
    };
    let went_on = went_on.await;
    cx.at_home(|backend| async move { backend.limit_clients(false).await })
        .await?;
    went_on?;
    ensure!(late.is_err(), "one more client than the server takes was let in");
    is_released(held).await?;
    let fresh = cx.client().await?;
    is_free_within(&fresh, &name, cx.slack()).await
}

/// The network swallows everything, in one direction or both, without a word: the holder knows by its deadline, before
/// somebody else has the lock.
async fn ft20(cx: Context) -> Checked {
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
