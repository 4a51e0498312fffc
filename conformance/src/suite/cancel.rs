//! CX: what is dropped, at any point, leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, Manager, Retry};

use super::common::{
    drop_at_poll, expect_error, gets, in_another_runtime, is_free_within, is_released, poll_once, queue,
    refused,
};
use crate::client::{Client, Request};
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::scenario::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("CX1", "a_dropped_waiter_leaves_nothing", |cx| Box::pin(cx1(cx))),
    Scenario::new("CX2", "dropped_at_every_poll", |cx| Box::pin(cx2(cx))),
    Scenario::new("CX3", "select_and_timeout_around_acquire", |cx| Box::pin(cx3(cx))),
    Scenario::new("CX4", "cancelled_before_it_began", |cx| Box::pin(cx4(cx))),
    Scenario::new("CX5", "a_dropped_release_still_frees", |cx| Box::pin(cx5(cx))),
    Scenario::new("CX6", "guards_dropped_anywhere", |cx| Box::pin(cx6(cx))),
    Scenario::new("CX7", "an_aborted_holder_frees", |cx| Box::pin(cx7(cx))),
    Scenario::new("CX8", "a_cancelled_head_stalls_nobody", |cx| Box::pin(cx8(cx))),
    Scenario::new("CX9", "a_lost_answer_is_adopted_or_cleaned_up", |cx| {
        Box::pin(cx9(cx))
    }),
];

/// Waits until the backend knows of no waiter for `name`, if it can tell.
async fn nobody_waits(cx: &Context, client: &Client, name: &str) -> Checked {
    if !cx.capabilities().inspect {
        return Ok(());
    }
    let lock = client.lock(name).build()?;
    cx.eventually("nobody waits", cx.slack(), || async {
        Ok(lockcore::DistributedLock::inspect(lock.inner()).await?.waiters == 0)
    })
    .await
}

async fn cx1(cx: Context) -> Checked {
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let held = a.lock(&name).acquire().await?;
    for _ in 0..3 {
        let waiter = queue(&cx, &b, b.lock(&name)).await?;
        waiter.abort();
        ensure!(waiter.await.is_err(), "the waiter was not cancelled");
        nobody_waits(&cx, &a, &name).await?;
    }
    let before = b.link().calls(Call::Acquire);
    is_released(held).await?;
    is_free_within(&c, &name, cx.slack()).await?;
    cx.sleep(Duration::from_millis(200)).await;
    ensure_eq!(b.link().calls(Call::Acquire), before);
    Ok(())
}

/// What is dropped at every poll.
#[derive(Clone, Copy, Debug)]
enum Victim {
    /// Of a free lock, with an answer that is lost once, so that the retry is swept as well.
    Acquire,
    Try,
    /// Of a lock that somebody gives back meanwhile.
    Wait,
    /// With its guard.
    Renew,
    /// With an answer that is lost.
    Release,
}

/// Every request takes its time on both ways, so that there are points to be dropped at.
fn slow_down(client: &Client, call: Call) {
    let step = Duration::from_millis(2);
    for fault in [Fault::DelayRequest(step), Fault::DelayReply(step)] {
        client.link().next(call, fault);
    }
}

impl Victim {
    /// Gets everything ready, up to the future that will be dropped.
    async fn make(
        self,
        cx: &Context,
        (a, b): (&Client, &Client),
        name: &str,
    ) -> Checked<BoxFuture<'static, Checked>> {
        b.link().heal();
        let request = b.lock(name);
        let acquire = |request: Request| {
            async move {
                drop(request.acquire().await?);
                Ok(())
            }
            .boxed()
        };
        Ok(match self {
            Self::Acquire => {
                slow_down(b, Call::Acquire);
                b.link().next(Call::Acquire, Fault::LoseReply);
                acquire(request)
            }
            Self::Try => {
                slow_down(b, Call::Acquire);
                acquire(request.wait(Duration::ZERO))
            }
            Self::Wait => {
                let held = gets(a.lock(name), cx.slack()).await?;
                let env = cx.env().clone();
                let releasing = cx.spawn(async move {
                    env.sleep(Duration::from_millis(20)).await;
                    is_released(held).await
                });
                slow_down(b, Call::Acquire);
                let acquire = acquire(request);
                async move {
                    acquire.await?;
                    releasing.await?
                }
                .boxed()
            }
            Self::Renew => {
                let held = gets(request, cx.slack()).await?;
                slow_down(b, Call::Renew);
                async move { Ok(held.renew().await?) }.boxed()
            }
            Self::Release => {
                let held = gets(request, cx.slack()).await?;
                slow_down(b, Call::Release);
                b.link().next(Call::Release, Fault::LoseReply);
                async move {
                    // What came of it is not known; the error is dropped as well.
                    drop(held.release().await);
                    Ok(())
                }
                .boxed()
            }
        })
    }
}

/// Drops each operation after one poll, after two, and so on up to the poll that ends it. Another client gets the lock
/// soon after, each time.
async fn cx2(cx: Context) -> Checked {
    let (a, b, c) = (cx.client().await?, cx.client().await?, cx.client().await?);
    // Sessions are opened here, and stay.
    for client in [&a, &b, &c] {
        is_free_within(client, &cx.name(), cx.slack()).await?;
    }
    let base = cx.env().tasks().len();
    for victim in [
        Victim::Acquire,
        Victim::Try,
        Victim::Wait,
        Victim::Renew,
        Victim::Release,
    ] {
        let name = cx.name();
        let mut polls = 1;
        loop {
            let future = victim.make(&cx, (&a, &b), &name).await?;
            let dropped = cx.within("a poll is woken", cx.slack() * 2, drop_at_poll(future, polls));
            let output = dropped.await?;
            is_free_within(&c, &name, cx.slack())
                .await
                .map_err(|failure| failure.after(&format!("{victim:?} dropped at poll {polls}")))?;
            // What was under way is driven to its end, and cleared up after; then nothing goes on.
            let quiet = || async { Ok(cx.env().tasks().len() <= base) };
            cx.eventually("its tasks have ended", cx.slack(), quiet).await?;
            if let Some(output) = output {
                output.map_err(|failure| failure.after(&format!("{victim:?}")))?;
                break;
            }
            polls += 1;
            ensure!(polls < 500, "{victim:?} is not over after {polls} polls");
        }
        // At the least: the start, and the delays on both ways.
        ensure!(polls >= 2, "{victim:?} was over at its first poll");
    }
    b.link().heal();
    Ok(())
}

async fn cx3(cx: Context) -> Checked {
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let held = a.lock(&name).acquire().await?;
    for round in 0..10 {
        let acquire = b.lock(&name).acquire();
        if round % 2 == 0 {
            let ended = cx
                .env()
                .timeout(Duration::from_millis(20), Box::pin(acquire))
                .await;
            ensure!(ended.is_none());
        } else {
            tokio::select! {
                acquired = acquire => { drop(acquired?); fail!("granted to two"); }
                () = cx.sleep(Duration::from_millis(20)) => {}
            }
        }
    }
    nobody_waits(&cx, &a, &name).await?;
    is_released(held).await?;
    is_free_within(&c, &name, cx.slack()).await
}

/// A future that is never polled does nothing; one that is beaten before its first poll neither.
async fn cx4(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    drop(a.lock(&name).acquire());
    drop(a.lock(&name).try_acquire());
    tokio::select! {
        biased;
        () = std::future::ready(()) => {}
        _ = a.lock(&name).acquire() => fail!("the second branch came first"),
    }
    let task = cx.spawn(a.lock(&name).acquire());
    task.abort();
    if let Ok(acquired) = task.await {
        is_released(acquired?).await?;
    }
    cx.sleep(Duration::from_millis(100)).await;
    ensure!(a.link().calls(Call::Acquire) <= 1);
    is_free_within(&a, &name, cx.slack()).await
}

async fn cx5(cx: Context) -> Checked {
    let mut settings = cx.settings();
    settings.op_timeout = Duration::from_millis(300);
    let (a, b) = (cx.client_with(settings).await?, cx.client().await?);
    let late = Duration::from_millis(50);
    for fault in [
        Fault::DelayRequest(late),
        Fault::DelayReply(late),
        Fault::LoseReply,
        Fault::Refuse(ErrorKind::Unavailable),
        Fault::SwallowRequest,
        Fault::SwallowReply,
    ] {
        let name = cx.name();
        let held = a.lock(&name).acquire().await?;
        a.link().next(Call::Release, fault);
        {
            let mut releasing = Box::pin(held.release());
            drop(poll_once(&mut releasing).await);
        }
        is_free_within(&b, &name, cx.slack())
            .await
            .map_err(|failure| failure.after(&format!("{fault:?}")))?;
    }
    Ok(())
}

/// Wherever a guard is dropped, its lock is free soon after, or by its TTL where the runtime went with it.
async fn cx6(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    // In the runtime.
    drop(a.lock(&name).acquire().await?);
    is_free_within(&b, &name, cx.slack()).await?;
    // Outside any runtime.
    let held = a.lock(&name).acquire().await?;
    let dropped = std::thread::spawn(move || drop(held)).join();
    ensure!(dropped.is_ok(), "the drop of a guard outside a runtime panicked");
    is_free_within(&b, &name, cx.slack()).await?;
    // In somebody else's runtime.
    let held = a.lock(&name).acquire().await?;
    let dropped = in_another_runtime(move || async move {
        drop(held);
        Ok(())
    });
    let Ok(dropped) = dropped.join() else {
        fail!("the drop of a guard in another runtime panicked")
    };
    dropped?;
    is_free_within(&b, &name, cx.slack()).await?;
    // While a panic unwinds. No hook is called, so that the scenario does not count it.
    let held = a.lock(&name).acquire().await?;
    let panicking = cx.spawn(async move {
        let _held = held;
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    ensure!(panicking.await.is_err());
    is_free_within(&b, &name, cx.slack()).await?;
    // With its runtime.
    cx.expect_residue();
    let (backend, settings, lock, ttl) = (
        Arc::clone(cx.backend()),
        cx.settings(),
        name.clone(),
        cx.renewed_ttl(),
    );
    let ended = in_another_runtime(move || async move {
        let (driver, context) = backend.driver(&lockcore::Env::system()).await?;
        let manager = Manager::from_dyn(driver, context, settings)?;
        let guard = lockcore::LockManager::lock(&manager, &lock)
            .ttl(ttl)
            .try_acquire()
            .await?;
        let Some(guard) = guard else {
            fail!("the lock is not free")
        };
        // Dropped by the runtime when it shuts down.
        drop(tokio::runtime::Handle::current().spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        }));
        tokio::task::yield_now().await;
        Ok(())
    });
    let Ok(ended) = ended.join() else {
        fail!("the end of a runtime with a guard panicked")
    };
    ended?;
    is_free_within(&b, &name, ttl + cx.late()).await
}

async fn cx7(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.lock(&name).acquire().await?;
    let holder = cx.spawn(async move {
        held.protect(std::future::pending::<()>()).await.ok();
    });
    cx.sleep(Duration::from_millis(20)).await;
    refused(b.lock(&name)).await?;
    holder.abort();
    is_free_within(&b, &name, cx.slack()).await
}

/// The waiter at the head of the queue is cancelled before, and after, its turn has come.
async fn cx8(cx: Context) -> Checked {
    let mut settings = cx.settings();
    settings.claim_window = Duration::from_secs(20);
    settings.ttl = Duration::from_secs(60);
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(cx.client_with(settings.clone()).await?);
    }
    let [a, b, c] = &clients[..] else {
        fail!("three clients")
    };
    let name = cx.name();
    for after_release in [false, true] {
        let held = gets(a.lock(&name), cx.slack()).await?;
        let head = queue(&cx, b, b.lock(&name)).await?;
        let second = queue(&cx, c, c.lock(&name)).await?;
        if after_release {
            // The turn is the head's; it is cancelled before it can take it, or just when it has.
            b.link()
                .next(Call::Acquire, Fault::DelayRequest(Duration::from_millis(30)));
            is_released(held).await?;
            cx.sleep(Duration::from_millis(10)).await;
            head.abort();
            // One that came too late left a guard in the task.
            drop(head.await);
        } else {
            head.abort();
            ensure!(head.await.is_err());
            is_released(held).await?;
        }
        let next = cx
            .within("the follower is served", cx.slack(), second)
            .await???;
        is_released(next).await?;
    }
    Ok(())
}

/// The backend granted, and the answer was lost: the retry adopts the grant; without a retry it is given back.
async fn cx9(cx: Context) -> Checked {
    let mut settings = cx.settings();
    settings.op_timeout = Duration::from_millis(500);
    let (a, b, name) = (cx.client_with(settings).await?, cx.client().await?, cx.name());
    for fault in [Fault::LoseReply, Fault::SwallowReply] {
        a.link().next(Call::Acquire, fault);
        let held = gets(a.lock(&name), cx.slack()).await?;
        is_released(held).await?;
        a.link().next(Call::Acquire, fault);
        let tried = a.lock(&name).try_acquire().await?;
        let Some(held) = tried else {
            fail!("refused by its own lost grant")
        };
        is_released(held).await?;
        a.link().next(Call::Acquire, fault);
        let failed = a.lock(&name).retry(Retry::NONE).acquire().await;
        expect_error(failed, ErrorKind::Unavailable)?;
        is_free_within(&b, &name, cx.slack()).await?;
    }
    Ok(())
}
