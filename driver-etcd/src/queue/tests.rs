use std::ops::Range;

use lockcore::{Env, Kind, LockName, Namespace, Resource};

use super::*;

const WINDOW: Duration = Duration::from_millis(400);

fn gone(attempt: u128, at: i64) -> Deleted {
    Deleted {
        attempt: AttemptId::from_bits(attempt),
        at,
    }
}

/// Some of a queue: each was created at a tenfold of its number.
fn named(numbers: Range<u128>) -> Named {
    let created = |number: u128| i64::try_from(number * 10).unwrap();
    let name = |number| (AttemptId::from_bits(number), created(number));
    Named {
        keys: numbers.clone().map(name).collect(),
        all: created(numbers.start)..created(numbers.end),
    }
}

fn place(older: Older) -> Place {
    Place {
        created: 1000,
        older,
        seen: 2000,
    }
}

#[test]
fn a_waiter_counts_those_before_it() {
    let mut place = place(Older::Exactly(4));
    assert_eq!(place.hear(2001, Some(40), 3, true), Hint::StandBy(3));
    assert_eq!(
        place.hear(2001, Some(50), 2, true),
        Hint::StandBy(2),
        "in the same transaction"
    );
    assert_eq!(place.hear(2002, Some(1500), 2, true), Hint::Nothing, "younger");
    assert_eq!(place.hear(2002, None, 2, true), Hint::Nothing, "who has no name");
    assert_eq!(
        place.hear(2003, Some(60), 1, false),
        Hint::Nothing,
        "somebody holds it"
    );
    assert_eq!(place.hear(2004, Some(70), 0, false), Hint::Ask);
    assert_eq!(place.older, Older::Exactly(0));
}

#[test]
fn what_an_answer_knew_is_not_counted_again() {
    let mut place = place(Older::Exactly(2));
    assert_eq!(place.hear(2000, Some(50), 1, true), Hint::Nothing);
    assert_eq!(place.older, Older::Exactly(2));
}

/// Far behind, whoever goes comes before us as far as we know; near the front we ask who they are.
#[test]
fn those_without_a_name_are_counted() {
    let mut place = place(Older::Exactly(19));
    assert_eq!(place.hear(2001, None, 1, true), Hint::Nothing);
    assert_eq!(place.older, Older::Exactly(18));
    assert_eq!(place.hear(2002, Some(10), 0, true), Hint::Nothing);
    assert_eq!(place.older, Older::Exactly(17));
    assert_eq!(place.hear(2003, None, 0, true), Hint::Ask);
}

/// Those who do not know how many come before them ask again before it can be their turn.
#[test]
fn a_bound_is_counted_again_in_time() {
    let mut place = place(Older::AtLeast(16));
    let mut heard = 0;
    while place.hear(2001 + heard, Some(50), 15, true) == Hint::Nothing {
        heard += 1;
    }
    assert_eq!(heard, 8);
    assert_eq!(place.hear(3000, Some(50), 7, true), Hint::Ask);
}

#[test]
fn few_stand_by_however_many_wait() {
    assert_eq!(
        place(Older::Exactly(18)).hear(2001, Some(50), 16, true),
        Hint::Nothing
    );
    assert_eq!(
        place(Older::Exactly(17)).hear(2001, Some(50), 16, true),
        Hint::StandBy(16)
    );
    assert_eq!(windows(WINDOW, 16), WINDOW * 16);
}

fn queues() -> (Arc<Queues>, LockKeys) {
    let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new("a").unwrap());
    let context = DriverContext::new(Env::virtual_time(1));
    (Queues::new(context), LockKeys::new(&resource))
}

#[tokio::test(start_paused = true)]
async fn a_head_has_its_window_from_when_it_was_seen() {
    let (queues, keys) = queues();
    let env = &queues.context.env;
    assert_eq!(queues.is_free(&keys, 5), Duration::ZERO);
    env.sleep(WINDOW).await;
    assert_eq!(queues.is_free(&keys, 5), WINDOW);
    assert_eq!(queues.is_free(&keys, 6), Duration::ZERO, "another one");
    env.sleep(WINDOW).await;
    queues.is_held(&keys);
    assert_eq!(queues.is_free(&keys, 6), Duration::ZERO, "held in between");
}

/// A deletion shows that the lock is free before anybody asks, unless it was of one who only waited.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_holder_frees_the_lock() {
    let (queues, keys) = queues();
    let env = &queues.context.env;
    let waiter = (AttemptId::from_bits(100), WINDOW);
    queues.waits(&keys, waiter, place(Older::Exactly(4)), &named(1..5));
    queues.is_held(&keys);
    for (gone, frees) in [
        (gone(3, 2001), false),
        (gone(200, 2002), false),
        (gone(1, 2003), true),
    ] {
        queues.deleted(&keys, &gone);
        assert_eq!(queues.table().queues[&keys].free.is_some(), frees, "{gone:?}");
    }
    env.sleep(WINDOW).await;
    assert_eq!(queues.is_free(&keys, 20), WINDOW);
    // Somebody behind the first gave up: its window goes on.
    queues.deleted(&keys, &gone(4, 2004));
    assert_eq!(queues.is_free(&keys, 20), WINDOW);
    queues.deleted(&keys, &gone(2, 2005));
    assert_eq!(
        queues.is_free(&keys, 1000),
        Duration::ZERO,
        "the next one's has begun"
    );
    assert!(queues.is_due(&keys, waiter.0));
}

/// What was deleted while the waiter asked counts where its answer did not know it.
#[tokio::test(start_paused = true)]
async fn what_happens_while_a_waiter_asks_is_not_missed() {
    let (queues, keys) = queues();
    let waiter = (AttemptId::from_bits(100), WINDOW);
    queues.waits(&keys, waiter, place(Older::Exactly(3)), &named(1..4));
    queues.asks(&keys, waiter.0, WINDOW);
    queues.deleted(&keys, &gone(1, 1999));
    queues.deleted(&keys, &gone(2, 2001));
    // The answer was on its way: it names the second, and the first not any more.
    queues.waits(&keys, waiter, place(Older::Exactly(2)), &named(2..4));
    assert!(!queues.is_due(&keys, waiter.0));
    queues.deleted(&keys, &gone(3, 2002));
    assert!(queues.is_due(&keys, waiter.0));
}

#[tokio::test(start_paused = true)]
async fn watches_come_and_go_with_waiters() {
    let (queues, keys) = queues();
    let mut wishes = queues.attach();
    let attempt = AttemptId::from_bits(7);
    queues.waits(&keys, (attempt, WINDOW), place(Older::Exactly(1)), &named(1..2));
    let Ok(Wish::Watch(id, watched)) = wishes.try_recv() else {
        panic!("no watch");
    };
    assert!(watched == keys && queues.is_wanted(id));
    queues.created(id, 300);
    queues.waits(&keys, (attempt, WINDOW), place(Older::Exactly(1)), &named(1..2));
    assert!(wishes.try_recv().is_err(), "one is enough");

    // A new connection wishes for it again, under another name.
    let mut wishes = queues.attach();
    let Ok(Wish::Watch(next, _)) = wishes.try_recv() else {
        panic!("no watch");
    };
    assert!(next != id && !queues.is_wanted(id));
    queues.created(next, 400);

    queues.leaves(&keys, attempt);
    queues.sweep();
    assert!(wishes.try_recv().is_err(), "it lingers");
    queues.context.env.sleep(LINGER).await;
    queues.sweep();
    assert!(matches!(wishes.try_recv(), Ok(Wish::Cancel(cancelled)) if cancelled == next));
    assert!(queues.table().queues.is_empty() && queues.table().watches.is_empty());
}

/// Who is far behind is told of one key, and of all of them when that is gone.
#[tokio::test(start_paused = true)]
async fn who_is_far_behind_watches_a_milestone() {
    let (queues, keys) = queues();
    let mut wishes = queues.attach();
    let waiter = (AttemptId::from_bits(100), WINDOW);
    let far_behind = place(Older::Exactly(199));
    // Those right before it, of which the first is the milestone.
    queues.waits(&keys, waiter, far_behind, &named(84..100));
    let Ok(Wish::WatchKey(milestone, key, 2001)) = wishes.try_recv() else {
        panic!("no milestone");
    };
    assert_eq!(key, keys.of(AttemptId::from_bits(84)));
    queues.created(milestone, 2005);
    // Its sign of life changes nothing, also when it does not tell how many come before.
    queues.asks(&keys, waiter.0, WINDOW);
    queues.waits(&keys, waiter, place(Older::AtLeast(16)), &named(1..17));
    assert!(wishes.try_recv().is_err() && !queues.is_due(&keys, waiter.0));

    queues.heard(milestone, &keys, &gone(84, 2010));
    assert!(matches!(wishes.try_recv(), Ok(Wish::Cancel(cancelled)) if cancelled == milestone));
    let Ok(Wish::Watch(all, _)) = wishes.try_recv() else {
        panic!("the lock is not watched");
    };
    queues.created(all, 2011);
    queues.asks(&keys, waiter.0, WINDOW);
    let near = Place {
        older: Older::Exactly(2),
        seen: 2012,
        ..far_behind
    };
    queues.waits(&keys, waiter, near, &named(98..100));
    for (number, due) in [(98, false), (99, true)] {
        queues.heard(all, &keys, &gone(number, 2013));
        assert_eq!(queues.is_due(&keys, waiter.0), due);
    }
    // In a crowd the next one is far behind again.
    queues.leaves(&keys, waiter.0);
    assert!(matches!(wishes.try_recv(), Ok(Wish::Cancel(cancelled)) if cancelled == all));
    assert!(queues.table().far.is_empty() && queues.table().watches.is_empty());
}

/// A milestone that cannot be watched, as on a new connection, is as good as passed.
#[tokio::test(start_paused = true)]
async fn a_lost_milestone_brings_near() {
    let (queues, keys) = queues();
    let mut wishes = queues.attach();
    let waiter = (AttemptId::from_bits(100), WINDOW);
    let far_behind = place(Older::Exactly(199));
    queues.waits(&keys, waiter, far_behind, &named(84..100));
    let Ok(Wish::WatchKey(milestone, ..)) = wishes.try_recv() else {
        panic!("no milestone");
    };
    let mut wishes = queues.attach();
    assert!(matches!(wishes.try_recv(), Ok(Wish::Watch(..))));
    assert!(!queues.milestone_passed(milestone) && wishes.try_recv().is_err());
    queues.leaves(&keys, waiter.0);

    queues.waits(&keys, waiter, far_behind, &named(84..100));
    queues.leaves(&keys, waiter.0);
    assert!(queues.table().far.is_empty());
}

/// Who was deleted before the watch was there is told by nobody, and is not counted among those who are to come.
#[tokio::test(start_paused = true)]
async fn names_from_before_the_watch_are_forgotten() {
    let (queues, keys) = queues();
    let mut wishes = queues.attach();
    let waiter = (AttemptId::from_bits(100), WINDOW);
    queues.waits(&keys, waiter, place(Older::Exactly(1)), &named(1..2));
    let Ok(Wish::Watch(id, _)) = wishes.try_recv() else {
        panic!("no watch");
    };
    queues.created(id, 2005);
    // It asks, and is the first: it gets the lock without an answer that names anybody.
    queues.leaves(&keys, waiter.0);
    let next = (AttemptId::from_bits(101), WINDOW);
    let behind = Place {
        created: 1010,
        older: Older::Exactly(18),
        seen: 3000,
    };
    queues.waits(&keys, next, behind, &named(85..101));
    for (number, at) in [(200, 3001), (201, 3002)] {
        queues.heard(id, &keys, &gone(number, at));
    }
    for number in 85..101 {
        assert!(!queues.is_due(&keys, next.0));
        let at = 3000 + i64::try_from(number).unwrap();
        queues.heard(id, &keys, &gone(number, at));
    }
    assert!(queues.is_due(&keys, next.0));
}
