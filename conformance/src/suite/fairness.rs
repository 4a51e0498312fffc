//! FQ: the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use lockcore::driver::{Acquired, Intent};
use lockcore::memory::Call;
use lockcore::{Driver, ErrorKind, LockManager};

use super::common::{expect_error, gets, is_free_within, is_released, queue, random, refused};
use super::reach::Reach;
use crate::backend::Ability;
use crate::context::Context;
use crate::failure::{Checked, ensure, fail};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("FQ1", "served_in_order", |cx| Box::pin(fq1(cx))).needs(&[Need::Fifo]),
    Scenario::new("FQ2", "try_does_not_overtake", |cx| Box::pin(fq2(cx))).needs(&[Need::Fifo]),
    Scenario::new("FQ3", "a_dead_waiter_delays_by_its_window", |cx| {
        Box::pin(fq3(cx))
    }),
    Scenario::new("FQ5", "a_deleted_queue_forms_again", |cx| Box::pin(fq5(cx)))
        .needs(&[Need::Can(Ability::Wipe)]),
    Scenario::new("FQ6", "a_release_wakes_one", |cx| Box::pin(fq6(cx))).needs(&[Need::Fifo, Need::Push]),
    Scenario::new("FQ7", "the_queue_outlives_its_numbers", |cx| Box::pin(fq7(cx))).needs(&[Need::Fifo]),
    Scenario::new("FQ8", "nobody_starves", |cx| Box::pin(fq8(cx))).needs(&[Need::NoFifo]),
    Scenario::new("FQ12", "the_lock_passes_among_tasks", |cx| Box::pin(fq12(cx))),
    Scenario::new("FQ13", "what_was_passed_on_is_kept_and_lost", |cx| {
        Box::pin(fq13(cx))
    })
    .needs(&[Need::ForceRelease]),
];

/// Waiters of several connections, one after the other into the queue, and out of it in the same order.
async fn fq1(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let held = a.lock(&name).acquire().await?;
    let mut waiters = Vec::new();
    for _ in 0..8 {
        let client = cx.client().await?;
        waiters.push(queue(&cx, &client, client.lock(&name)).await?);
    }
    is_released(held).await?;
    let mut last = None;
    for (place, waiter) in waiters.into_iter().enumerate() {
        // Those behind it cannot be over before it gives the lock back.
        let held = cx
            .within(&format!("waiter {place} is served"), cx.slack(), waiter)
            .await???;
        ensure!(Some(held.token()) > last, "waiter {place} was not in order");
        last = Some(held.token());
        is_released(held).await?;
    }
    Ok(())
}

/// A client that tries without a pause gets nothing that it asks for while somebody waits. What it asked for before may
/// come to it: it was the first.
async fn fq2(cx: Context) -> Checked {
    let (c, name) = (cx.client().await?, cx.name());
    let (a, b) = (cx.client().await?, cx.client().await?);
    let mut held = a.lock(&name).acquire().await?;
    // How many of the waiters are known to have queued, and to have been served.
    let (queued, served) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let over = Arc::new(AtomicBool::new(false));
    let trying = {
        let (c, name, env) = (c.clone(), name.clone(), cx.env().clone());
        let (queued, served, over) = (Arc::clone(&queued), Arc::clone(&served), Arc::clone(&over));
        cx.spawn(async move {
            loop {
                let waits = queued.load(Ordering::SeqCst);
                let was_over = over.load(Ordering::SeqCst);
                if let Some(held) = c.lock(&name).try_acquire().await? {
                    let served = served.load(Ordering::SeqCst);
                    ensure!(waits <= served, "round {served}: a try overtook the queue");
                    is_released(held).await?;
                    if was_over {
                        return Checked::Ok(());
                    }
                }
                env.sleep(Duration::from_micros(200)).await;
            }
        })
    };
    // At any time one of the two stands in the queue before the other gives the lock back.
    for round in 0..cx.pick(30, 100) {
        let client = if round % 2 == 0 { &b } else { &a };
        let waiter = queue(&cx, client, client.lock(&name)).await?;
        queued.store(round + 1, Ordering::SeqCst);
        is_released(held).await?;
        held = cx.within("the waiter is served", cx.slack(), waiter).await???;
        served.store(round + 1, Ordering::SeqCst);
        if trying.is_finished() {
            break;
        }
    }
    is_released(held).await?;
    over.store(true, Ordering::SeqCst);
    // With nobody in the queue it is its turn.
    cx.within("the try is granted", cx.slack(), trying).await??
}

/// A waiter that does not answer any more, and one whose wait is over.
async fn fq3(cx: Context) -> Checked {
    let mut settings = cx.settings();
    settings.claim_window = Duration::from_millis(500);
    let (a, reach, live) = (
        cx.client().await?,
        Reach::with(&cx, settings.clone()).await?,
        cx.client_with(settings.clone()).await?,
    );
    cx.expect_slow_hand_off();
    let (name, ttl, dead) = (cx.name(), cx.renewed_ttl(), &reach.client);
    let held = a.lock(&name).acquire().await?;
    let stopped = queue(&cx, dead, dead.lock(&name).ttl(ttl)).await?;
    let follower = queue(&cx, &live, live.lock(&name)).await?;
    reach.cut_off(true);
    is_released(held).await?;
    let limit = cx.dead_waiter(&settings, ttl) + cx.slack();
    let held = cx.within("the follower is served", limit, follower).await???;
    // It comes back, late, and stands in the queue again, or is served.
    cx.disturbed();
    reach.cut_off(false);
    cx.sleep(Duration::from_millis(300)).await;
    ensure!(!stopped.is_finished(), "granted a turn that was over");
    ensure!(held.is_held());
    is_released(held).await?;
    let held = cx
        .within("the one that came back is served", cx.slack() * 2, stopped)
        .await???;
    // Whose wait is over has left.
    let brief = queue(&cx, dead, dead.lock(&name).wait(Duration::from_millis(100))).await;
    let brief = cx.within("the wait ends", cx.slack(), brief?).await??;
    expect_error(brief, ErrorKind::Timeout)?;
    let follower = queue(&cx, &live, live.lock(&name)).await?;
    is_released(held).await?;
    let held = cx
        .within("the follower is served", cx.slack(), follower)
        .await???;
    is_released(held).await
}

/// Somebody deletes the queue and the lock: the holder is told, and who waited is served all the same.
async fn fq5(cx: Context) -> Checked {
    let mut settings = cx.settings();
    settings.waiter_ttl = Duration::from_secs(6);
    let (a, b) = (cx.client().await?, cx.client_with(settings).await?);
    let name = cx.name();
    let ttl = cx.renewed_ttl();
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let waiter = queue(&cx, &b, b.lock(&name)).await?;
    cx.disturbed();
    cx.at_home(|backend| async move { backend.wipe().await }).await?;
    cx.disturbed();
    cx.expect_slow_hand_off();
    let next = cx
        .within("the waiter is served", ttl + cx.late(), waiter)
        .await???;
    ensure!(next.token() > held.token());
    cx.within("the holder is told", ttl + cx.slack(), held.lost())
        .await?;
    refused(a.lock(&name)).await?;
    is_released(next).await
}

/// However many wait, a hand-over takes a few requests, not one of each.
async fn fq6(cx: Context) -> Checked {
    const WAITERS: usize = 16;
    let (a, name) = (cx.client().await?, cx.name());
    let mut held = a.lock(&name).acquire().await?;
    let (mut clients, mut waiters) = (Vec::new(), Vec::new());
    for _ in 0..WAITERS {
        let client = cx.client().await?;
        waiters.push(queue(&cx, &client, client.lock(&name)).await?);
        clients.push(client);
    }
    let calls = || {
        clients
            .iter()
            .map(|client| client.link().calls(Call::Acquire))
            .sum::<u64>()
    };
    let before = calls();
    for waiter in waiters {
        is_released(held).await?;
        held = cx.within("the waiter is served", cx.slack(), waiter).await???;
    }
    is_released(held).await?;
    // One claim of each, and here and there one that was woken for nothing.
    let most = 2 * u64::try_from(WAITERS)?;
    let used = calls() - before;
    ensure!(
        used <= most,
        "{used} requests for {WAITERS} hand-overs: a herd was woken"
    );
    Ok(())
}

/// Tickets that are handed back may be large: those who come after them still come after them.
async fn fq7(cx: Context) -> Checked {
    let driver = cx.driver().await?;
    let ttl = cx.ttl(Duration::from_secs(60));
    for ticket in [(1 << 31) - 1, (1_u64 << 32) - 1, (1 << 53) - 4] {
        let name = cx.name();
        let holder = cx.claim(&name, ttl)?;
        let Acquired::Granted(_) = driver.acquire(&holder, Intent::Try).await? else {
            fail!("a free lock was refused");
        };
        let mut waiters = Vec::new();
        for ticket in [Some(ticket), None, None] {
            let mut claim = cx.claim(&name, ttl)?;
            claim.claim_window = Duration::from_secs(20);
            let Acquired::Busy(_) = driver.acquire(&claim, Intent::Wait { ticket }).await? else {
                fail!("a held lock was granted");
            };
            waiters.push(claim);
        }
        let mut last = holder;
        for place in 0..waiters.len() {
            driver.release(&last).await?;
            // Those behind ask first.
            for waiter in waiters.iter().skip(place).rev() {
                let granted = matches!(
                    driver.acquire(waiter, Intent::Wait { ticket: None }).await?,
                    Acquired::Granted(_)
                );
                let first = waiter.attempt == waiters[place].attempt;
                ensure!(granted == first, "ticket {ticket}: out of order at place {place}");
            }
            last = waiters[place].clone();
        }
        driver.release(&last).await?;
    }
    Ok(driver.close().await?)
}

/// Where there is no order, everybody is served all the same, as long as the lock is free now and then.
async fn fq8(cx: Context) -> Checked {
    let name = cx.name();
    let mut tasks = Vec::new();
    let end = cx.now().after(Duration::from_secs(10));
    for _ in 0..4 {
        let (client, name, env) = (cx.client().await?, name.clone(), cx.env().clone());
        tasks.push(cx.spawn(async move {
            let mut served = 0_u32;
            while env.now() < end {
                let held = client.lock(&name).acquire().await?;
                env.sleep(Duration::from_millis(1)).await;
                is_released(held).await?;
                served += 1;
                env.sleep(Duration::from_millis(u64::from(random(&env, 10))))
                    .await;
            }
            Checked::Ok(served)
        }));
    }
    let mut served = Vec::new();
    for task in tasks {
        served.push(task.await??);
    }
    let most = served.iter().max().copied().unwrap_or(0);
    ensure!(
        served.iter().all(|times| times * 50 > most),
        "somebody was served fifty times as often as somebody else: {served:?}"
    );
    let (client, held) = (
        cx.client().await?,
        gets(cx.client().await?.lock(&name), cx.slack()).await?,
    );
    refused(client.lock(&name)).await?;
    is_released(held).await?;
    is_free_within(&client, &name, cx.slack()).await
}

/// Many tasks of one client and one of another want the same lock all the time: it may pass among the former without a
/// request. Whoever has it has it alone, with a greater token than anybody before, and the other one has its turns.
async fn fq12(cx: Context) -> Checked {
    const TASKS: usize = 12;
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    // Who waits elsewhere may wait for a few turns more.
    cx.expect_no_order();
    let inside = Arc::new(AtomicBool::new(false));
    let last = Arc::new(AtomicU64::new(0));
    let rounds = cx.pick(12, 40);
    let mut tasks = Vec::new();
    for task in 0..=TASKS {
        let client = if task < TASKS { a.clone() } else { b.clone() };
        let (name, env) = (name.clone(), cx.env().clone());
        let (inside, last) = (Arc::clone(&inside), Arc::clone(&last));
        tasks.push(cx.spawn(async move {
            for round in 0..rounds {
                let held = client.lock(&name).acquire().await?;
                ensure!(!inside.swap(true, Ordering::SeqCst), "somebody else has the lock");
                let (token, before) = (held.token().get(), last.load(Ordering::SeqCst));
                ensure!(token > before, "the token {token} came after {before}");
                last.store(token, Ordering::SeqCst);
                if (round + task) % 5 == 0 {
                    env.sleep(Duration::from_micros(500)).await;
                }
                ensure!(held.is_held());
                inside.store(false, Ordering::SeqCst);
                is_released(held).await?;
            }
            Checked::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    is_free_within(&b, &name, cx.slack()).await
}

/// Whoever got the lock from a task of the same client keeps it for as long as it wants, and learns that it was taken
/// away like anybody else.
async fn fq13(cx: Context) -> Checked {
    const WAITERS: u32 = 5;
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let first = a.lock(&name).ttl(ttl).acquire().await?;
    let turns = Arc::new(AtomicU32::new(0));
    let mut waiters = Vec::new();
    for _ in 0..WAITERS {
        let (acquired, turns) = (a.lock(&name).ttl(ttl).acquire(), Arc::clone(&turns));
        waiters.push(cx.spawn(async move {
            let held = acquired.await?;
            if turns.fetch_add(1, Ordering::SeqCst) + 1 == WAITERS {
                return Checked::Ok(Some(held));
            }
            is_released(held).await?;
            Ok(None)
        }));
    }
    cx.sleep(Duration::from_millis(20)).await;
    is_released(first).await?;
    let mut last = None;
    for waiter in waiters {
        let held = cx.within("everybody is served", cx.slack(), waiter).await???;
        last = last.or(held);
    }
    let Some(held) = last else {
        fail!("nobody was the last one");
    };
    cx.sleep(ttl + ttl / 2).await;
    ensure!(held.is_held(), "it was not renewed");
    refused(b.lock(&name)).await?;
    cx.disturbed();
    ensure!(b.manager().force_release(&name).await?, "nobody held it");
    cx.within("the holder is told", ttl + cx.slack(), held.lost())
        .await?;
    is_free_within(&b, &name, cx.slack()).await
}
