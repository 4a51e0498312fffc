//! Scenarios with processes of their own, which are stopped and killed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lockcore::Guard;

use super::common::{gets, is_free_within, is_released, random, refused};
use crate::backend::Ability;
use crate::client::Client;
use crate::context::{Context, Task};
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::history::{Event, History};
use crate::scenario::{Need, Scenario};
use crate::worker::{Grip, Order, Worker};

/// Workers, and locks that hold between them.
const PROCESSES: &[Need] = &[Need::CrossProcess, Need::Can(Ability::Processes)];

/// Workers that can be seen in the queue.
const QUEUES: &[Need] = &[Need::CrossProcess, Need::Inspect, Need::Can(Ability::Processes)];

#[cfg(not(unix))]
const NO_SIGNALS: &str = "there are no signals on this system";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("ME6", "many_connections_and_processes_never_overlap", |cx| {
        Box::pin(me6(cx))
    })
    .needs(PROCESSES),
    Scenario::new("ME7", "another_process_is_excluded", |cx| Box::pin(me7(cx))).needs(QUEUES),
    Scenario::new("ME14", "killed_processes_spoil_no_sum", |cx| Box::pin(me14(cx))).needs(PROCESSES),
    Scenario::new("EX6", "a_killed_holder_is_followed", |cx| Box::pin(ex6(cx))).needs(QUEUES),
    #[cfg(unix)]
    Scenario::new("EX10", "a_stopped_process_knows_that_it_lost", |cx| {
        Box::pin(ex10(cx))
    })
    .needs(PROCESSES),
    #[cfg(not(unix))]
    Scenario::left_out("EX10", "a_stopped_process_knows_that_it_lost", NO_SIGNALS),
    Scenario::new("FQ9", "killed_waiters_stall_nobody", |cx| Box::pin(fq9(cx))).needs(QUEUES),
    #[cfg(unix)]
    Scenario::new("FQ10", "a_stopped_waiter_costs_its_window", |cx| {
        Box::pin(fq10(cx))
    })
    .needs(QUEUES),
    #[cfg(not(unix))]
    Scenario::left_out("FQ10", "a_stopped_waiter_costs_its_window", NO_SIGNALS),
];

/// How long one turn at a counter may take, however slow the machine is.
const TURN: Duration = Duration::from_secs(3);

async fn workers(cx: &Context, count: usize) -> Checked<Vec<Arc<Worker>>> {
    let starting = (0..count).map(|_| cx.worker());
    let started = futures_util::future::try_join_all(starting).await?;
    Ok(started.into_iter().map(Arc::new).collect())
}

/// Acquires in the worker, and returns when `waiters` wait at the backend.
async fn queue_there(
    cx: &Context,
    (client, name): (&Client, &str),
    worker: &Arc<Worker>,
    waiters: u64,
) -> Checked<Task<Checked<Option<Grip>>>> {
    let order = Order::new(name, cx.renewed_ttl());
    let there = Arc::clone(worker);
    let task = cx.spawn(async move { there.acquire(order).await });
    until_waiting(cx, client, name, waiters).await?;
    Ok(task)
}

async fn until_waiting(cx: &Context, client: &Client, name: &str, waiters: u64) -> Checked {
    let lock = client.lock(name).build()?;
    cx.eventually(&format!("{waiters} wait"), Duration::from_secs(10), || async {
        Ok(lock.inner().inspect().await?.waiters == waiters)
    })
    .await
}

/// Ends the workers and adds what they did to the scenario's history.
async fn end(cx: &Context, workers: impl IntoIterator<Item = Arc<Worker>>) -> Checked {
    for worker in workers {
        worker.exit().await?;
        worker.report_to(cx.history())?;
    }
    Ok(())
}

async fn read(file: &Path) -> Checked<u32> {
    Ok(tokio::fs::read_to_string(file).await?.trim().parse()?)
}

/// Four processes, and two clients of this one, raise a number in a file that only the lock protects.
async fn me6(cx: Context) -> Checked {
    const ROUNDS: u32 = 15;
    let (name, folder) = (cx.name(), tempfile::tempdir()?);
    let file = folder.path().join("number");
    tokio::fs::write(&file, "0").await?;
    let workers = workers(&cx, 4).await?;
    let pause = Duration::from_millis(3);
    let mut tasks = Vec::new();
    for worker in &workers {
        let (worker, file) = (Arc::clone(worker), file.clone());
        let order = Order::new(&name, cx.renewed_ttl());
        tasks.push(cx.spawn(async move { worker.count(order, &file, ROUNDS, pause).await }));
    }
    for _ in 0..2 {
        let (client, name, file) = (cx.client().await?, name.clone(), file.clone());
        let (cx2, ttl) = (cx.clone(), cx.renewed_ttl());
        tasks.push(cx.spawn(async move {
            for _ in 0..ROUNDS {
                let held = client.lock(&name).ttl(ttl).acquire().await?;
                let number = read(&file).await?;
                cx2.sleep(pause).await;
                tokio::fs::write(&file, (number + 1).to_string()).await?;
                is_released(held).await?;
            }
            Checked::Ok(())
        }));
    }
    for task in tasks {
        cx.within("all rounds are done", TURN * ROUNDS, task).await???;
    }
    ensure_eq!(read(&file).await?, 6 * ROUNDS);
    end(&cx, workers).await
}

/// Hold, refuse and hand over between two processes, both ways.
async fn me7(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let worker = Arc::new(cx.worker().await?);
    let order = || Order::new(&name, cx.renewed_ttl());
    let Some(theirs) = worker.acquire(order()).await? else {
        fail!("a free lock was refused to the other process");
    };
    refused(a.lock(&name)).await?;
    ensure!(worker.check(theirs).await?.is_some());
    let ours = {
        let acquiring = cx.spawn(a.lock(&name).acquire());
        until_waiting(&cx, &a, &name, 1).await?;
        ensure!(worker.release(theirs).await?, "it was not held any more");
        cx.within("it is handed over to us", cx.slack(), acquiring)
            .await???
    };
    ensure!(ours.token().get() > theirs.token());
    ensure!(worker.acquire(order().wait(Duration::ZERO)).await?.is_none());
    let theirs = queue_there(&cx, (&a, &name), &worker, 1).await?;
    let token = ours.token().get();
    is_released(ours).await?;
    let theirs = cx
        .within("it is handed over to them", cx.slack(), theirs)
        .await???;
    let Some(theirs) = theirs else {
        fail!("a wait without end was over");
    };
    ensure!(theirs.token() > token);
    ensure!(worker.release(theirs).await?, "it was not held any more");
    is_free_within(&a, &name, cx.slack()).await?;
    end(&cx, [worker]).await
}

/// Processes that count are killed at any moment, whether they hold the lock or wait for it. Those that are left count
/// on, and no count is lost.
async fn me14(cx: Context) -> Checked {
    const ROUNDS: u32 = 12;
    const KILLS: usize = 3;
    cx.expect_slow_hand_off();
    cx.expect_residue();
    let (name, folder, ttl) = (cx.name(), tempfile::tempdir()?, cx.renewed_ttl());
    let file = folder.path().join("number");
    tokio::fs::write(&file, "0").await?;
    let count = |worker: &Arc<Worker>, rounds: u32| {
        let (worker, file, order) = (Arc::clone(worker), file.clone(), Order::new(&name, ttl));
        cx.spawn(async move {
            worker
                .count(order, &file, rounds, Duration::from_millis(20))
                .await
        })
    };
    let doomed = workers(&cx, KILLS).await?;
    let left = workers(&cx, 3).await?;
    // These would go on for ever.
    let counting: Vec<_> = doomed.iter().map(|worker| count(worker, u32::MAX)).collect();
    let tasks: Vec<_> = left.iter().map(|worker| count(worker, ROUNDS)).collect();
    for (worker, task) in doomed.iter().zip(counting) {
        let pause = 100 + random(cx.env(), 200);
        cx.sleep(Duration::from_millis(u64::from(pause))).await;
        worker.kill().await?;
        ensure!(task.await?.is_err(), "a killed process answered");
    }
    let limit = TURN * ROUNDS + (ttl + cx.late()) * u32::try_from(KILLS)?;
    for task in tasks {
        cx.within("those that are left are done", limit, task).await???;
    }
    // A killed process may have been killed before it wrote what it had the lock for.
    let mut most = ROUNDS * u32::try_from(left.len())?;
    for worker in doomed {
        let history = History::new();
        worker.report_to(&history)?;
        worker.report_to(cx.history())?;
        most += grants(&history)?;
    }
    let number = read(&file).await?;
    ensure!(
        number <= most && number + u32::try_from(KILLS)? >= most,
        "{number} rounds were counted, {most} were begun, and at most {KILLS} of them not ended"
    );
    end(&cx, left).await
}

fn grants(history: &History) -> Checked<u32> {
    let mut tokens: Vec<_> = history
        .events()
        .iter()
        .filter_map(|event| match event {
            Event::Held { token, .. } => Some(*token),
            _ => None,
        })
        .collect();
    tokens.sort_unstable();
    tokens.dedup();
    Ok(u32::try_from(tokens.len())?)
}

/// SIGKILL ends a holder: who waits, here and elsewhere, has the lock when the lease is over.
async fn ex6(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let (a, name, ttl) = (cx.client().await?, cx.name(), cx.renewed_ttl());
    let processes = workers(&cx, 2).await?;
    let [holder, waiter] = &processes[..] else {
        fail!("two workers");
    };
    let Some(held) = holder.acquire(Order::new(&name, ttl)).await? else {
        fail!("a free lock was refused");
    };
    let there = queue_there(&cx, (&a, &name), waiter, 1).await?;
    // It is alive, so it is renewed.
    cx.sleep(ttl + ttl / 3).await;
    ensure!(holder.check(held).await?.is_some(), "lost while it was renewed");
    ensure!(!there.is_finished(), "granted while somebody holds it");
    holder.kill().await?;
    let killed = cx.now();
    holder.report_to(cx.history())?;
    let next = cx
        .within("the waiter in the other process follows", ttl + cx.late(), there)
        .await???;
    cx.measured("free after SIGKILL", cx.now().since(killed), ttl);
    let Some(next) = next else {
        fail!("a wait without end was over");
    };
    ensure!(next.token() > held.token());
    // And the same for somebody who waits here.
    let here = cx.spawn(a.lock(&name).acquire());
    until_waiting(&cx, &a, &name, 1).await?;
    waiter.kill().await?;
    waiter.report_to(cx.history())?;
    let here = cx
        .within("the waiter in this process follows", ttl + cx.late(), here)
        .await???;
    ensure!(here.token().get() > next.token());
    is_released(here).await
}

/// SIGSTOP for longer than the lease: somebody else has the lock meanwhile. When the holder goes on it holds nothing,
/// hears of the loss, and harms nobody.
#[cfg(unix)]
async fn ex10(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let worker = Arc::new(cx.worker().await?);
    let Some(grip) = worker.acquire(Order::new(&name, ttl)).await? else {
        fail!("a free lock was refused");
    };
    let listener = Arc::clone(&worker);
    let lost = cx.spawn(async move { listener.lost(grip).await });
    ensure!(worker.check(grip).await?.is_some());
    worker.stop()?;
    let next = gets(a.lock(&name), ttl + cx.late()).await?;
    ensure!(next.token().get() > grip.token());
    cx.sleep(ttl).await;
    worker.resume()?;
    // The first thing that it is asked, before it can have talked to the backend.
    let held = cx
        .within("it answers again", cx.slack(), worker.check(grip))
        .await??;
    ensure!(held.is_none(), "it says that it holds for {held:?}");
    cx.within("it hears of the loss", cx.slack(), lost).await???;
    ensure!(
        !worker.release(grip).await?,
        "it says that it was held to the end"
    );
    for _ in 0..5 {
        cx.sleep(Duration::from_millis(100)).await;
        refused(b.lock(&name)).await?;
        Guard::check(&next)?;
    }
    is_released(next).await?;
    end(&cx, [worker]).await
}

/// Waiters that were killed, at the head of the queue, in its middle, and both.
async fn fq9(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    cx.expect_residue();
    let (a, b) = (cx.client().await?, cx.client().await?);
    for dead in [&[0][..], &[1], &[0, 1]] {
        let name = cx.name();
        let held = a.lock(&name).acquire().await?;
        let processes = workers(&cx, 2).await?;
        let mut waiting = Vec::new();
        for (worker, place) in processes.iter().zip(1..) {
            waiting.push(Some(queue_there(&cx, (&a, &name), worker, place).await?));
        }
        let last = cx.spawn(b.lock(&name).acquire());
        until_waiting(&cx, &a, &name, 3).await?;
        for index in dead {
            processes[*index].kill().await?;
            waiting[*index] = None;
        }
        is_released(held).await?;
        let released = cx.now();
        // Each of them costs its claim window at most.
        let each = cx.dead_waiter(&cx.settings(), cx.renewed_ttl());
        let limit = each * u32::try_from(dead.len())? + cx.slack();
        for (index, waiting) in waiting.into_iter().enumerate() {
            let Some(waiting) = waiting else { continue };
            let grip = cx.within("the live one is served", limit, waiting).await???;
            let Some(grip) = grip else {
                fail!("a wait without end was over");
            };
            ensure!(!last.is_finished(), "the last one was served first");
            ensure!(processes[index].release(grip).await?, "it was not held any more");
        }
        let next = cx.within("the last one is served", limit, last).await???;
        let took = cx.now().since(released);
        cx.measured(
            &format!("served past {} killed waiters", dead.len()),
            took,
            cx.renewed_ttl(),
        );
        is_released(next).await?;
        for worker in &processes {
            worker.kill().await?;
            worker.report_to(cx.history())?;
        }
    }
    Ok(())
}

/// A waiter at the head of the queue that was stopped (SIGSTOP): the next one is served within the claim window. When it
/// goes on, it waits for its turn again.
#[cfg(unix)]
async fn fq10(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let worker = Arc::new(cx.worker().await?);
    let held = a.lock(&name).acquire().await?;
    let stopped = queue_there(&cx, (&a, &name), &worker, 1).await?;
    let next = cx.spawn(b.lock(&name).acquire());
    until_waiting(&cx, &a, &name, 2).await?;
    worker.stop()?;
    is_released(held).await?;
    let limit = cx.dead_waiter(&cx.settings(), cx.renewed_ttl()) + cx.slack();
    let released = cx.now();
    let next = cx.within("the next one is served", limit, next).await???;
    cx.measured(
        "served past a stopped waiter",
        cx.now().since(released),
        cx.renewed_ttl(),
    );
    // It lost its turn, for which it was not there; it is no overtaking that the other one had it.
    cx.disturbed();
    worker.resume()?;
    cx.sleep(Duration::from_millis(300)).await;
    ensure!(!stopped.is_finished(), "it took a turn that was over");
    ensure!(next.is_held());
    is_released(next).await?;
    let grip = cx.within("it is served now", limit, stopped).await???;
    let Some(grip) = grip else {
        fail!("a wait without end was over");
    };
    ensure!(worker.release(grip).await?, "it was not held any more");
    end(&cx, [worker]).await
}
