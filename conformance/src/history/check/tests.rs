//! Hand-made histories, good and bad: each rule finds what it is there for.

use super::*;

fn queued(attempt: &str, sent: u64, acked: u64) -> Event {
    Event::Queued {
        key: "k".into(),
        attempt: attempt.into(),
        weight: 1,
        sent,
        acked,
    }
}

fn granted_of((weight, capacity): (u32, u32), attempt: &str, token: u64, times: (u64, u64, u64)) -> Event {
    Event::Granted {
        key: "k".into(),
        attempt: attempt.into(),
        token,
        weight,
        capacity,
        first_sent: times.0,
        sent: times.1,
        received: times.2,
    }
}

fn granted(attempt: &str, token: u64, times: (u64, u64, u64)) -> Event {
    granted_of((1, 1), attempt, token, times)
}

fn released(attempt: &str, sent: u64, received: u64, held: bool) -> Event {
    Event::Released {
        key: "k".into(),
        attempt: attempt.into(),
        sent,
        received: Some(received),
        held,
    }
}

fn held(token: u64, at: u64, until: u64) -> Event {
    Event::Held {
        key: "k".into(),
        token,
        at,
        until,
    }
}

fn ended(token: u64, at: u64) -> Event {
    Event::Ended {
        key: "k".into(),
        token,
        at,
    }
}

fn disturbed(at: u64) -> Event {
    Event::Disturbed {
        key: Some("k".into()),
        at,
    }
}

const STRICT: Bounds = Bounds {
    fifo: true,
    hand_off: Some(Duration::from_nanos(10)),
};

/// One holder after the other, in order.
fn good() -> Vec<Event> {
    vec![
        granted("a", 1, (0, 0, 2)),
        held(1, 3, 100),
        queued("b", 4, 6),
        queued("c", 7, 9),
        ended(1, 20),
        released("a", 20, 22, true),
        granted("b", 2, (4, 23, 25)),
        held(2, 26, 126),
        held(2, 60, 160),
        ended(2, 130),
        released("b", 130, 131, true),
        granted("c", 3, (7, 132, 133)),
        held(3, 134, 234),
    ]
}

fn judged(events: &[Event]) -> Vec<String> {
    let mut found: Vec<_> = check(events, STRICT).iter().map(Violation::to_string).collect();
    found.sort();
    found
}

/// `good` with the event at `index` replaced.
fn with(index: usize, event: Event) -> Vec<Event> {
    let mut events = good();
    events[index] = event;
    events
}

#[test]
fn accepts_what_is_right() {
    assert_eq!(judged(&good()), [""; 0]);
    let reversed: Vec<_> = good().into_iter().rev().collect();
    assert_eq!(judged(&reversed), [""; 0], "the order of lines tells nothing");
}

#[test]
fn finds_overlap() {
    let late = judged(&with(4, ended(1, 50)));
    assert_eq!(late, ["k: held by too many for 24ns, tokens [1, 2]"]);
    // Neither released nor lost: valid up to its deadline.
    let mut events = good();
    events.remove(4);
    assert_eq!(judged(&events), ["k: held by too many for 74ns, tokens [1, 2]"]);
    // Renewed: the last answer counts.
    assert_eq!(judged(&with(9, held(2, 61, 150))).len(), 1);
    // Back to back is no overlap, and neither is what an administrator forced.
    assert_eq!(judged(&with(4, ended(1, 26))), [""; 0]);
    let mut forced = with(4, ended(1, 50));
    forced.push(disturbed(19));
    assert_eq!(judged(&forced), [""; 0]);
    // Its answer was on the way: what it was granted may be over. Asked later, it is not.
    forced = with(4, ended(1, 50));
    forced.push(disturbed(1));
    assert_eq!(judged(&forced), [""; 0]);
    forced[0] = granted("a", 1, (2, 2, 2));
    assert_eq!(judged(&forced).len(), 1);
}

#[test]
fn finds_more_weight_than_there_is() {
    let mut events = vec![
        granted_of((2, 4), "a", 1, (0, 0, 1)),
        held(1, 2, 100),
        granted_of((2, 4), "b", 2, (3, 3, 4)),
        held(2, 5, 100),
        ended(1, 50),
        granted_of((1, 4), "c", 3, (6, 51, 52)),
        held(3, 53, 100),
    ];
    assert_eq!(judged(&events), [""; 0]);
    events.push(granted_of((2, 4), "d", 4, (60, 60, 61)));
    events.push(held(4, 62, 90));
    assert_eq!(
        judged(&events),
        ["k: held by too many for 28ns, tokens [2, 3, 4]"]
    );
}

#[test]
fn finds_bad_tokens() {
    let mut twice = with(6, granted("b", 1, (4, 23, 25)));
    // What b holds is not told apart from what a held.
    twice.retain(|event| !matches!(event, Event::Held { token: 2, .. }));
    assert_eq!(judged(&twice), ["k: token 1 was given twice"]);
    let fell = with(6, granted("b", 0, (4, 23, 25)));
    assert_eq!(judged(&fell)[0], "k: token 0 was given after 1");
    // The same attempt, told twice, is one grant.
    let mut told_twice = good();
    told_twice.push(granted("b", 2, (4, 30, 31)));
    assert_eq!(judged(&told_twice), [""; 0]);
    // Of readers, an answer may repeat an older grant.
    let readers = [
        granted_of((1, 9), "a", 2, (3, 3, 4)),
        granted_of((1, 9), "b", 1, (0, 5, 6)),
    ];
    assert_eq!(judged(&readers), [""; 0]);
    let readers = [
        granted_of((1, 9), "a", 2, (3, 3, 4)),
        granted_of((1, 9), "b", 1, (5, 5, 6)),
    ];
    assert_eq!(judged(&readers), ["k: token 1 was given after 2"]);
}

#[test]
fn finds_who_overtook() {
    // A try after b was queued.
    let mut events = good();
    events.push(granted("x", 9, (10, 10, 12)));
    let overtaken = |events: &[Event]| {
        let found = check(
            events,
            Bounds {
                fifo: true,
                hand_off: None,
            },
        );
        found
            .into_iter()
            .filter(|found| matches!(found, Violation::Overtaken { .. }))
            .count()
    };
    assert_eq!(
        overtaken(&events),
        0,
        "its token says that it was granted after them"
    );
    *events.last_mut().unwrap() = granted("x", 1, (10, 10, 12));
    assert_eq!(overtaken(&events), 2);
    // Who came before b was told that it is in the queue may win.
    *events.last_mut().unwrap() = granted("x", 1, (5, 7, 8));
    assert_eq!(overtaken(&events), 0);
    // Who is overtaken and gives up was overtaken all the same.
    let gave_up = [
        queued("b", 4, 6),
        granted("x", 2, (10, 10, 12)),
        released("b", 20, 21, false),
    ];
    assert_eq!(overtaken(&gave_up), 1);
    let gave_up_before = [
        queued("b", 4, 6),
        granted("x", 2, (10, 10, 22)),
        released("b", 20, 21, false),
    ];
    assert_eq!(overtaken(&gave_up_before), 0);
    // A queue that was deleted orders nobody.
    let mut wiped = gave_up.to_vec();
    wiped.push(disturbed(8));
    assert_eq!(overtaken(&wiped), 0);
}

/// Two waiters for whom there is room may come in any order, not so where the second takes the room of the first.
#[test]
fn room_for_both_is_no_overtaking() {
    let mut events = vec![
        granted_of((2, 4), "a", 1, (0, 0, 1)),
        queued("b", 4, 6),
        queued("c", 7, 9),
        granted_of((1, 4), "c", 2, (7, 10, 11)),
        granted_of((1, 4), "b", 3, (4, 12, 13)),
    ];
    assert_eq!(judged(&events), [""; 0]);
    events[3] = granted_of((2, 4), "c", 2, (7, 10, 11));
    assert_eq!(
        judged(&events),
        ["k: c was granted before b, who had queued earlier"]
    );
    events.push(released("a", 8, 9, true));
    assert_eq!(judged(&events), [""; 0]);
}

#[test]
fn finds_slow_hand_offs() {
    let slow = with(6, granted("b", 2, (4, 40, 41)));
    let mut slow = slow;
    slow.retain(|event| !matches!(event, Event::Held { token: 2, .. }));
    assert_eq!(
        judged(&slow),
        ["k: free for 19ns while somebody waited for it in the queue"]
    );
    // Nobody was ever granted, and somebody waited for long.
    let forgotten = [
        queued("b", 4, 6),
        released("a", 20, 22, true),
        released("b", 90, 91, false),
    ];
    assert_eq!(
        judged(&forgotten),
        ["k: free for 68ns while somebody waited for it in the queue"]
    );
    let short = [
        queued("b", 4, 6),
        released("a", 20, 22, true),
        released("b", 30, 31, false),
    ];
    assert_eq!(judged(&short), [""; 0]);
    let mut disturbed_then = forgotten.to_vec();
    disturbed_then.push(disturbed(23));
    assert_eq!(judged(&disturbed_then), [""; 0]);
}
