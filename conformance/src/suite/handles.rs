//! HL: the life of managers, locks and guards.

use std::sync::Arc;
use std::time::Duration;

use lockcore::driver::{Acquired, Intent, Released};
use lockcore::memory::{Call, Fault};
use lockcore::{
    DistributedLock, Driver, Error, ErrorKind, Guard, Kind, Lock, LockBuilder, LockManager, LossReason,
    Manager, Release, ReleaseError,
};

use super::common::{expect_error, gets, is_free_within, is_pending, is_released, queue, refused};
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::scenario::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("HL1", "a_second_release_harms_nobody", |cx| Box::pin(hl1(cx))),
    Scenario::new("HL2", "the_end_of_scope_frees", |cx| Box::pin(hl2(cx))),
    Scenario::new("HL3", "a_forgotten_guard_ends_by_itself", |cx| Box::pin(hl3(cx))),
    Scenario::new("HL4", "an_unknown_release_can_be_repeated", |cx| {
        Box::pin(hl4(cx))
    }),
    Scenario::new("HL5", "a_lost_guard_still_answers", |cx| Box::pin(hl5(cx))),
    Scenario::left_out(
        "HL6",
        "handles_move_between_processes",
        "a guard cannot be handed to another process: that is not built yet",
    ),
    Scenario::new("HL7", "one_object_a_thousand_times", |cx| Box::pin(hl7(cx))),
    Scenario::new("HL8", "guards_outlive_their_manager", |cx| Box::pin(hl8(cx))),
    Scenario::new("HL9", "closing_ends_everything", |cx| Box::pin(hl9(cx))),
    Scenario::new("HL10", "with_lock_frees_in_any_case", |cx| Box::pin(hl10(cx))),
    Scenario::new("HL11", "a_shortened_lease_ends_when_it_says", |cx| {
        Box::pin(hl11(cx))
    }),
    Scenario::new("HL12", "types_are_send_sync_and_static", |cx| Box::pin(hl12(cx))),
];

/// A guard can be released once only, by its type; the release of an attempt, any number of times.
async fn hl1(cx: Context) -> Checked {
    let (driver, name) = (cx.driver().await?, cx.name());
    let ttl = cx.ttl(Duration::from_secs(60));
    let (first, second) = (cx.claim(&name, ttl)?, cx.claim(&name, ttl)?);
    let Acquired::Granted(_) = driver.acquire(&first, Intent::Try).await? else {
        fail!("a free lock was refused");
    };
    // Asked again, it is the same grant.
    let Acquired::Granted(_) = driver.acquire(&first, Intent::Try).await? else {
        fail!("an attempt was refused by its own grant");
    };
    ensure_eq!(driver.release(&second).await?, Released::NotHeld);
    ensure_eq!(driver.release(&first).await?, Released::Released);
    ensure_eq!(driver.release(&first).await?, Released::NotHeld);
    let Acquired::Granted(grant) = driver.acquire(&second, Intent::Try).await? else {
        fail!("a released lock was refused");
    };
    for _ in 0..3 {
        ensure_eq!(driver.release(&first).await?, Released::NotHeld);
    }
    let Acquired::Granted(again) = driver.acquire(&second, Intent::Try).await? else {
        fail!("lost to somebody else's second release");
    };
    ensure_eq!(again.token, grant.token);
    ensure_eq!(driver.release(&second).await?, Released::Released);
    Ok(driver.close().await?)
}

async fn hl2(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    for _ in 0..3 {
        {
            let _held = gets(a.lock(&name), cx.slack()).await?;
            refused(b.lock(&name)).await?;
        }
        is_free_within(&b, &name, cx.slack()).await?;
    }
    Ok(())
}

#[expect(clippy::mem_forget, reason = "it is what is tried")]
async fn hl3(cx: Context) -> Checked {
    let (a, b) = (cx.client().await?, cx.client().await?);
    let ttl = cx.renewed_ttl();
    let (unrenewed, bounded) = (cx.name(), cx.name());
    for request in [
        a.lock(&unrenewed).ttl(ttl).auto_renew(false),
        a.lock(&bounded).ttl(ttl).max_hold(ttl),
    ] {
        std::mem::forget(request.acquire().await?.into_guard());
    }
    refused(b.lock(&unrenewed)).await?;
    refused(b.lock(&bounded)).await?;
    is_free_within(&b, &unrenewed, ttl + cx.late()).await?;
    is_free_within(&b, &bounded, ttl + cx.late()).await
}

/// The third outcome of a release: nobody knows. It can be asked again, or left to the background.
async fn hl4(cx: Context) -> Checked {
    let (a, b, c) = (cx.client().await?, cx.client().await?, cx.client().await?);
    let unknown = |released: Result<Release, ReleaseError>| match released {
        Err(error) if error.error().kind() == ErrorKind::Unavailable => Ok(error),
        Err(error) => Err(crate::Failure::new(format!("unexpected error: {error}"))),
        Ok(outcome) => Err(crate::Failure::new(format!("{outcome:?}, and nobody can know"))),
    };
    // It did not arrive: asking again frees the lock.
    let name = cx.name();
    let held = a.lock(&name).acquire().await?;
    let refuse = Fault::Refuse(ErrorKind::Unavailable);
    a.link()
        .script_faults(Call::Release, [Some(refuse), Some(refuse)]);
    let error = unknown(held.release().await)?;
    refused(b.lock(&name)).await?;
    let error = unknown(error.retry().await)?;
    ensure!(error.to_string().contains("not known"), "{error}");
    let again = error.retry().await?;
    ensure_eq!(again, Release::Released);
    is_free_within(&b, &name, cx.slack()).await?;
    // It did arrive: asking again harms nobody who came after.
    let held = a.lock(&name).acquire().await?;
    a.link().next(Call::Release, Fault::LoseReply);
    let error = unknown(held.release().await)?;
    let next = gets(b.lock(&name), cx.slack()).await?;
    ensure_eq!(error.retry().await?, Release::NotHeld);
    refused(c.lock(&name)).await?;
    ensure!(next.is_held());
    is_released(next).await?;
    // Left to the background.
    let held = a.lock(&name).acquire().await?;
    a.link().next(Call::Release, refuse);
    drop(unknown(held.release().await)?);
    is_free_within(&b, &name, cx.slack()).await
}

async fn hl5(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let ttl = cx.expiring_ttl();
    let held = a.lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
    let token = held.token();
    ensure!(held.remaining() <= ttl && !held.remaining().is_zero());
    held.check()?;
    held.lost().await;
    ensure_eq!(held.name().as_str(), name);
    ensure_eq!(held.kind(), Kind::Mutex);
    ensure_eq!(held.weight(), 1);
    ensure_eq!(held.token(), token);
    ensure_eq!(held.ttl(), ttl);
    ensure!(held.remaining().is_zero());
    ensure!(!held.is_held());
    expect_error(held.check(), ErrorKind::Lost)?;
    expect_error(held.renew().await, ErrorKind::Lost)?;
    ensure!(format!("{held:?}").contains(&name));
    ensure_eq!(held.release().await?, Release::NotHeld);
    Ok(())
}

/// An object that is used again and again leaves no tasks and no entries behind.
async fn hl7(cx: Context) -> Checked {
    let (a, name) = (cx.client().await?, cx.name());
    let lock = a.lock(&name).build()?;
    is_released(lock.acquire().await?).await?;
    let before = cx.env().tasks().len();
    for round in 0..cx.pick(200, 1000) {
        let held = lock.acquire().await?;
        match round % 4 {
            0 => ensure!(lock.try_acquire().await?.is_none()),
            1 => drop(
                cx.env()
                    .timeout(Duration::from_millis(1), Box::pin(lock.acquire()))
                    .await,
            ),
            _ => {}
        }
        is_released(held).await?;
    }
    let base = || async { Ok(cx.env().tasks().len() <= before) };
    cx.eventually("its tasks have ended", cx.slack(), base).await?;
    is_free_within(&a, &name, cx.slack()).await
}

/// A guard keeps what it needs; with the last one everything ends.
async fn hl8(cx: Context) -> Checked {
    let (b, name) = (cx.client().await?, cx.name());
    // One whose manager the scenario itself does not keep.
    let env = cx.env().clone();
    // A session that the other client opens is no task of this one.
    is_free_within(&b, &name, cx.slack()).await?;
    let before = env.tasks().len();
    let (driver, context) = cx.backend().driver(&env).await?;
    let manager = Manager::from_dyn(driver, context, cx.settings())?;
    let ttl = cx.renewed_ttl();
    let lock = manager.lock(&name).ttl(ttl).build()?;
    let guard = lock.acquire().await?;
    drop((manager, lock));
    cx.sleep(ttl * 2).await;
    ensure!(guard.is_held(), "lost with its manager");
    refused(b.lock(&name)).await?;
    drop(guard);
    is_free_within(&b, &name, cx.slack()).await?;
    let gone = || async { Ok(env.tasks().len() <= before) };
    cx.eventually("its tasks have ended", cx.slack(), gone).await
}

async fn hl9(cx: Context) -> Checked {
    let mut settings = cx.settings();
    settings.drain = Duration::from_secs(2);
    let (a, b) = (cx.client_with(settings).await?, cx.client().await?);
    let (name, other) = (cx.name(), cx.name());
    let theirs = b.lock(&name).acquire().await?;
    let waiting = queue(&cx, &a, a.lock(&name)).await?;
    let local = cx.spawn(a.lock(&name).acquire());
    cx.sleep(Duration::from_millis(50)).await;
    let released = a.lock(&other).acquire().await?;
    let kept = a.lock(&cx.name()).acquire().await?;
    let start = cx.now();
    let closing = {
        let a = a.clone();
        cx.spawn(async move { a.close().await })
    };
    // Waiters are told at once, and new acquires are refused.
    for waiter in [waiting, local] {
        let ended = cx.within("the wait ends", cx.slack(), waiter).await??;
        expect_error(ended, ErrorKind::Closed)?;
    }
    expect_error(a.lock(&other).try_acquire().await, ErrorKind::Closed)?;
    expect_error(a.lock(&other).acquire().await, ErrorKind::Closed)?;
    // Held locks may be released until the drain is over; then they are lost.
    ensure!(
        released.is_held() && kept.is_held(),
        "closing took a lock before the drain was over"
    );
    is_released(released).await?;
    is_free_within(&b, &other, cx.slack()).await?;
    let mut lost = Box::pin(kept.lost());
    ensure!(is_pending(&mut lost).await);
    let again = a.close();
    cx.within("closing", Duration::from_secs(2) + cx.slack(), closing)
        .await???;
    let took = cx.now().since(start);
    ensure!(
        took >= Duration::from_secs(2),
        "closed after {took:?}, with a lock held"
    );
    cx.within("closing again", cx.slack(), again).await??;
    ensure_eq!(lost.await, LossReason::Closed);
    is_free_within(&b, kept.name().as_str(), cx.slack()).await?;
    // A grant that is on its way when the manager is closed is given back before the goodbye.
    let late = cx.client().await?;
    late.link()
        .next(Call::Acquire, Fault::DelayReply(Duration::from_millis(50)));
    let unused = cx.name();
    let on_its_way = cx.spawn(late.lock(&unused).acquire());
    let sent = || async { Ok(late.link().calls(Call::Acquire) > 0) };
    cx.eventually("the request is on its way", cx.slack(), sent)
        .await?;
    cx.within("closing", cx.slack(), late.close()).await??;
    let ended = cx.within("the acquire ends", cx.slack(), on_its_way).await??;
    expect_error(ended, ErrorKind::Closed)?;
    is_free_within(&b, &unused, cx.slack()).await?;
    // What outlives it is harmless.
    ensure_eq!(kept.release().await?, Release::NotHeld);
    expect_error(a.lock(&other).try_acquire().await, ErrorKind::Closed)?;
    ensure!(theirs.is_held());
    is_released(theirs).await?;
    is_free_within(&b, &name, cx.slack()).await
}

async fn hl10(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let free = || is_free_within(&b, &name, cx.slack());
    let lock = || a.lock(&name).unrecorded();
    // Ok, with the token, under the lock.
    let inside = b.lock(&name);
    let output = lock().with_lock(|token| async move {
        let refused = inside.try_acquire().await.map(|held| held.is_none());
        (token.get(), refused)
    });
    let (token, refused) = output.await?;
    ensure!(token > 0 && refused?);
    free().await?;
    // An error is an output like any other.
    let output = lock().with_lock(|_| async { Err::<(), _>("no") }).await?;
    ensure_eq!(output, Err("no"));
    free().await?;
    // A panic. No hook is called, so that the scenario does not count it.
    let panicking = lock();
    let task = cx.spawn(async move {
        panicking
            .with_lock(|_| async { std::panic::resume_unwind(Box::new("on purpose")) })
            .await
            .map(|never: ()| never)
    });
    ensure!(task.await.is_err());
    free().await?;
    // Dropped in the middle of the work.
    let work = Box::pin(lock().with_lock(|_| std::future::pending::<()>()));
    ensure!(
        cx.env()
            .timeout(
                cx.pick(Duration::from_millis(500), Duration::from_millis(10)),
                work
            )
            .await
            .is_none()
    );
    free().await?;
    // Lost in the middle of the work: it is dropped.
    let bounded = lock().max_hold(Duration::from_millis(200));
    let ended = bounded.with_lock(|_| std::future::pending::<()>()).await;
    let error = expect_error(ended, ErrorKind::Lost)?;
    ensure_eq!(error.loss(), Some(LossReason::MaxHold));
    free().await
}

/// A shorter lease counts from the moment it is asked for, a longer one only when it is granted.
async fn hl11(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let (short, long) = (cx.expiring_ttl(), cx.ttl(cx.renewed_ttl() * 10));
    let held = a
        .lock(&name)
        .ttl(cx.ttl(cx.renewed_ttl() * 2))
        .auto_renew(false)
        .acquire()
        .await?;
    let before = held.remaining();
    a.link().next(Call::Renew, Fault::LoseReply);
    expect_error(held.renew_for(long).await, ErrorKind::Unavailable)?;
    ensure!(held.remaining() <= before, "longer by an answer that never came");
    a.link().next(Call::Renew, Fault::LoseReply);
    expect_error(held.renew_for(short).await, ErrorKind::Unavailable)?;
    ensure!(
        held.remaining() <= short,
        "the backend may end it after {short:?}"
    );
    let next = gets(b.lock(&name), short + cx.late()).await?;
    ensure!(!held.is_held());
    expect_error(held.renew_for(long).await, ErrorKind::Lost)?;
    ensure!(next.is_held());
    is_released(next).await
}

/// Mostly for the compiler: handles go to any thread, and an application keeps them as trait objects.
async fn hl12(cx: Context) -> Checked {
    fn is_portable<T: Send + Sync + 'static>() {}
    is_portable::<Guard>();
    is_portable::<Lock>();
    is_portable::<LockBuilder>();
    is_portable::<Manager>();
    is_portable::<Error>();
    is_portable::<Arc<dyn LockManager>>();
    is_portable::<Arc<dyn DistributedLock>>();
    fn is_send<T: Send + 'static>(value: T) -> T {
        value
    }
    let name = cx.name();
    let manager: Arc<dyn LockManager> = Arc::new(cx.client().await?.manager().clone());
    let lock: Arc<dyn DistributedLock> = Arc::new(manager.lock(&name).build()?);
    let acquiring = {
        let lock = Arc::clone(&lock);
        is_send(async move { lock.acquire().await })
    };
    let guard = acquiring.await?;
    let releasing = is_send(std::thread::spawn(move || guard.release())).join();
    let Ok(releasing) = releasing else {
        fail!("a guard could not go to another thread")
    };
    ensure_eq!(is_send(releasing).await?, Release::Released);
    let again = manager.lock(&name).try_acquire().await?;
    ensure!(again.is_some());
    Ok(())
}
