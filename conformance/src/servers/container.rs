//! A server in a container, run by testcontainers.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::mpsc,
    thread,
    time::Duration,
};

use futures_util::StreamExt;
use testcontainers::{
    ContainerAsync, GenericImage, ImageExt,
    bollard::{
        Docker,
        query_parameters::{
            CreateImageOptionsBuilder, KillContainerOptionsBuilder, ListContainersOptionsBuilder,
            RemoveContainerOptionsBuilder,
        },
    },
    core::{ExecCommand, IntoContainerPort, Mount, client::docker_client_instance},
    runners::AsyncRunner,
};
use tokio::{
    runtime,
    sync::Mutex,
    time::{timeout, timeout_at},
};

use super::{
    ServerError,
    engine::{Facts, excerpt},
    process::Signal,
    reaper::Reaper,
};

/// On every container of ours, with a value of its own: it finds a container whose start went wrong half-way, and
/// lets a person find what a crash of the machine left (`docker ps -a --filter label=leasehold-test`).
const LABEL: &str = "leasehold-test";

const ENGINE_LIMIT: Duration = Duration::from_secs(30);
/// A registry that cannot be reached must not cost a test more than this.
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);
const PULL_LIMIT: Duration = Duration::from_secs(180);
const START_LIMIT: Duration = Duration::from_secs(60);

/// An image that is on this machine.
#[derive(Debug, Clone)]
pub(super) struct Image {
    repository: &'static str,
    tag: &'static str,
}

impl Image {
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

/// How to run an image.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(&'static str, String)>,
    /// Host port, port inside.
    pub(super) ports: Vec<(u16, u16)>,
    /// Path inside, content.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// Else it is on the machine's.
    pub(super) own_network: bool,
    /// A small disk: its path inside, and how many bytes it has.
    pub(super) disk: Option<(&'static str, u64)>,
}

#[derive(Debug)]
pub(super) struct Container {
    image: Image,
    small_disk: bool,
    /// `None` once dropped.
    inner: Option<ContainerAsync<GenericImage>>,
    /// `None` where there is no `sh`.
    _reaper: Option<Reaper>,
}

/// Docker's API, for something that is to be done.
async fn engine_to(action: &str) -> Result<Docker, ServerError> {
    docker()
        .await
        .map_err(|reason| ServerError::docker(action)(reason.into()))
}

/// Docker's API, at a version that the engine speaks.
async fn docker() -> Result<Docker, String> {
    if let Ok(host) = std::env::var("DOCKER_HOST")
        && !["unix:", "npipe:"].iter().any(|local| host.starts_with(local))
    {
        return Err(format!(
            "Docker at DOCKER_HOST={host} is not on this machine, and ports would not be"
        ));
    }
    let connecting = async {
        let docker = docker_client_instance()
            .await
            .map_err(|error| error.to_string())?;
        docker
            .negotiate_version()
            .await
            .map_err(|error| format!("no Docker engine answers ({error})"))
    };
    timeout(ENGINE_LIMIT, connecting)
        .await
        .unwrap_or_else(|_| Err(format!("no Docker engine answers within {ENGINE_LIMIT:?}")))
}

/// An image for this kind: one that is here, the official one first; else, with `pull`, the official one from its
/// registry. The error says why there is none.
pub(super) async fn find_image(facts: &Facts, pull: bool) -> Result<Image, String> {
    let docker = docker().await?;
    let images = [facts.official, facts.built].map(|(repository, tag)| Image { repository, tag });
    for image in &images {
        if docker.inspect_image(&image.name()).await.is_ok() {
            return Ok(image.clone());
        }
    }
    let [official, built] = images;
    let absent = format!("neither image {} nor {} is here", official.name(), built.name());
    if !pull {
        return Err(absent);
    }
    match pull_image(&docker, &official).await {
        Ok(()) => Ok(official),
        Err(reason) => Err(format!("{absent}, and the first cannot be pulled ({reason})")),
    }
}

async fn pull_image(docker: &Docker, image: &Image) -> Result<(), String> {
    let options = CreateImageOptionsBuilder::new()
        .from_image(image.repository)
        .tag(image.tag)
        .build();
    let mut progress = docker.create_image(Some(options), None, None);
    let end = tokio::time::Instant::now() + PULL_LIMIT;
    // The first message comes when the registry has answered.
    let mut next = timeout(REGISTRY_LIMIT, progress.next())
        .await
        .map_err(|_| format!("no registry answers within {REGISTRY_LIMIT:?}"))?;
    while let Some(message) = next {
        message.map_err(|error| error.to_string())?;
        next = timeout_at(end, progress.next())
            .await
            .map_err(|_| format!("not here within {PULL_LIMIT:?}"))?;
    }
    Ok(())
}

/// Whether a failed start is worth another try with other ports.
pub(super) fn is_taken_port(error: &ServerError) -> bool {
    let text = error.to_string().to_lowercase();
    text.contains("port is already allocated") || text.contains("address already in use")
}

impl Container {
    pub(super) async fn start(image: Image, setup: Setup) -> Result<Self, ServerError> {
        let leftovers = Leftovers::of(mark());
        let reaper = Reaper::of_containers(&format!("{LABEL}={}", leftovers.mark)).ok();
        let mut request = GenericImage::new(image.repository, image.tag)
            .with_cmd(setup.command)
            .with_labels([(LABEL, leftovers.mark.clone())])
            .with_startup_timeout(START_LIMIT)
            .with_host_config_modifier(move |config| {
                if !setup.own_network {
                    config.network_mode = Some("host".into());
                }
                for binding in config
                    .port_bindings
                    .iter_mut()
                    .flat_map(|ports| ports.values_mut())
                    .flatten()
                    .flatten()
                {
                    binding.host_ip = Some("127.0.0.1".into());
                }
                negotiate();
            });
        if let Some((path, bytes)) = setup.disk {
            let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
            // For whoever the server is inside.
            let disk = Mount::tmpfs_mount(path).with_size_bytes(bytes).with_mode(0o1777);
            request = request.with_mount(disk);
        }
        for (name, value) in setup.env {
            request = request.with_env_var(name, value);
        }
        for (host, inside) in setup.ports {
            request = request.with_mapped_port(host, inside.tcp());
        }
        for (path, content) in setup.files {
            request = request.with_copy_to(path, content);
        }
        // The hook blocks its thread while it uses the client. Another start on the same thread must not have it then.
        static STARTS: Mutex<()> = Mutex::const_new(());
        let _alone = STARTS.lock().await;
        let inner = request
            .start()
            .await
            .map_err(|error| ServerError::docker(format!("run {}", image.name()))(error.into()))?;
        leftovers.none();
        Ok(Self {
            image,
            small_disk: setup.disk.is_some(),
            inner: Some(inner),
            _reaper: reaper,
        })
    }

    pub(super) async fn start_again(&self) -> Result<(), ServerError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        inner
            .start()
            .await
            .map_err(|error| ServerError::docker("start the container again")(error.into()))
    }

    /// Whether it ended by itself, as it does on a bad argument.
    pub(super) async fn has_ended(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.is_running().await.is_ok_and(|runs| !runs),
            None => true,
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(super) async fn stop(&self) -> Result<(), ServerError> {
        self.send("SIGKILL", "kill the container").await?;
        let Some(inner) = &self.inner else { return Ok(()) };
        let gone = async {
            while inner.is_running().await? {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok::<_, testcontainers::TestcontainersError>(())
        };
        match timeout(ENGINE_LIMIT, gone).await {
            Ok(done) => done.map_err(|error| ServerError::docker("watch the container end")(error.into())),
            Err(late) => Err(ServerError::docker("end the container")(late.into())),
        }
    }

    /// The signal goes to the server itself rather than to Docker's freezer, which not every engine has and which
    /// would refuse SIGKILL meanwhile. Where the server has other processes it goes to those as well: the first one is
    /// stopped first, so that it starts no more of them. It is over when all of them stand, as far as this machine sees
    /// them: an engine elsewhere shows its processes to nobody.
    pub(super) async fn signal(&self, signal: Signal, others: bool) -> Result<(), ServerError> {
        let all = |signal: &str| ["sh", "-c", &format!("kill -{signal} -1")].map(String::from);
        match signal {
            Signal::Pause => {
                self.send("SIGSTOP", "pause the container").await?;
                if others {
                    self.run(all("STOP")).await?;
                }
                let pid = self.pid("pause the container").await?;
                #[cfg(unix)]
                pid.into_iter().for_each(super::tree::stopped);
                #[cfg(not(unix))]
                drop(pid);
                Ok(())
            }
            Signal::Resume => {
                if others {
                    self.run(all("CONT")).await?;
                }
                self.send("SIGCONT", "resume the container").await
            }
        }
    }

    /// Runs a command inside; what it printed.
    pub(super) async fn run(&self, command: impl IntoIterator<Item = String>) -> Result<String, ServerError> {
        let Some(inner) = &self.inner else {
            return Ok(String::new());
        };
        let command: Vec<_> = command.into_iter().collect();
        let action = format!("run `{}` in the container", command.join(" "));
        let running = async {
            let mut done = inner.exec(ExecCommand::new(command)).await?;
            done.stdout_to_vec().await
        };
        match timeout(ENGINE_LIMIT, running).await {
            Ok(Ok(output)) => Ok(String::from_utf8_lossy(&output).into_owned()),
            Ok(Err(error)) => Err(ServerError::docker(action)(error.into())),
            Err(late) => Err(ServerError::docker(action)(late.into())),
        }
    }

    /// The id that its first process has outside.
    async fn pid(&self, action: &str) -> Result<Option<u32>, ServerError> {
        let Some(inner) = &self.inner else { return Ok(None) };
        let inspected = engine_to(action).await?.inspect_container(inner.id(), None).await;
        let inspected = inspected.map_err(|error| ServerError::docker(action)(error.into()))?;
        let pid = inspected.state.and_then(|state| state.pid);
        Ok(pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0))
    }

    async fn send(&self, signal: &str, action: &str) -> Result<(), ServerError> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        engine_to(action)
            .await?
            .kill_container(inner.id(), Some(options))
            .await
            .map_err(|error| ServerError::docker(action)(error.into()))
    }

    pub(super) async fn log_excerpt(&self) -> String {
        let Some(inner) = &self.inner else {
            return String::new();
        };
        let mut log = inner.stdout_to_vec().await.unwrap_or_default();
        log.extend(inner.stderr_to_vec().await.unwrap_or_default());
        excerpt(&log)
    }

    pub(super) fn has_small_disk(&self) -> bool {
        self.small_disk
    }

    pub(super) fn image(&self) -> String {
        self.image.name()
    }
}

/// Removes what a start leaves that fails or is cancelled: testcontainers forgets such a container.
struct Leftovers {
    mark: String,
    any: bool,
}

impl Leftovers {
    fn of(mark: String) -> Self {
        Self { mark, any: true }
    }

    fn none(mut self) {
        self.any = false;
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        if self.any {
            let label = format!("{LABEL}={}", self.mark);
            on_own_runtime(async move { timeout(ENGINE_LIMIT, remove(&label)).await.is_ok() });
        }
    }
}

async fn remove(label: &str) -> Option<()> {
    let docker = docker().await.ok()?;
    let filters = HashMap::from([("label", vec![label])]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .filters(&filters)
        .build();
    for container in docker.list_containers(Some(options)).await.ok()? {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        docker.remove_container(&container.id?, Some(options)).await.ok();
    }
    Some(())
}

/// A label value that no other container has.
fn mark() -> String {
    format!("{}-{:016x}", std::process::id(), RandomState::new().hash_one(()))
}

/// Makes testcontainers' own client speak a version that the engine knows.
///
/// testcontainers 0.28 asks for the newest API and never negotiates, which engines before Docker 29 refuse. Its
/// client is shared but lives only as long as somebody uses it, so the one moment when it can be reached before
/// its first request is inside `start`, where only this synchronous hook runs.
fn negotiate() {
    // An engine that does not answer here will not answer the request that follows, which reports it.
    on_own_runtime(async { docker().await.is_ok() });
}

/// Runs `future` to its end on a thread with a runtime of its own, wherever the caller is: on any kind of
/// runtime, on none, or unwinding.
fn on_own_runtime<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().ok()?;
        sender.send(runtime.block_on(future)).ok()
    });
    receiver.recv().ok()
}

impl Drop for Container {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            // testcontainers' own clean-up panics outside a runtime, and here it may be a panic that drops us.
            on_own_runtime(async move { drop(inner) });
        }
    }
}
