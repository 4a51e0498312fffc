//! What the driver says about sound and about risky servers.

use lockcore::{Diagnosis, Driver, Severity};

use crate::support::{Admin, connect, own, resource};

fn severity(diagnosis: &Diagnosis, subject: &str) -> Severity {
    let mut found = diagnosis.findings.iter();
    found
        .find(|finding| finding.subject == subject)
        .unwrap_or_else(|| panic!("nothing about {subject}: {diagnosis:?}"))
        .severity
}

#[tokio::test]
async fn a_server_that_keeps_its_locks_is_sound() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    admin.run::<()>("CONFIG SET appendonly yes").await;
    admin.run::<()>("CONFIG SET appendfsync everysec").await;
    let driver = connect(server.url()).await.unwrap();
    let diagnosis = driver.diagnose().await.unwrap();
    assert!(diagnosis.severity() <= Severity::Note, "{diagnosis:?}");
    assert!(
        ["Redis", "Valkey"].contains(&diagnosis.server.as_str()),
        "{diagnosis:?}"
    );
    assert!(diagnosis.version.is_some());
    assert!(
        diagnosis.clock.unwrap().ahead_us().abs() < 1_000_000,
        "{diagnosis:?}"
    );
    assert_eq!(severity(&diagnosis, "requirepass"), Severity::Note);
    admin.run::<()>("CONFIG SET appendfsync always").await;
    let diagnosis = driver.diagnose().await.unwrap();
    assert_eq!(severity(&diagnosis, "appendonly"), Severity::Ok);
    // Nothing was written.
    let locks = driver.list(resource("x").namespace(), "").await.unwrap();
    assert!(locks.is_empty());
    assert_eq!(admin.run::<u64>("DBSIZE").await, 0);
}

#[tokio::test]
async fn a_server_that_forgets_or_evicts_is_told() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    for command in [
        "CONFIG SET appendonly no",
        "CONFIG SET maxmemory 100mb",
        "CONFIG SET maxmemory-policy allkeys-lru",
    ] {
        admin.run::<()>(command).await;
    }
    let diagnosis = connect(server.url()).await.unwrap().diagnose().await.unwrap();
    assert_eq!(severity(&diagnosis, "maxmemory-policy"), Severity::Error);
    assert_eq!(severity(&diagnosis, "appendonly"), Severity::Warning);
    for finding in &diagnosis.findings {
        assert_eq!(
            finding.remedy.is_some(),
            finding.severity >= Severity::Warning,
            "{finding:?}"
        );
    }
}

#[tokio::test]
async fn a_user_without_rights_learns_what_was_not_looked_at() {
    let server = own().await;
    let mut admin = Admin::new(&server).await;
    admin
        .run::<()>("ACL SETUSER looks on >password &leasehold:* +ping +subscribe +script|load +time")
        .await;
    let url = format!("redis://looks:password@{}", server.address());
    let driver = connect(&url).await.unwrap();
    let diagnosis = driver.diagnose().await.unwrap();
    assert_eq!(severity(&diagnosis, "INFO"), Severity::Note);
    assert!(
        diagnosis
            .findings
            .iter()
            .all(|finding| finding.subject != "requirepass")
    );
    admin.run::<()>("ACL SETUSER looks +info").await;
    let diagnosis = driver.diagnose().await.unwrap();
    assert_eq!(severity(&diagnosis, "maxmemory-policy"), Severity::Ok);
}
