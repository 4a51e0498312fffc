//! RW: readers and writers.

use std::time::Duration;

use lockcore::memory::Call;
use lockcore::{ErrorKind, LockManager};

use super::common::{expect_error, gets, is_released, queue, refused};
use super::mutex_like;
use super::reach::Reach;
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq};
use crate::scenario::{Need, Scenario};

const UPGRADES: &str = "turning a reader into a writer is not built yet";

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("RW1", "readers_share_and_writers_wait", |cx| Box::pin(rw1(cx))).needs(&[Need::Weighted]),
    Scenario::new("RW2", "a_waiting_writer_comes_first", |cx| Box::pin(rw2(cx)))
        .needs(&[Need::Weighted, Need::Fifo]),
    Scenario::new("RW3", "a_writer_is_alone", |cx| Box::pin(rw3(cx))).needs(&[Need::Weighted]),
    Scenario::new("RW4", "readers_expire_by_themselves", |cx| Box::pin(rw4(cx))).needs(&[Need::Weighted]),
    Scenario::new("RW5", "a_dead_reader_frees_the_writer", |cx| Box::pin(rw5(cx))).needs(&[Need::Weighted]),
    Scenario::new("RW6", "mixed_queues_do_not_lock_up", |cx| Box::pin(rw6(cx))).needs(&[Need::Weighted]),
    Scenario::left_out("RW7", "upgrades", UPGRADES),
    Scenario::left_out("RW8", "promotion_and_demotion", UPGRADES),
    Scenario::new("RW9", "readers_and_writers_are_renewed_apart", |cx| {
        Box::pin(rw9(cx))
    })
    .needs(&[Need::Weighted]),
    Scenario::new("RW10", "a_writer_is_a_mutex", |cx| {
        Box::pin(mutex_like::check(cx, |client, name| client.write_lock(name)))
    })
    .needs(&[Need::Weighted]),
];

async fn rw1(cx: Context) -> Checked {
    let (a, b, w, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let mut readers = Vec::new();
    for _ in 0..5 {
        for client in [&a, &b] {
            readers.push(gets(client.read_lock(&name), cx.slack()).await?);
        }
    }
    refused(w.write_lock(&name)).await?;
    let waited = w
        .write_lock(&name)
        .wait(Duration::from_millis(50))
        .acquire()
        .await;
    expect_error(waited, ErrorKind::Timeout)?;
    let writer = queue(&cx, &w, w.write_lock(&name)).await?;
    for reader in readers {
        ensure!(!writer.is_finished(), "a writer beside readers");
        ensure!(reader.is_held());
        is_released(reader).await?;
    }
    let writer = cx.within("the writer is served", cx.slack(), writer).await???;
    refused(a.read_lock(&name)).await?;
    is_released(writer).await?;
    is_released(gets(a.read_lock(&name), cx.slack()).await?).await
}

/// Readers who come later do not starve a writer.
async fn rw2(cx: Context) -> Checked {
    let (a, b, w, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let first = a.read_lock(&name).acquire().await?;
    let writer = queue(&cx, &w, w.write_lock(&name)).await?;
    refused(b.read_lock(&name)).await?;
    let second = queue(&cx, &b, b.read_lock(&name)).await?;
    is_released(first).await?;
    let writer = cx.within("the writer is served", cx.slack(), writer).await???;
    cx.sleep(Duration::from_millis(50)).await;
    ensure!(!second.is_finished(), "a reader beside a writer");
    is_released(writer).await?;
    let second = cx.within("the reader is served", cx.slack(), second).await???;
    is_released(second).await
}

async fn rw3(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let writer = a.write_lock(&name).acquire().await?;
    refused(b.write_lock(&name)).await?;
    refused(b.read_lock(&name)).await?;
    refused(a.read_lock(&name)).await?;
    is_released(writer).await?;
    let readers = [
        gets(b.read_lock(&name), cx.slack()).await?,
        gets(a.read_lock(&name), cx.slack()).await?,
    ];
    ensure!(readers[0].token() != readers[1].token());
    for reader in readers {
        is_released(reader).await?;
    }
    Ok(())
}

/// The end of a short lease neither cuts the long one beside it, nor is it kept alive by it.
async fn rw4(cx: Context) -> Checked {
    let (a, b, w, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let ttl = cx.expiring_ttl();
    let long = a
        .read_lock(&name)
        .ttl(cx.ttl(Duration::from_secs(120)))
        .auto_renew(false)
        .acquire()
        .await?;
    let short = b.read_lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
    cx.within("the short lease ends", ttl + cx.slack(), short.lost())
        .await?;
    cx.sleep(cx.surely_over(Duration::ZERO)).await;
    ensure!(long.is_held());
    refused(w.write_lock(&name)).await?;
    if cx.capabilities().inspect {
        let status = w.inspect(&name).await?;
        let tokens: Vec<_> = status
            .iter()
            .flat_map(|status| &status.holders)
            .map(|holder| holder.token)
            .collect();
        ensure_eq!(tokens, [long.token()]);
    }
    let writer = queue(&cx, &w, w.write_lock(&name)).await?;
    is_released(long).await?;
    let writer = cx.within("the writer is served", cx.slack(), writer).await???;
    is_released(writer).await
}

async fn rw5(cx: Context) -> Checked {
    let (a, reach, w, name) = (
        cx.client().await?,
        Reach::new(&cx).await?,
        cx.client().await?,
        cx.name(),
    );
    let ttl = cx.renewed_ttl();
    let live = a.read_lock(&name).ttl(ttl).acquire().await?;
    let dead = reach.client.read_lock(&name).ttl(ttl).acquire().await?;
    reach.cut_off(true);
    let writer = queue(&cx, &w, w.write_lock(&name)).await?;
    cx.sleep(cx.surely_over(ttl)).await;
    ensure!(live.is_held() && !dead.is_held());
    ensure!(!writer.is_finished(), "a writer beside a reader");
    is_released(live).await?;
    let writer = cx.within("the writer is served", cx.slack(), writer).await???;
    reach.cut_off(false);
    is_released(writer).await
}

async fn rw6(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let held = a.write_lock(&name).acquire().await?;
    let mut waiters = Vec::new();
    for number in 0..12 {
        let client = cx.client().await?;
        let request = if number % 3 == 0 {
            client.read_lock(&name)
        } else {
            client.write_lock(&name)
        };
        waiters.push(cx.spawn(async move {
            let held = request.acquire().await?;
            is_released(held).await
        }));
    }
    cx.sleep(Duration::from_millis(50)).await;
    is_released(held).await?;
    for waiter in waiters {
        cx.within("everybody is served", cx.slack() * 4, waiter)
            .await???;
    }
    Ok(())
}

async fn rw9(cx: Context) -> Checked {
    let (a, b, one, two) = (cx.client().await?, cx.client().await?, cx.name(), cx.name());
    let ttl = cx.renewed_ttl();
    let readers = [
        a.read_lock(&one).ttl(ttl).acquire().await?,
        a.read_lock(&one).ttl(ttl).acquire().await?,
        b.read_lock(&one).ttl(ttl).acquire().await?,
    ];
    let writer = b.write_lock(&two).ttl(ttl).acquire().await?;
    cx.sleep(ttl * 3).await;
    let [first, second, third] = readers;
    is_released(first).await?;
    cx.sleep(ttl * 2).await;
    ensure!(second.is_held() && third.is_held() && writer.is_held());
    ensure_eq!(a.link().calls(Call::Renew) == 0, cx.capabilities().sessions);
    refused(a.write_lock(&one)).await?;
    refused(a.read_lock(&two)).await?;
    for held in [second, third, writer] {
        is_released(held).await?;
    }
    Ok(())
}
