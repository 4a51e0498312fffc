//! A URL that is measured.

use std::fmt::Write;
use std::sync::Arc;

use leasehold::memory::MemoryStore;
use leasehold::{Connector, Endpoint, Env, LockManager, Result, Settings};
use leasehold_measure::Leasehold;

/// What others see at the server of whoever holds one of our locks.
const LABEL: &str = "leasehold bench";

/// A URL with the name that it has in reports.
#[derive(Clone)]
pub(super) struct Target {
    url: String,
    /// The URL without what nobody may see.
    label: String,
    by_connection: bool,
    /// For `memory:`, where each connect would be a store of its own.
    store: Option<MemoryStore>,
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Target")
            .field("label", &self.label)
            .finish_non_exhaustive()
    }
}

impl Target {
    pub(super) fn new(url: &str) -> Result<Self> {
        let mut endpoint = Endpoint::parse(url)?;
        // What is wrong with a URL is told before anything is measured.
        drop(Connector::new(url)?);
        let mode = endpoint.take_option("mode");
        let in_memory = endpoint.scheme() == "memory";
        Ok(Self {
            url: url.to_owned(),
            label: shown(&endpoint, mode.as_deref()),
            by_connection: mode.as_deref() == Some("session"),
            store: in_memory.then(|| MemoryStore::new(&Env::system())),
        })
    }

    pub(super) fn label(&self) -> &str {
        &self.label
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Each lock takes a connection as long as it is held.
    pub(super) const fn is_by_connection(&self) -> bool {
        self.by_connection
    }

    /// Other processes cannot reach it.
    pub(super) const fn is_in_this_process(&self) -> bool {
        self.store.is_some()
    }

    pub(super) async fn connect(&self) -> Result<Arc<dyn LockManager>> {
        let Some(store) = &self.store else {
            let connector = Connector::new(&self.url)?;
            return connector.settings(name).connect().await;
        };
        let mut endpoint = Endpoint::parse(&self.url)?;
        let mut settings = Settings::from_endpoint(&mut endpoint)?;
        endpoint.finish()?;
        name(&mut settings);
        Ok(Arc::new(store.manager(settings)?))
    }

    /// Who is there, which also shows that somebody is.
    pub(super) async fn version(&self) -> Result<String> {
        let locks = self.connect().await?;
        let asked = async {
            locks.ping().await?;
            locks.diagnose().await
        };
        let found = asked.await;
        locks.close().await.ok();
        let found = found?;
        let version = found.version.as_deref().unwrap_or("of unknown version");
        // A server wrote it: nothing of it moves the cursor.
        Ok(format!("{} {version}", found.server).replace(char::is_control, " "))
    }

    pub(super) fn contender(&self) -> Leasehold {
        let target = self.clone();
        Leasehold::new(self.label.clone(), move || {
            let target = target.clone();
            async move { target.connect().await }
        })
    }
}

fn name(settings: &mut Settings) {
    settings.label.get_or_insert_with(|| LABEL.to_owned());
}

/// The URL without its password and its options, but for the mode.
fn shown(endpoint: &Endpoint, mode: Option<&str>) -> String {
    let mut shown = format!("{}:", endpoint.scheme());
    let hosts = endpoint.hosts().iter().map(|(host, port)| {
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.clone()
        };
        port.map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
    });
    let hosts: Vec<_> = hosts.collect();
    if !hosts.is_empty() {
        write!(shown, "//{}", hosts.join(",")).ok();
    }
    shown += endpoint.path();
    if let Some(mode) = mode {
        write!(shown, "?mode={mode}").ok();
    }
    shown.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_secret_is_shown() {
        for (url, expected) in [
            ("redis://u:secret@h:6379/0?namespace=a", "redis://h:6379/0"),
            ("etcd://u:secret@[::1]:1,b:2", "etcd://[::1]:1,b:2"),
            (
                "postgres://u:secret@h/app?mode=session",
                "postgres://h/app?mode=session",
            ),
            ("sqlite:/tmp/locks.db", "sqlite:/tmp/locks.db"),
            ("memory:", "memory:"),
        ] {
            let target = Target::new(url).unwrap();
            assert_eq!(target.label(), expected);
            assert!(!format!("{target:?}").contains("secret"));
        }
    }
}
