//! This machine: whether we may install packages on it, and how its apt is set up.

use std::{env, path::Path, time::Duration};

use tokio::{
    process::Command,
    sync::{Mutex, OnceCell},
};

use crate::run::{self, Limits};

const QUICK: Duration = Duration::from_secs(20);

/// Programs that need root are run by root, or by `sudo -n` where that asks for no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Root {
    Yes,
    Sudo,
    No,
}

impl Root {
    pub(crate) async fn find() -> Self {
        let mut id = Command::new("id");
        id.arg("-u");
        if run::output(id, QUICK).await.as_deref() == Some("0") {
            return Self::Yes;
        }
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "true"]);
        if run::output(sudo, QUICK).await.is_some() {
            Self::Sudo
        } else {
            Self::No
        }
    }

    /// A command as root; `None` where we cannot be root. `env` reaches it through sudo, too.
    pub(crate) fn command(self, env: &[(&str, String)], program: &str) -> Option<Command> {
        let mut command = match self {
            Self::Yes => Command::new("env"),
            Self::Sudo => {
                let mut sudo = Command::new("sudo");
                sudo.args(["-n", "env"]);
                sudo
            }
            Self::No => return None,
        };
        command
            .args(env.iter().map(|(name, value)| format!("{name}={value}")))
            .arg(program);
        Some(command)
    }
}

/// Whether a program is on `PATH` or where system programs are.
pub(crate) fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin", "/usr/bin"].map(Into::into));
    folders.any(|folder| folder.join(program).is_file())
}

/// Installs Debian packages. The error says why that cannot be, or what apt said.
pub(crate) async fn install(root: Root, packages: &[&str]) -> Result<(), String> {
    let names = packages.join(" ");
    if !has("apt-get") {
        return Err(format!("there is no apt-get to install {names} with"));
    }
    // Installing a server must not start it: Debian asks /usr/sbin/policy-rc.d, which says no meanwhile.
    let script = r#"set -e
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' > "$policy"
    chmod 755 "$policy"
fi
apt-get install -y --no-install-recommends "$@""#;
    update(root).await;
    // apt lets in one at a time.
    static ONE: Mutex<()> = Mutex::const_new(());
    let _one = ONE.lock().await;
    let env = [("DEBIAN_FRONTEND", "noninteractive".to_owned())];
    let mut command = root
        .command(&env, "sh")
        .ok_or_else(|| format!("installing {names} needs root: run `sudo apt-get install {names}`"))?;
    command.args(["-c", script, "install"]).args(packages);
    match run::stream(command, Limits::minutes(10), |_| {}).await {
        Ok(end) if end.is_success() => Ok(()),
        Ok(end) => Err(format!("`apt-get install {names}` failed ({end})")),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// Whether apt knows a package of this name.
pub(crate) async fn is_packaged(root: Root, package: &str) -> bool {
    update(root).await;
    let mut command = Command::new("apt-cache");
    command.args(["show", package]);
    run::output(command, QUICK)
        .await
        .is_some_and(|text| !text.is_empty())
}

/// Fetches apt's lists, once: a new machine has none. What goes wrong shows when a package is asked for.
async fn update(root: Root) {
    static DONE: OnceCell<()> = OnceCell::const_new();
    let fetch = async {
        if let Some(mut command) = root.command(&[], "apt-get") {
            command.arg("update");
            run::stream(command, Limits::minutes(5), |_| {}).await.ok();
        }
    };
    DONE.get_or_init(|| fetch).await;
}

/// What this machine's apt needs to reach its mirror, for use in an image that is built here. Nothing of it is
/// known to the repository.
#[derive(Debug, Default)]
pub(crate) struct Apt {
    /// Lines for `apt.conf.d`: proxies, retries, checks that are off.
    pub(crate) config: String,
    /// The Debian mirror, if this is a Debian machine.
    pub(crate) mirror: Option<String>,
    pub(crate) proxy: Option<String>,
}

const CARRIED: [&str; 7] = [
    "Acquire::http::",
    "Acquire::https::",
    "Acquire::Check-",
    "Acquire::Retries",
    "Acquire::ForceIP",
    "Acquire::Max-",
    "Acquire::AllowInsecure",
];

impl Apt {
    pub(crate) async fn of_host() -> Self {
        let mut dump = Command::new("apt-config");
        dump.args(["dump", "Acquire"]);
        let dump = run::output(dump, QUICK).await.unwrap_or_default();
        let mut targets = Command::new("apt-get");
        targets.args([
            "indextargets",
            "--format",
            "$(ORIGIN) $(RELEASE) $(REPO_URI)",
            "Created-By: Packages",
        ]);
        let targets = run::output(targets, QUICK).await.unwrap_or_default();
        Self {
            config: carried(&dump),
            mirror: mirror(&targets),
            proxy: proxy(&dump),
        }
    }
}

/// The lines that say how to reach a mirror, without those that name a file or script of this machine.
fn carried(dump: &str) -> String {
    let local =
        |line: &str| line.contains("\"/") || line.contains("uto-Detect") || line.contains("AutoDetect");
    let wanted = |line: &&str| CARRIED.iter().any(|key| line.starts_with(key)) && !local(line);
    dump.lines()
        .filter(wanted)
        .map(|line| format!("{line}\n"))
        .collect()
}

fn mirror(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (origin, release, uri) = (words.next()?, words.next()?, words.next()?);
        let main = origin == "Debian" && !release.contains('-') && uri.starts_with("http");
        main.then(|| uri.trim_end_matches('/').to_owned())
    })
}

fn proxy(dump: &str) -> Option<String> {
    let line = dump
        .lines()
        .find_map(|line| line.strip_prefix("Acquire::http::Proxy \""))?;
    Some(line.split('"').next()?.to_owned()).filter(|proxy| proxy.starts_with("http"))
}

/// The certificates that this machine trusts, for a mirror behind `https:`.
pub(crate) const CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

pub(crate) fn has_ca_bundle() -> bool {
    Path::new(CA_BUNDLE).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DUMP: &str = "Acquire \"\";\nAcquire::cdrom::mount \"/media/cdrom/\";\nAcquire::http \"\";\n\
        Acquire::http::Proxy \"http://proxy.example:3128\";\nAcquire::http::Proxy-Auto-Detect \"/usr/bin/find-proxy\";\n\
        Acquire::https::CAInfo \"/etc/ssl/own.pem\";\nAcquire::Check-Date \"false\";\nAcquire::IndexTargets \"\";\n";

    #[test]
    fn only_what_an_image_can_use_is_carried_over() {
        assert_eq!(
            carried(DUMP),
            "Acquire::http::Proxy \"http://proxy.example:3128\";\nAcquire::Check-Date \"false\";\n"
        );
        assert_eq!(proxy(DUMP).as_deref(), Some("http://proxy.example:3128"));
        assert_eq!(proxy("Acquire::http::Proxy \"DIRECT\";"), None);
    }

    #[test]
    fn the_mirror_is_debians_own_main_one() {
        let targets = "Debian bookworm-security http://mirror.example/debian-security/\n\
            Debian bookworm http://mirror.example/debian/\n";
        assert_eq!(mirror(targets).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror("Ubuntu noble http://mirror.example/ubuntu/\n"), None);
    }
}
