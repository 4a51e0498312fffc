//! Requests that would wait for one another go to the backend together.
//!
//! It is group commit (DeWitt et al., Implementation Techniques for Main Memory Database Systems, SIGMOD 1984) on the
//! client's side: nobody waits for company, but those who come while as many requests are under way as may be, go out as
//! one when one of those is answered.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};

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
    /// Is one of those for several? A second one would make both of them smaller.
    several: bool,
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
    /// Of what goes out with `together`: `slots` requests are under way at most, one of which may be for several, and that
    /// for up to `most`. Both are one at least.
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
                several: false,
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
            if line.under_way < self.0.slots {
                line.under_way += 1;
                return Turn::Alone(Slot(Some(self.clone())));
            }
            let (turn, answer) = oneshot::channel();
            let request = request();
            line.waiting.push_back(Waiting { request, turn });
            if self.0.pipelined {
                self.leave(&mut line);
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
                line.under_way += 1;
                Slot(Some(coalescer.clone()))
            };
            if let Some((slot, several)) = Self::next(slot) {
                coalescer.send(several).await;
                drop(slot);
            }
        }));
    }

    /// What goes out next in `slot`. Who is alone has the slot; without anybody it is free.
    fn next(mut slot: Slot<T>) -> Option<(Slot<T>, Vec<Waiting<T>>)> {
        let coalescer = slot.0.take()?;
        let mut line = coalescer.line();
        line.waiting.retain(|waiting| !waiting.turn.is_closed());
        // Beside a request for several the others go on one by one, should that one be held up.
        let most = if line.several { 1 } else { coalescer.0.most };
        let count = line.waiting.len().min(most);
        if count == 0 {
            line.under_way -= 1;
            return None;
        }
        line.several = line.several || count > 1 && !coalescer.0.pipelined;
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

/// While it lasts, no other request for several goes out.
struct Sending<'a, T: Together>(&'a Coalescer<T>);

impl<T: Together> Drop for Sending<'_, T> {
    fn drop(&mut self) {
        self.0.line().several = false;
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
                let sending = Sending(&coalescer);
                coalescer.send(several).await;
                drop(sending);
                next = Coalescer::next(slot);
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    /// Answers each with how many went together; fails on a 13, panics on a 14.
    struct Count(Env);

    impl Together for Count {
        type Request = u32;
        type Answer = (u32, usize);

        async fn send(&self, requests: &[u32]) -> Result<Vec<Option<(u32, usize)>>> {
            self.0.sleep(Duration::from_secs(1)).await;
            if requests.contains(&13) {
                return Err(Error::new(ErrorKind::Unavailable, "gone"));
            }
            assert!(!requests.contains(&14), "14");
            let answer = |request: &u32| (*request != 15).then_some((*request, requests.len()));
            Ok(requests.iter().map(answer).collect())
        }
    }

    fn coalescer(slots: usize, most: usize) -> Coalescer<Count> {
        let env = Env::virtual_time(1);
        Coalescer::new(env.clone(), Count(env), slots, most)
    }

    async fn alone(coalescer: &Coalescer<Count>) -> Slot<Count> {
        match coalescer.turn(|| 0).await {
            Turn::Alone(slot) => slot,
            Turn::Answered(_) => panic!("not alone"),
        }
    }

    /// Who is sent alone takes a second and has a 1 in its answer.
    async fn all(coalescer: &Coalescer<Count>, requests: &[u32]) -> Vec<Result<(u32, usize)>> {
        let env = &coalescer.0.env;
        let call = |request: u32| {
            coalescer.call(
                move || request,
                move || async move {
                    env.sleep(Duration::from_secs(1)).await;
                    Ok((request, 1))
                },
            )
        };
        join_all(requests.iter().map(|request| call(*request))).await
    }

    fn together(answers: Vec<Result<(u32, usize)>>) -> Vec<usize> {
        answers.into_iter().map(|answer| answer.unwrap().1).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_come_meanwhile_go_together() {
        let one = coalescer(1, 3);
        assert_eq!(together(all(&one, &[1]).await), [1]);
        assert_eq!(together(all(&one, &[1, 2]).await), [1, 1]);
        let started = one.0.env.now();
        assert_eq!(
            together(all(&one, &[1, 2, 3, 4, 5, 6, 7, 8]).await),
            [1, 3, 3, 3, 3, 3, 3, 1]
        );
        assert_eq!(one.0.env.now().since(started), Duration::from_secs(4));
        let two = coalescer(2, 9);
        assert_eq!(together(all(&two, &[1, 2, 3, 4, 5]).await), [1, 1, 3, 3, 3]);
        // Two of them go once more, each by itself.
        assert_eq!(together(all(&two, &[1, 2, 15, 15, 5]).await), [1, 1, 1, 1, 3]);
        let pairs = coalescer(2, 2);
        let started = pairs.0.env.now();
        assert_eq!(
            together(all(&pairs, &[1, 2, 3, 4, 5, 6]).await),
            [1, 1, 2, 2, 1, 1]
        );
        // One pair at a time.
        assert_eq!(pairs.0.env.now().since(started), Duration::from_secs(3));
        for coalescer in [one, two, pairs] {
            assert_eq!(coalescer.line().under_way, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_pipeline_nobody_waits_for_an_answer() {
        let env = Env::virtual_time(1);
        let coalescer = Coalescer::pipelined(env.clone(), Count(env.clone()), 1, 3);
        let started = env.now();
        let answers = together(all(&coalescer, &[1, 2, 3, 4, 5, 6, 7, 8]).await);
        assert_eq!(answers, [1, 3, 3, 3, 3, 3, 3, 1]);
        assert_eq!(env.now().since(started), Duration::from_secs(1));
        for bad in [13, 14] {
            let answers = all(&coalescer, &[1, 2, bad]).await;
            assert!(answers[0].is_ok() && answers[1].is_err() && answers[2].is_err());
            assert_eq!(together(all(&coalescer, &[1, 2]).await), [1, 1]);
        }
        let line = coalescer.line();
        assert_eq!((line.under_way, line.leaving, line.waiting.len()), (0, false, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_or_a_panic_frees_the_slot() {
        let coalescer = coalescer(1, 3);
        for (bad, kind) in [(13, ErrorKind::Unavailable), (14, ErrorKind::Internal)] {
            let answers = all(&coalescer, &[1, 2, bad, 3]).await;
            for answer in answers.into_iter().skip(1) {
                assert_eq!(answer.unwrap_err().kind(), kind);
            }
            assert_eq!(together(all(&coalescer, &[1, 2]).await), [1, 1]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_went_away_is_not_sent() {
        let coalescer = coalescer(1, 9);
        let slot = alone(&coalescer).await;
        let [mut gone, mut stays, mut other] =
            [7, 8, 9].map(|request| Box::pin(coalescer.turn(move || request)));
        for turn in [&mut gone, &mut stays, &mut other] {
            assert!(turn.now_or_never().is_none());
        }
        drop(gone);
        drop(slot);
        for (turn, number) in [(stays, 8), (other, 9)] {
            let Turn::Answered(answer) = turn.await else {
                panic!("alone")
            };
            assert_eq!(answer.unwrap(), Some((number, 2)));
        }
        // The last one's slot comes to nobody.
        let slot = alone(&coalescer).await;
        let mut gone = Box::pin(coalescer.turn(|| 7));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        drop(slot);
        assert_eq!(coalescer.line().under_way, 0);
    }
}
