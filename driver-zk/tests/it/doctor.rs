//! What the driver says about a server.

use lockcore::{Driver, Severity};

use crate::support::{driver, shared};

#[tokio::test]
async fn a_server_is_looked_at() {
    let driver = driver(shared().await).await;
    let diagnosis = driver.diagnose().await.unwrap();
    assert_eq!(diagnosis.server, "ZooKeeper");
    assert!(
        diagnosis.version.as_ref().unwrap().starts_with('3'),
        "{diagnosis:?}"
    );
    assert!(diagnosis.severity() <= Severity::Note, "{diagnosis:?}");
    let subjects: Vec<_> = diagnosis
        .findings
        .iter()
        .map(|finding| &*finding.subject)
        .collect();
    for subject in ["maxSessionTimeout", "mode", "acl"] {
        assert!(subjects.contains(&subject), "{subject}: {diagnosis:?}");
    }
    driver.close().await.unwrap();
}
