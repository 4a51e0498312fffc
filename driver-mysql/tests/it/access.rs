//! Logins, rights, tables.

use leasehold_driver_mysql::MIGRATION;
use lockcore::ErrorKind;
use lockcore::driver::{Driver as _, Intent};

use crate::support::{claim, connect, driver, execute, granted, own};

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_told_by_kind() {
    let server = own().await;
    let address = server.address();
    for (url, kind) in [
        (
            format!("mysql://leasehold:wrong@{address}/leasehold"),
            ErrorKind::Denied,
        ),
        (format!("mysql://nobody:x@{address}/leasehold"), ErrorKind::Denied),
        (
            server
                .admin_url()
                .replace(&format!("{address}/leasehold"), &format!("{address}/nowhere")),
            ErrorKind::Invalid,
        ),
        ("mysql://a:b@127.0.0.1:1/x".to_owned(), ErrorKind::Unavailable),
    ] {
        let error = connect(&url).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_made_by_whom_the_user_wants() {
    let server = own().await;
    let url = server.url().to_owned();
    let error = connect(&format!("{url}?create=false")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("CREATE TABLE"), "{error}");

    execute(
        &server,
        "CREATE USER least@'%' IDENTIFIED BY 'p'; GRANT SELECT ON leasehold.* TO least@'%'",
    )
    .await;
    let least = format!("mysql://least:p@{}/leasehold", server.address());
    let error = connect(&least).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("CREATE TABLE"), "{error}");

    execute(&server, MIGRATION).await;
    // The tables are there, and what is documented is enough.
    let reader = connect(&least).await.unwrap();
    let error = reader.acquire(&claim("a"), Intent::Try).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    for table in ["leasehold_lock", "leasehold_waiter"] {
        execute(
            &server,
            &format!("GRANT SELECT, INSERT, UPDATE, DELETE ON leasehold.{table} TO least@'%'"),
        )
        .await;
    }
    let driver = connect(&least).await.unwrap();
    let claim = claim("a");
    granted(driver.acquire(&claim, Intent::Try).await);
    driver.release(&claim).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_server_is_no_primary() {
    let server = own().await;
    let driver = driver(&server).await;
    execute(&server, "SET GLOBAL read_only = 1").await;
    let error = driver.acquire(&claim("a"), Intent::Try).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("read-only"), "{error}");
    execute(&server, "SET GLOBAL read_only = 0").await;
    granted(driver.acquire(&claim("a"), Intent::Try).await);
}
