//! Steps that many scenarios take.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context as Poller, Poll};
use std::time::Duration;

use lockcore::{Env, Error, ErrorKind, Release};

use crate::client::{Client, Held, Request};
use crate::context::{Context, Task};
use crate::failure::{Checked, Failure};

/// How long it may take until a waiter stands in the backend's queue.
const QUEUED: Duration = Duration::from_secs(10);

/// Acquires `request` in a task, and returns when the backend has told it to wait.
#[track_caller]
pub(super) fn queue(
    cx: &Context,
    client: &Client,
    request: Request,
) -> impl Future<Output = Checked<Task<lockcore::Result<Held>>>> {
    let (cx, link) = (cx.clone(), client.link().clone());
    let before = link.waiters();
    let late = Failure::new("the acquire was not told to wait");
    async move {
        let task = cx.spawn(request.acquire());
        let told = cx.eventually("queued", QUEUED, || async { Ok(link.waiters() > before) });
        match told.await {
            Ok(()) => Ok(task),
            Err(_) => Err(late),
        }
    }
}

/// The lock, which has to come within `limit`.
#[track_caller]
pub(super) fn gets(request: Request, limit: Duration) -> impl Future<Output = Checked<Held>> {
    let late = Failure::new(format!("the lock was not had within {limit:?}"));
    async move {
        match request.wait(limit).acquire().await {
            Ok(held) => Ok(held),
            Err(error) => Err(late.because(&error)),
        }
    }
}

/// The lock, which has to come within `limit`, and is given back.
#[track_caller]
pub(super) fn is_free_within(
    client: &Client,
    name: &str,
    limit: Duration,
) -> impl Future<Output = Checked> + use<> {
    let got = gets(client.lock(name), limit);
    let lost = Failure::new("a lock that was just acquired was lost");
    async move {
        match got.await?.release().await? {
            Release::Released => Ok(()),
            _ => Err(lost),
        }
    }
}

/// A try, which has to be refused.
#[track_caller]
pub(super) fn refused(request: Request) -> impl Future<Output = Checked> {
    let granted = Failure::new("the lock was granted, and somebody else has it");
    async move {
        match request.try_acquire().await? {
            None => Ok(()),
            Some(_) => Err(granted),
        }
    }
}

/// The error, which has to be of `kind`.
#[track_caller]
pub(super) fn expect_error<T>(result: Result<T, Error>, kind: ErrorKind) -> Checked<Error> {
    match result {
        Ok(_) => Err(Failure::new(format!("no error, `{kind}` was expected"))),
        Err(error) if error.kind() == kind => Ok(error),
        Err(error) => Err(Failure::new(format!(
            "an error of kind `{}`, not `{kind}`: {error}",
            error.kind()
        ))),
    }
}

/// The release, which has to be one of a held lock.
#[track_caller]
pub(super) fn is_released(held: Held) -> impl Future<Output = Checked> {
    let lost = Failure::new("the lock was not held any more when it was released");
    async move {
        match held.release().await? {
            Release::Released => Ok(()),
            _ => Err(lost),
        }
    }
}

/// Polls `future` at most `polls` times and drops it then; its output if it came before.
pub(super) async fn drop_at_poll<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    std::future::poll_fn(move |poller| match future.as_mut().poll(poller) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => {
            left = left.saturating_sub(1);
            if left == 0 {
                Poll::Ready(None)
            } else {
                Poll::Pending
            }
        }
    })
    .await
}

/// Polls `future` once.
pub(super) async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    std::future::poll_fn(|poller: &mut Poller<'_>| Poll::Ready(Pin::new(&mut *future).poll(poller))).await
}

/// Whether `future` is not over yet.
pub(super) async fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
    poll_once(future).await.is_pending()
}

/// Runs `future` on a runtime of one thread of its own, in a thread of its own.
pub(super) fn in_another_runtime<T, F>(
    make: impl FnOnce() -> F + Send + 'static,
) -> std::thread::JoinHandle<Checked<T>>
where
    F: Future<Output = Checked<T>>,
    T: Send + 'static,
{
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(make())
    })
}

/// Lets `duration` pass without anybody running meanwhile, on virtual time.
pub(super) async fn stand_still(duration: Duration) {
    // The first poll moves the clock; the others would let the tasks run that are due.
    let mut advance = pin!(tokio::time::advance(duration));
    std::future::poll_fn(|poller| Poll::Ready(advance.as_mut().poll(poller).is_ready())).await;
}

/// A number below `bound`.
pub(super) fn random(env: &Env, bound: u32) -> u32 {
    let bits = env.random_u128().unwrap_or_default();
    u32::try_from(bits % u128::from(bound.max(1))).unwrap_or_default()
}
