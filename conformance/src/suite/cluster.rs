//! Clusters: leaders that are killed or paused, members that come and go. FT.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{ErrorKind, Failover};

use super::common::{gets, is_free_within, is_released, queue, refused};
use super::connections::RECOVERY;
use crate::backend::{Ability, Cluster};
use crate::client::{Client, Held};
use crate::context::Context;
use crate::failure::{Checked, Failure, ensure};
use crate::scenario::{Need, Scenario};

const CLUSTER: &[Need] = &[Need::Can(Ability::Cluster)];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("FT9", "the_leader_is_killed", |cx| Box::pin(ft9(cx))).needs(CLUSTER),
    Scenario::new("FT10", "the_leader_is_paused", |cx| Box::pin(ft10(cx))).needs(CLUSTER),
    Scenario::new("FT23", "members_are_restarted_one_by_one", |cx| {
        Box::pin(ft23(cx))
    })
    .needs(CLUSTER),
];

/// How long an election takes at the longest, on a slow machine.
const ELECTION: Duration = Duration::from_secs(15);

fn cluster(cx: &Context) -> Checked<Arc<dyn Cluster>> {
    let cluster = cx.backend().cluster();
    cluster.ok_or_else(|| Failure::new("the backend is no cluster"))
}

/// A TTL that an election fits in.
fn ttl(cx: &Context) -> Duration {
    cx.ttl(Duration::from_secs(20))
}

/// The lock, as soon as there is a leader: until then nobody answers.
async fn gets_after_election(cx: &Context, client: &Client, name: &str) -> Checked<Held> {
    let end = cx.now().after(ELECTION + RECOVERY);
    loop {
        let left = end.since(cx.now());
        match client.lock(name).ttl(ttl(cx)).wait(left).acquire().await {
            Ok(held) => return Ok(held),
            Err(error) if error.is_retryable() && !left.is_zero() => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a majority has acknowledged is still there, or its holder was told: never both held and free.
async fn is_kept(cx: &Context, held: &Held, client: &Client) -> Checked {
    let name = held.name().as_str().to_owned();
    let tried = cx.eventually("the cluster answers", ELECTION + RECOVERY, || async {
        match client.lock(&name).try_acquire().await {
            Ok(next) => {
                ensure!(next.is_none() || !held.is_held(), "granted while it is held");
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Unavailable => Ok(false),
            Err(error) => Err(error.into()),
        }
    });
    tried.await?;
    if cx.capabilities().failover == Failover::Consensus {
        ensure!(held.is_held(), "a lock that a majority has was lost");
    }
    Ok(())
}

/// SIGKILL for the leader, while a lock is held and waited for: the others go on with everything that was acknowledged.
async fn ft9(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let cluster = cluster(&cx)?;
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let held = a.lock(&name).ttl(ttl(&cx)).acquire().await?;
    let token = held.token();
    let waiter = queue(&cx, &b, b.lock(&name).ttl(ttl(&cx))).await?;
    let (servers, began) = (Arc::clone(&cluster), cx.now());
    let killed = cx
        .at_home(|_| async move {
            let leader = servers.leader().await?;
            servers.stop(leader).await?;
            Ok(leader)
        })
        .await?;
    let kept = is_kept(&cx, &held, &c).await;
    cx.measured(
        "answered after the leader was killed",
        cx.now().since(began),
        ttl(&cx),
    );
    let served = async {
        is_released(held).await?;
        let next = cx.within("the waiter is served", RECOVERY, waiter).await???;
        ensure!(next.token() > token, "the token did not grow over the election");
        is_released(next).await
    };
    let served = match kept {
        Ok(()) => served.await,
        kept => kept,
    };
    cx.at_home(|_| async move { cluster.start(killed).await }).await?;
    served?;
    is_free_within(&c, &name, RECOVERY).await
}

/// SIGSTOP for the leader for longer than an election: it comes back and still believes that it leads. Nobody has a lock
/// that somebody else has.
async fn ft10(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    cx.expect_no_order();
    let cluster = cluster(&cx)?;
    let (a, b, name, other) = (cx.client().await?, cx.client().await?, cx.name(), cx.name());
    let held = a.lock(&name).ttl(ttl(&cx)).acquire().await?;
    let servers = Arc::clone(&cluster);
    let paused = cx
        .at_home(|_| async move {
            let leader = servers.leader().await?;
            servers.pause(leader).await?;
            Ok(leader)
        })
        .await?;
    let during = async {
        is_kept(&cx, &held, &b).await?;
        let first = gets_after_election(&cx, &b, &other).await?;
        let token = first.token();
        is_released(first).await?;
        Checked::Ok(token)
    };
    let during = during.await;
    cx.at_home(|_| async move { cluster.resume(paused).await })
        .await?;
    let token = during?;
    // What it was sent before is out of date.
    for _ in 0..5 {
        cx.sleep(Duration::from_millis(200)).await;
        refused(b.lock(&name)).await?;
    }
    ensure!(held.is_held(), "lost when the old leader came back");
    is_released(held).await?;
    let next = gets(a.lock(&other), RECOVERY).await?;
    ensure!(next.token() > token, "the token did not grow over the elections");
    is_released(next).await?;
    is_free_within(&b, &name, RECOVERY).await
}

/// Each member is stopped and started, the leader included: sessions move, a held lock stays held, and others are taken
/// all the time.
async fn ft23(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    cx.expect_no_order();
    let cluster = cluster(&cx)?;
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.lock(&cx.name()).ttl(ttl(&cx)).acquire().await?;
    let mut last = None;
    for member in 0..cluster.size() {
        let servers = Arc::clone(&cluster);
        cx.at_home(|_| async move { servers.stop(member).await }).await?;
        let without = gets_after_election(&cx, &b, &name).await;
        let servers = Arc::clone(&cluster);
        cx.at_home(|_| async move { servers.start(member).await }).await?;
        let without = without.map_err(|failure| failure.after(&format!("without member {member}")))?;
        ensure!(Some(without.token()) > last, "the token did not grow");
        last = Some(without.token());
        // One whose session was just moved may be told late that it is free.
        drop(without);
        ensure!(held.is_held(), "lost without member {member}");
    }
    refused(b.lock(held.name().as_str())).await?;
    is_released(held).await?;
    is_free_within(&a, &name, ttl(&cx) + cx.late()).await
}
