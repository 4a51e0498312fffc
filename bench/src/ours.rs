//! Leasehold as a contender, in every mode that a backend has.

use std::sync::Arc;

use leasehold_measure::{Contender, Leasehold};
use lockcore::{LockManager, Settings};

use crate::backend::Backend;
use crate::contender::Entry;
use crate::place::Place;

/// The commands that our driver sends to Redis.
const COMMANDS: &[&str] = &["eval", "evalsha"];

/// Leasehold at `place`: `leasehold`, and `leasehold-session` where a backend has such a mode.
#[must_use]
pub fn contenders(place: &Arc<Place>) -> Vec<Arc<dyn Contender>> {
    let modes: &[(&str, &str)] = match place.backend() {
        Backend::MySql | Backend::MariaDb | Backend::Postgres => {
            &[("leasehold", ""), ("leasehold-session", "mode=session")]
        }
        _ => &[("leasehold", "")],
    };
    let contender = |(name, option): &(&str, &str)| -> Arc<dyn Contender> {
        let base = place.url().to_owned();
        let url = match option {
            &"" => base,
            option if base.contains('?') => format!("{base}&{option}"),
            option => format!("{base}?{option}"),
        };
        let (place, server) = (Arc::clone(place), Arc::clone(place));
        let contender = Leasehold::new(place.backend().name(), move || {
            connect(Arc::clone(&place), url.clone())
        });
        Arc::new(contender.named(*name).server_use(move || {
            let server = Arc::clone(&server);
            async move { server.used(COMMANDS).await }
        }))
    };
    modes.iter().map(contender).collect()
}

async fn connect(place: Arc<Place>, url: String) -> lockcore::Result<Arc<dyn LockManager>> {
    match place.backend() {
        // One store for all clients, as a server is.
        Backend::Memory => Ok(Arc::new(place.store().manager(Settings::default())?)),
        _ => leasehold::connect(&url).await,
    }
}

/// All contenders at `place`, Leasehold first.
#[must_use]
pub fn all(place: &Arc<Place>, more: Vec<Entry>) -> Vec<Arc<dyn Contender>> {
    let mut all = contenders(place);
    for entry in crate::raw::contenders(place).into_iter().chain(more) {
        all.push(Arc::new(entry));
    }
    all
}
