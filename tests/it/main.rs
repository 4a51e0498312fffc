//! The facade: URLs, features, and one application on every backend.
#![expect(clippy::unwrap_used, reason = "a helper of tests fails like a test")]
#![cfg_attr(
    feature = "full",
    expect(clippy::panic, reason = "a helper of tests fails like a test")
)]

#[cfg(feature = "full")]
mod capabilities;

use std::sync::Arc;
use std::time::Duration;

use leasehold::memory::MemoryStore;
use leasehold::{Connector, Env, ErrorKind, LockManager, Release, Secret, Settings};

#[tokio::test]
async fn a_url_that_is_wrong_is_told_without_its_password() {
    for (url, kind, part) in [
        ("", ErrorKind::Invalid, "no scheme"),
        ("localhost", ErrorKind::Invalid, "no scheme"),
        (
            "etc://u:secret@h",
            ErrorKind::Invalid,
            "unknown scheme etc: in the URL; known are memory:, sqlite:, redis:, rediss:, redis+unix:, ",
        ),
        ("memory://host", ErrorKind::Invalid, "no host"),
        ("memory:path", ErrorKind::Invalid, "no path"),
        (
            "memory:?colour=red",
            ErrorKind::Invalid,
            "unknown option \"colour\"",
        ),
        ("memory:?ttl=0s", ErrorKind::Invalid, "a TTL is over 0"),
        ("memory:?ttl=soon", ErrorKind::Invalid, "ttl"),
        ("memory:?namespace=", ErrorKind::Invalid, "namespace"),
    ] {
        let error = leasehold::connect(url).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{url}: {error}");
        assert!(error.to_string().contains(part), "{url}: {error}");
        assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
    }
}

/// Each scheme either connects, or names the feature that is off.
#[tokio::test]
async fn a_feature_that_is_off_is_named() {
    for (url, feature, on) in [
        ("redis://u:secret@h", "redis", cfg!(feature = "redis")),
        ("rediss://h", "redis", cfg!(feature = "redis")),
        ("redis+unix:///s", "redis", cfg!(feature = "redis")),
        ("sqlite:/s.db", "sqlite", cfg!(feature = "sqlite")),
        ("postgres://u:secret@h/d", "postgres", cfg!(feature = "postgres")),
        ("postgresql://h/d", "postgres", cfg!(feature = "postgres")),
        ("mysql://u:secret@h/d", "mysql", cfg!(feature = "mysql")),
        ("mariadb://h/d", "mysql", cfg!(feature = "mysql")),
        ("etcd://u:secret@h1,h2", "etcd", cfg!(feature = "etcd")),
        ("etcds://h", "etcd", cfg!(feature = "etcd")),
        ("zk://u:secret@h1,h2/app", "zk", cfg!(feature = "zk")),
        ("zks://h", "zk", cfg!(feature = "zk")),
    ] {
        let read = Connector::new(url);
        if on {
            assert!(!format!("{:?}", read.unwrap()).contains("secret"));
        } else {
            let error = read.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let scheme = url.split(':').next().unwrap();
            assert_eq!(
                error.to_string(),
                format!("the scheme {scheme}: needs the Cargo feature `{feature}`")
            );
        }
    }
}

#[tokio::test]
async fn settings_ride_in_the_url_or_come_from_code() {
    let locks = leasehold::connect("memory:?namespace=app&ttl=5s&label=job")
        .await
        .unwrap();
    assert_eq!(locks.settings().namespace.as_str(), "app");
    assert_eq!(locks.settings().ttl, Duration::from_secs(5));
    let locks = Connector::new("memory:?ttl=5s")
        .unwrap()
        .login(Some("me"), Secret::new("unused"))
        .settings(|settings| settings.drain = Duration::from_secs(1))
        .connect()
        .await
        .unwrap();
    assert_eq!(locks.settings().ttl, Duration::from_secs(5));
    assert_eq!(locks.settings().drain, Duration::from_secs(1));
    let error = Connector::new("memory:")
        .unwrap()
        .settings(|settings| settings.ttl = Duration::ZERO);
    assert_eq!(error.connect().await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn each_connect_to_memory_is_a_store_of_its_own() {
    let (a, b) = (
        leasehold::connect("memory:").await.unwrap(),
        leasehold::connect("memory:").await.unwrap(),
    );
    let _ours = a.lock("x").acquire().await.unwrap();
    assert!(b.lock("x").try_acquire().await.unwrap().is_some());
}

/// What an application does, without knowing where: two services that share a backend.
async fn application(ours: Arc<dyn LockManager>, theirs: Arc<dyn LockManager>) {
    let name = format!("facade/{}", std::process::id());
    let guard = ours
        .lock(&name)
        .ttl(Duration::from_secs(10))
        .label("ours")
        .acquire()
        .await
        .unwrap();
    assert!(theirs.lock(&name).try_acquire().await.unwrap().is_none());
    let busy = theirs
        .lock(&name)
        .wait(Duration::from_millis(50))
        .acquire()
        .await
        .unwrap_err();
    assert_eq!(busy.kind(), ErrorKind::Timeout);
    let holder = busy.holder().unwrap().owner.as_ref().unwrap();
    assert_eq!(holder.label.as_deref(), Some("ours"));

    let waiting = theirs.lock(&name);
    let (next, freed) = tokio::join!(waiting.acquire(), async {
        assert!(guard.is_held());
        let token = guard.token();
        assert_eq!(guard.release().await.unwrap(), Release::Released);
        token
    });
    let next = next.unwrap();
    assert!(next.token() > freed);
    assert_eq!(theirs.list(&name).await.unwrap().len(), 1);

    assert!(ours.force_release(&name).await.unwrap());
    next.lost().await;
    assert!(!next.is_held());
    assert!(
        next.token()
            < ours
                .lock(&name)
                .with_lock(|token| async move { token })
                .await
                .unwrap()
    );
    for locks in [ours, theirs] {
        assert!(locks.ping().await.unwrap() < Duration::from_secs(3));
        locks.close().await.unwrap();
        assert_eq!(
            locks.lock(&name).acquire().await.unwrap_err().kind(),
            ErrorKind::Closed
        );
    }
}

#[tokio::test]
async fn an_application_runs_unchanged_in_memory() {
    let store = MemoryStore::new(&Env::system());
    let manager = || Arc::new(store.manager(Settings::default()).unwrap());
    application(manager(), manager()).await;
}

#[cfg(feature = "sqlite")]
#[tokio::test]
async fn an_application_runs_unchanged_on_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", folder.path().join("locks.db").display());
    let connect = async || leasehold::connect(&url).await.unwrap();
    application(connect().await, connect().await).await;
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread")]
async fn an_application_runs_unchanged_on_redis() {
    use leasehold_conformance::servers::Target;

    let plan = Target::plan(&Target::REDIS_LIKE).unwrap();
    plan.left_out
        .iter()
        .for_each(|target| println!("left out, as asked: {target}"));
    for target in plan.run {
        let server = target.request().start().await.unwrap();
        println!("{}", server.describe());
        let connect = async || leasehold::connect(server.url()).await.unwrap();
        application(connect().await, connect().await).await;
    }
}

#[cfg(feature = "redis")]
#[tokio::test(flavor = "multi_thread")]
async fn a_password_from_elsewhere_logs_in() {
    use leasehold_conformance::servers::{Origin, Target};

    for target in Target::plan(&Target::REDIS_LIKE).unwrap().run {
        if target.origin == Origin::Url {
            println!("{target} has the password that it has");
            continue;
        }
        let server = target.request().password("s3cret").start().await.unwrap();
        let url = server.url().replace(":s3cret@", "");
        let error = leasehold::connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        let connector = Connector::new(&url).unwrap().login(None, Secret::new("s3cret"));
        connector.connect().await.unwrap().ping().await.unwrap();
    }
}
