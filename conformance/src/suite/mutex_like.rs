//! What a writer, and one permit of one, have in common with a mutex.

use std::time::Duration;

use lockcore::{ErrorKind, LossReason, Release};

use super::common::{expect_error, gets, is_released, queue, refused};
use crate::client::{Client, Request};
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq};

/// Exclusion, waiting, expiry, renewal and fencing, in short.
pub(super) async fn check(cx: Context, lock: fn(&Client, &str) -> Request) -> Checked {
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let held = lock(&a, &name).acquire().await?;
    refused(lock(&b, &name)).await?;
    let waited = lock(&b, &name).wait(Duration::from_millis(50)).acquire().await;
    expect_error(waited, ErrorKind::Timeout)?;
    let mut last = held.token();
    let waiter = queue(&cx, &b, lock(&b, &name)).await?;
    is_released(held).await?;
    let held = cx.within("the waiter is served", cx.slack(), waiter).await???;
    ensure!(held.token() > last);
    is_released(held).await?;
    // It ends by itself, and its late release frees nobody else.
    let ttl = cx.expiring_ttl();
    let held = gets(lock(&a, &name).ttl(ttl).auto_renew(false), cx.slack()).await?;
    last = held.token();
    let next = gets(lock(&b, &name), ttl + cx.late()).await?;
    ensure!(!held.is_held() && next.token() > last);
    ensure_eq!(held.lost().await, LossReason::Expired);
    ensure_eq!(held.release().await?, Release::NotHeld);
    cx.sleep(Duration::from_millis(100)).await;
    refused(lock(&c, &name)).await?;
    is_released(next).await?;
    // It lives under renewal.
    let ttl = cx.renewed_ttl();
    let held = gets(lock(&a, &name).ttl(ttl), cx.slack()).await?;
    cx.sleep(ttl * 3).await;
    ensure!(held.is_held());
    refused(lock(&b, &name)).await?;
    is_released(held).await?;
    // Many take turns.
    let mut tasks = Vec::new();
    for client in [a, b, c] {
        let name = name.clone();
        tasks.push(cx.spawn(async move {
            for _ in 0..20 {
                is_released(lock(&client, &name).acquire().await?).await?;
            }
            Checked::Ok(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    Ok(())
}
