//! A running server.

use std::{fmt, time::Duration};

use lockcore::Endpoint;

use super::{
    Origin, ServerError, ServerKind,
    container::Container,
    engine::{self, Login},
    process::{self, Process, Signal},
    tls::{self, Certificates, Pair},
};

/// How long a started server may take to answer. The official images of SQL servers make their data at the first start.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// A running test server. Dropping it removes it: process, folder, container and volumes.
///
/// That holds as well when the test panics. When the test process is killed, a small `sh` that watches for its
/// end does the same (for containers it calls the `docker` program, and without one the container stays; its
/// label is `leasehold-test`).
pub struct Server {
    kind: ServerKind,
    origin: Origin,
    url: String,
    admin_url: String,
    address: String,
    login: Login,
    certificates: Option<Certificates>,
    version: Option<String>,
    pub(super) backend: Backend,
}

#[derive(Debug)]
pub(super) enum Backend {
    Given,
    Process(Box<Process>),
    Container(Box<Container>),
}

impl Server {
    pub(super) fn new(
        kind: ServerKind,
        origin: Origin,
        (url, admin_url): (String, String),
        address: String,
        login: Login,
        backend: Backend,
    ) -> Self {
        Self {
            kind,
            origin,
            url,
            admin_url,
            address,
            login,
            certificates: None,
            version: None,
            backend,
        }
    }

    pub(super) fn with_certificates(mut self, certificates: Option<Certificates>) -> Self {
        self.certificates = certificates;
        self
    }

    pub(super) async fn given(kind: ServerKind, text: &str) -> Result<Self, ServerError> {
        let facts = kind.facts();
        let variable = |reason: String| ServerError::Variable {
            variable: facts.url_variable.into(),
            reason,
        };
        let url = Endpoint::parse(text).map_err(|error| variable(error.to_string()))?;
        let (host, port) = url
            .hosts()
            .first()
            .ok_or_else(|| variable("no host in the URL".into()))?;
        let address = format!("{host}:{}", port.unwrap_or(facts.port));
        let login = Login {
            user: url.user().map(Into::into),
            password: url.password().map(|password| password.expose().into()),
        };
        let urls = (text.into(), text.into());
        let server = Self::new(kind, Origin::Url, urls, address, login, Backend::Given);
        // The probe speaks plain text only; the driver under test will tell whether it answers.
        match facts.scheme == url.scheme() || facts.other_schemes.contains(&url.scheme()) {
            true => server.answering().await,
            false => Ok(server),
        }
    }

    /// Waits until it first answers, and learns its version.
    pub(super) async fn ready(self) -> Result<Self, ServerError> {
        let mut server = self.answering().await?;
        let engine = server.kind.engine();
        let prepared = engine.prepare(&server.address, &server.login).await;
        prepared.map_err(ServerError::io(format!("prepare {}", server.describe())))?;
        server.ask_version().await?;
        Ok(server)
    }

    async fn answering(mut self) -> Result<Self, ServerError> {
        self.version = self.answer().await?;
        Ok(self)
    }

    /// Of a server that tells its version only to who has logged in.
    async fn ask_version(&mut self) -> Result<(), ServerError> {
        let engine = self.kind.engine();
        let output = match &self.backend {
            Backend::Given => None,
            Backend::Process(process) => match engine.version_command(&process.program().to_string_lossy()) {
                Some(command) => Some(process::output_of(&command).await?),
                None => None,
            },
            Backend::Container(container) => match engine.version_command(engine.facts().program) {
                Some(command) => Some(container.run(command).await?),
                None => None,
            },
        };
        if let Some(output) = output {
            let is_version = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
            self.version = output.split_whitespace().find(is_version).map(Into::into);
        }
        Ok(())
    }

    async fn answer(&self) -> Result<Option<String>, ServerError> {
        let name = self.describe();
        let engine = self.kind.engine();
        let answered = async {
            let version = engine::ready(engine, &name, &self.address, &self.login, READY_LIMIT).await?;
            self.speaking_tls().await;
            Ok(version)
        };
        let result = tokio::select! {
            result = answered => result,
            () = self.ended() => Err(ServerError::NotReady {
                server: name.clone(),
                waited: Duration::ZERO,
                detail: "it ended".into(),
            }),
        };
        match result {
            Err(ServerError::NotReady {
                server,
                waited,
                detail,
            }) => {
                let detail = format!("{detail}\n{}", self.log_excerpt().await);
                Err(ServerError::NotReady {
                    server,
                    waited,
                    detail: detail.trim_end().into(),
                })
            }
            other => other,
        }
    }

    /// Waits until it also answers where it speaks TLS and nothing else: some open that port last.
    async fn speaking_tls(&self) {
        let (Some(_), Ok(url)) = (&self.certificates, Endpoint::parse(&self.url)) else {
            return;
        };
        for (host, port) in url.hosts() {
            let Some(port) = *port else { continue };
            let address = format!("{host}:{port}");
            if address == self.address {
                continue;
            }
            let speaks = async {
                while !tls::answers(&address).await.unwrap_or_default() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            // Else the driver under test will tell.
            tokio::time::timeout(READY_LIMIT, speaks).await.ok();
        }
    }

    /// Comes when it has ended by itself.
    async fn ended(&self) {
        loop {
            let (ended, pause) = match &self.backend {
                Backend::Given => (false, Duration::MAX),
                Backend::Process(process) => (process.has_ended(), Duration::from_millis(50)),
                Backend::Container(container) => (container.has_ended().await, Duration::from_millis(500)),
            };
            if ended {
                return;
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn log_excerpt(&self) -> String {
        match &self.backend {
            Backend::Given => String::new(),
            Backend::Process(process) => process.log_excerpt(),
            Backend::Container(container) => container.log_excerpt().await,
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

    /// As [`url`](Self::url), for the one who may do everything: of a server with users, another than the test's.
    #[must_use]
    pub fn admin_url(&self) -> &str {
        &self.admin_url
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
        self.certificates.as_ref().map(|all| all.ca.as_str())
    }

    /// A client's certificate and its key, in PEM, signed by [`ca_certificate`](Self::ca_certificate). Its common name
    /// is `leasehold`.
    #[must_use]
    pub fn client_certificate(&self) -> Option<(&str, &str)> {
        let Pair { cert, key } = &self.certificates.as_ref()?.client;
        Some((cert, key))
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

    /// Stops its process in its tracks (SIGSTOP), and waits until it stands: connections stay open, and nothing is
    /// answered.
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
            Backend::Container(container) => {
                container.signal(signal, self.kind == ServerKind::Postgres).await
            }
        }
    }

    pub(super) fn not_ours(&self) -> ServerError {
        ServerError::NotOurs {
            server: self.describe(),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Server").field(&self.describe()).finish()
    }
}
