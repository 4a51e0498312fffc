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
            // Two went alone, for a second, and two together, a millisecond ago.
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
    let [mut gone, mut stays, mut other] = [7, 8, 9].map(|request| Box::pin(coalescer.turn(move || request)));
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
