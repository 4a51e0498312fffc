//! Images of test servers made from Debian packages, for machines that reach no container registry.
//!
//! `conformance/images/<name>-<version>` becomes `leasehold-test/<name>:<version>`: a copy of a minimal Debian that
//! debootstrap makes, in which the folder's `install.sh` is run, with the folder's other scripts in `/usr/local/bin`,
//! imported with the settings in `image.conf`. `docker build` would need a container and a commit for each line, which
//! takes minutes where Docker's storage is slow. One more folder is one more image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use anyhow::{Context, Result, anyhow, bail};
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    process::Command,
    sync::{Mutex, Semaphore},
};

use crate::{
    docker::{self, docker},
    host::{self, Apt, Root},
    run::{self, Limits},
};

const SUITE: &str = "trixie";
const INSTALL: &str = "install.sh";
const CONFIG: &str = "image.conf";

/// An image that is lost in a crash is made again, and nobody reads manuals in it.
const DPKG: &str = "force-unsafe-io\n\
    path-exclude=/usr/share/doc/*\n\
    path-exclude=/usr/share/man/*\n\
    path-exclude=/usr/share/locale/*\n";

/// What Debian asks before it starts a server that was installed: no.
const POLICY: &str = "#!/bin/sh\nexit 101\n";

/// Runs `$2 ..` in the tree `$1`, in a mount namespace of its own, so that nothing stays mounted.
const CHROOT: &str = r#"set -e
tree=$1
shift
mount -t proc proc "$tree/proc"
exec chroot "$tree" "$@""#;

/// The tree that all images start from, made when the first one needs it.
static BASE: Mutex<Option<Arc<Tree>>> = Mutex::const_new(None);

/// Makes the image from its folder, unless it is there, made from the same. `permits` are for what keeps the machine busy.
pub(crate) async fn build(folder: &Path, image: &str, root: Root, permits: &Semaphore) -> Result<()> {
    let apt = Apt::of_host().await;
    let mut parts = ["4", SUITE, &apt.config, DPKG].map(ToOwned::to_owned).to_vec();
    for file in files(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let text = fs::read_to_string(&file).with_context(|| format!("{} is no text", file.display()))?;
        parts.push(text);
    }
    let recipe = hash(&parts);
    if docker::is_built_from(image, &recipe).await {
        println!("{image}: built before");
        return Ok(());
    }
    let base = base(&apt, root).await?;
    let _permit = permits.acquire().await?;
    let tree = base.copy().await?;
    let made = async {
        tree.install(folder).await?;
        tree.import(image, &recipe, &fs::read_to_string(folder.join(CONFIG))?)
            .await
    };
    let made = made.await.with_context(|| format!("{image} was not made"));
    made.and(tree.remove().await)
}

async fn base(apt: &Apt, root: Root) -> Result<Arc<Tree>> {
    let mut base = BASE.lock().await;
    if let Some(base) = &*base {
        return Ok(Arc::clone(base));
    }
    let tree = Arc::new(Tree::bootstrap(apt, root).await?);
    *base = Some(Arc::clone(&tree));
    Ok(tree)
}

/// Removes what is left when all images are made.
pub(crate) async fn clean_up() -> Result<()> {
    let base = BASE.lock().await.take();
    match base {
        Some(tree) => tree.remove().await,
        None => Ok(()),
    }
}

/// A Debian in a folder. It belongs to root, whatever we are.
#[derive(Debug)]
struct Tree {
    folder: TempDir,
    root: Root,
}

impl Tree {
    fn new(root: Root) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("leasehold-image-").tempdir()?;
        Ok(Self { folder, root })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A minimal Debian, with the apt set-up and the package lists of this machine's mirror.
    async fn bootstrap(apt: &Apt, root: Root) -> Result<Self> {
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
        let tree = Self::new(root)?;
        match tree.fill(apt).await {
            Ok(()) => Ok(tree),
            Err(error) => {
                tree.remove().await?;
                Err(error)
            }
        }
    }

    async fn fill(&self, apt: &Apt) -> Result<()> {
        let tree = self.path();
        let env: Vec<_> = apt
            .proxy
            .iter()
            .map(|proxy| ("http_proxy", proxy.clone()))
            .collect();
        let mut command = self.command(&env, "debootstrap")?;
        command.arg("--variant=minbase");
        let encrypted = apt
            .mirror
            .as_ref()
            .is_some_and(|mirror| mirror.starts_with("https"));
        if encrypted {
            command.arg("--include=ca-certificates");
        }
        command.arg(SUITE).arg(&tree).args(&apt.mirror);
        succeed(
            run::stream(command, Limits::minutes(20), |_| {}).await?,
            "debootstrap",
        )?;
        if encrypted && host::has_ca_bundle() {
            let mut copy = self.command(&[], "cp")?;
            copy.arg(host::CA_BUNDLE)
                .arg(tree.join(host::CA_BUNDLE.trim_start_matches('/')));
            succeed(
                run::stream(copy, Limits::minutes(1), |_| {}).await?,
                "the copy of the trusted certificates",
            )?;
        }
        self.write("etc/apt/apt.conf.d/99host", "644", &apt.config)
            .await?;
        self.write("etc/dpkg/dpkg.cfg.d/test-image", "644", DPKG).await?;
        self.write("usr/sbin/policy-rc.d", "755", POLICY).await?;
        // MariaDB's data are not made where `localhost` is not known.
        self.write("etc/hosts", "644", "127.0.0.1 localhost\n::1 localhost\n")
            .await?;
        self.run(&["apt-get", "update"]).await
    }

    async fn copy(&self) -> Result<Self> {
        let copied = Self::new(self.root)?;
        let mut copy = self.command(&[], "cp")?;
        copy.args(["-a", "--reflink=auto"])
            .arg(self.path())
            .arg(copied.path());
        match run::stream(copy, Limits::minutes(5), |_| {}).await {
            Ok(end) if end.is_success() => Ok(copied),
            failed => {
                copied.remove().await?;
                succeed(failed?, "the copy of the base")?;
                bail!("the copy of the base failed")
            }
        }
    }

    /// Runs a folder's `install.sh`, with its other scripts in place.
    async fn install(&self, folder: &Path) -> Result<()> {
        for file in files(folder)? {
            let name = file
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            let text = fs::read_to_string(&file)?;
            match name {
                CONFIG => {}
                INSTALL => self.write(INSTALL, "755", &text).await?,
                name => self.write(&format!("usr/local/bin/{name}"), "755", &text).await?,
            }
        }
        self.run(&["sh", &format!("/{INSTALL}")]).await
    }

    /// Runs a program in the tree.
    async fn run(&self, program: &[&str]) -> Result<()> {
        let env = [("DEBIAN_FRONTEND", "noninteractive".to_owned())];
        let mut command = self.command(&env, "unshare")?;
        command.args(["--mount", "sh", "-c", CHROOT, "chroot"]);
        command.arg(self.path()).args(program);
        let end = run::stream(command, Limits::minutes(15), |_| {}).await?;
        succeed(end, &program.join(" "))
    }

    async fn write(&self, path: &str, mode: &str, text: &str) -> Result<()> {
        let draft = self.folder.path().join("draft");
        fs::write(&draft, text)?;
        let mut install = self.command(&[], "install")?;
        install.args(["-m", mode]).arg(&draft).arg(self.path().join(path));
        let end = run::stream(install, Limits::minutes(1), |_| {}).await?;
        succeed(end, &format!("the copy of {path}"))
    }

    async fn import(&self, image: &str, recipe: &str, config: &str) -> Result<()> {
        let mut tar = self.command(&[], "tar")?.into_std();
        tar.arg("-C").arg(self.path()).args([
            "--exclude=./var/cache/apt/*",
            "--exclude=./var/lib/apt/lists/*",
            "--exclude=./usr/sbin/policy-rc.d",
            "--exclude=./install.sh",
        ]);
        let mut tar = tar
            .args(["-c", "."])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let layer = tar.stdout.take().context("tar has no output")?;
        println!("+ tar | docker import - {image}");
        let label = format!("LABEL {}", docker::recipe_label(recipe));
        let mut command = docker(["import", "--change", &label]);
        for line in settings(config) {
            command.args(["--change", line]);
        }
        command.args(["-", image]);
        let imported = Command::status(command.stdin(layer)).await?;
        let packed = tar.wait()?;
        if !imported.success() || !packed.success() {
            bail!("docker import of {image} failed");
        }
        Ok(())
    }

    async fn remove(&self) -> Result<()> {
        let mut remove = self.command(&[], "rm")?;
        remove.args(["-rf", "--one-file-system"]).arg(self.path());
        let removed = run::stream(remove, Limits::minutes(2), |_| {}).await?;
        succeed(removed, "the removal of an image's files")
    }

    fn command(&self, env: &[(&str, String)], program: &str) -> Result<Command> {
        self.root.command(env, program).context("not root")
    }
}

/// The lines of an `image.conf` that are not empty or comments.
fn settings(config: &str) -> impl Iterator<Item = &str> {
    let lines = config.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
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
    fn settings_are_lines_that_are_no_comments() {
        let config = "# of the official image\nVOLUME /data\n\nCMD [\"redis-server\"]\n";
        let settings: Vec<_> = settings(config).collect();
        assert_eq!(settings, ["VOLUME /data", "CMD [\"redis-server\"]"]);
    }

    #[test]
    fn a_hash_keeps_its_parts_apart() {
        assert_ne!(hash(&["ab", "c"]), hash(&["a", "bc"]));
    }
}
