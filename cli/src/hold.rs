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

/// What became of the lock while CMD ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It was held to the end.
    Held,
    /// It was lost.
    Lost,
    /// It was lost, or about to be, and CMD was stopped for that.
    Stopped,
}

/// The guard process is told a new deadline at least this often per TTL. A lease that is renewed has more left.
const TELL_DIVISOR: u32 = 6;

/// Waits for CMD to end, passes signals on, and stops CMD before the lock can be anybody else's.
pub(crate) async fn until_ended(
    guard: &Guard,
    child: &mut Child,
    signals: &mut Signals,
    (on_lost, grace, group): (OnLost, Duration, Group),
) -> Result<Kept, Failure> {
    let env = Env::system();
    let mut leash = Leash::new(on_lost, grace, guard.ttl());
    // On a terminal that stops us it stops CMD as well.
    let mut jobs = match group {
        Group::Own => Some(Signals::stop_and_go()?),
        Group::Terminal => None,
    };
    // What was typed before CMD was there has not reached it. At worst it is told twice.
    while let Some(signal) = signals.pending().await {
        child.signal(signal);
    }
    let mut lost = pin!(guard.lost());
    let mut is_lost = false;
    loop {
        let reason = guard.check().err().and_then(|error| error.loss());
        let (now, remaining) = (env.now(), guard.remaining());
        let (pull, next) = leash.look(now, remaining, reason);
        if on_lost != OnLost::Ignore && reason.is_none() {
            child.may_run_until(leash.end(now, remaining));
        }
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
            () = env.sleep_until(next.min(now.after(guard.ttl() / TELL_DIVISOR))) => {}
        }
    }
    if leash.is_pulled() {
        // What is left of its group works without a lock.
        child.signal(Signal::KILL);
    }
    // Compares the clock: we may have been stopped while CMD ended.
    is_lost |= !guard.is_held();
    Ok(match (leash.is_pulled(), is_lost) {
        (true, _) => Kept::Stopped,
        (false, true) => Kept::Lost,
        (false, false) => Kept::Held,
    })
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
            let grace = output::rounded(grace);
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
