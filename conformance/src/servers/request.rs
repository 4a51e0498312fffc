//! What is asked for, and the choice of where it comes from.

use std::{env, path::PathBuf};

use tempfile::TempDir;

use super::{
    Missing, Origin, Server, ServerError, ServerKind,
    container::{self, Container, Image, Setup},
    port::free_port,
    process::{self, Process},
    redis::{self, Login, Place},
    server::Backend,
    tls::Certificates,
};

/// Somebody else may take a port between the moment it is found free and the moment the server has it.
const PORT_ATTEMPTS: u32 = 5;

/// A server that is wanted, and what is special about it. Start it with [`start`](Self::start).
#[derive(Debug, Clone)]
#[must_use]
pub struct ServerRequest {
    kind: ServerKind,
    origin: Origin,
    own: bool,
    args: Vec<String>,
    password: Option<String>,
    tls: bool,
}

/// An origin that has a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Offer {
    /// Where it comes from.
    pub origin: Origin,
    /// The variable, image or program. Never a password.
    pub what: String,
}

/// Where a server of this kind could come from, in the order of choice, and why the other origins have none.
/// Starts and downloads nothing.
pub async fn survey(kind: ServerKind) -> Vec<Result<Offer, Missing>> {
    let mut found = Vec::new();
    for origin in [Origin::Url, Origin::Container, Origin::LocalProcess] {
        found.push(match locate(kind, origin, false).await {
            Ok(source) => Ok(Offer {
                origin,
                what: source.to_string(),
            }),
            Err(reason) => Err(Missing { origin, reason }),
        });
    }
    found
}

/// A server that was found and not yet started.
#[derive(Debug)]
enum Source {
    Url(ServerKind, String),
    Image(Image),
    Program(PathBuf),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Url(kind, _) => f.write_str(kind.url_variable()),
            Self::Image(image) => write!(f, "image {}", image.name()),
            Self::Program(path) => write!(f, "program {}", path.display()),
        }
    }
}

pub(super) fn given_url(kind: ServerKind) -> Option<String> {
    env::var(kind.url_variable()).ok().filter(|url| !url.is_empty())
}

async fn locate(kind: ServerKind, origin: Origin, pull: bool) -> Result<Source, String> {
    match origin {
        Origin::Any => Err("not one origin".into()),
        Origin::Url => given_url(kind)
            .map(|url| Source::Url(kind, url))
            .ok_or_else(|| format!("{} is not set", kind.url_variable())),
        Origin::Container => container::find_image(kind.facts(), pull).await.map(Source::Image),
        Origin::LocalProcess => process::find(kind.program())
            .map(Source::Program)
            .ok_or_else(|| format!("{} is not on PATH", kind.program())),
    }
}

impl ServerRequest {
    /// A server of this kind, from wherever there is one.
    pub fn new(kind: ServerKind) -> Self {
        Self {
            kind,
            origin: Origin::Any,
            own: false,
            args: Vec::new(),
            password: None,
            tls: false,
        }
    }

    /// Only from here.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// A server of the test's own, which it can restart, fill and empty. Implied by everything that follows.
    pub fn own(mut self) -> Self {
        self.own = true;
        self
    }

    /// More arguments, after our own, so that they win: `["--maxmemory", "2mb"]`.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Clients have to give this password, and [`Server::url`] has it.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// The server speaks TLS at [`Server::url`], with a certificate for `localhost` and `127.0.0.1` signed by
    /// [`Server::ca_certificate`]. It also speaks plain text at [`Server::address`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    fn origins(&self) -> Vec<Origin> {
        let special = self.own || self.tls || self.password.is_some() || !self.args.is_empty();
        match self.origin {
            Origin::Any if special => vec![Origin::Container, Origin::LocalProcess],
            Origin::Any => vec![Origin::Url, Origin::Container, Origin::LocalProcess],
            one => vec![one],
        }
    }

    /// Starts it and waits until it answers; a minute at most, three more when its image is being pulled.
    ///
    /// # Errors
    /// [`ServerError::Unavailable`] when no origin that was asked for has one, [`ServerError::NotReady`] when it
    /// was started and does not answer, [`ServerError::Variable`] for a URL that is none, and
    /// [`ServerError::Docker`] or [`ServerError::Io`]. A server that was found and fails is an error: the next
    /// origin is not tried.
    pub async fn start(&self) -> Result<Server, ServerError> {
        let mut tried = Vec::new();
        for origin in self.origins() {
            match locate(self.kind, origin, true).await {
                Ok(source) => return Box::pin(self.start_from(source)).await,
                Err(reason) => tried.push(Missing { origin, reason }),
            }
        }
        Err(ServerError::Unavailable {
            kind: self.kind,
            tried,
        })
    }

    async fn start_from(&self, source: Source) -> Result<Server, ServerError> {
        let mut attempt = 1;
        loop {
            let tried = match &source {
                Source::Url(_, url) => return Server::given(self.kind, url).await,
                Source::Image(image) => self.start_container(image.clone()).await,
                Source::Program(program) => self.start_process(program.clone()).await,
            };
            match tried {
                Err(error) if attempt < PORT_ATTEMPTS && container::is_taken_port(&error) => attempt += 1,
                done => return done,
            }
        }
    }

    async fn start_container(&self, image: Image) -> Result<Server, ServerError> {
        let ports = Ports::free(self.tls)?;
        let certificates = self.tls.then(Certificates::generate).transpose()?;
        let place = Place {
            bind: "0.0.0.0",
            port: redis::PORT,
            data: "/data",
            tls: self.tls.then_some((redis::TLS_PORT, "/tls")),
            password: self.password.as_deref(),
            extra: &self.args,
        };
        let mut setup = Setup {
            ports: vec![(ports.plain, redis::PORT)],
            ..Setup::default()
        };
        setup.ports.extend(ports.tls.map(|port| (port, redis::TLS_PORT)));
        setup.command.push(self.kind.program().into());
        setup.command.extend(redis::arguments(&place));
        for (name, content) in certificates.iter().flat_map(Certificates::files) {
            setup.files.push((format!("/tls/{name}"), content.into()));
        }
        let backend = Backend::Container(Box::new(Container::start(image, setup).await?));
        self.server(Origin::Container, &ports, certificates, backend)
            .await
    }

    async fn start_process(&self, program: PathBuf) -> Result<Server, ServerError> {
        let ports = Ports::free(self.tls)?;
        let certificates = self.tls.then(Certificates::generate).transpose()?;
        let folder = process::folder()?;
        write_files(&folder, certificates.as_ref())?;
        let path = folder.path().to_string_lossy();
        let place = Place {
            bind: "127.0.0.1",
            port: ports.plain,
            data: &path,
            tls: ports.tls.map(|port| (port, path.as_ref())),
            password: self.password.as_deref(),
            extra: &self.args,
        };
        let args = redis::arguments(&place);
        let backend = Backend::Process(Process::start(program, args, folder)?);
        self.server(Origin::LocalProcess, &ports, certificates, backend)
            .await
    }

    async fn server(
        &self,
        origin: Origin,
        ports: &Ports,
        certificates: Option<Certificates>,
        backend: Backend,
    ) -> Result<Server, ServerError> {
        let login = Login {
            user: None,
            password: self.password.clone(),
        };
        let url = ports.url(self.password.as_deref());
        let server = Server::new(self.kind, origin, url, ports.address(), login, backend);
        server.with_ca(certificates.map(|all| all.ca)).ready().await
    }
}

fn write_files(folder: &TempDir, certificates: Option<&Certificates>) -> Result<(), ServerError> {
    for (name, content) in certificates.iter().flat_map(|all| all.files()) {
        std::fs::write(folder.path().join(name), content)
            .map_err(ServerError::io("write the server's certificate"))?;
    }
    Ok(())
}

/// The ports on this machine.
struct Ports {
    plain: u16,
    tls: Option<u16>,
}

impl Ports {
    fn free(tls: bool) -> Result<Self, ServerError> {
        let find = || free_port().map_err(ServerError::io("find a free port"));
        let plain = find()?;
        let mut second = tls.then(find).transpose()?;
        while second == Some(plain) {
            second = Some(find()?);
        }
        Ok(Self { plain, tls: second })
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.plain)
    }

    fn url(&self, password: Option<&str>) -> String {
        let (scheme, port) = self.tls.map_or(("redis", self.plain), |port| ("rediss", port));
        let login = password.map_or(String::new(), |password| {
            format!(
                ":{}@",
                percent_encoding::utf8_percent_encode(password, percent_encoding::NON_ALPHANUMERIC)
            )
        });
        format!("{scheme}://{login}127.0.0.1:{port}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_special_is_not_asked_of_a_server_given_by_url() {
        let plain = ServerRequest::new(ServerKind::Redis);
        assert!(plain.origins().contains(&Origin::Url));
        for special in [
            plain.clone().own(),
            plain.clone().tls(),
            plain.clone().password("p"),
            plain.clone().args(["--maxmemory", "2mb"]),
        ] {
            assert!(!special.origins().contains(&Origin::Url), "{special:?}");
        }
        assert_eq!(plain.origin(Origin::Container).origins(), [Origin::Container]);
    }

    #[test]
    fn a_password_is_encoded() {
        let ports = Ports { plain: 1, tls: None };
        assert_eq!(
            ports.url(Some("a b@/:ü")),
            "redis://:a%20b%40%2F%3A%C3%BC@127.0.0.1:1"
        );
        assert_eq!(ports.url(None), "redis://127.0.0.1:1");
        assert_eq!(
            Ports {
                plain: 1,
                tls: Some(2)
            }
            .url(None),
            "rediss://127.0.0.1:2"
        );
    }
}
