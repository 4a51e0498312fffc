//! Getting in: logins, rights, TLS, several members.

use std::time::{Duration, Instant};

use leasehold_conformance::servers::Server;
use leasehold_driver_etcd::etcd_client::{Client, ConnectOptions, PermissionType};
use leasehold_driver_etcd::etcd_client::{Permission, RoleRevokePermissionOptions};
use lockcore::driver::Intent;
use lockcore::{Driver, ErrorKind, LockManager};

use crate::support::{Admin, claim, connect, eventually, granted, request, shared, unique};
use leasehold_driver_etcd::EtcdLockManager;

#[tokio::test]
async fn a_login_that_is_wrong_or_missing_is_denied() {
    let server = request().password("right").start().await.unwrap();
    let driver = connect(server.url()).await.unwrap();
    granted(driver.acquire(&claim("in"), Intent::Try).await);
    let wrong = server.url().replace("right", "wr-ong");
    let nobody = format!("etcd://nobody:wr-ong@{}", server.address());
    let without = format!("etcd://{}", server.address());
    for url in [wrong, nobody, without] {
        let error = connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(!format!("{error} {error:?}").contains("wr-ong"), "{error}");
    }
}

#[tokio::test]
async fn a_login_where_there_are_none_is_denied() {
    let url = format!("etcd://me:secret@{}", shared().await.address());
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

async fn root(server: &Server) -> Client {
    let endpoint = lockcore::Endpoint::parse(server.admin_url()).unwrap();
    let (user, password) = (endpoint.user().unwrap(), endpoint.password().unwrap());
    let options = ConnectOptions::new().with_user(user, password.expose());
    Client::connect([server.address()], Some(options)).await.unwrap()
}

/// The role that the documentation names is enough, for one namespace too; less is denied.
#[tokio::test]
async fn the_least_rights() {
    let server = request().password("right").start().await.unwrap();
    let root = root(&server).await;
    let mut auth = root.auth_client();
    for (user, prefix) in [("locks", "leasehold/1/"), ("shop", "leasehold/1/shop/")] {
        auth.user_add(user, "pw", None).await.unwrap();
        auth.role_add(user).await.unwrap();
        let permission = Permission::new(PermissionType::Readwrite, prefix).with_prefix();
        auth.role_grant_permission(user, permission).await.unwrap();
        auth.user_grant_role(user, user).await.unwrap();
        let url = format!("etcd://{user}:pw@{}?namespace=shop", server.address());
        let (ours, theirs) = (
            EtcdLockManager::connect(&url).await.unwrap(),
            EtcdLockManager::connect(&url).await.unwrap(),
        );
        let guard = ours
            .lock("orders")
            .ttl(Duration::from_secs(3))
            .acquire()
            .await
            .unwrap();
        let waiting = tokio::spawn(async move {
            let got = theirs.lock("orders").wait(Duration::from_secs(9)).acquire().await;
            got.unwrap().release().await.unwrap();
            theirs.close().await.unwrap();
        });
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert!(guard.is_held(), "kept by its session");
        assert_eq!(ours.list("").await.unwrap().len(), 1);
        guard.release().await.unwrap();
        waiting.await.unwrap();
        ours.close().await.unwrap();
    }
    let url = format!("etcd://shop:pw@{}?namespace=bank", server.address());
    let elsewhere = EtcdLockManager::connect(&url).await.unwrap();
    let error = elsewhere.lock("orders").try_acquire().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
}

/// The server forgets logins when users are changed or it is restarted: the driver logs in again.
#[tokio::test]
async fn a_login_that_ran_out_is_renewed() {
    let server = request().password("right").start().await.unwrap();
    let driver = connect(server.url()).await.unwrap();
    let root = root(&server).await;
    let mut auth = root.auth_client();
    auth.role_add("other").await.unwrap();
    let anything = Permission::new(PermissionType::Read, "x");
    auth.role_grant_permission("other", anything).await.unwrap();
    let options = RoleRevokePermissionOptions::new();
    auth.role_revoke_permission("other", "x", Some(options))
        .await
        .unwrap();
    eventually("it goes on", || async {
        driver
            .acquire(&claim(&unique("changed")), Intent::Try)
            .await
            .is_ok()
    })
    .await;
    server.restart().await.unwrap();
    eventually("it goes on after a restart", || async {
        driver
            .acquire(&claim(&unique("restarted")), Intent::Try)
            .await
            .is_ok()
    })
    .await;
}

#[tokio::test]
async fn tls_trusts_what_it_is_told_to() {
    let server = request().tls().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_certificate().unwrap()).unwrap();
    let ca = ca.display();
    let driver = connect(&format!("{}?tls_ca={ca}", server.url())).await.unwrap();
    granted(driver.acquire(&claim("secret"), Intent::Try).await);

    let error = connect(server.url()).await.unwrap_err();
    // A machine without any trusted certificate says so instead.
    assert!(
        [ErrorKind::Denied, ErrorKind::Invalid].contains(&error.kind()),
        "{error}"
    );
    let plain = format!("etcds://{}?tls_ca={ca}", server.address());
    let error = connect(&plain).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let missing = format!("{}?tls_ca=/no/such/file", server.url());
    assert_eq!(connect(&missing).await.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_member_that_is_dead_is_left_for_the_next() {
    let server = shared().await;
    // One port that nobody listens on, one that listens and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let quiet = silent.local_addr().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let url = format!("etcd://{closed},{quiet},{}?connect_timeout=3s", server.address());
    let start = Instant::now();
    let driver = connect(&url).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    granted(driver.acquire(&claim(&unique("second")), Intent::Try).await);
    let nobody = connect(&format!("etcd://{closed}")).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Unavailable, "{nobody}");
    let admin = Admin::new(server).await;
    drop(driver);
    eventually("it is gone", || async { admin.watches().await < 1_000 }).await;
}
