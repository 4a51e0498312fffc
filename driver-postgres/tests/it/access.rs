//! Logins, rights, servers that will not do.

use lockcore::driver::{Driver, Intent};
use lockcore::{ErrorKind, LockManager};

use crate::support::{Admin, WAIT, busy, claim, connect, driver, granted, own, resource};

/// The server's URL with another login and the option.
fn login(url: &str, login: &str, option: &str) -> String {
    let (_, host) = url.rsplit_once('@').unwrap();
    format!("postgres://{login}@{host}{option}")
}

#[tokio::test]
async fn logins_that_fail() {
    let server = own().await;
    let wrong = connect(&login(server.url(), "leasehold:hush-hush", ""))
        .await
        .unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Denied, "{wrong}");
    assert!(!format!("{wrong} {wrong:?}").contains("hush"));
    let nobody = connect(&login(server.url(), "nobody:x", "")).await.unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::Denied, "{nobody}");
    let nowhere = connect(&format!("{}?dbname=nowhere", server.url()))
        .await
        .unwrap_err();
    assert_eq!(nowhere.kind(), ErrorKind::Invalid, "{nowhere}");
    let closed = connect("postgres://a:b@127.0.0.1:1/x").await.unwrap_err();
    assert_eq!(closed.kind(), ErrorKind::Unavailable, "{closed}");
    let plain = connect(&format!("{}?sslmode=require", server.url()))
        .await
        .unwrap_err();
    assert_eq!(plain.kind(), ErrorKind::Denied, "{plain}");
}

#[tokio::test]
async fn the_least_rights_are_enough() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    admin.run("CREATE ROLE weak LOGIN PASSWORD 'weak'").await;
    let url = login(server.url(), "weak:weak", "");
    // Nothing is there, and it may not make it.
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let message = error.to_string();
    let migration = &message[message.find("-- Leasehold").unwrap()..message.rfind("COMMIT;").unwrap() + 7];
    admin.run(migration).await;
    let error = connect(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    admin
        .run(
            "GRANT USAGE ON SCHEMA leasehold TO weak; GRANT SELECT, INSERT, UPDATE, DELETE ON leasehold.lock, leasehold.waiter TO weak",
        )
        .await;
    let driver = connect(&url).await.unwrap();
    let (one, two) = (claim("weak"), claim("weak"));
    granted(driver.acquire(&one, Intent::Try).await);
    busy(driver.acquire(&two, WAIT).await);
    assert_eq!(driver.inspect(&resource("weak")).await.unwrap().waiters, 1);
    assert!(driver.force_release(&resource("weak")).await.unwrap());
    granted(driver.acquire(&two, WAIT).await);
    // A right that is taken away while it runs.
    admin.run("REVOKE UPDATE ON leasehold.lock FROM weak").await;
    let error = driver.release(&two).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    admin.run("GRANT UPDATE ON leasehold.lock TO weak").await;
    driver.release(&two).await.unwrap();
    driver.close().await.unwrap();
}

#[tokio::test]
async fn schemas_are_apart_and_have_a_layout() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    let one = driver(&server).await;
    // A reserved word, made by several at once.
    let url = format!("{}?schema=user", server.url());
    let (other, again) = tokio::join!(connect(&url), connect(&url));
    let (other, again) = (other.unwrap(), again.unwrap());
    granted(one.acquire(&claim("both"), Intent::Try).await);
    granted(other.acquire(&claim("both"), Intent::Try).await);
    busy(again.acquire(&claim("both"), Intent::Try).await);
    admin
        .run("COMMENT ON TABLE leasehold.lock IS 'leasehold 99'")
        .await;
    let error = connect(server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    for driver in [one, other, again] {
        driver.close().await.unwrap();
    }
}

#[tokio::test]
async fn waiters_that_poll() {
    let server = own().await;
    let url = format!("{}?wake=poll", server.url());
    let manager = leasehold_driver_postgres::PostgresLockManager::connect(&url)
        .await
        .unwrap();
    let held = manager.lock("poll").acquire().await.unwrap();
    let other = leasehold_driver_postgres::PostgresLockManager::connect(&url)
        .await
        .unwrap();
    let waits = tokio::spawn(async move { other.lock("poll").acquire().await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    held.release().await.unwrap();
    let soon = tokio::time::timeout(std::time::Duration::from_millis(200), waits).await;
    soon.unwrap().unwrap().unwrap().release().await.unwrap();
    let mut admin = Admin::new(&server).await;
    assert_eq!(
        admin
            .number("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
            .await,
        0
    );
}

#[tokio::test]
async fn a_standby_is_refused() {
    let server = own().await;
    driver(&server).await.close().await.unwrap();
    let mut admin = Admin::new(&server).await;
    let rows = admin.run("SELECT current_setting('data_directory')").await;
    let folder: String = sqlx::Row::get(&rows[0], 0);
    drop(admin);
    if server.pid().is_none() {
        return println!("NOT run: the server's folder is in a container");
    }
    server.stop().await.unwrap();
    std::fs::write(format!("{folder}/standby.signal"), "").unwrap();
    server.start_again().await.unwrap();
    let error = connect(server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("standby"), "{error}");
}
