//! The time in which CMD runs under the lock.

use std::pin::pin;
use std::time::Duration;

use leasehold::{Env, Guard};
use rustix::process::{Signal, getpid, kill_process};

use crate::args::OnLost;
use crate::child::{Child, Group};
use crate::exit::Failure;
use crate::leash::{Leash, Pull};
use crate::output;
use crate::signals::Signals;

/// Waits for CMD to end, passes signals on, and stops CMD before the lock can be anybody else's. True when CMD was
/// stopped for that, or ran on without the lock.
pub(crate) async fn until_ended(
    guard: &Guard,
    child: &mut Child,
    signals: &mut Signals,
    (on_lost, grace, group): (OnLost, Duration, Group),
) -> Result<bool, Failure> {
    let env = Env::system();
    let mut leash = Leash::new(on_lost, grace, guard.ttl());
    // On a terminal that stops us it stops CMD as well.
    let mut jobs = match group {
        Group::Own => Some(Signals::stop_and_go()?),
        Group::Terminal => None,
    };
    let mut lost = pin!(guard.lost());
    let mut is_lost = false;
    loop {
        let reason = guard.check().err().and_then(|error| error.loss());
        let (pull, next) = leash.look(env.now(), guard.remaining(), reason);
        match pull {
            Some(pull) => stop(guard, child, pull),
            None if reason.is_some() && !is_lost && on_lost == OnLost::Ignore => {
                output::note(format_args!("{}; CMD runs on without it", why(guard)));
            }
            None => {}
        }
        is_lost |= reason.is_some();
        tokio::select! {
            biased;
            () = child.ended() => break,
            signal = signals.recv() => {
                if !group.gets_by_itself(signal) {
                    child.signal(signal);
                }
            }
            signal = job_control(&mut jobs) => match signal {
                Signal::TSTP => {
                    child.signal(Signal::STOP);
                    kill_process(getpid(), Signal::STOP).ok();
                }
                // A lock that was lost while we were stopped is seen at the next look, and CMD killed as it stands.
                _ if guard.is_held() || on_lost == OnLost::Ignore => child.signal(Signal::CONT),
                _ => {}
            },
            _ = &mut lost, if !is_lost => {}
            () = env.sleep_until(next) => {}
        }
    }
    if leash.is_pulled() {
        // What is left of its group works without a lock.
        child.signal(Signal::KILL);
    }
    Ok(leash.is_pulled() || is_lost)
}

async fn job_control(jobs: &mut Option<Signals>) -> Signal {
    match jobs {
        Some(jobs) => jobs.recv().await,
        None => std::future::pending().await,
    }
}

fn stop(guard: &Guard, child: &Child, pull: Pull) {
    match pull {
        Pull::Term(grace) => {
            let grace = Duration::from_millis(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
            let grace = humantime::format_duration(grace);
            output::error(format_args!("{}: TERM to CMD, KILL in {grace}", why(guard)));
            child.signal(Signal::TERM);
            // One that is stopped does not hear it otherwise.
            child.signal(Signal::CONT);
        }
        Pull::Kill => {
            output::error(format_args!("{}: KILL to CMD", why(guard)));
            child.signal(Signal::KILL);
        }
    }
}

fn why(guard: &Guard) -> String {
    let name = guard.name();
    match guard.check().err().and_then(|error| error.loss()) {
        Some(reason) => format!("lost the lock {name}: {reason}"),
        None => format!("about to lose the lock {name}: the backend does not answer"),
    }
}
