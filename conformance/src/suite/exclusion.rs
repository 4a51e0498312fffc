//! ME: at most one holder.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use lockcore::{ErrorKind, LockManager, Retry, Wait};

use super::common::{expect_error, gets, is_free_within, is_released, queue, random, refused};
use crate::backend::Ability;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Checked, Failure, ensure, ensure_eq};
use crate::history::{Event, check};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("ME1", "two_contenders_one_winner", |cx| Box::pin(me1(cx))),
    Scenario::new("ME2", "one_object_twice_is_refused", |cx| Box::pin(me2(cx))),
    Scenario::new("ME3", "many_tasks_of_one_object_one_winner", |cx| {
        Box::pin(me3(cx))
    }),
    Scenario::new("ME4", "a_hundred_tasks_take_turns", |cx| Box::pin(me4(cx))),
    Scenario::new("ME5", "unprotected_counters_sum_up", |cx| Box::pin(me5(cx))),
    Scenario::new("ME8", "a_failed_attempt_leaves_the_holder_alone", |cx| {
        Box::pin(me8(cx))
    }),
    Scenario::new("ME9", "ten_rounds_in_a_row", |cx| Box::pin(me9(cx))),
    Scenario::new("ME10", "rapid_hand_over_loses_no_wake_up", |cx| {
        Box::pin(me10(cx))
    }),
    Scenario::new("ME11", "other_options_still_exclude", |cx| Box::pin(me11(cx))),
    Scenario::new("ME12", "a_recorded_history_is_accepted", |cx| Box::pin(me12(cx))),
    Scenario::new("ME13", "heavy_use_leaves_nothing", |cx| Box::pin(me13(cx)))
        .needs(&[Need::Can(Ability::Residue)]),
    Scenario::new("ME15", "a_crowd_of_names_at_once", |cx| Box::pin(me15(cx))),
];

/// Of two contenders one wins; other names are not concerned; after the release the other one can have it.
async fn me1(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.lock(&name).acquire().await?;
    ensure!(held.is_held());
    refused(b.lock(&name)).await?;
    let other = b.lock(&cx.name()).try_acquire().await?;
    ensure!(other.is_some(), "another name was refused");
    is_released(held).await?;
    let next = b.lock(&name).try_acquire().await?;
    ensure!(next.is_some(), "a released lock was refused");
    Ok(())
}

/// A lock is not reentrant: who holds it is refused like everybody else.
async fn me2(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let lock = a.lock(&name).build()?;
    let held = lock.acquire().await?;
    ensure!(lock.try_acquire().await?.is_none(), "reentered by try");
    let waited = lock.acquire_within(Duration::from_millis(50)).await;
    expect_error(waited, ErrorKind::Timeout)?;
    ensure!(held.is_held());
    is_released(held).await?;
    // The wait that ended clears up in the background.
    is_free_within(&a, &name, cx.slack()).await
}

async fn me3(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let lock = a.lock(&name).build()?;
    let tries: Vec<_> = (0..20)
        .map(|_| {
            let lock = lock.clone();
            cx.spawn(async move { lock.try_acquire().await })
        })
        .collect();
    // The guards are kept until everybody has tried.
    let mut winners = Vec::new();
    for task in tries {
        winners.extend(task.await??);
    }
    ensure_eq!(winners.len(), 1);
    Ok(())
}

/// Many names are asked for, and freed, in the same moment, whether they are new, free, held or waited for: each is as if
/// it had been alone.
async fn me15(cx: Context) -> Checked {
    let (a, b) = (cx.client().await?, cx.client().await?);
    let names: Vec<_> = (0..12).map(|_| cx.name()).collect();
    let (busy, free) = names.split_at(4);
    let used = crowd(&cx, free[..4].iter().map(|name| b.lock(name).acquire())).await?;
    let tokens: Vec<_> = used.iter().map(|held| held.token()).collect();
    crowd(&cx, used.into_iter().map(is_released)).await?;

    let held = crowd(&cx, busy.iter().map(|name| b.lock(name).acquire())).await?;
    let tried = crowd(&cx, names.iter().map(|name| a.lock(name).try_acquire())).await?;
    for (at, won) in tried.iter().enumerate() {
        ensure_eq!(won.is_some(), at >= busy.len());
    }
    let mut won: Vec<_> = tried.into_iter().flatten().collect();
    for (old, new) in tokens.iter().zip(&won) {
        ensure!(new.token() > *old, "a token did not grow");
    }

    let mut queued = Vec::new();
    for name in &busy[..2] {
        queued.push(queue(&cx, &a, a.lock(name)).await?);
    }
    crowd(&cx, held.into_iter().map(is_released)).await?;
    for task in queued {
        won.push(task.await??);
    }
    crowd(&cx, won.into_iter().map(is_released)).await?;
    let last = crowd(&cx, names.iter().map(|name| b.lock(name).try_acquire())).await?;
    ensure_eq!(last.iter().flatten().count(), names.len());
    Ok(())
}

/// What each of `calls` gives. They run side by side.
async fn crowd<T, E, F>(cx: &Context, calls: impl Iterator<Item = F>) -> Checked<Vec<T>>
where
    F: Future<Output = Result<T, E>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    Failure: From<E>,
{
    let tasks: Vec<_> = calls.map(|call| cx.spawn(call)).collect();
    let mut outcomes = Vec::with_capacity(tasks.len());
    for task in tasks {
        outcomes.push(task.await??);
    }
    Ok(outcomes)
}

/// A hundred tasks on many connections: never two inside, and everybody gets in.
async fn me4(cx: Context) -> Checked {
    let name = cx.name();
    let inside = Arc::<AtomicU32>::default();
    let mut clients = Vec::new();
    for _ in 0..cx.pick(20, 100) {
        clients.push(cx.client().await?);
    }
    let tasks: Vec<_> = (0..100)
        .map(|number| {
            let request = clients[number % clients.len()].lock(&name);
            let (inside, env) = (Arc::clone(&inside), cx.env().clone());
            cx.spawn(async move {
                let held = request.acquire().await?;
                ensure_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                env.sleep(Duration::from_millis(1)).await;
                inside.fetch_sub(1, Ordering::SeqCst);
                is_released(held).await
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// Counters that only their locks protect, with short and long work.
async fn me5(cx: Context) -> Checked {
    const ROUNDS: u32 = 10;
    let names = [cx.name(), cx.name()];
    let counters = [Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default()];
    let mut tasks = Vec::new();
    for worker in 0..6_u32 {
        let client = cx.client().await?;
        let (names, counters, cx2) = (names.clone(), counters.clone(), cx.clone());
        tasks.push(cx.spawn(async move {
            for round in 0..ROUNDS {
                let which = usize::from((worker + round) % 2 == 1);
                let held = client.lock(&names[which]).acquire().await?;
                let number = counters[which].load(Ordering::SeqCst);
                let pause = 1 + random(cx2.env(), 3 + 10 * (worker % 2));
                cx2.sleep(Duration::from_millis(u64::from(pause))).await;
                counters[which].store(number + 1, Ordering::SeqCst);
                is_released(held).await?;
            }
            Checked::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let sum: u32 = counters
        .iter()
        .map(|counter| counter.load(Ordering::SeqCst))
        .sum();
    ensure_eq!(sum, 6 * ROUNDS);
    Ok(())
}

/// Neither a try, nor a wait that ends, nor one that is dropped does anything to the holder.
async fn me8(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.lock(&name).acquire().await?;
    let token = held.token();
    refused(b.lock(&name)).await?;
    let waited = b.lock(&name).wait(Duration::from_millis(50)).acquire().await;
    expect_error(waited, ErrorKind::Timeout)?;
    let waiter = queue(&cx, &b, b.lock(&name)).await?;
    waiter.abort();
    ensure!(held.is_held());
    ensure_eq!(held.token(), token);
    held.renew().await?;
    refused(b.lock(&name)).await?;
    is_released(held).await
}

async fn me9(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    for _ in 0..10 {
        let held = gets(a.lock(&name), cx.slack()).await?;
        refused(b.lock(&name)).await?;
        is_released(held).await?;
    }
    is_free_within(&b, &name, cx.slack()).await
}

/// Release and acquire again at once, on three connections: the history tells whether a hand-over was slow.
async fn me10(cx: Context) -> Checked {
    let (name, rounds) = (cx.name(), cx.pick(40, 300));
    let mut tasks = Vec::new();
    for _ in 0..3 {
        let client = cx.client().await?;
        let name = name.clone();
        tasks.push(cx.spawn(async move {
            for _ in 0..rounds {
                is_released(client.lock(&name).acquire().await?).await?;
            }
            Checked::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}

/// TTL, retry, renewal, label and wait are nobody else's business.
async fn me11(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let plain = |client: &Client| client.lock(&name);
    let special = |client: &Client| {
        let request = client
            .lock(&name)
            .ttl(Duration::from_secs(600))
            .retry(Retry::NONE);
        request.auto_renew(false).label("special").wait(Wait::No)
    };
    let held = plain(&a).acquire().await?;
    refused(special(&b)).await?;
    is_released(held).await?;
    let held = special(&b).acquire().await?;
    refused(plain(&a)).await?;
    is_released(held).await?;
    is_free_within(&a, &name, cx.slack()).await
}

/// Random tries, waits, short leases, drops and releases on several connections, judged as a whole.
async fn me12(cx: Context) -> Checked {
    let names = [cx.name(), cx.name()];
    let mut tasks = Vec::new();
    for _ in 0..5 {
        let client = cx.client().await?;
        let (names, cx2) = (names.clone(), cx.clone());
        tasks.push(cx.spawn(async move {
            for _ in 0..cx2.pick(12, 60) {
                let request = client.lock(&names[random(cx2.env(), 2) as usize]);
                let request = match random(cx2.env(), 3) {
                    0 => request.wait(Wait::No),
                    1 => request.wait(Duration::from_millis(30)),
                    _ => request
                        .wait(Duration::from_millis(300))
                        .ttl(cx2.expiring_ttl())
                        .auto_renew(false),
                };
                let held = match request.acquire().await {
                    Ok(held) => held,
                    Err(error) if error.kind() == ErrorKind::Timeout => continue,
                    Err(error) => return Err(error.into()),
                };
                cx2.sleep(Duration::from_millis(u64::from(random(cx2.env(), 40))))
                    .await;
                match random(cx2.env(), 4) {
                    0 => drop(held),
                    _ => drop(held.release().await?),
                }
            }
            Checked::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    let events = cx.history().events();
    let held = events
        .iter()
        .filter(|event| matches!(event, Event::Held { .. }))
        .count();
    ensure!(held > 10, "a history of only {held} holds proves nothing");
    // Again without the bounds that depend on the backend: this is what the scenario is about.
    let found = check(&events, crate::history::Bounds::default());
    ensure!(found.is_empty(), "{found:?}");
    Ok(())
}

/// After heavy use nothing is left at the backend but the fencing state, while everybody is still connected.
async fn me13(cx: Context) -> Checked {
    let names: Vec<_> = (0..5).map(|_| cx.name()).collect();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(cx.client().await?);
    }
    let tasks: Vec<_> = (0..8_usize)
        .map(|number| {
            let (client, names) = (clients[number].clone(), names.clone());
            cx.spawn(async move {
                for round in 0..25 {
                    let name = &names[(number + round) % names.len()];
                    is_released(client.lock(name).acquire().await?).await?;
                }
                Checked::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let namespace = clients[0].namespace().clone();
    cx.eventually("nothing is left at the backend", cx.slack(), || async {
        let namespace = namespace.clone();
        let left = cx
            .at_home(|backend| async move { backend.residue(&namespace).await })
            .await?;
        Ok(left.is_empty())
    })
    .await?;
    if cx.capabilities().list {
        ensure!(clients[0].list("").await?.is_empty());
    }
    Ok(())
}
