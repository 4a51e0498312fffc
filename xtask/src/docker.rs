//! The `docker` program.

use std::time::Duration;

use tokio::process::Command;

use crate::run::{self, Limits};

const QUICK: Duration = Duration::from_secs(20);
/// The label that has the hash of what an image was built from.
const RECIPE: &str = "leasehold-test.recipe";

pub(crate) fn docker<const N: usize>(args: [&str; N]) -> Command {
    let mut command = Command::new("docker");
    command.args(args);
    command
}

/// The engine's version, or why there is none.
pub(crate) async fn engine() -> Result<String, String> {
    if !crate::host::has("docker") {
        return Err("there is no `docker` program".into());
    }
    run::output(docker(["info", "--format", "{{.ServerVersion}}"]), QUICK)
        .await
        .filter(|version| !version.is_empty())
        .ok_or_else(|| "`docker info` finds no engine".into())
}

pub(crate) async fn has_image(name: &str) -> bool {
    run::output(docker(["image", "inspect", "--format", "{{.Id}}", name]), QUICK)
        .await
        .is_some()
}

/// Whether the image is there and was built from this recipe.
pub(crate) async fn is_built_from(name: &str, recipe: &str) -> bool {
    let format = format!("{{{{index .Config.Labels \"{RECIPE}\"}}}}");
    let label = run::output(docker(["image", "inspect", "--format", &format, name]), QUICK).await;
    label.as_deref() == Some(recipe)
}

pub(crate) fn recipe_label(recipe: &str) -> String {
    format!("{RECIPE}={recipe}")
}

/// Whether it could be pulled: a minute for the registry to answer (engines give up earlier), five for it all.
pub(crate) async fn pull(name: &str) -> Result<(), String> {
    match run::collect(docker(["pull", name]), Limits::minutes(5).silent_for(60)).await {
        Ok((end, _)) if end.is_success() => Ok(()),
        Ok((end, _)) => Err(format!("{name} cannot be pulled ({end})")),
        Err(error) => Err(format!("{error:#}")),
    }
}
