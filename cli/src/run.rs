//! `run`: CMD under a lock.

use std::io::IsTerminal;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;
use std::time::Duration;

use leasehold::{Env, Guard, Lock, LockManager, LockName, Owner, Release};

use crate::args::{Common, OnLost, Run};
use crate::child::{self, Child, Group};
use crate::exit::{Code, Failure};
use crate::hold::{self, Kept};
use crate::signals::{self, Signals};
use crate::{logging, output, place, status};

/// A wait that is shorter needs no explanation.
const SILENT_WAIT: Duration = Duration::from_millis(1500);

/// How long a backend that does not answer may hold us up at the end, in each of two steps: freeing the lock, and
/// clearing up what is left.
const LAST_WORDS: Duration = Duration::from_millis(2500);

pub(crate) async fn run(common: &Common, args: Run) -> Result<ExitCode, Failure> {
    logging::start(common)?;
    // Before anything is asked of a backend that may not be there.
    let name = LockName::new(args.name.as_str())?;
    let url = place::url(common.url.as_deref())?;
    let mut signals = Signals::passed_on()?;
    let locks = tokio::select! {
        biased;
        signal = signals.recv() => return Ok(signals::exit_status(signal).into()),
        connected = leasehold::connect(&url) => connected?,
    };
    let result = with_lock(common, &args, &name, &*locks, &mut signals).await;
    close(&locks).await;
    result
}

async fn with_lock(
    common: &Common,
    args: &Run,
    name: &LockName,
    locks: &dyn LockManager,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let mut lock = locks.lock(name.as_str()).wait(args.wait);
    if let Some(ttl) = args.ttl {
        lock = lock.ttl(ttl);
    }
    if let Some(label) = &args.label {
        lock = lock.label(label);
    }
    let lock = lock.build()?;
    let guard = tokio::select! {
        biased;
        // Dropping the wait gives up the place in the queue; closing the manager waits until that is done.
        signal = signals.recv() => return Ok(signals::exit_status(signal).into()),
        acquired = lock.acquire_within(args.wait) => acquired?,
        never = tell_holder(common, &lock) => match never {},
    };
    let ended = under(&guard, args, locks, signals).await;
    free(guard, args, ended).await
}

/// How CMD ended, and what became of the lock until then.
struct Ended {
    status: ExitStatus,
    kept: Kept,
}

async fn under(
    guard: &Guard,
    args: &Run,
    locks: &dyn LockManager,
    signals: &mut Signals,
) -> Result<Ended, Failure> {
    let group = Group::choose();
    let label = args.label.as_deref().or(locks.settings().label.as_deref());
    let environment = [
        ("LEASEHOLD_NAME", guard.name().as_str().to_owned()),
        ("LEASEHOLD_TOKEN", guard.token().to_string()),
        ("LEASEHOLD_OWNER", Owner::this_process(label).to_string()),
    ];
    let mut child = Child::start(&args.command, &environment, group)?;
    let kept = hold::until_ended(guard, &mut child, signals, (args.on_lost, args.grace, group)).await?;
    let status = child.reap()?;
    Ok(Ended { status, kept })
}

/// Frees the lock after CMD has been reaped.
async fn free(guard: Guard, args: &Run, ended: Result<Ended, Failure>) -> Result<ExitCode, Failure> {
    let (name, ttl) = (guard.name().clone(), guard.ttl());
    let freed = Env::system().timeout(LAST_WORDS, Box::pin(guard.release())).await;
    let Ended { status, mut kept } = ended?;
    let unknown = match freed {
        Some(Ok(Release::Released)) => None,
        Some(Ok(_)) => {
            kept = if kept == Kept::Held { Kept::Lost } else { kept };
            None
        }
        // It goes on in the background, which `close` waits for.
        Some(Err(error)) => Some(error.to_string()),
        None => Some("the backend does not answer".to_owned()),
    };
    if let Some(unknown) = unknown {
        let ttl = humantime::format_duration(ttl);
        output::note(format_args!(
            "{unknown}; the lock {name} ends by itself within {ttl}"
        ));
    }
    let code = child::exit_status(status);
    match (kept, args.on_lost) {
        (Kept::Held, _) => Ok(code.into()),
        (_, OnLost::Ignore) => {
            output::note(format_args!(
                "the lock {name} was lost before CMD ended; CMD's exit status is {code}"
            ));
            Ok(code.into())
        }
        (Kept::Lost, _) => Err(Failure::new(
            Code::Lost,
            format!("the lock {name} was lost before CMD ended; CMD's exit status was {code}"),
        )),
        (Kept::Stopped, _) => Err(Failure::new(
            Code::Lost,
            format!("CMD was stopped because of the lock {name}; its exit status was {code}"),
        )),
    }
}

/// Lets every clean-up come to its end, so that nothing is left at the backend, but not for ever.
async fn close(locks: &Arc<dyn LockManager>) {
    // What the backend does not hear of ends by itself.
    let env = Env::system();
    env.timeout(LAST_WORDS, Box::pin(locks.close()))
        .await
        .map(Result::ok);
}

/// Says once who makes us wait, to somebody who sits there and waits. It never comes back.
async fn tell_holder(common: &Common, lock: &Lock) -> std::convert::Infallible {
    let wanted = common.verbose > 0 || (std::io::stderr().is_terminal() && !common.quiet);
    if wanted {
        Env::system().sleep(SILENT_WAIT).await;
        let name = lock.name();
        let found = lock.inspect().await.ok();
        match found.as_ref().and_then(|found| found.holders.first()) {
            Some(holder) => {
                let since = holder.since.map_or_else(String::new, |since| {
                    format!(" since {}", humantime::format_rfc3339_seconds(since))
                });
                output::note(format_args!(
                    "waiting for {name}, held by {}{since}",
                    status::owner(holder)
                ));
            }
            None => output::note(format_args!("waiting for {name}")),
        }
    }
    std::future::pending().await
}
