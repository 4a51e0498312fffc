//! A running server.

use std::{fmt, time::Duration};

use url::Url;

use super::{
    Origin, ServerError, ServerKind,
    container::Container,
    process::{Process, Signal},
    redis::{self, Login},
};

/// How long a started server may take to answer.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A running test server. Dropping it removes it: process, folder, container and volumes.
///
/// That holds as well when the test panics. When the test process is killed, a small `sh` that watches for its
/// end does the same (for containers it calls the `docker` program, and without one the container stays; its
/// label is `leasehold-test`).
pub struct Server {
    kind: ServerKind,
    origin: Origin,
    url: String,
    address: String,
    login: Login,
    ca: Option<String>,
    version: Option<String>,
    backend: Backend,
}

#[derive(Debug)]
pub(super) enum Backend {
    Given,
    Process(Process),
    Container(Box<Container>),
}

impl Server {
    pub(super) fn new(
        kind: ServerKind,
        origin: Origin,
        url: String,
        address: String,
        login: Login,
        backend: Backend,
    ) -> Self {
        Self {
            kind,
            origin,
            url,
            address,
            login,
            ca: None,
            version: None,
            backend,
        }
    }

    pub(super) fn with_ca(mut self, ca: Option<String>) -> Self {
        self.ca = ca;
        self
    }

    pub(super) async fn given(kind: ServerKind, text: &str) -> Result<Self, ServerError> {
        let variable = |reason: String| ServerError::Variable {
            variable: kind.url_variable().into(),
            reason,
        };
        let url = Url::parse(text).map_err(|error| variable(error.to_string()))?;
        let host = url
            .host_str()
            .ok_or_else(|| variable("no host in the URL".into()))?;
        let address = format!("{host}:{}", url.port().unwrap_or(redis::PORT));
        let decoded = |part: &str| {
            percent_encoding::percent_decode_str(part)
                .decode_utf8_lossy()
                .into_owned()
        };
        let login = Login {
            user: Some(decoded(url.username())).filter(|user| !user.is_empty()),
            password: url.password().map(decoded),
        };
        let server = Self::new(kind, Origin::Url, text.into(), address, login, Backend::Given);
        match url.scheme() {
            "redis" | "valkey" => server.ready().await,
            // The probe speaks plain text only; the driver under test will tell whether it answers.
            _ => Ok(server),
        }
    }

    /// Waits until it answers, and learns its version.
    pub(super) async fn ready(mut self) -> Result<Self, ServerError> {
        self.version = self.answer().await?;
        Ok(self)
    }

    async fn answer(&self) -> Result<Option<String>, ServerError> {
        let name = self.describe();
        let answered = async { redis::ready(&name, &self.address, &self.login, READY_LIMIT).await };
        let result = match &self.backend {
            Backend::Process(process) => tokio::select! {
                result = answered => result,
                () = ended(process) => Err(ServerError::NotReady {
                    server: name.clone(),
                    waited: Duration::ZERO,
                    detail: "it ended".into(),
                }),
            },
            _ => answered.await,
        };
        match result {
            Err(ServerError::NotReady {
                server,
                waited,
                detail,
            }) => {
                let detail = format!("{detail}\n{}", self.log_tail().await);
                Err(ServerError::NotReady {
                    server,
                    waited,
                    detail: detail.trim_end().into(),
                })
            }
            other => other,
        }
    }

    async fn log_tail(&self) -> String {
        match &self.backend {
            Backend::Given => String::new(),
            Backend::Process(process) => process.log_tail(),
            Backend::Container(container) => container.log_tail().await,
        }
    }

    /// Which server it is.
    #[must_use]
    pub fn kind(&self) -> ServerKind {
        self.kind
    }

    /// Where it came from: never [`Origin::Any`].
    #[must_use]
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// The URL to connect with, password included. It stays the same over a restart.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `host:port` where it speaks plain text. It stays the same over a restart.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The version that the server tells, such as `8.0.2`.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The certificate, in PEM, that signed the server's own, when [`ServerRequest::tls`] asked for one.
    ///
    /// [`ServerRequest::tls`]: super::ServerRequest::tls
    #[must_use]
    pub fn ca_certificate(&self) -> Option<&str> {
        self.ca.as_deref()
    }

    /// The process id of a local server while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.backend {
            Backend::Process(process) => process.pid(),
            _ => None,
        }
    }

    /// What it is and where it came from, for a person: `redis 8.0.2 by testcontainers, image redis:8, at
    /// 127.0.0.1:21234`. Never a password.
    #[must_use]
    pub fn describe(&self) -> String {
        let version = self
            .version
            .as_ref()
            .map(|version| format!(" {version}"))
            .unwrap_or_default();
        let from = match &self.backend {
            Backend::Given => format!("given by {}", self.kind.url_variable()),
            Backend::Process(process) => format!("as a local process, {}", process.program().display()),
            Backend::Container(container) => format!("by testcontainers, image {}", container.image()),
        };
        format!("{}{version} {from}, at {}", self.kind, self.address)
    }

    /// Whether [`stop`](Self::stop), [`restart`](Self::restart) and [`pause`](Self::pause) work: not on a server
    /// that was given by URL.
    #[must_use]
    pub fn can_restart(&self) -> bool {
        !matches!(self.backend, Backend::Given)
    }

    /// Kills it with SIGKILL, paused or not, and waits until it is gone. Its port and its data stay for
    /// [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// [`ServerError::NotOurs`] for a server given by URL; [`ServerError::Docker`].
    pub async fn stop(&self) -> Result<(), ServerError> {
        match &self.backend {
            Backend::Given => Err(self.not_ours()),
            Backend::Process(process) => {
                process.stop();
                Ok(())
            }
            Backend::Container(container) => container.stop().await,
        }
    }

    /// Starts it again after [`stop`](Self::stop), with the same port and data, and waits until it answers.
    ///
    /// # Errors
    /// [`ServerError::NotOurs`] for a server given by URL; [`ServerError::NotReady`]; [`ServerError::Docker`];
    /// [`ServerError::Io`].
    pub async fn start_again(&self) -> Result<(), ServerError> {
        match &self.backend {
            Backend::Given => return Err(self.not_ours()),
            Backend::Process(process) => process.start_again()?,
            Backend::Container(container) => container.start_again().await?,
        }
        self.answer().await.map(drop)
    }

    /// [`stop`](Self::stop), then [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// As those two.
    pub async fn restart(&self) -> Result<(), ServerError> {
        self.stop().await?;
        self.start_again().await
    }

    /// Stops its process in its tracks (SIGSTOP): connections stay open, and nothing is answered.
    ///
    /// # Errors
    /// [`ServerError::NotOurs`] for a server given by URL; [`ServerError::Docker`]; [`ServerError::Io`].
    pub async fn pause(&self) -> Result<(), ServerError> {
        self.signal(Signal::Pause).await
    }

    /// Lets it go on after [`pause`](Self::pause) (SIGCONT).
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub async fn resume(&self) -> Result<(), ServerError> {
        self.signal(Signal::Resume).await
    }

    async fn signal(&self, signal: Signal) -> Result<(), ServerError> {
        match &self.backend {
            Backend::Given => Err(self.not_ours()),
            Backend::Process(process) => process.signal(signal),
            Backend::Container(container) => container.signal(signal).await,
        }
    }

    fn not_ours(&self) -> ServerError {
        ServerError::NotOurs {
            server: self.describe(),
        }
    }
}

/// Comes when the process has ended by itself.
async fn ended(process: &Process) {
    while !process.has_ended() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.describe()).finish()
    }
}
