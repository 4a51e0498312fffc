//! What cargo knows of this workspace.

use std::{env, ffi::OsString, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::process::Command;

use crate::run;

/// The parts of `cargo metadata` that the steps need.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
    /// Package, kind, name.
    targets: Vec<(String, String, String)>,
}

/// `cargo`, the one that runs us.
pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(program);
    command.args(args);
    command
}

impl Workspace {
    pub(crate) async fn read() -> Result<Self> {
        let command = cargo(["metadata", "--no-deps", "--format-version", "1"]);
        let text = run::output(command, Duration::from_secs(60))
            .await
            .context("`cargo metadata` failed")?;
        Self::parse(&serde_json::from_str(&text)?).context("`cargo metadata` says something unknown")
    }

    fn parse(metadata: &Value) -> Option<Self> {
        let mut targets = Vec::new();
        for package in metadata.get("packages")?.as_array()? {
            let name = package.get("name")?.as_str()?;
            for target in package.get("targets")?.as_array()? {
                let kind = target.get("kind")?.get(0)?.as_str()?;
                targets.push((name.into(), kind.into(), target.get("name")?.as_str()?.into()));
            }
        }
        Some(Self {
            root: metadata.get("workspace_root")?.as_str()?.into(),
            target: metadata.get("target_directory")?.as_str()?.into(),
            targets,
        })
    }

    /// The names of the targets of this kind (`test`, `example`), without repeats.
    pub(crate) fn named(&self, wanted: &str) -> Vec<&str> {
        let mut names: Vec<_> = self
            .targets
            .iter()
            .filter(|(_, kind, _)| kind == wanted)
            .map(|(_, _, name)| name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The names of the examples of `package`.
    pub(crate) fn examples_of(&self, package: &str) -> Vec<&str> {
        let examples = self
            .targets
            .iter()
            .filter(|(owner, kind, _)| owner == package && kind == "example");
        examples.map(|(_, _, name)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Packages with their features, as they are built for this selection.
    async fn built<const N: usize>(selection: [&str; N]) -> BTreeSet<String> {
        let mut command = cargo(["tree", "--locked", "--prefix", "none", "--format", "{p} {f}"]);
        command.args(selection);
        let text = run::output(command, Duration::from_secs(60)).await.unwrap();
        text.lines()
            .map(|line| line.trim_end_matches(" (*)").to_owned())
            .collect()
    }

    /// Else a new machine compiles most of it twice before it runs the first test.
    #[tokio::test]
    async fn xtask_is_built_of_what_the_tests_are_built_of() {
        let ours = built(["--package", "xtask", "--edges", "normal,no-proc-macro"]).await;
        let all = built([
            "--workspace",
            "--all-features",
            "--edges",
            "normal,dev,no-proc-macro",
        ])
        .await;
        let twice: Vec<_> = ours.difference(&all).collect();
        assert!(
            ours.len() > 50 && twice.is_empty(),
            "give xtask/features what it takes to have these with the features of the whole workspace: {twice:#?}"
        );
    }
}
