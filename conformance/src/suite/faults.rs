//! FT: faults of the server and of the network.

use std::time::Duration;

use lockcore::{ErrorKind, Guard, LockManager};
use url::Url;

use super::common::{expect_error, gets, is_free_within, is_released, queue};
use super::connections::RECOVERY;
use super::reach::{is_of_deletion, is_of_silence};
use super::{connections, network};
use crate::backend::Ability;
use crate::client::Held;
use crate::context::Context;
use crate::failure::{Checked, Failure, ensure, ensure_eq, fail};
use crate::scenario::{Need, Scenario};

const NETWORK: &[Need] = &[Need::Can(Ability::Network)];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("FT1", "a_server_restarts", |cx| Box::pin(ft1(cx))).needs(&[Need::Can(Ability::Stop)]),
    Scenario::new("FT2", "nobody_listens_at_acquire", |cx| {
        Box::pin(connections::ft2(cx))
    })
    .needs(NETWORK),
    Scenario::new("FT3", "a_server_forgets_everything_at_any_request", |cx| {
        Box::pin(ft3(cx))
    })
    .needs(&[Need::Can(Ability::Wipe)]),
    Scenario::new("FT4", "a_network_fault_at_each_request", |cx| {
        Box::pin(network::ft4(cx))
    })
    .needs(NETWORK),
    Scenario::new("FT5", "broken_connections_poison_nothing", |cx| {
        Box::pin(connections::ft5(cx))
    })
    .needs(&[Need::OutlivesConnection, Need::Can(Ability::Network)]),
    Scenario::new("FT6", "idle_connections_that_died_are_replaced", |cx| {
        Box::pin(connections::ft6(cx))
    })
    .needs(NETWORK),
    Scenario::left_out(
        "FT8",
        "quorum_faults",
        "locks on a quorum of servers are not built yet",
    ),
    Scenario::left_out(
        "FT12",
        "eviction_is_warned_of",
        "it is about one kind of server: its driver tests it",
    ),
    Scenario::new("FT15", "requests_that_nobody_answers_end_in_time", |cx| {
        Box::pin(connections::ft15(cx))
    })
    .needs(NETWORK),
    Scenario::new("FT16", "bad_logins_are_told", |cx| Box::pin(ft16(cx)))
        .needs(&[Need::Can(Ability::Logins)]),
    Scenario::new("FT18", "too_many_clients", |cx| Box::pin(ft18(cx)))
        .needs(&[Need::Can(Ability::LimitClients)]),
    Scenario::new("FT19", "a_storm_breaks_no_promise", |cx| {
        Box::pin(network::ft19(cx))
    })
    .needs(NETWORK),
    Scenario::new("FT20", "silence_on_the_wire_is_a_loss", |cx| {
        Box::pin(connections::ft20(cx))
    })
    .needs(NETWORK),
    Scenario::new("FT24", "late_answers_take_nothing_away", |cx| {
        Box::pin(connections::ft24(cx))
    })
    .needs(NETWORK),
];

/// The server is killed and started again while a lock is held and waited for: at once, and when the lease has been over
/// for a while. The holder goes on or hears of its loss in time, the waiter is served, and tokens grow.
async fn ft1(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let ttl = cx.renewed_ttl();
    for outage in [Duration::ZERO, ttl / 2] {
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
            ensure!(is_of_silence(&cx, reason), "lost: {reason}");
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

/// After a hiccup: still held when more than a lease has passed, so it was renewed; or lost.
async fn goes_on_or_is_lost(cx: &Context, held: &Held, ttl: Duration) -> Checked {
    let lost = cx.env().timeout(ttl * 4 / 3, Box::pin(held.lost())).await;
    ensure_eq!(held.is_held(), lost.is_none());
    Ok(())
}

/// Whatever is asked for first after the server has lost its data, and all scripts, works.
async fn ft3(cx: Context) -> Checked {
    let mut settings = cx.settings();
    // Without a push it takes up to a third of this until a waiter gives its next sign of life.
    settings.waiter_ttl = Duration::from_secs(6);
    let (a, b) = (cx.client().await?, cx.client_with(settings).await?);
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
    let reason = lost.await?;
    ensure!(is_of_deletion(&cx, reason), "lost: {reason}");
    let limit = Duration::from_secs(2) + cx.slack();
    let next = cx.within("the waiter is served", limit, waiter).await???;
    ensure!(
        next.token() > token,
        "the token did not grow over the loss of data"
    );
    is_released(next).await?;
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
