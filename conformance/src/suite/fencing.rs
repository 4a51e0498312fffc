//! FE: fencing tokens.

use std::time::Duration;

use lockcore::driver::{Acquired, Intent};
use lockcore::{Driver, Kind, LockManager, Token};

use super::common::{gets, is_released, queue};
use crate::backend::Ability;
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::scenario::{Need, Scenario};

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("FE1", "tokens_grow_over_everything", |cx| Box::pin(fe1(cx))),
    Scenario::new("FE2", "renewal_keeps_the_token", |cx| Box::pin(fe2(cx))),
    Scenario::new("FE3", "ten_thousand_tokens_are_unique", |cx| Box::pin(fe3(cx))),
    Scenario::new("FE4", "a_stale_holder_is_refused_by_the_store", |cx| {
        Box::pin(fe4(cx))
    }),
    Scenario::new("FE5", "the_token_is_shown", |cx| Box::pin(fe5(cx))).needs(&[Need::Inspect, Need::List]),
    Scenario::new("FE6", "tokens_grow_past_lost_data", |cx| Box::pin(fe6(cx)))
        .needs(&[Need::Can(Ability::Wipe)]),
];

/// A store that does what a store has to do: it refuses a token that is smaller than one it has seen.
#[derive(Debug, Default)]
struct Store {
    seen: Option<Token>,
    accepted: u32,
}

impl Store {
    fn write(&mut self, token: Token) -> bool {
        let accepted = self.seen.is_none_or(|seen| token >= seen);
        if accepted {
            self.seen = Some(token);
            self.accepted += 1;
        }
        accepted
    }
}

/// Over release, drop, expiry, the death of a client, a forced release, a deleted key, a new connection.
async fn fe1(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let ttl = cx.expiring_ttl();
    let mut tokens = Vec::new();
    let lock = || a.lock(&name).ttl(ttl).auto_renew(false);
    let patience = ttl + cx.late();
    let held = gets(lock(), patience).await?;
    tokens.push(held.token());
    is_released(held).await?;
    let held = gets(lock(), patience).await?;
    tokens.push(held.token());
    drop(held);
    let held = gets(lock(), patience).await?;
    tokens.push(held.token());
    held.lost().await;
    // A driver that ends without a goodbye, as its process would.
    let dead = cx.driver().await?;
    let mut claim = cx.claim(&name, ttl)?;
    let end = cx.now().after(patience);
    let granted = loop {
        if let Acquired::Granted(grant) = dead.acquire(&claim, Intent::Try).await? {
            break grant.token;
        }
        ensure!(cx.now() < end, "an expired lock was refused");
        claim = cx.claim(&name, ttl)?;
        cx.sleep(Duration::from_millis(20)).await;
    };
    tokens.push(granted);
    drop(dead);
    let held = gets(lock(), patience).await?;
    tokens.push(held.token());
    if cx.capabilities().force_release {
        cx.disturbed();
        a.force_release(&name).await?;
        let held = gets(lock(), patience).await?;
        tokens.push(held.token());
    }
    drop(held);
    if cx.backend().abilities().contains(&Ability::DeleteLock) {
        let held = gets(lock(), patience).await?;
        tokens.push(held.token());
        let resource = a.resource(Kind::Mutex, &name)?;
        cx.disturbed();
        cx.at_home(|backend| async move { backend.delete_lock(&resource).await })
            .await?;
        cx.disturbed();
    }
    a.close().await?;
    let held = gets(cx.client().await?.lock(&name), patience).await?;
    tokens.push(held.token());
    ensure!(tokens.is_sorted_by(|one, two| one < two), "{tokens:?}");
    is_released(held).await
}

async fn fe2(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let ttl = cx.renewed_ttl();
    let held = a.lock(&name).ttl(ttl).acquire().await?;
    let token = held.token();
    for _ in 0..3 {
        held.renew().await?;
        if !cx.capabilities().sessions {
            held.renew_for(cx.ttl(ttl * 2)).await?;
        }
        cx.sleep(ttl).await;
        ensure_eq!(held.token(), token);
        if cx.capabilities().inspect {
            let status = a.lock(&name).build()?.inner().inspect().await?;
            let shown: Vec<_> = status.holders.iter().map(|holder| holder.token).collect();
            ensure_eq!(shown, [token]);
        }
    }
    is_released(held).await?;
    let next = gets(a.lock(&name), cx.slack()).await?;
    ensure!(next.token() > token);
    is_released(next).await
}

/// Of one name, by several connections at once; the history judges them.
async fn fe3(cx: Context) -> Checked {
    let name = cx.name();
    let rounds = cx.pick(60, 1250);
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (client, name) = (cx.client().await?, name.clone());
        tasks.push(cx.spawn(async move {
            let mut tokens = Vec::new();
            for _ in 0..rounds {
                let held = client.lock(&name).acquire().await?;
                tokens.push(held.token());
                is_released(held).await?;
            }
            Checked::Ok(tokens)
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        let tokens = task.await??;
        ensure!(
            tokens.is_sorted_by(|one, two| one < two),
            "they fell on one connection"
        );
        all.extend(tokens);
    }
    let given = all.len();
    all.sort_unstable();
    all.dedup();
    ensure_eq!(all.len(), given);
    Ok(())
}

async fn fe4(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let ttl = cx.expiring_ttl();
    let mut store = Store::default();
    let stale = a.lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
    ensure!(store.write(stale.token()));
    // It does not look at its guard for longer than its lease, and writes then.
    let next = gets(b.lock(&name), ttl + cx.late()).await?;
    ensure!(store.write(next.token()));
    ensure!(
        !store.write(stale.token()),
        "the stale holder's write was accepted"
    );
    ensure!(store.write(next.token()));
    ensure_eq!(store.accepted, 3);
    is_released(next).await
}

/// Who looks sees who holds, by token and label, and how many wait.
async fn fe5(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let free = b.lock(&name).build()?.inner().inspect().await?;
    ensure!(
        !free.is_held() && free.waiters == 0,
        "a name that nobody used: {free:?}"
    );
    let ttl = Duration::from_secs(60);
    let held = a
        .lock(&name)
        .ttl(ttl)
        .label("nightly \u{1f319}")
        .acquire()
        .await?;
    let waiter = queue(&cx, &b, b.lock(&name)).await?;
    let inspected = b.inspect(&name).await?;
    let listed = b.list("").await?;
    for (what, found) in [("inspect", inspected), ("list", listed)] {
        let [status] = &found[..] else {
            fail!("{what} found {found:?}")
        };
        ensure_eq!(status.name.as_str(), name);
        ensure_eq!(status.kind, Kind::Mutex);
        let [holder] = &status.holders[..] else {
            fail!("{what} found {:?}", status.holders)
        };
        ensure_eq!(holder.token, held.token());
        ensure_eq!(holder.weight, 1);
        let Some(owner) = &holder.owner else {
            fail!("{what} found no owner")
        };
        ensure_eq!(owner.label.as_deref(), Some("nightly \u{1f319}"));
        ensure_eq!(owner.pid, std::process::id());
        if let Some(left) = holder.remaining {
            ensure!(
                !left.is_zero() && left <= ttl,
                "{what} says that {left:?} of {ttl:?} are left"
            );
        }
        if what == "inspect" || status.waiters > 0 {
            ensure_eq!(status.waiters, 1);
        }
    }
    waiter.abort();
    is_released(held).await?;
    let gone = || async { Ok(!b.lock(&name).build()?.inner().inspect().await?.is_held()) };
    cx.eventually("it is shown as free", cx.slack(), gone).await?;
    ensure!(b.list("").await?.is_empty());
    Ok(())
}

/// The server forgets everything: tokens go on growing, for the same connection and for a new one.
async fn fe6(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let mut last = None;
    for _ in 0..3 {
        let held = gets(a.lock(&name), cx.slack()).await?;
        ensure!(Some(held.token()) > last, "{} after {last:?}", held.token());
        last = Some(held.token());
        is_released(held).await?;
        cx.disturbed();
        cx.at_home(|backend| async move { backend.wipe().await }).await?;
        cx.disturbed();
        // Losing data takes longer than this on any clock that a token is drawn from.
        cx.sleep(Duration::from_millis(10)).await;
        let held = gets(cx.client().await?.lock(&name), cx.slack()).await?;
        ensure!(Some(held.token()) > last, "{} after {last:?}", held.token());
        last = Some(held.token());
        is_released(held).await?;
    }
    Ok(())
}
