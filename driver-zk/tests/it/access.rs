//! Logins, access control lists, TLS, roots.

use leasehold_driver_zk::zookeeper_client::{Client, Error as ZkError};
use leasehold_driver_zk::{ZkConfig, ZkDriver};
use lockcore::driver::{Driver, Intent};
use lockcore::{DriverContext, Env, ErrorKind};

use crate::support::{WAIT, claim, connect, contenders, granted, lock, request, resource, shared, unique};

fn with(url: &str, login: &str, path: &str) -> String {
    format!("{}{path}", url.replacen("zk://", &format!("zk://{login}"), 1))
}

#[tokio::test]
async fn a_login_keeps_its_locks_for_itself() {
    let server = shared().await;
    let root = format!("/{}", unique("tenant"));
    let (ours, theirs) = (
        connect(&with(server.url(), "me:secret@", &root)).await.unwrap(),
        connect(&with(server.url(), "you:other@", &root)).await.unwrap(),
    );
    let name = unique("mine");
    let held = claim(&name);
    granted(ours.acquire(&held, WAIT).await);
    let error = theirs.acquire(&claim(&name), WAIT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    for denied in [
        theirs.force_release(&resource(&name)).await.map(drop),
        theirs.inspect(&resource(&name)).await.map(drop),
    ] {
        assert_eq!(denied.unwrap_err().kind(), ErrorKind::Denied);
    }
    // Not by hand either.
    let anybody = Client::connect(server.address()).await.unwrap();
    let path = format!("{root}{}", lock(&name));
    assert_eq!(anybody.list_children(&path).await.unwrap_err(), ZkError::NoAuth);
    assert!(!error.to_string().contains("other"), "{error}");
    // In a namespace of their own, on the same root, they may.
    let shop = lockcore::Namespace::new("shop").unwrap();
    let name = lockcore::LockName::new(name).unwrap();
    let mut other = claim("x");
    other.resource = lockcore::Resource::new(shop, lockcore::Kind::Mutex, name);
    granted(theirs.acquire(&other, Intent::Try).await);
    theirs.release(&other).await.unwrap();
    ours.release(&held).await.unwrap();
}

#[tokio::test]
async fn open_nodes_are_everybodys() {
    let server = shared().await;
    let root = format!("/{}?acl=open", unique("open"));
    let ours = connect(&with(server.url(), "me:secret@", &root)).await.unwrap();
    let theirs = connect(&with(server.url(), "", &root)).await.unwrap();
    let name = unique("any");
    granted(ours.acquire(&claim(&name), WAIT).await);
    assert!(theirs.force_release(&resource(&name)).await.unwrap());
}

#[tokio::test]
async fn a_connector_of_the_users_own() {
    let server = shared().await;
    let (host, port) = server.address().rsplit_once(':').unwrap();
    let config = ZkConfig::new(vec![(host.to_owned(), port.parse().unwrap())]);
    let connector = Client::connector().with_auth("digest", b"me:secret");
    let driver = ZkDriver::from_connector(connector, config, DriverContext::new(Env::system()))
        .await
        .unwrap();
    let (name, client) = (unique("own"), Client::connect(server.address()).await.unwrap());
    granted(driver.acquire(&claim(&name), WAIT).await);
    assert_eq!(contenders(&client, &name).await.len(), 1);
    driver.close().await.unwrap();
    assert_eq!(driver.ping().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn tls_trusts_what_it_is_told_to() {
    let server = request().tls().client_certificates().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let ca = file("ca.pem", server.ca_certificate().unwrap());
    let (cert, key) = server.client_certificate().unwrap();
    let (cert, key) = (file("cert.pem", cert), file("key.pem", key));
    let url = server.url().to_owned();
    let trusted = format!("{url}?tls_ca={ca}&tls_cert={cert}&tls_key={key}");
    let driver = connect(&trusted).await.unwrap();
    granted(driver.acquire(&claim("encrypted"), WAIT).await);
    driver.close().await.unwrap();

    // Neither side's certificate may be missing. The client library does not say which.
    for url in [format!("{url}?tls_ca={ca}"), url.clone()] {
        let error = connect(&url).await.unwrap_err();
        assert!(
            [ErrorKind::Unavailable, ErrorKind::Invalid].contains(&error.kind()),
            "{error}"
        );
    }
    let error = connect(&format!("{url}?tls_ca={key}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("tls_ca"), "{error}");
}

#[tokio::test]
async fn nobody_answers() {
    let error = connect("zk://127.0.0.1:1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // One of several is enough.
    let server = shared().await;
    let both = format!("zk://127.0.0.1:1,{}", server.address());
    for _ in 0..4 {
        connect(&both).await.unwrap().ping().await.unwrap();
    }
}
