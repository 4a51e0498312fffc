//! What can be made to go wrong.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::error::ErrorKind;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`Driver::acquire`](crate::Driver::acquire)
    Acquire,
    /// [`Driver::release`](crate::Driver::release)
    Release,
    /// [`Driver::renew`](crate::Driver::renew)
    Renew,
    /// Everything else.
    Other,
}

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It is refused with an error of this kind before it takes effect.
    Refuse(ErrorKind),
    /// It takes effect, and the answer is lost: the caller gets [`Unavailable`](ErrorKind::Unavailable) at once, as when
    /// a connection breaks.
    LoseReply,
    /// It takes effect, and nothing is ever heard of it.
    SwallowReply,
    /// It never arrives, and nothing is ever heard of it.
    SwallowRequest,
    /// It arrives this much later.
    DelayRequest(Duration),
    /// Its answer arrives this much later.
    DelayReply(Duration),
}

/// The script of faults, and the log of requests.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// For the next requests of a kind, in order; `None` lets one pass.
    pub(super) next: HashMap<Call, VecDeque<Option<Fault>>>,
    /// Delays of every request and every answer, drawn from zero to these.
    pub(super) latency: (Duration, Duration),
    pub(super) partitioned: bool,
    pub(super) mute: bool,
    pub(super) calls: HashMap<Call, u64>,
}

impl Faults {
    /// Counts the request and takes the fault that is scripted for it.
    pub(super) fn strike(&mut self, call: Call) -> Option<Fault> {
        *self.calls.entry(call).or_default() += 1;
        self.next.get_mut(&call).and_then(VecDeque::pop_front).flatten()
    }
}
