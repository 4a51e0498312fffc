//! What a thousand cancelled acquires leave at the server: CX.

use std::time::Duration;

use super::common::{is_free_within, is_released, random};
use crate::backend::Ability;
use crate::context::Context;
use crate::failure::{Checked, Failure, ensure};
use crate::limits;
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] =
    &[
        Scenario::new("CX10", "a_thousand_cancelled_acquires_leak_nothing", |cx| {
            Box::pin(cx10(cx))
        })
        .needs(&[Need::Can(Ability::Usage)]),
    ];

type Usage = Vec<(&'static str, u64)>;

async fn usage(cx: &Context) -> Checked<Usage> {
    cx.at_home(|backend| async move { backend.usage().await }).await
}

/// What is more than before.
fn grown(before: &Usage, now: &Usage) -> Vec<String> {
    let known = |what| {
        before
            .iter()
            .find(|(name, _)| *name == what)
            .map_or(0, |(_, count)| *count)
    };
    let grown = now.iter().filter(|(what, count)| *count > known(*what));
    grown
        .map(|(what, count)| format!("{what}: {count}, not {}", known(what)))
        .collect()
}

/// Acquires of free locks and of held ones, dropped at random points: leases, watches, nodes, rows, connections and
/// channels are soon as many as before.
async fn cx10(cx: Context) -> Checked {
    const CLIENTS: usize = 8;
    const EACH: usize = 125;
    // Who was cancelled stands in the queue until its release is sent, which a thousand of them delay, and may lose its
    // turn meanwhile, which takes its claim window.
    cx.expect_no_order();
    cx.expect_slow_hand_off();
    let (a, taken) = (cx.client().await?, cx.name());
    let held = a.lock(&taken).acquire().await?;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let client = cx.client().await?;
        // Whatever the first wait of a client opens, and keeps.
        let wait = Duration::from_millis(50);
        drop(client.lock(&taken).wait(wait).acquire().await.map(drop));
        is_free_within(&client, &cx.name(), cx.slack()).await?;
        clients.push(client);
    }
    let before = settled(&cx, None).await?;
    let mut tasks = Vec::new();
    for client in &clients {
        let (client, cx2, taken) = (client.clone(), cx.clone(), taken.clone());
        tasks.push(cx.spawn(async move {
            let free = cx2.name();
            for round in 0..EACH {
                let name = if round % 2 == 0 { &taken } else { &free };
                let after = Duration::from_micros(u64::from(random(cx2.env(), 8_000)));
                let acquire = Box::pin(client.lock(name).acquire());
                if let Some(acquired) = cx2.env().timeout(after, acquire).await {
                    drop(acquired?);
                }
            }
            Checked::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    settled(&cx, Some(&before)).await?;
    ensure!(held.is_held());
    is_released(held).await?;
    is_free_within(&clients[0], &taken, cx.slack()).await
}

/// The usage when it does not change any more, or is no more than `base`.
async fn settled(cx: &Context, base: Option<&Usage>) -> Checked<Usage> {
    let end = cx.now().after(limits::CANCELLED);
    let mut last = usage(cx).await?;
    loop {
        cx.sleep(Duration::from_millis(250)).await;
        let now = usage(cx).await?;
        let done = base.map_or(now == last, |base| grown(base, &now).is_empty());
        if done {
            return Ok(now);
        }
        if cx.now() >= end {
            return match base {
                None => Ok(now),
                Some(base) => Err(Failure::new(format!(
                    "left at the server: {}",
                    grown(base, &now).join(", ")
                ))),
            };
        }
        last = now;
    }
}
