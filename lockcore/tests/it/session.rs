//! Grants that live by a session which the driver keeps alive for all its locks.

use lockcore::driver::{
    Acquired, Bound, Driver, Grant, Inspection, Intent, Lease, Listed, Released, Renewal,
};
use lockcore::memory::{Call, Fault, MemoryDriver};
use lockcore::{
    Capabilities, Claim, ErrorKind, LockManager, LossReason, Manager, Namespace, Resource, Result, Retry,
    Session, Settings,
};

use crate::{World, ms, secs};

/// The memory backend with one session for all locks.
#[derive(Debug)]
struct SessionDriver {
    inner: MemoryDriver,
    session: Session,
}

impl Driver for SessionDriver {
    fn backend(&self) -> &'static str {
        "session"
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        Ok(match self.inner.acquire(claim, intent).await? {
            Acquired::Granted(Grant {
                token,
                bound: Bound::Lease(_),
                ..
            }) => Acquired::Granted(Grant::session(token, self.session.clone())),
            other => other,
        })
    }
    async fn release(&self, claim: &Claim) -> Result<Released> {
        self.inner.release(claim).await
    }
    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        self.inner.renew(leases).await
    }
    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        self.inner.inspect(resource).await
    }
    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        self.inner.list(namespace, prefix).await
    }
    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        self.inner.force_release(resource).await
    }
    async fn ping(&self) -> Result<()> {
        self.inner.ping().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

fn manager(world: &World) -> (Manager, Session) {
    let (inner, context) = world.store.driver();
    let session = Session::new(&context.signals, world.env.now(), secs(4));
    let driver = SessionDriver {
        inner,
        session: session.clone(),
    };
    (
        Manager::new(driver, context, Settings::default()).unwrap(),
        session,
    )
}

#[tokio::test(start_paused = true)]
async fn it_lasts_as_long_as_the_session() {
    let world = World::new();
    let (manager, session) = manager(&world);
    let guard = manager.lock("a").ttl(secs(600)).acquire().await.unwrap();
    for _ in 0..10 {
        world.env.sleep(secs(2)).await;
        session.extend(world.env.now(), secs(4));
        assert!(guard.is_held());
    }
    assert!(guard.remaining() > secs(3) && guard.remaining() < secs(4));
    assert_eq!(world.store.calls(Call::Renew), 0, "the session is the renewal");
    guard.renew().await.unwrap();
    assert_eq!(
        guard.renew_for(secs(9)).await.unwrap_err().kind(),
        ErrorKind::Unsupported
    );
    assert!(guard.remaining() > secs(3) && guard.remaining() < secs(4));
    assert_eq!(world.store.calls(Call::Renew), 1, "a look, at the user's wish");
    let start = world.env.now();
    assert_eq!(guard.lost().await, LossReason::Unreachable);
    assert!(world.env.now().since(start) < secs(4));
    session.extend(world.env.now(), secs(4));
    assert!(!guard.is_held(), "loss is final");
    world.env.sleep(ms(1)).await;
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_session_is_the_end_of_all() {
    let world = World::new();
    let (manager, session) = manager(&world);
    let mut guards = Vec::new();
    for i in 0..100 {
        guards.push(manager.lock(&format!("lock-{i}")).acquire().await.unwrap());
    }
    world.env.sleep(secs(1)).await;
    let start = world.env.now();
    session.end();
    assert!(guards.iter().all(|guard| !guard.is_held()));
    for guard in &guards {
        assert_eq!(guard.lost().await, LossReason::SessionEnded);
    }
    assert!(world.env.now().since(start) < ms(200));
}

#[tokio::test(start_paused = true)]
async fn max_hold_ends_it_before_the_session() {
    let world = World::new();
    let (manager, session) = manager(&world);
    let guard = manager.lock("a").max_hold(secs(1)).acquire().await.unwrap();
    session.extend(world.env.now(), secs(100));
    assert_eq!(guard.lost().await, LossReason::MaxHold);
}

#[tokio::test(start_paused = true)]
async fn without_auto_renew_our_timer_ends_it() {
    let world = World::new();
    let (manager, session) = manager(&world);
    session.extend(world.env.now(), secs(100));
    let lock = manager.lock("a").ttl(secs(2)).auto_renew(false);
    let guard = lock.acquire().await.unwrap();
    world.env.sleep(secs(1)).await;
    guard.renew_for(secs(3)).await.unwrap();
    let start = world.env.now();
    assert_eq!(guard.lost().await, LossReason::Expired);
    let held = world.env.now().since(start);
    assert!(held > ms(2900) && held < secs(3), "{held:?}");
    world.env.sleep(ms(1)).await;
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_gone_under_a_live_session_is_lost() {
    let world = World::new();
    let (manager, session) = manager(&world);
    session.extend(world.env.now(), secs(100));
    let (kept, freed) = (
        manager.lock("a").acquire().await.unwrap(),
        manager.lock("b").acquire().await.unwrap(),
    );
    // The backend tells the holder, which makes lockcore look.
    manager.force_release("b").await.unwrap();
    let start = world.env.now();
    assert_eq!(freed.lost().await, LossReason::Revoked);
    assert!(world.env.now().since(start) < ms(200));
    world.env.sleep(secs(10)).await;
    assert!(kept.is_held());
    assert_eq!(world.store.calls(Call::Renew), 1);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_over_grants_nothing() {
    let world = World::new();
    let (manager, session) = manager(&world);
    session.end();
    assert_eq!(
        manager.lock("a").try_acquire().await.unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    world.env.sleep(ms(1)).await;
    assert_eq!(world.store.resources(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_came_too_late_is_no_lock_without_auto_renew() {
    let world = World::new();
    let (manager, session) = manager(&world);
    session.extend(world.env.now(), secs(100));
    world
        .store
        .script(Call::Acquire, [Some(Fault::DelayReply(secs(2)))]);
    let lock = manager.lock("a").ttl(secs(1)).auto_renew(false);
    let error = lock.retry(Retry::NONE).try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    world.env.sleep(ms(1)).await;
    assert_eq!(world.store.resources(), 0);
}
