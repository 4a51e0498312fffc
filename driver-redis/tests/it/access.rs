//! Logins, rights, and servers that will not do.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use lockcore::driver::{Acquired, Intent, Lease, Released};
use lockcore::{Driver, Error, ErrorKind, LockManager};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{
    Admin, WAIT, claim, connect, driver, eventually, own, request, resource, shared, unique,
};

/// The documented command, word by word.
fn documented() -> Vec<String> {
    let text = include_str!("../../src/lib.rs");
    let from = text.find("ACL SETUSER").unwrap();
    let to = from + text[from..].find("```").unwrap();
    text[from..to]
        .replace("//!", " ")
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

/// Everything that a driver does, but for `list`.
async fn everything(url: &str, name: &str) -> Result<(), Error> {
    let driver = connect(&format!("{url}?queue=2")).await?;
    let (first, second, third) = (claim(name), claim(name), claim(name));
    let Acquired::Granted(grant) = driver.acquire(&first, Intent::Try).await? else {
        panic!("busy")
    };
    driver.acquire(&first, WAIT).await?;
    driver.acquire(&second, WAIT).await?;
    driver.acquire(&second, WAIT).await?;
    driver.acquire(&third, Intent::Wait { ticket: Some(1) }).await?;
    match driver.acquire(&claim(name), WAIT).await {
        Err(error) if error.to_string().contains("the queue is full") => {}
        other => panic!("{:?}", other.map(drop)?),
    }
    let lease = Lease::new(first.clone().into(), grant.token, first.ttl);
    driver.renew(&[lease]).await?;
    driver.inspect(&first.resource).await?;
    driver.release(&first).await?;
    driver.acquire(&third, WAIT).await?;
    driver.force_release(&first.resource).await?;
    driver.release(&second).await?;
    driver.release(&third).await?;
    driver.ping().await?;
    driver.close().await
}

/// Many locks at once.
async fn crowd(url: &str) -> Result<(), Error> {
    let driver = connect(url).await?;
    let claims: Vec<_> = (0..32).map(|_| claim(&unique("crowd"))).collect();
    for answer in join_all(claims.iter().map(|claim| driver.acquire(claim, Intent::Try))).await {
        assert!(matches!(answer?, Acquired::Granted(_)));
    }
    for answer in join_all(claims.iter().map(|claim| driver.release(claim))).await {
        assert_eq!(answer?, Released::Released);
    }
    driver.close().await
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_none_is_too_many() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    let words = documented();
    let url = format!("redis://locks:password@{}", server.address());
    admin.run::<()>(&words.join(" ")).await;
    everything(&url, "enough").await.unwrap();
    crowd(&url).await.unwrap();
    for right in words.iter().filter(|word| word.starts_with('+')) {
        admin.run::<()>("ACL DELUSER locks").await;
        let fewer: Vec<_> = words.iter().filter(|word| *word != right).cloned().collect();
        admin.run::<()>(&fewer.join(" ")).await;
        if right == "+eval" {
            // For a server that has forgotten the scripts.
            continue;
        }
        if right == "+mget" {
            // For locks that are taken together: then each is taken alone.
            crowd(&url).await.unwrap();
            continue;
        }
        let error = everything(&url, &unique("fewer")).await;
        // A keep-alive takes a refusal for an answer; only the ping itself needs the right.
        let error = error.expect_err(right);
        assert_eq!(error.kind(), ErrorKind::Denied, "{right}: {error}");
        admin.run::<()>("DEL leasehold:1:default:m:{fewer}:L").await;
    }
}

#[tokio::test]
async fn optional_rights() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    let url = format!("redis://locks:password@{}", server.address());
    admin.run::<()>(&documented().join(" ")).await;
    let driver = connect(&url).await.unwrap();
    let namespace = resource("x").namespace().clone();
    assert_eq!(
        driver.list(&namespace, "").await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    admin.run::<()>("ACL SETUSER locks +scan +select").await;
    driver.list(&namespace, "").await.unwrap();
    connect(&format!("{url}/1")).await.unwrap();
    admin.run::<()>("ACL SETUSER locks resetchannels").await;
    assert_eq!(connect(&url).await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn passwords() {
    let server = request().password("s3cret: @/").start().await.unwrap();
    connect(server.url()).await.unwrap().ping().await.unwrap();
    for url in [
        format!("redis://{}", server.address()),
        format!("redis://:wr0ng@{}", server.address()),
        format!("redis://nobody:wr0ng@{}", server.address()),
    ] {
        let start = Instant::now();
        let error = connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(start.elapsed() < Duration::from_secs(1));
        assert!(!format!("{error} {error:?}").contains("wr0ng"), "{error:?}");
    }
}

#[tokio::test]
async fn nobody_there() {
    let start = Instant::now();
    for url in ["redis://127.0.0.1:1", "redis://host.invalid"] {
        let error = connect(url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("Redis at "), "{error}");
    }
    // Accepts and says nothing.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}?connect_timeout=200ms", listener.local_addr().unwrap());
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no answer within 200ms"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

/// A server that answers the first bytes with `answer`, again and again.
async fn actor(answer: &str) -> String {
    let answer = answer.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 65_536];
            while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                stream.write_all(answer.as_bytes()).await.ok();
            }
        }
    });
    url
}

#[tokio::test]
async fn other_servers_are_told_apart() {
    let hello = "%3\r\n+version\r\n+6.0.16\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n";
    // A subscription, seven scripts, and three courtesies.
    let old = hello.to_owned() + &"+OK\r\n".repeat(11);
    for (answer, kind, part) in [
        (&*old, ErrorKind::Unsupported, "6.0.16"),
        ("-ERR unknown command `HELLO`\r\n", ErrorKind::Unsupported, "6.2"),
        (
            "HTTP/1.1 400 Bad Request\r\n\r\n",
            ErrorKind::Unavailable,
            "protocol",
        ),
        (
            "-LOADING Redis is loading the dataset in memory\r\n",
            ErrorKind::Unavailable,
            "loading",
        ),
        (
            "-DENIED Redis is running in protected mode\r\n",
            ErrorKind::Denied,
            "protected",
        ),
        (
            "-ERR max number of clients reached\r\n",
            ErrorKind::Unavailable,
            "clients",
        ),
    ] {
        let error = connect(&actor(answer).await).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn databases_are_apart() {
    let server = shared().await;
    let name = unique("db");
    let (zero, one) = (
        driver(server).await,
        connect(&format!("{}/1", server.url())).await.unwrap(),
    );
    let (first, second) = (claim(&name), claim(&name));
    for (driver, claim) in [(&zero, &first), (&one, &second)] {
        let answer = driver.acquire(claim, Intent::Try).await.unwrap();
        assert!(matches!(answer, Acquired::Granted(_)));
    }
    zero.release(&first).await.unwrap();
    one.release(&second).await.unwrap();
    let error = connect(&format!("{}/99", server.url())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn an_existing_client_will_do() {
    let server = shared().await;
    let name = unique("client");
    let client = redis::Client::open(server.url()).unwrap();
    let settings = lockcore::Settings::default();
    let manager = leasehold_driver_redis::RedisLockManager::from_client(client, settings)
        .await
        .unwrap();
    let other = crate::support::manager(server).await;
    let guard = manager.lock(&name).acquire().await.unwrap();
    let waiting = tokio::spawn({
        let name = name.clone();
        async move {
            other
                .lock(&name)
                .wait(Duration::from_secs(9))
                .acquire()
                .await
                .unwrap()
        }
    });
    eventually("it waits", || async {
        manager.inspect(&name).await.unwrap()[0].waiters == 1
    })
    .await;
    guard.release().await.unwrap();
    waiting.await.unwrap().release().await.unwrap();
    manager.close().await.unwrap();
    assert_eq!(manager.ping().await.unwrap_err().kind(), ErrorKind::Closed);
}
