//! This program once more, as a client of a contender in a process of its own.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;

use leasehold_measure::{Contender, Failure, Launch};

use crate::ours;
use crate::place::{Place, Way};
use crate::program::Others;

/// It has URLs, which may have passwords.
const WAY: &str = "LEASEHOLD_BENCH_WAY";

/// How it is started.
#[derive(Debug)]
pub(crate) struct Again {
    ways: HashMap<&'static str, Way>,
}

impl Again {
    pub(crate) fn new(places: &[Arc<Place>]) -> Self {
        // Locks in the memory of this process are nowhere else.
        let reachable = places
            .iter()
            .filter(|place| place.backend() != crate::backend::Backend::Memory);
        Self {
            ways: reachable
                .map(|place| (place.backend().name(), place.way().clone()))
                .collect(),
        }
    }
}

impl Launch for Again {
    fn command(&self, contender: &dyn Contender) -> Option<Command> {
        let way = serde_json::to_string(self.ways.get(contender.backend())?).ok()?;
        let mut command = Command::new(std::env::current_exe().ok()?);
        command.arg("--serve").arg(contender.name()).env(WAY, way);
        Some(command)
    }
}

pub(crate) async fn play(name: &str, others: &dyn Others) -> Result<(), Failure> {
    let place = Place::of(serde_json::from_str(&std::env::var(WAY)?)?)?;
    let all = ours::all(&place, others.contenders(&place));
    let contender = all.into_iter().find(|contender| contender.name() == name);
    let contender = contender.ok_or_else(|| format!("no contender is called {name}"))?;
    leasehold_measure::serve(&*contender).await
}
