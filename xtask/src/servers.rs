//! Gets the test servers, and says which there are.

use std::sync::Arc;

use anyhow::{Result, bail};
use leasehold_conformance::servers::{LEAVE_OUT, Origin, Server, ServerKind, Target, survey};
use tokio::{process::Command, sync::Semaphore, task::JoinSet};

use crate::{
    count::Count,
    docker,
    host::{self, Root},
    image, run,
    workspace::Workspace,
};

/// The servers of this machine.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    /// What can run, and from where.
    ready: Vec<(Target, String)>,
    /// What this machine is not made for: to be left out, aloud.
    left_out: Vec<(Target, String)>,
    /// What should have been there.
    failed: Vec<(Target, String)>,
}

/// How many images are made at a time: each waits for the network about half of it.
const IMAGES_AT_ONCE: usize = 2;

/// Pulls, builds and installs what is missing.
pub(crate) async fn get() -> Result<Servers> {
    let workspace = Arc::new(Workspace::read().await?);
    let root = Root::find().await;
    let engine = docker::engine().await;
    match &engine {
        Ok(version) => println!("Docker engine {version}"),
        Err(reason) => println!("no Docker: {reason}"),
    }
    let mut servers = Servers::default();
    let mut images = JoinSet::new();
    let permits = Arc::new(Semaphore::new(IMAGES_AT_ONCE));
    for target in Target::all() {
        if std::env::var(target.kind.url_variable()).is_ok_and(|url| !url.is_empty()) {
            servers.given(target);
            continue;
        }
        match (target.origin, &engine) {
            (Origin::Container, Ok(_)) => {
                let (workspace, permits) = (Arc::clone(&workspace), Arc::clone(&permits));
                images
                    .spawn(async move { (target, container(&workspace, target.kind, root, &permits).await) });
            }
            (Origin::Container, Err(reason)) => {
                servers.left_out.push((target, format!("no Docker: {reason}")));
            }
            _ => match program(target.kind, root).await {
                Ok(what) => servers.ready.push((target, what)),
                Err(reason) => servers.left_out.push((target, reason)),
            },
        }
    }
    while let Some(made) = images.join_next().await {
        match made? {
            (target, Ok(what)) => servers.ready.push((target, what)),
            (target, Err(error)) => servers.failed.push((target, format!("{error:#}"))),
        }
    }
    if let Err(error) = image::clean_up().await {
        println!("{error:#}");
    }
    if run::is_interrupted() {
        bail!("interrupted");
    }
    servers.substitute(root).await;
    servers.check().await;
    let order = Target::all();
    let place = |target: &Target| order.iter().position(|known| known == target);
    servers.ready.sort_by_key(|(target, _)| place(target));
    Ok(servers)
}

async fn container(
    workspace: &Workspace,
    kind: ServerKind,
    root: Root,
    permits: &Semaphore,
) -> Result<String> {
    let (official, built) = (kind.official_image(), kind.built_image());
    if docker::has_image(&official).await {
        return Ok(format!("image {official}"));
    }
    let folder = image::folder_of(&built)?;
    // With the built one here, a registry is not asked again.
    if !docker::has_image(&built).await {
        match docker::pull(&official).await {
            Ok(()) => return Ok(format!("image {official}")),
            Err(reason) => println!("{reason}: building {built} from Debian packages"),
        }
    }
    image::build(&workspace.root.join(folder), &built, root, permits).await?;
    Ok(format!("image {built}"))
}

async fn program(kind: ServerKind, root: Root) -> Result<String, String> {
    if let Err(missing) = kind.find_program() {
        let package = kind
            .package()
            .ok_or_else(|| format!("{missing}, and Debian has no package of it"))?;
        if host::has("apt-get") && !host::is_packaged(root, package).await {
            return Err(format!("{missing}, and this system has no package {package}"));
        }
        host::install(root, &[package])
            .await
            .map_err(|reason| format!("{missing}: {reason}"))?;
    }
    let program = kind.find_program()?;
    Ok(format!("program {}", program.display()))
}

impl Servers {
    /// A kind of which a server runs already, which stands in for all targets of the kind.
    fn given(&mut self, target: Target) {
        let given = Target {
            origin: Origin::Url,
            ..target
        };
        if !self.ready.iter().any(|(ready, _)| *ready == given) {
            let what = format!("{} is set", target.kind.url_variable());
            self.ready.push((given, what));
        }
    }

    /// Without its container a kind runs as a local process, where this system has its program.
    async fn substitute(&mut self, root: Root) {
        for (target, _) in self.left_out.clone() {
            let local = Target {
                origin: Origin::LocalProcess,
                ..target
            };
            let known = |list: &[(Target, String)]| list.iter().any(|(known, _)| *known == local);
            if target != local && !known(&self.ready) && !known(&self.left_out) {
                match program(target.kind, root).await {
                    Ok(what) => self.ready.push((local, what)),
                    Err(reason) => self.left_out.push((local, reason)),
                }
            }
        }
    }

    /// What was got must be what the tests find.
    async fn check(&mut self) {
        for (target, what) in std::mem::take(&mut self.ready) {
            let found = survey(target.kind).await;
            let reason = found.into_iter().find_map(|offer| match offer {
                Ok(offer) if offer.origin == target.origin => Some(Ok(())),
                Err(missing) if missing.origin == target.origin => Some(Err(missing.reason)),
                _ => None,
            });
            match reason {
                Some(Err(reason)) => self.failed.push((target, reason)),
                _ => self.ready.push((target, what)),
            }
        }
    }

    /// Tells a test program what to leave out.
    pub(crate) fn tell(&self, command: &mut Command) {
        if !self.left_out.is_empty() {
            command.env(LEAVE_OUT, self.leave_out());
        }
    }

    /// The value of [`LEAVE_OUT`] for the tests.
    fn leave_out(&self) -> String {
        let names: Vec<_> = self
            .left_out
            .iter()
            .map(|(target, _)| target.to_string())
            .collect();
        names.join(",")
    }

    pub(crate) fn ready(&self) -> impl Iterator<Item = Target> {
        self.ready.iter().map(|(target, _)| *target)
    }

    /// A server of each kind that is not given already, the quickest to start, with the variable for its URL. What does not
    /// start is said, and left to the tests.
    pub(crate) async fn start_one_of_each(&self) -> Vec<(&'static str, Server)> {
        let mut started = Vec::new();
        for kind in ServerKind::ALL {
            let from = |origin| {
                self.ready()
                    .find(|target| target.kind == kind && target.origin == origin)
            };
            let target = from(Origin::LocalProcess).or_else(|| from(Origin::Container));
            let Some(target) = target.filter(|_| from(Origin::Url).is_none()) else {
                continue;
            };
            match target.request().start().await {
                Ok(server) => {
                    println!("for all of these tests: {}", server.describe());
                    started.push((kind.url_variable(), server));
                }
                Err(error) => println!("{target}: {error}"),
            }
        }
        started
    }

    pub(crate) fn count(&self) -> Count {
        let mut count = Count::default();
        self.ready.iter().for_each(|_| count.add(Count::one(true)));
        self.failed.iter().for_each(|_| count.add(Count::one(false)));
        if self.ready.is_empty() && self.failed.is_empty() {
            count.add(Count::one(false));
        }
        count.ignored = self.left_out.len() as u64;
        count
    }

    /// Prints the list; whether all that this machine is made for is there.
    pub(crate) fn print_and_judge(&self) -> bool {
        println!("\nTest servers:");
        for (target, what) in &self.ready {
            println!("  {target}: {what}");
        }
        for (target, reason) in &self.left_out {
            println!("  {target}: NOT run ({reason})");
        }
        for (target, reason) in &self.failed {
            println!("  {target}: FAILED ({reason})");
        }
        for kind in ServerKind::ALL {
            let none = !self.ready().any(|target| target.kind == kind);
            if none {
                let (program, variable) = (kind.program(), kind.url_variable());
                println!(
                    "  nothing to test {kind} with: run Docker and `cargo xtask servers`, install {program}, or set {variable}"
                );
            }
        }
        if !self.left_out.is_empty() {
            println!("  tests are told so by {LEAVE_OUT}={}", self.leave_out());
        }
        self.count().failed == 0
    }
}
