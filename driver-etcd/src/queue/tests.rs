use lockcore::{Env, Kind, LockName, Namespace, Resource};

use super::*;

const WINDOW: Duration = Duration::from_millis(400);

fn gone(created: i64, at: i64) -> Deleted {
    Deleted {
        attempt: AttemptId::from_bits(1),
        at,
        created: Some(created),
        held: Some(true),
    }
}

fn place(older: Older) -> Place {
    Place {
        created: 100,
        older,
        seen: 200,
    }
}

#[test]
fn a_waiter_counts_those_before_it() {
    let mut place = place(Older::Exactly(4));
    assert_eq!(place.hear(&gone(40, 201), true), Hint::StandBy(3));
    assert_eq!(
        place.hear(&gone(50, 201), true),
        Hint::StandBy(2),
        "in the same transaction"
    );
    assert_eq!(place.hear(&gone(150, 202), true), Hint::Nothing, "younger");
    assert_eq!(
        place.hear(&gone(60, 203), false),
        Hint::Nothing,
        "somebody holds it"
    );
    assert_eq!(place.hear(&gone(70, 204), false), Hint::Ask);
    assert_eq!(place.older, Older::Exactly(0));
}

#[test]
fn what_an_answer_knew_is_not_counted_again() {
    let mut place = place(Older::Exactly(2));
    assert_eq!(place.hear(&gone(50, 200), true), Hint::Nothing);
    assert_eq!(place.older, Older::Exactly(2));
}

#[test]
fn a_waiter_asks_about_what_it_cannot_know() {
    let forgotten = Deleted {
        created: None,
        held: None,
        ..gone(0, 201)
    };
    assert_eq!(place(Older::Exactly(9)).hear(&forgotten, true), Hint::Ask);
    assert_eq!(place(Older::Exactly(9)).hear(&gone(100, 201), true), Hint::Ask);
}

/// Those who do not know how many come before them ask again before it can be their turn.
#[test]
fn a_bound_is_counted_again_in_time() {
    let mut place = place(Older::AtLeast(16));
    let mut heard = 0;
    while place.hear(&gone(50, 201 + heard), true) == Hint::Nothing {
        heard += 1;
    }
    assert_eq!(heard, 8);
    assert_eq!(place.hear(&gone(50, 300), true), Hint::Ask);
}

#[test]
fn few_stand_by_however_many_wait() {
    assert_eq!(
        place(Older::Exactly(18)).hear(&gone(50, 201), true),
        Hint::Nothing
    );
    assert_eq!(
        place(Older::Exactly(17)).hear(&gone(50, 201), true),
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
    // A deletion shows it before anybody asks.
    queues.deleted(&keys, &gone(6, 10));
    env.sleep(WINDOW).await;
    assert_eq!(queues.is_free(&keys, 7), WINDOW);
    // Somebody behind it gave up: the window goes on.
    let behind = Deleted {
        held: Some(false),
        ..gone(9, 11)
    };
    queues.deleted(&keys, &behind);
    assert_eq!(queues.is_free(&keys, 7), WINDOW);
}

#[tokio::test(start_paused = true)]
async fn watches_come_and_go_with_waiters() {
    let (queues, keys) = queues();
    let mut wishes = queues.attach();
    let attempt = AttemptId::from_bits(7);
    queues.waits(&keys, attempt, WINDOW, place(Older::Exactly(1)));
    let Ok(Wish::Watch(id, watched)) = wishes.try_recv() else {
        panic!("no watch");
    };
    assert!(watched == keys && queues.is_wanted(id));
    queues.created(id, 300);
    queues.waits(&keys, attempt, WINDOW, place(Older::Exactly(1)));
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
