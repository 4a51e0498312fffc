use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::env::Env;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A server whose sessions end when nobody keeps them alive.
#[derive(Clone, Debug, Default)]
struct Server {
    opened: Arc<AtomicU64>,
    closed: Arc<AtomicU64>,
    kept: Arc<AtomicU64>,
    silent: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
    forgetful: Arc<AtomicBool>,
}

#[async_trait]
impl OpenSession for Server {
    type Handle = u64;

    async fn open(&self, ttl: Duration) -> Result<(u64, Duration)> {
        tokio::task::yield_now().await;
        Ok((self.opened.fetch_add(1, Ordering::Relaxed) + 1, ttl))
    }

    async fn keep_alive(&self, _: &u64) -> Result<Option<Duration>> {
        self.kept.fetch_add(1, Ordering::Relaxed);
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.slow.load(Ordering::Relaxed) {
            #[expect(clippy::disallowed_methods, reason = "a server has no `Env`")]
            tokio::time::sleep(secs(2)).await;
        }
        Ok((!self.forgetful.load(Ordering::Relaxed)).then_some(secs(9)))
    }

    async fn close(&self, _: u64) {
        self.closed.fetch_add(1, Ordering::Relaxed);
    }
}

fn world() -> (DriverContext, Server, SessionPool<Server>) {
    let context = DriverContext::new(Env::virtual_time(1));
    let server = Server::default();
    let pool = SessionPool::new(&context, server.clone());
    (context, server, pool)
}

fn count(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn one_session_for_all_of_a_ttl() {
    let (context, server, pool) = world();
    let both = tokio::join!(pool.get(secs(9)), pool.get(secs(9)));
    let (a, b) = (both.0.unwrap(), both.1.unwrap());
    assert!(Arc::ptr_eq(&a, &b));
    let other = pool.get(secs(10)).await.unwrap();
    assert_eq!((count(&server.opened), *other.handle()), (2, 2));
    for _ in 0..20 {
        context.env.sleep(secs(9)).await;
        assert!(a.session().deadline() > context.env.now().after(secs(5)));
    }
    let kept = count(&server.kept);
    assert!((2 * 54..2 * 130).contains(&kept), "{kept} in 180 s");
}

#[tokio::test(start_paused = true)]
async fn what_nobody_uses_is_closed() {
    let (context, server, pool) = world();
    let session = pool.get(secs(9)).await.unwrap();
    context.env.sleep(secs(100)).await;
    assert_eq!(count(&server.closed), 0, "it is used");
    drop(session);
    context.env.sleep(secs(25)).await;
    assert_eq!(pool.sessions().len(), 1);
    context.env.sleep(secs(15)).await;
    assert_eq!((count(&server.closed), pool.sessions().len()), (1, 0));
    assert_eq!(*pool.get(secs(9)).await.unwrap().handle(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_ends_it_at_its_deadline() {
    let (context, server, pool) = world();
    let session = pool.get(secs(9)).await.unwrap();
    server.silent.store(true, Ordering::Relaxed);
    context.env.sleep(secs(8)).await;
    assert!(session.session().deadline() > context.env.now());
    assert!(count(&server.kept) >= 2, "it was tried again");
    context.env.sleep(secs(1)).await;
    assert!(session.session().deadline() <= context.env.now());
    assert!(!session.session().is_lost(), "nobody said so");
    server.silent.store(false, Ordering::Relaxed);
    // It stays over, and the next one is new.
    let next = pool.get(secs(9)).await.unwrap();
    assert_eq!(*next.handle(), 2);
    context.env.sleep(secs(20)).await;
    assert!(session.session().deadline() <= context.env.now());
    assert_eq!(count(&server.closed), 1);
}

/// Slower than a call is waited for before the next one is sent.
#[tokio::test(start_paused = true)]
async fn a_late_answer_counts() {
    let (context, server, pool) = world();
    let session = pool.get(secs(9)).await.unwrap();
    server.slow.store(true, Ordering::Relaxed);
    for _ in 0..10 {
        context.env.sleep(secs(9)).await;
        assert!(session.session().deadline() > context.env.now().after(secs(3)));
    }
    assert_eq!(count(&server.opened), 1);
    let kept = count(&server.kept);
    assert!(kept <= 90, "{kept} in 90 s");
}

#[tokio::test(start_paused = true)]
async fn a_short_silence_is_survived() {
    let (context, server, pool) = world();
    let session = pool.get(secs(9)).await.unwrap();
    for _ in 0..5 {
        server.silent.store(true, Ordering::Relaxed);
        context.env.sleep(secs(4)).await;
        server.silent.store(false, Ordering::Relaxed);
        context.env.sleep(secs(5)).await;
    }
    assert!(session.session().deadline() > context.env.now());
}

#[tokio::test(start_paused = true)]
async fn the_end_is_told_by_the_server_or_by_another_request() {
    let (context, server, pool) = world();
    let session = pool.get(secs(9)).await.unwrap();
    server.forgetful.store(true, Ordering::Relaxed);
    context.env.sleep(secs(4)).await;
    assert!(session.session().is_lost());
    server.forgetful.store(false, Ordering::Relaxed);
    let session = pool.get(secs(9)).await.unwrap();
    pool.ended(&session);
    assert!(session.session().is_lost());
    assert_eq!(*pool.get(secs(9)).await.unwrap().handle(), 3);
    context.env.sleep(secs(1)).await;
    assert_eq!(count(&server.closed), 2);
}

#[tokio::test(start_paused = true)]
async fn close_closes_all() {
    let (_context, server, pool) = world();
    let _used = pool.get(secs(9)).await.unwrap();
    pool.get(secs(10)).await.unwrap();
    // Whoever gave up has left a session behind, not half of one.
    let mut opening = Box::pin(pool.get(secs(11)));
    assert!(futures_util::poll!(&mut opening).is_pending());
    drop(opening);
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    pool.close().await;
    assert_eq!(count(&server.closed), count(&server.opened));
    assert_eq!(count(&server.opened), 3);
    assert_eq!(pool.get(secs(9)).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn the_last_owner_closes_all() {
    let (context, server, pool) = world();
    let used = pool.get(secs(9)).await.unwrap();
    let clone = pool.clone();
    drop(pool);
    context.env.sleep(secs(20)).await;
    assert!(used.session().deadline() > context.env.now());
    drop(clone);
    context.env.sleep(secs(1)).await;
    assert_eq!(count(&server.closed), 1);
    assert!(context.env.tasks().is_empty());
}
