//! The signals that are passed on to CMD.

use std::future::poll_fn;
use std::task::{Context, Poll};

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

use crate::exit::{Code, Failure};

/// What ends the wait for the lock, or is passed on to CMD.
const PASSED_ON: [Signal; 6] = [
    Signal::INT,
    Signal::TERM,
    Signal::HUP,
    Signal::QUIT,
    Signal::USR1,
    Signal::USR2,
];

/// Shells ignore these for the background jobs of a script, so that Ctrl-C does not end them. Whoever sends one to this
/// program means it.
const NEVER_IGNORED: [Signal; 2] = [Signal::INT, Signal::QUIT];

/// Streams of signals. One that was ignored when the program started, as `nohup` does with HUP, is left ignored, here
/// and in CMD.
pub(crate) struct Signals(Vec<(Signal, Stream)>);

impl Signals {
    /// Those that are passed on, from now on.
    pub(crate) fn passed_on() -> Result<Self, Failure> {
        Self::listen(&PASSED_ON)
    }

    /// The two of job control.
    pub(crate) fn stop_and_go() -> Result<Self, Failure> {
        Self::listen(&[Signal::TSTP, Signal::CONT])
    }

    fn listen(wanted: &[Signal]) -> Result<Self, Failure> {
        let ignored = ignored();
        let mut streams = Vec::new();
        for &wanted in wanted {
            if NEVER_IGNORED.contains(&wanted) || ignored & bit(wanted.as_raw()) == 0 {
                let stream = signal(SignalKind::from_raw(wanted.as_raw())).map_err(|error| {
                    Failure::new(Code::System, format!("cannot listen to signals: {error}"))
                })?;
                streams.push((wanted, stream));
            }
        }
        Ok(Self(streams))
    }

    /// One that has come already.
    pub(crate) async fn pending(&mut self) -> Option<Signal> {
        // The runtime looks for signals when everybody else has had a turn.
        tokio::task::yield_now().await;
        poll_fn(|context| Poll::Ready(self.first(context))).await
    }

    /// The next one; of several at once, the first in the order of listening.
    pub(crate) async fn recv(&mut self) -> Signal {
        poll_fn(|context| self.first(context).map_or(Poll::Pending, Poll::Ready)).await
    }

    fn first(&mut self, context: &mut Context<'_>) -> Option<Signal> {
        self.0
            .iter_mut()
            .find_map(|(signal, stream)| stream.poll_recv(context).is_ready().then_some(*signal))
    }
}

/// The exit status for an end by `signal`, as shells have it.
pub(crate) fn exit_status(signal: Signal) -> u8 {
    u8::try_from(signal.as_raw()).map_or(u8::MAX, |number| 128_u8.saturating_add(number))
}

/// Its name without `SIG`.
pub(crate) fn name(signal: Signal) -> String {
    let names = [
        (Signal::INT, "INT"),
        (Signal::TERM, "TERM"),
        (Signal::HUP, "HUP"),
        (Signal::QUIT, "QUIT"),
        (Signal::USR1, "USR1"),
        (Signal::USR2, "USR2"),
    ];
    names
        .iter()
        .find(|(known, _)| *known == signal)
        .map_or_else(|| signal.as_raw().to_string(), |(_, name)| (*name).to_owned())
}

/// The signals that this process ignores, one bit each. Known on Linux; elsewhere none are taken to be.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status)
}

fn ignored_in(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_found() {
        let mask = ignored_in("Name:\tx\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000001001\n");
        assert_ne!(mask & bit(Signal::HUP.as_raw()), 0);
        assert_ne!(mask & bit(Signal::PIPE.as_raw()), 0);
        assert_eq!(mask & bit(Signal::INT.as_raw()), 0);
        assert_eq!(ignored_in(""), 0);
    }

    #[test]
    fn an_end_by_a_signal_has_its_status() {
        assert_eq!(exit_status(Signal::INT), 130);
        assert_eq!(exit_status(Signal::TERM), 143);
    }
}
