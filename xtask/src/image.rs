//! Images of test servers made from Debian packages, for machines that reach no container registry.
//!
//! `conformance/images/<name>-<version>/Dockerfile` becomes `leasehold-test/<name>:<version>`, on a base that
//! debootstrap makes. One more folder is one more image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, Result, anyhow, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tokio::{process::Command, sync::Mutex};

use crate::{
    docker::{self, docker},
    host::{self, Apt, Root},
    run::{self, Limits},
};

const SUITE: &str = "trixie";
const BASE: &str = "leasehold-test/base:trixie";

/// An image that is lost in a crash is made again, and nobody reads manuals in it.
const DPKG: &str = "force-unsafe-io\n\
    path-exclude=/usr/share/doc/*\n\
    path-exclude=/usr/share/man/*\n\
    path-exclude=/usr/share/locale/*\n";

/// Builds the image from its folder, unless it is there, built from the same.
pub(crate) async fn build(folder: &Path, image: &str, root: Root) -> Result<()> {
    let apt = Apt::of_host().await;
    let base_recipe = hash(&["base 1", SUITE, &apt.config, DPKG]);
    let mut parts = vec![base_recipe.clone()];
    for file in files(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let text = fs::read_to_string(&file).with_context(|| format!("{} is no text", file.display()))?;
        parts.push(text);
    }
    let recipe = hash(&parts);
    if docker::is_built_from(image, &recipe).await {
        println!("{image}: built before");
        return Ok(());
    }
    {
        // Images are made side by side, and this is for all of them.
        static ONE: Mutex<()> = Mutex::const_new(());
        let _one = ONE.lock().await;
        if docker::is_built_from(BASE, &base_recipe).await {
            println!("{BASE}: built before");
        } else {
            bootstrap(&apt, root, &base_recipe).await?;
        }
    }
    let label = docker::recipe_label(&recipe);
    // The host's network, because that is the one on which the host's mirror is known to answer.
    let mut command = docker(["build", "--network", "host", "--label", &label, "--tag", image]);
    for variable in ["http_proxy", "https_proxy", "no_proxy"] {
        if std::env::var_os(variable).is_some() {
            command.args(["--build-arg", variable]);
        }
    }
    command.arg(folder);
    let (end, _) = run::collect(command, Limits::minutes(15)).await?;
    succeed(end, &format!("docker build of {image}"))
}

/// Makes the base image: a minimal Debian, with the apt set-up of this machine.
async fn bootstrap(apt: &Apt, root: Root, recipe: &str) -> Result<()> {
    if root == Root::No {
        bail!(
            "debootstrap needs root, and `sudo -n` asks for a password: run `cargo xtask servers` as root once"
        );
    }
    if !host::has("debootstrap") {
        host::install(root, &["debootstrap"]).await.map_err(|reason| {
            anyhow!("{reason}. On a system without apt, install debootstrap by hand, or make one of the official images present")
        })?;
    }
    let folder = tempfile::Builder::new().prefix("leasehold-base-").tempdir()?;
    let tree = folder.path().join("root");
    let done = fill(apt, root, &tree, recipe).await;
    // It belongs to root, whatever we are.
    let mut remove = root.command(&[], "rm").context("not root")?;
    remove.args(["-rf", "--one-file-system"]).arg(&tree);
    let removed = run::stream(remove, Limits::minutes(2), |_| {}).await;
    done.and(removed.map(|_| ()))
}

async fn fill(apt: &Apt, root: Root, tree: &Path, recipe: &str) -> Result<()> {
    let env: Vec<_> = apt
        .proxy
        .iter()
        .map(|proxy| ("http_proxy", proxy.clone()))
        .collect();
    let mut command = root.command(&env, "debootstrap").context("not root")?;
    command.arg("--variant=minbase");
    let encrypted = apt
        .mirror
        .as_ref()
        .is_some_and(|mirror| mirror.starts_with("https"));
    if encrypted {
        command.arg("--include=ca-certificates");
    }
    command.arg(SUITE).arg(tree).args(&apt.mirror);
    succeed(
        run::stream(command, Limits::minutes(20), |_| {}).await?,
        "debootstrap",
    )?;
    if encrypted && host::has_ca_bundle() {
        let mut copy = root.command(&[], "cp").context("not root")?;
        copy.arg(host::CA_BUNDLE)
            .arg(tree.join(host::CA_BUNDLE.trim_start_matches('/')));
        succeed(
            run::stream(copy, Limits::minutes(1), |_| {}).await?,
            "the copy of the trusted certificates",
        )?;
    }
    for (file, text) in [
        ("etc/apt/apt.conf.d/99host", apt.config.as_str()),
        ("etc/dpkg/dpkg.cfg.d/test-image", DPKG),
    ] {
        let config = tree.with_file_name("config");
        fs::write(&config, text)?;
        let mut copy = root.command(&[], "install").context("not root")?;
        copy.args(["-m", "644"]).arg(&config).arg(tree.join(file));
        let copied = run::stream(copy, Limits::minutes(1), |_| {}).await?;
        succeed(copied, &format!("the copy of {file}"))?;
    }
    import(root, tree, recipe).await
}

async fn import(root: Root, tree: &Path, recipe: &str) -> Result<()> {
    let mut tar = root.command(&[], "tar").context("not root")?.into_std();
    tar.arg("-C").arg(tree).args([
        "--exclude=./var/cache/apt/archives/*.deb",
        "--exclude=./var/lib/apt/lists/*",
    ]);
    let mut tar = tar
        .args(["-c", "."])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let layer = tar.stdout.take().context("tar has no output")?;
    let change = format!("LABEL {}", docker::recipe_label(recipe));
    println!("+ tar | docker import - {BASE}");
    let mut command = docker(["import", "--change", &change, "-", BASE]);
    let imported = Command::status(command.stdin(layer)).await?;
    let packed = tar.wait()?;
    if !imported.success() || !packed.success() {
        bail!("docker import of {BASE} failed");
    }
    Ok(())
}

fn succeed(end: run::End, what: &str) -> Result<()> {
    if end.is_success() {
        Ok(())
    } else {
        Err(anyhow!("{what} failed ({end})"))
    }
}

/// The files of an image's folder, in order.
fn files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let mut files = entries.collect::<std::io::Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

fn hash<T: AsRef<str>>(parts: &[T]) -> String {
    let mut hasher = Sha256::new();
    for part in parts.iter().map(AsRef::as_ref) {
        hasher.update(part.len().to_le_bytes());
        hasher.update(part);
    }
    HEXLOWER.encode(&hasher.finalize()[..16])
}

/// The folder of an image: `leasehold-test/redis:8` is built from `conformance/images/redis-8`.
pub(crate) fn folder_of(image: &str) -> Result<String> {
    let name = image.rsplit('/').next().and_then(|name| name.split_once(':'));
    let (name, version) = name.with_context(|| format!("{image} has no version"))?;
    Ok(format!("conformance/images/{name}-{version}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_its_folder() {
        assert_eq!(
            folder_of("leasehold-test/redis:8").unwrap(),
            "conformance/images/redis-8"
        );
        assert!(folder_of("redis").is_err());
    }

    #[test]
    fn a_hash_keeps_its_parts_apart() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
