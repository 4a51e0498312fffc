use futures_util::future::join;
use lockcore::LockManager;
use lockcore::memory::{Call, Fault};

use crate::{World, ms, secs};

#[tokio::test(start_paused = true)]
async fn a_shorter_term_is_renewed_in_time() {
    let world = World::new();
    let guard = world.manager().lock("a").ttl(secs(60)).acquire().await.unwrap();
    world.settle().await;
    guard.renew_for(secs(3)).await.unwrap();
    world.env.sleep(secs(60)).await;
    assert!(guard.is_held());
    assert!(guard.remaining() <= secs(3));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_term_sets_the_timers_anew() {
    let world = World::new();
    let (ours, theirs) = (world.manager(), world.manager());
    let guard = ours.lock("a").ttl(secs(60)).auto_renew(false).acquire();
    let guard = guard.await.unwrap();
    let lost = tokio::spawn(guard.lost());
    world.settle().await;
    guard.renew_for(secs(2)).await.unwrap();
    let start = world.env.now();
    drop(theirs.lock("a").acquire().await.unwrap());
    assert!(lost.is_finished());
    assert!(world.env.now().since(start) < ms(2100));
}

/// The store may apply requests in another order than they were sent in, or answered.
#[tokio::test(start_paused = true)]
async fn what_is_sure_is_the_shortest_term_under_way() {
    let long_first = [
        Some(Fault::DelayReply(ms(300))),
        Some(Fault::DelayRequest(ms(400))),
    ];
    let short_late = [Some(Fault::DelayRequest(ms(500))), None];
    for (script, terms) in [
        (long_first, [secs(10), secs(1)]),
        (short_late, [secs(1), secs(10)]),
    ] {
        let world = World::new();
        let (ours, theirs) = (world.manager(), world.manager());
        let guard = ours.lock("a").ttl(secs(5)).auto_renew(false).acquire();
        let guard = guard.await.unwrap();
        world.store.script(Call::Renew, script);
        let second = async {
            world.env.sleep(ms(100)).await;
            guard.renew_for(terms[1]).await
        };
        let (first, second) = join(guard.renew_for(terms[0]), second).await;
        first.unwrap();
        second.unwrap();
        drop(theirs.lock("a").acquire().await.unwrap());
        assert!(!guard.is_held(), "{terms:?}");
    }
}

/// Once all of them are answered, the next one counts in full.
#[tokio::test(start_paused = true)]
async fn a_term_can_be_made_longer_again() {
    let world = World::new();
    let guard = world.manager().lock("a").ttl(secs(2)).acquire().await.unwrap();
    for ttl in [secs(1), secs(20), secs(4), secs(60)] {
        guard.renew_for(ttl).await.unwrap();
        assert!(guard.remaining() <= ttl && guard.remaining() > ttl * 9 / 10);
        world.env.sleep(secs(100)).await;
        assert!(guard.is_held());
    }
}
