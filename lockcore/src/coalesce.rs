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
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    /// Answers each with how many went together, after a while; fails on a 13, panics on a 14.
    struct Count(Env, Duration);

    const SECOND: Duration = Duration::from_secs(1);

    impl Together for Count {
        type Request = u32;
        type Answer = (u32, usize);

        async fn send(&self, requests: &[u32]) -> Result<Vec<Option<(u32, usize)>>> {
            self.0.sleep(self.1).await;
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
        Coalescer::new(env.clone(), Count(env, SECOND), slots, most)
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
                    env.sleep(SECOND).await;
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
            [1, 1, 2, 2, 2, 2]
        );
        // More than two do not go together anyhow.
        assert_eq!(pairs.0.env.now().since(started), Duration::from_secs(2));
        for coalescer in [one, two, pairs] {
            assert_eq!(coalescer.line().under_way, 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_beside_others_waits_for_them_but_not_for_long() {
        let ms = Duration::from_millis;
        let env = Env::virtual_time(1);
        for (takes, most, expected) in [
            // They go after the others.
            (ms(4), 9, (vec![2, 2], ms(7))),
            // As many as may go together wait for nobody.
            (ms(50), 2, (vec![2, 2], ms(50))),
            // The others are held up: one by one, in the slot that is left and then in theirs.
            (ms(50), 9, (vec![1, 1], ms(1049))),
        ] {
            let coalescer = Coalescer::new(env.clone(), Count(env.clone(), takes), 2, most);
            let others = async {
                // Two went alone, for a second, and two together for a millisecond.
                env.sleep(ms(1001)).await;
                let (started, line) = (env.now(), [5, 6]);
                let answers = together(all(&coalescer, &line).await);
                (answers, env.now().since(started))
            };
            let (_, others) = tokio::join!(all(&coalescer, &[1, 2, 3, 4]), others);
            assert_eq!(others, expected, "{takes:?}");
            let line = coalescer.line();
            assert_eq!((line.under_way, line.several, line.late), (0, 0, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_pipeline_nobody_waits_for_an_answer() {
        let env = Env::virtual_time(1);
        let coalescer = Coalescer::pipelined(env.clone(), Count(env.clone(), SECOND), 1, 3);
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
