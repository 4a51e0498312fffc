//! Files that cannot be used: a clear error, at once.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use leasehold_driver_sqlite::SqliteConfig;
use lockcore::driver::Driver;
use lockcore::{Error, ErrorKind};

use crate::support::{Ask, Place, WAIT, claim, driver, open};

async fn refusal(path: &Path) -> Error {
    let start = Instant::now();
    let error = open(SqliteConfig::new(path).unwrap()).await.unwrap_err();
    assert!(start.elapsed() < Duration::from_secs(2), "{error}");
    println!("{error}");
    error
}

#[tokio::test]
async fn what_is_no_database() {
    let place = Place::new();
    assert_eq!(refusal(place.folder()).await.kind(), ErrorKind::Invalid);
    fs::write(&place.path, "this is a text, and a long one, ".repeat(300)).unwrap();
    assert_eq!(refusal(&place.path).await.kind(), ErrorKind::Invalid);
    assert_eq!(
        refusal(&place.path.join("below.db")).await.kind(),
        ErrorKind::Invalid
    );
}

#[tokio::test]
async fn a_damaged_database() {
    let place = Place::new();
    let before = driver(&place.path).await;
    before.grant(&claim("a"), WAIT).await;
    before.close().await.unwrap();
    let mut bytes = fs::read(&place.path).unwrap();
    bytes[100..].fill(0xA5);
    fs::write(&place.path, bytes).unwrap();
    assert_eq!(refusal(&place.path).await.kind(), ErrorKind::Internal);
}

#[tokio::test]
async fn a_newer_layout_and_another_clock() {
    let place = Place::new();
    driver(&place.path).await.close().await.unwrap();
    place.sql("UPDATE leasehold_meta SET layout = 2").await;
    assert_eq!(refusal(&place.path).await.kind(), ErrorKind::Unsupported);
    place
        .sql("UPDATE leasehold_meta SET layout = 1, clock = 'sundial'")
        .await;
    assert_eq!(refusal(&place.path).await.kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_file_that_somebody_else_keeps_locked() {
    let place = Place::new();
    let driver = open(
        SqliteConfig::new(&place.path)
            .unwrap()
            .busy_timeout(Duration::from_millis(100))
            .unwrap(),
    )
    .await
    .unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&place.path);
    let mut hog = sqlx::ConnectOptions::connect(&options).await.unwrap();
    let transaction = sqlx::Connection::begin_with(&mut hog, "BEGIN IMMEDIATE")
        .await
        .unwrap();
    for intent in [WAIT, lockcore::driver::Intent::Try] {
        let start = Instant::now();
        let error = driver.acquire(&claim("a"), intent).await.unwrap_err();
        let took = start.elapsed();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(
            took >= Duration::from_millis(100) && took < Duration::from_secs(1),
            "{took:?}"
        );
    }
    transaction.rollback().await.unwrap();
    driver.grant(&claim("a"), WAIT).await;
}
