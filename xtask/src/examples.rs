//! Runs every example of the facade on every backend that this machine has. Those of drivers measure; they are built
//! with everything else and run by people.

use std::{collections::VecDeque, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use leasehold_conformance::servers::Target;
use tokio::{process::Command, task::JoinSet};

use crate::{
    count::Count,
    run::{self, Limits},
    workspace::{Workspace, cargo},
};

/// Its examples take any backend's URL.
const FACADE: &str = "leasehold";

const LIMIT: Limits = Limits {
    total: Duration::from_secs(120),
    silence: Duration::from_secs(120),
};

/// Builds the examples, then runs each with a URL as its only argument.
pub(crate) async fn run(workspace: &Workspace, targets: impl Iterator<Item = Target>) -> Result<Count> {
    let names = workspace.examples_of(FACADE);
    if names.is_empty() {
        bail!("the package {FACADE} has no example");
    }
    // All of them, because for one package alone cargo would choose other features of what it depends on.
    let build = cargo(["build", "--workspace", "--all-features", "--examples"]);
    let end = run::stream(build, Limits::minutes(30), |_| {}).await?;
    if !end.is_success() {
        bail!("the examples do not build ({end})");
    }
    let folder = tempfile::Builder::new().prefix("leasehold-examples-").tempdir()?;
    let examples = Arc::new(Examples {
        programs: names
            .iter()
            .map(|name| workspace.target.join("debug/examples").join(name))
            .collect(),
    });
    let file = format!("sqlite:{}", folder.path().join("examples.db").display());
    let mut waiting: VecDeque<_> = [Place::Url("memory:".into()), Place::Url(file)].into();
    waiting.extend(targets.map(Place::Server));
    let mut running = JoinSet::new();
    let mut count = Count::default();
    loop {
        while running.len() < AT_ONCE
            && let Some(place) = waiting.pop_front()
        {
            running.spawn(Arc::clone(&examples).at(place));
        }
        let Some(ended) = running.join_next().await else {
            return Ok(count);
        };
        count.add(ended??);
    }
}

/// Examples mostly wait, for servers to start and for time to pass.
const AT_ONCE: usize = 4;

/// Where examples run.
enum Place {
    Url(String),
    Server(Target),
}

struct Examples {
    programs: Vec<PathBuf>,
}

impl Examples {
    /// All of them there, one after the other.
    async fn at(self: Arc<Self>, place: Place) -> Result<Count> {
        let target = match place {
            Place::Url(url) => return self.with(&url, &url).await,
            Place::Server(target) => target,
        };
        match target.request().start().await {
            Ok(server) => self.with(server.url(), &server.describe()).await,
            Err(error) => {
                println!("{target}: {error}");
                Ok(Count::one(false))
            }
        }
    }

    async fn with(&self, url: &str, shown: &str) -> Result<Count> {
        let mut count = Count::default();
        for program in &self.programs {
            let mut command = Command::new(program);
            command.arg(url);
            let (end, _) = run::collect(command, LIMIT).await?;
            if !end.is_success() {
                println!("{} on {shown}: FAILED ({end})", program.display());
            }
            count.add(Count::one(end.is_success()));
        }
        Ok(count)
    }
}
