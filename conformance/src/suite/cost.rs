//! CO: what operations cost, counted at the server.

use std::time::Duration;

use super::common::{is_released, queue};
use crate::backend::{Ability, Counters};
use crate::client::Held;
use crate::context::Context;
use crate::failure::{Checked, ensure};
use crate::scenario::{Need, Scenario};

const COUNTED: &[Need] = &[Need::Can(Ability::Counters)];

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("CO1", "uncontended", |cx| Box::pin(co1(cx))).needs(COUNTED),
    Scenario::new("CO2", "contended_by_16_and_by_128", |cx| Box::pin(co2(cx))).needs(&[
        Need::Fifo,
        Need::Push,
        Need::Can(Ability::Counters),
    ]),
    Scenario::new("CO3", "a_thousand_locks_are_kept", |cx| Box::pin(co3(cx))).needs(COUNTED),
];

/// What clients say to the server by themselves while something is counted: pings, keep-alives, the counting itself.
const NOISE: Counters = Counters::new(12, 4);

async fn counters(cx: &Context) -> Checked<Counters> {
    cx.at_home(|backend| async move { backend.counters().await })
        .await
}

/// Fails when `used` for `times` operations is more than `each` allows.
fn within(what: &str, used: Counters, (times, each): (u64, Counters)) -> Checked {
    for (kind, used, each, noise) in [
        ("requests", used.requests, each.requests, NOISE.requests),
        ("writes", used.writes, each.writes, NOISE.writes),
    ] {
        ensure!(
            used <= each * times + noise,
            "{used} {kind} for {times} times {what}, of which each may cost {each}"
        );
    }
    Ok(())
}

/// A try of a free lock, and a release that nobody waits for.
async fn co1(cx: Context) -> Checked {
    const TIMES: u64 = 50;
    let (a, budget) = (cx.client().await?, cx.backend().budget());
    let names: Vec<_> = (0..TIMES).map(|_| cx.name()).collect();
    // Whatever the first use of a name or of the connection costs.
    for name in &names {
        is_released(a.lock(name).acquire().await?).await?;
    }
    let before = counters(&cx).await?;
    let mut held = Vec::new();
    for name in &names {
        let tried = a.lock(name).try_acquire().await?;
        held.extend(tried);
    }
    let acquired = counters(&cx).await?;
    ensure!(held.len() == names.len(), "a free lock was refused");
    for held in held {
        is_released(held).await?;
    }
    let released = counters(&cx).await?;
    cx.noted(format!(
        "{TIMES} acquires: {}, releases: {}",
        shown(acquired - before),
        shown(released - acquired)
    ));
    within("acquire", acquired - before, (TIMES, budget.acquire))?;
    within("release", released - acquired, (TIMES, budget.release))
}

fn shown(used: Counters) -> String {
    format!("{} requests and {} writes", used.requests, used.writes)
}

/// Everybody who waits is served: what each costs does not depend on how many they are.
async fn co2(cx: Context) -> Checked {
    let budget = cx.backend().budget().contended;
    let name = cx.name();
    let holder = cx.client().await?;
    let mut clients = Vec::new();
    let mut each = Vec::new();
    for crowd in [16_usize, 128] {
        while clients.len() < crowd {
            let client = cx.client().await?;
            // Its first request may cost more.
            is_released(client.lock(&cx.name()).acquire().await?).await?;
            clients.push(client);
        }
        let held = holder.lock(&name).acquire().await?;
        let before = counters(&cx).await?;
        let began = cx.now();
        let mut waiters = Vec::new();
        for client in &clients {
            let waiter = queue(&cx, client, client.lock(&name)).await?;
            waiters.push(cx.spawn(async move { is_released(waiter.await??).await }));
        }
        is_released(held).await?;
        for waiter in waiters {
            cx.within("everybody is served", cx.slack() * 10, waiter)
                .await???;
        }
        let used = counters(&cx).await? - before;
        let took = cx.now().since(began);
        cx.noted(format!("{crowd} waiters, {took:.1?}: {}", shown(used)));
        let times = u64::try_from(crowd)?;
        // Each client may say something by itself, now and then.
        let signs = times * (took.as_secs() / 5);
        let used = Counters::new(used.requests.saturating_sub(signs), used.writes);
        within("a contended acquisition", used, (times, budget))?;
        each.push((used.requests * 100 / times, used.writes * 100 / times));
    }
    if let [(few_requests, few_writes), (many_requests, many_writes)] = each[..] {
        // A tenth more, and what a single request more on the way of one of them weighs.
        let grown = |few: u64, many: u64| many > few + few / 10 + 30;
        ensure!(
            !grown(few_requests, many_requests) && !grown(few_writes, many_writes),
            "a hundred acquisitions by 16 and by 128 (requests, writes): {each:?}"
        );
    }
    Ok(())
}

/// Many held locks share what keeps them.
async fn co3(cx: Context) -> Checked {
    const LOCKS: usize = 1000;
    const AT_ONCE: usize = 50;
    let (a, budget) = (cx.client().await?, cx.backend().budget().keep_thousand);
    let ttl = cx.ttl(Duration::from_secs(6));
    let mut held: Vec<Held> = Vec::new();
    for _ in 0..LOCKS / AT_ONCE {
        let requests = (0..AT_ONCE).map(|_| a.lock(&cx.name()).ttl(ttl).acquire());
        for acquired in futures_util::future::join_all(requests).await {
            held.push(acquired?);
        }
    }
    let before = counters(&cx).await?;
    cx.sleep(ttl).await;
    let used = counters(&cx).await? - before;
    cx.noted(format!("kept for {ttl:?}: {}", shown(used)));
    let lost = held.iter().filter(|held| !held.is_held()).count();
    ensure!(lost == 0, "{lost} of {LOCKS} locks were lost");
    within("keeping a thousand locks", used, (1, budget))?;
    while !held.is_empty() {
        let some = held.split_off(held.len().saturating_sub(AT_ONCE));
        for released in futures_util::future::join_all(some.into_iter().map(is_released)).await {
            released?;
        }
    }
    Ok(())
}
