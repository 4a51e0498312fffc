//! Requests that would wait for one another go to the backend together.
//!
//! It is group commit (DeWitt et al., Implementation Techniques for Main Memory Database Systems, SIGMOD 1984) on the
//! client's side: nobody waits for company, but those who come while as many requests are under way as may be, or one for
//! several, go out as one when one of those is answered.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};

/// How long the others wait for the end of a request for several. After that it is held up by something, such as the row
/// of a lock, which they must not be.
const PATIENCE: Duration = Duration::from_millis(10);

/// How several requests are sent as one.
pub(crate) trait Together: Send + Sync + 'static {
    /// One of them.
    type Request: Send + Sync + 'static;
    /// What one of them gets.
    type Answer: Send + 'static;

    /// Sends `requests`, two at least; one answer for each, in order. `None` sends that one once more, by itself. An
    /// error is the answer to all of them.
    fn send(
        &self,
        requests: &[Self::Request],
    ) -> impl Future<Output = Result<Vec<Option<Self::Answer>>>> + Send;
}

/// The requests of one kind. Cheap to clone.
pub(crate) struct Coalescer<T: Together>(Arc<Inner<T>>);

struct Inner<T: Together> {
    env: Env,
    together: T,
    /// How many may be under way, each of them alone or several together.
    slots: usize,
    /// How many go together at most.
    most: usize,
    /// Does nobody wait for an answer to others?
    pipelined: bool,
    line: Mutex<Line<T>>,
}

struct Line<T: Together> {
    under_way: usize,
    /// How many of those are for several.
    several: usize,
    /// How many of these are held up.
    late: usize,
    /// Will those who wait go out without an answer to others?
    leaving: bool,
    waiting: VecDeque<Waiting<T>>,
}

struct Waiting<T: Together> {
    request: T::Request,
    turn: oneshot::Sender<Turn<T>>,
}

/// How a request goes on.
enum Turn<T: Together> {
    Alone(Slot<T>),
    /// It went out with others.
    Answered(Result<Option<T::Answer>>),
}

/// A request under way. When it is dropped, those go out that came meanwhile.
struct Slot<T: Together>(Option<Coalescer<T>>);

impl<T: Together> Clone for Coalescer<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Together> fmt::Debug for Coalescer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = self.line();
        f.debug_struct("Coalescer")
            .field("under_way", &line.under_way)
            .field("waiting", &line.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<T: Together> Coalescer<T> {
    /// Of what goes out with `together`: `slots` requests are under way at most, each for one, or for up to `most`. Both are
    /// one at least. Those who come while one for several is under way go out together after it, or as soon as they are
    /// `most`; one by one when it is held up.
    pub(crate) fn new(env: Env, together: T, slots: usize, most: usize) -> Self {
        Self::start(env, together, [slots, most], false)
    }

    /// The same for a connection that takes requests while others are under way: the first `slots` go out alone, and who
    /// comes while they are under way waits for nothing but the others that are about to ask.
    pub(crate) fn pipelined(env: Env, together: T, slots: usize, most: usize) -> Self {
        Self::start(env, together, [slots, most], true)
    }

    fn start(env: Env, together: T, [slots, most]: [usize; 2], pipelined: bool) -> Self {
        Self(Arc::new(Inner {
            env,
            together,
            slots: slots.max(1),
            most: most.max(1),
            pipelined,
            line: Mutex::new(Line {
                under_way: 0,
                several: 0,
                late: 0,
                leaving: false,
                waiting: VecDeque::new(),
            }),
        }))
    }

    /// The answer to a request: `alone` sends it by itself, and is not called when it went out with others, as which
    /// `request` gives it. Dropped, it is not sent unless it is under way already.
    pub(crate) async fn call<A>(
        &self,
        request: impl FnOnce() -> T::Request + Send,
        alone: impl FnOnce() -> A + Send,
    ) -> Result<T::Answer>
    where
        A: Future<Output = Result<T::Answer>> + Send,
    {
        let _slot = match self.turn(request).await {
            Turn::Alone(slot) => Some(slot),
            Turn::Answered(answer) => match answer? {
                Some(answer) => return Ok(answer),
                None => None,
            },
        };
        // Not in here: those who wait are many, and need no room for it.
        Box::pin(alone()).await
    }

    async fn turn(&self, request: impl FnOnce() -> T::Request) -> Turn<T> {
        let answer = {
            let mut line = self.line();
            let is_free = line.under_way < self.0.slots;
            if is_free && (self.0.pipelined || !line.is_company()) {
                return Turn::Alone(self.slot(&mut line));
            }
            let (turn, answer) = oneshot::channel();
            let request = request();
            line.waiting.push_back(Waiting { request, turn });
            if self.0.pipelined {
                self.leave(&mut line);
            } else if is_free && line.waiting.len() >= self.0.most {
                let slot = self.slot(&mut line);
                drop(line);
                drop(slot);
            }
            answer
        };
        answer.await.unwrap_or_else(|_| {
            Turn::Answered(Err(Error::new(
                ErrorKind::Internal,
                "a request that was sent for several failed",
            )))
        })
    }

    fn slot(&self, line: &mut Line<T>) -> Slot<T> {
        line.under_way += 1;
        Slot(Some(self.clone()))
    }

    fn line(&self) -> MutexGuard<'_, Line<T>> {
        self.0.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends those who wait as soon as the tasks that can run have run: that is who is about to ask.
    fn leave(&self, line: &mut Line<T>) {
        if std::mem::replace(&mut line.leaving, true) {
            return;
        }
        let coalescer = self.clone();
        drop(self.0.env.spawn(async move {
            tokio::task::yield_now().await;
            let slot = {
                let mut line = coalescer.line();
                line.leaving = false;
                coalescer.slot(&mut line)
            };
            if let Some((slot, several)) = Self::next(slot) {
                let sending = Sending::new(&coalescer);
                coalescer.send(several).await;
                drop((sending, slot));
            }
        }));
    }

    /// Lets those go on by themselves, as far as there are slots, who waited for a request for several that is held up.
    fn hurry(&self) {
        loop {
            let slot = {
                let mut line = self.line();
                if line.waiting.is_empty() || line.under_way >= self.0.slots {
                    return;
                }
                self.slot(&mut line)
            };
            drop(slot);
        }
    }

    /// What goes out next in `slot`. Who is alone has the slot; without anybody it is free.
    fn next(mut slot: Slot<T>) -> Option<(Slot<T>, Vec<Waiting<T>>)> {
        let coalescer = slot.0.take()?;
        let mut line = coalescer.line();
        line.waiting.retain(|waiting| !waiting.turn.is_closed());
        let most = match coalescer.0.pipelined {
            true => coalescer.0.most,
            false => line.most(coalescer.0.most),
        };
        let count = line.waiting.len().min(most);
        if count == 0 {
            line.under_way -= 1;
            return None;
        }
        line.several += usize::from(count > 1);
        let mut next: Vec<_> = line.waiting.drain(..count).collect();
        if coalescer.0.pipelined && !line.waiting.is_empty() {
            coalescer.leave(&mut line);
        }
        drop(line);
        slot.0 = Some(coalescer);
        if count > 1 {
            return Some((slot, next));
        }
        if let Some(Waiting { turn, .. }) = next.pop() {
            turn.send(Turn::Alone(slot)).ok();
        }
        None
    }

    async fn send(&self, several: Vec<Waiting<T>>) {
        let (requests, turns): (Vec<_>, Vec<_>) = several
            .into_iter()
            .map(|waiting| (waiting.request, waiting.turn))
            .unzip();
        let mut answers = self.0.together.send(&requests).await.map(Vec::into_iter);
        for turn in turns {
            let answer = match &mut answers {
                Ok(answers) => answers
                    .next()
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "a request got no answer")),
                Err(error) => Err(Error::new(error.kind(), error.message())),
            };
            turn.send(Turn::Answered(answer)).ok();
        }
    }
}

impl<T: Together> Line<T> {
    /// Is a request for several on its way that the others wait for?
    const fn is_company(&self) -> bool {
        self.several > self.late
    }

    /// How many go out next, of those who wait; `most` at a time.
    fn most(&self, most: usize) -> usize {
        if self.late > 0 {
            1
        } else if self.is_company() && self.waiting.len() < most {
            0
        } else {
            most
        }
    }
}

/// Counts as a request for several until it is dropped.
struct Sending<'a, T: Together> {
    coalescer: &'a Coalescer<T>,
    is_late: bool,
}

impl<'a, T: Together> Sending<'a, T> {
    const fn new(coalescer: &'a Coalescer<T>) -> Self {
        Self {
            coalescer,
            is_late: false,
        }
    }

    async fn send(&mut self, several: Vec<Waiting<T>>) {
        let mut sending = Box::pin(self.coalescer.send(several));
        let env = &self.coalescer.0.env;
        if env.timeout(PATIENCE, &mut sending).await.is_none() {
            self.is_late = true;
            self.coalescer.line().late += 1;
            self.coalescer.hurry();
            sending.await;
        }
    }
}

impl<T: Together> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        let mut line = self.coalescer.line();
        line.several -= 1;
        line.late -= usize::from(self.is_late);
    }
}

impl<T: Together> Drop for Slot<T> {
    fn drop(&mut self) {
        let Some(coalescer) = self.0.take() else {
            return;
        };
        if coalescer.0.pipelined {
            coalescer.line().under_way -= 1;
            return;
        }
        let mut next = Coalescer::next(Self(Some(coalescer.clone())));
        if next.is_none() {
            return;
        }
        let env = coalescer.0.env.clone();
        drop(env.spawn(async move {
            while let Some((slot, several)) = next {
                let mut sending = Sending::new(&coalescer);
                sending.send(several).await;
                drop(sending);
                next = Coalescer::next(slot);
            }
        }));
    }
}

#[cfg(test)]
mod tests;
