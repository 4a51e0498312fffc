//! What is done to the server by those who run it: FQ and FT.

use std::time::Duration;

use lockcore::memory::Call;
use lockcore::{ErrorKind, ExpiryClock, Kind, Retry};

use super::common::{gets, is_free_within, is_released, queue, random, refused};
use super::connections::{RECOVERY, recovers};
use super::sessions::attempt_of;
use crate::backend::Ability;
use crate::client::Held;
use crate::context::Context;
use crate::failure::{Checked, ensure, fail};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("FQ11", "a_deleted_place_is_taken_again", |cx| Box::pin(fq11(cx)))
        .needs(&[Need::Fifo, Need::Can(Ability::DeleteWaiter)]),
    Scenario::new("FT7", "pooled_connections_are_clean", |cx| Box::pin(ft7(cx)))
        .needs(&[Need::Can(Ability::Strays)]),
    Scenario::new("FT11", "the_server_s_clock_is_stepped", |cx| Box::pin(ft11(cx)))
        .needs(&[Need::Can(Ability::StepClock)]),
    Scenario::new("FT17", "what_is_not_used_is_removed_at_any_time", |cx| {
        Box::pin(ft17(cx))
    })
    .needs(&[Need::Can(Ability::CleanUp)]),
    Scenario::new("FT21", "a_full_disk_is_an_error", |cx| Box::pin(ft21(cx)))
        .needs(&[Need::Can(Ability::FillDisk)]),
    Scenario::new("FT22", "the_server_cuts_one_connection_after_another", |cx| {
        Box::pin(ft22(cx))
    })
    .needs(&[Need::OutlivesConnection, Need::Can(Ability::KillConnection)]),
];

/// Somebody deletes a waiter's place: the next one is not delayed, and the waiter comes back by itself.
async fn fq11(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    cx.expect_no_order();
    let mut settings = cx.settings();
    settings.waiter_ttl = Duration::from_secs(6);
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client_with(settings.clone()).await?,
        cx.client_with(settings.clone()).await?,
        cx.name(),
    );
    let held = a.lock(&name).acquire().await?;
    let deleted = queue(&cx, &b, b.lock(&name)).await?;
    let (resource, attempt) = (b.resource(Kind::Mutex, &name)?, attempt_of(&b)?);
    let other = queue(&cx, &c, c.lock(&name)).await?;
    cx.disturbed();
    cx.at_home(|backend| async move { backend.delete_waiter(&resource, attempt).await })
        .await?;
    cx.disturbed();
    is_released(held).await?;
    // Without a push it takes up to a third of the life of its place until a waiter gives its next sign of life.
    let sign_of_life = settings.waiter_ttl / 3;
    let limit = cx.dead_waiter(&settings, cx.settings().ttl.min(sign_of_life)) + sign_of_life + cx.slack();
    let both = [deleted, other].map(|waiter| {
        cx.spawn(async move {
            let held = waiter.await??;
            is_released(held).await
        })
    });
    for served in both {
        cx.within("everybody is served", limit, served).await???;
    }
    Ok(())
}

/// After grants, refusals, waits that ended, cancelled ones and renewals, what is in the pools is as good as new.
async fn ft7(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    for round in 0..20 {
        let held = gets(a.lock(&name), cx.slack()).await?;
        refused(b.lock(&name)).await?;
        let wait = Duration::from_millis(u64::from(random(cx.env(), 30)));
        match round % 3 {
            0 => drop(b.lock(&name).wait(wait).acquire().await.map(drop)),
            1 => drop(cx.env().timeout(wait, Box::pin(b.lock(&name).acquire())).await),
            _ => held.renew().await?,
        }
        is_released(held).await?;
    }
    let clean = || async {
        let strays = cx
            .at_home(|backend| async move { backend.strays().await })
            .await?;
        Ok(strays.is_empty())
    };
    let looked = cx.eventually("the pools are clean", cx.slack(), clean).await;
    let strays = cx
        .at_home(|backend| async move { backend.strays().await })
        .await?;
    looked.map_err(|failure| failure.after(&format!("{strays:?}")))?;
    is_free_within(&b, &name, cx.slack()).await
}

/// The wall clock of the server is an hour ahead, and then right again. Where it ends leases, that ends them all: the
/// declared limit. The holders are told, and tokens grow. Where it does not, nothing happens.
async fn ft11(cx: Context) -> Checked {
    const STEP: Duration = Duration::from_secs(3600);
    cx.expect_slow_hand_off();
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let by_the_wall = cx.capabilities().expiry_clock == ExpiryClock::ServerWall;
    let step = |forward| {
        let cx = cx.clone();
        async move {
            cx.disturbed();
            let stepped = cx.at_home(move |backend| async move { backend.step_clock(STEP, forward).await });
            stepped.await?;
            cx.disturbed();
            Checked::Ok(())
        }
    };
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let token = held.token();
    step(true).await?;
    let stepped = async {
        if by_the_wall {
            cx.within("the holder is told", ttl / 3 + cx.slack(), held.lost())
                .await?;
        } else {
            cx.sleep(ttl + ttl / 3).await;
            ensure!(held.is_held(), "lost by a clock that ends no lease");
            refused(b.lock(&name)).await?;
            is_released(held).await?;
        }
        let next = gets(b.lock(&name).ttl(ttl), RECOVERY).await?;
        ensure!(next.token() > token, "the token did not grow over the step");
        Checked::Ok(next)
    };
    let stepped = stepped.await;
    step(false).await?;
    let next = stepped?;
    // Its lease ends late now, if at all; but it is renewed, and released.
    cx.sleep(ttl + ttl / 3).await;
    ensure!(next.is_held(), "lost when the clock was set back");
    refused(a.lock(&name)).await?;
    let token = next.token();
    is_released(next).await?;
    let last = gets(a.lock(&name).ttl(ttl), RECOVERY).await?;
    ensure!(last.token() > token, "the token did not grow over the step back");
    is_released(last).await
}

/// Somebody removes empty parents, rows of idle names and the like, again and again, while names are used for the first
/// time, for the last time and by many: nobody is told of it, and tokens grow.
async fn ft17(cx: Context) -> Checked {
    let names = [cx.name(), cx.name()];
    let end = cx.now().after(Duration::from_secs(3));
    let mut tasks = Vec::new();
    for number in 0..4_usize {
        let (client, cx2) = (cx.client().await?, cx.clone());
        let shared = names[number % 2].clone();
        tasks.push(cx.spawn(async move {
            let mut last = None;
            while cx2.now() < end {
                let held = client.lock(&shared).acquire().await?;
                ensure!(Some(held.token()) > last, "{} after {last:?}", held.token());
                last = Some(held.token());
                is_released(held).await?;
                is_free_within(&client, &cx2.name(), cx2.slack()).await?;
                // So that nobody uses it for a moment.
                cx2.sleep(Duration::from_millis(u64::from(random(cx2.env(), 40))))
                    .await;
            }
            Checked::Ok(())
        }));
    }
    let namespace = cx.settings().namespace;
    while cx.now() < end {
        let namespace = namespace.clone();
        cx.at_home(|backend| async move { backend.clean_up(&namespace).await })
            .await?;
        cx.sleep(Duration::from_millis(20)).await;
    }
    for task in tasks {
        cx.within("everybody ends", cx.slack() * 2, task).await???;
    }
    Ok(())
}

/// A server that can write nothing says so, soon, and grants nothing. When it can again, all is well.
async fn ft21(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl() * 2;
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let token = held.token();
    let waiter = queue(&cx, &b, b.lock(&name).ttl(ttl)).await?;
    cx.disturbed();
    cx.at_home(|backend| async move { backend.fill_disk().await })
        .await?;
    let refused = async {
        for _ in 0..5 {
            let tried = a.lock(&cx.name()).retry(Retry::NONE).try_acquire();
            match cx.within("a try ends", RECOVERY, tried).await? {
                // A store that keeps what fits into its cache may still take some.
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // It is renewed, or its holder is told in time.
        cx.sleep(ttl / 3).await;
        Checked::Ok(())
    };
    let refused = refused.await;
    cx.at_home(|backend| async move { backend.free_disk().await })
        .await?;
    cx.disturbed();
    refused?;
    recovers(&cx, &a).await?;
    drop(held);
    let limit = ttl + cx.late() + RECOVERY;
    let next = cx.within("the waiter is served", limit, waiter).await???;
    ensure!(next.token() > token, "the token did not grow over a full disk");
    is_released(next).await?;
    is_free_within(&b, &name, RECOVERY).await
}

/// The release, over connections that are cut: it is asked for until it is answered.
async fn is_given_back(cx: &Context, held: Held) -> Checked {
    let mut released = held.release().await;
    let end = cx.now().after(RECOVERY);
    loop {
        match released {
            Ok(_) => return Ok(()),
            Err(error) if cx.now() >= end => return Err(error.into()),
            Err(error) => {
                cx.sleep(Duration::from_millis(20)).await;
                released = error.retry().await;
            }
        }
    }
}

/// Whichever connection it is, and whatever it is for: the lock stays held, who waits is served, and new requests work.
async fn ft22(cx: Context) -> Checked {
    const MOST: usize = 40;
    cx.expect_slow_hand_off();
    cx.expect_no_order();
    let ttl = cx.renewed_ttl() * 2;
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let kept = a.lock(&cx.name()).ttl(ttl).acquire().await?;
    for nth in 0.. {
        let held = gets(a.lock(&name).ttl(ttl), RECOVERY).await?;
        let waiter = queue(&cx, &b, b.lock(&name).ttl(ttl)).await?;
        let there = cx
            .at_home(move |backend| async move { backend.kill_connection(nth).await })
            .await?;
        ensure!(held.is_held() && kept.is_held(), "connection {nth}: lost at once");
        let calls = b.link().calls(Call::Acquire);
        is_given_back(&cx, held).await?;
        let next = cx.within("the waiter is served", RECOVERY, waiter).await??;
        let next = next.map_err(|error| crate::Failure::from(error).after(&format!("connection {nth}")))?;
        ensure!(
            b.link().calls(Call::Acquire) < calls + 20,
            "it asked all the time"
        );
        is_given_back(&cx, next).await?;
        if !there {
            ensure!(nth > 0, "no connection was there to be cut");
            break;
        }
        if nth > MOST {
            fail!("there are more than {MOST} connections");
        }
    }
    cx.sleep(ttl / 3).await;
    ensure!(kept.is_held(), "lost by connections that were cut");
    refused(b.lock(kept.name().as_str())).await?;
    is_released(kept).await
}
