//! Runs every example of the facade on every backend that this machine has. Those of drivers measure; they are built
//! with everything else and run by people.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use leasehold_conformance::servers::{Server, Target};
use tokio::process::Command;

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
    let build = cargo(["build", "--package", FACADE, "--all-features", "--examples"]);
    let end = run::stream(build, Limits::minutes(30), |_| {}).await?;
    if !end.is_success() {
        bail!("the examples do not build ({end})");
    }
    let folder = tempfile::Builder::new().prefix("leasehold-examples-").tempdir()?;
    let mut count = on_each(workspace, &names, "memory:", "memory:").await?;
    let file = folder.path().join("examples.db");
    count.add(on_each(workspace, &names, &format!("sqlite:{}", file.display()), "sqlite").await?);
    for target in targets {
        match target.request().start().await {
            Ok(server) => count.add(on_server(workspace, &names, &server).await?),
            Err(error) => {
                println!("{target}: {error}");
                count.add(Count::one(false));
            }
        }
    }
    Ok(count)
}

async fn on_server(workspace: &Workspace, names: &[&str], server: &Server) -> Result<Count> {
    on_each(workspace, names, server.url(), &server.describe()).await
}

async fn on_each(workspace: &Workspace, names: &[&str], url: &str, shown: &str) -> Result<Count> {
    let mut count = Count::default();
    for name in names {
        println!("\nexample {name} on {shown}");
        let program = workspace.target.join("debug/examples").join(name);
        let end = one(&program, url).await?;
        if !end.is_success() {
            println!("example {name} on {shown}: FAILED ({end})");
        }
        count.add(Count::one(end.is_success()));
    }
    Ok(count)
}

async fn one(program: &Path, url: &str) -> Result<run::End> {
    let mut command = Command::new(program);
    command.arg(url);
    run::stream(command, LIMIT, |_| {}).await
}
