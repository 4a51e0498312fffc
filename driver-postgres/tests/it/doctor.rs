//! What the driver says about a sound and about a risky server.

use lockcore::{Driver, Severity};

use crate::support::{connect, own};

#[tokio::test]
async fn a_server_is_looked_at() {
    let server = own().await;
    for url in [server.url().to_owned(), format!("{}?mode=session", server.url())] {
        let driver = connect(&url).await.unwrap();
        let diagnosis = driver.diagnose().await.unwrap();
        assert_eq!(diagnosis.server, "PostgreSQL");
        assert!(
            diagnosis.version.as_ref().unwrap().starts_with('1'),
            "{diagnosis:?}"
        );
        assert!(
            diagnosis.clock.unwrap().ahead_us().abs() < 1_000_000,
            "{diagnosis:?}"
        );
        let risky = ["fsync", "full_page_writes"];
        for finding in &diagnosis.findings {
            // Test servers do not wait for the disk.
            let allowed = if risky.contains(&&*finding.subject) {
                Severity::Warning
            } else {
                Severity::Note
            };
            assert!(finding.severity <= allowed, "{finding:?}");
        }
        let subjects: Vec<_> = diagnosis
            .findings
            .iter()
            .map(|finding| &*finding.subject)
            .collect();
        for subject in [
            "fsync",
            "synchronous_commit",
            "standbys",
            "max_connections",
            "ssl",
        ] {
            assert!(subjects.contains(&subject), "{subject}: {subjects:?}");
        }
        driver.close().await.unwrap();
    }
}
