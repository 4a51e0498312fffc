//! What the driver says about sound and about risky files.

use lockcore::driver::{Driver, Intent};
use lockcore::{Diagnosis, Severity};

use leasehold_driver_sqlite::SqliteConfig;

use crate::support::{Ask, Place, claim, driver, open};

fn severity(diagnosis: &Diagnosis, subject: &str) -> Severity {
    let mut found = diagnosis.findings.iter();
    found
        .find(|finding| finding.subject == subject)
        .unwrap_or_else(|| panic!("nothing about {subject}: {diagnosis:?}"))
        .severity
}

#[tokio::test]
async fn a_file_of_our_own_is_sound() {
    let place = Place::new();
    let driver = driver(&place.path).await;
    driver.grant(&claim("a"), Intent::Try).await;
    let diagnosis = driver.diagnose().await.unwrap();
    assert_eq!(diagnosis.server, "SQLite");
    assert!(diagnosis.version.as_ref().unwrap().starts_with('3'));
    assert!(diagnosis.severity() <= Severity::Note, "{diagnosis:?}");
    assert_eq!(severity(&diagnosis, "journal_mode"), Severity::Ok);
    let known = diagnosis
        .findings
        .iter()
        .find(|finding| finding.subject == "leasehold_lock");
    assert_eq!(known.unwrap().found, "1 rows");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_for_everybody_is_told() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let config = SqliteConfig::new(&place.path).unwrap().push(false);
    let driver = open(config).await.unwrap();
    std::fs::set_permissions(&place.path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let diagnosis = driver.diagnose().await.unwrap();
    assert_eq!(severity(&diagnosis, "mode"), Severity::Warning);
    assert_eq!(severity(&diagnosis, "push"), Severity::Note);
}
