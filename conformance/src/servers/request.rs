//! What is asked for, and the choice of where it comes from.

use std::{env, path::PathBuf};

use super::{
    Missing, Origin, Server, ServerError, ServerKind,
    clock::WallClock,
    container::{self, Container, Image, Setup},
    disk::Disk,
    engine::{Member, Place, Ports},
    process::{self, Process},
    server::Backend,
    tls::Certificates,
    user,
};

/// Somebody else may take a port between the moment it is found free and the moment the server has it.
const PORT_ATTEMPTS: u32 = 5;

/// Where a container has its small disk: a folder that no image has, because one would hand on its owner and rights.
pub(super) const SMALL_DISK: &str = "/small-disk";

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
    client_certificates: bool,
    disk: Option<u64>,
    wall_clock: bool,
    pub(super) member: Option<Member>,
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
#[derive(Debug, Clone)]
pub(super) enum Source {
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

pub(super) async fn locate(kind: ServerKind, origin: Origin, pull: bool) -> Result<Source, String> {
    match origin {
        Origin::Any => Err("not one origin".into()),
        Origin::Url => given_url(kind)
            .map(|url| Source::Url(kind, url))
            .ok_or_else(|| format!("{} is not set", kind.url_variable())),
        Origin::Container => container::find_image(kind.facts(), pull).await.map(Source::Image),
        Origin::LocalProcess => kind.find_program().map(Source::Program),
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
            client_certificates: false,
            disk: None,
            wall_clock: false,
            member: None,
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

    /// More arguments, after our own, so that they win: `["--maxmemory", "2mb"]`. For ZooKeeper, which takes none,
    /// they are lines of its configuration: `["maxSessionTimeout=5000"]`.
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Clients have to give this password, and [`Server::url`] has it.
    ///
    /// MySQL, MariaDB and PostgreSQL have users and passwords in any case, and etcd has users when there is a password;
    /// [`Server::admin_url`] is for the one who may do everything. ZooKeeper takes any password and thereby knows who
    /// made a node.
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

    /// As [`tls`](Self::tls), and clients have to show a certificate such as [`Server::client_certificate`]. Not for
    /// MySQL, MariaDB and PostgreSQL, where that is a matter of each user.
    pub fn client_certificates(mut self) -> Self {
        self.tls = true;
        self.client_certificates = true;
        self
    }

    /// Its data are on a disk of this many bytes, which [`Server::fill_disk`] fills. What the server allocated before, it
    /// can use even then.
    ///
    /// The disk is in memory. That of a process takes root, and lasts until the server is dropped; that of a container
    /// is empty after [`Server::stop`]. MySQL and MariaDB need some 200 MB to start, etcd and PostgreSQL 150 MB,
    /// ZooKeeper 4 MB, Redis one.
    pub fn disk_limit(mut self, bytes: u64) -> Self {
        self.disk = Some(bytes);
        self
    }

    /// [`Server::step_clock`] steps its wall clock, and no other's. Only a process can have that, and not etcd, which
    /// asks the kernel for the time. It needs a C compiler.
    ///
    /// The steps are seen by what reads the clock. What waits for a moment by the wall clock waits by the system's.
    pub fn wall_clock(mut self) -> Self {
        self.wall_clock = true;
        self
    }

    fn origins(&self) -> Vec<Origin> {
        let special =
            self.own || self.tls || self.password.is_some() || self.disk.is_some() || !self.args.is_empty();
        match self.origin {
            Origin::Any if self.wall_clock => vec![Origin::LocalProcess],
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
        let facts = self.kind.facts();
        let clock = facts.steps_clock && matches!(self.origin, Origin::Any | Origin::LocalProcess);
        for (wanted, possible, what) in [
            (
                self.client_certificates,
                facts.asks_for_certificates,
                "client certificates",
            ),
            (self.wall_clock, clock, "a wall clock of their own"),
        ] {
            if wanted && !possible {
                return Err(ServerError::Unsupported {
                    kind: self.kind,
                    what: what.into(),
                });
            }
        }
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
        if let Source::Url(_, url) = &source {
            return Server::given(self.kind, url).await;
        }
        let mut attempt = 1;
        loop {
            let launched = self.launch(&source).await;
            let tried = match launched {
                Ok(server) => server.ready().await,
                Err(error) => Err(error),
            };
            match tried {
                Err(error) if attempt < PORT_ATTEMPTS && container::is_taken_port(&error) => attempt += 1,
                done => return done,
            }
        }
    }

    /// Starts it, and does not wait.
    pub(super) async fn launch(&self, source: &Source) -> Result<Server, ServerError> {
        match source {
            Source::Url(kind, _) => Err(ServerError::Unsupported {
                kind: *kind,
                what: format!("what {} names", kind.url_variable()),
            }),
            Source::Image(image) => self.launch_container(image.clone()).await,
            Source::Program(program) => self.launch_process(program.clone()).await,
        }
    }

    /// A place in a container, or in a folder of this machine.
    fn place<'a>(
        &'a self,
        inside: Ports,
        outside: Ports,
        (bind, data, config): (&'a str, &'a str, &'a str),
    ) -> Place<'a> {
        Place {
            bind,
            ports: inside,
            outside,
            data,
            config,
            tls: self.tls,
            client_certificates: self.client_certificates,
            password: self.password.as_deref(),
            extra: &self.args,
            member: self.member.as_ref(),
        }
    }

    fn ports(&self) -> Result<Ports, ServerError> {
        let node = self
            .member
            .as_ref()
            .and_then(|member| member.nodes.get(member.me));
        if let Some(node) = node {
            return Ok(Ports {
                plain: node.client,
                tls: None,
            });
        }
        Ports::free(self.tls && self.kind.facts().tls_port.is_some())
    }

    async fn launch_container(&self, image: Image) -> Result<Server, ServerError> {
        let (engine, facts) = (self.kind.engine(), self.kind.facts());
        let outside = self.ports()?;
        // The nodes of a cluster find each other at the addresses that clients use: on the machine's own network.
        let (inside, bind) = match self.member {
            Some(_) => (outside, "127.0.0.1"),
            None => (facts.ports(), "0.0.0.0"),
        };
        let certificates = self.tls.then(Certificates::generate).transpose()?;
        let data = self.disk.map_or(facts.data, |_| SMALL_DISK);
        let place = self.place(inside, outside, (bind, data, "/leasehold"));
        let recipe = engine.container(&place);
        let mut setup = Setup {
            command: recipe.command,
            env: recipe.env,
            ports: Vec::new(),
            files: place.tls_files(certificates.as_ref()),
            own_network: self.member.is_none(),
            disk: self.disk.map(|bytes| (SMALL_DISK, bytes)),
        };
        if setup.own_network {
            setup.ports.push((outside.plain, inside.plain));
            setup.ports.extend(outside.tls.zip(inside.tls));
        }
        setup.files.extend(recipe.files);
        let backend = Backend::Container(Box::new(Container::start(image, setup).await?));
        Ok(self.server(Origin::Container, outside, certificates, backend))
    }

    async fn launch_process(&self, program: PathBuf) -> Result<Server, ServerError> {
        let (engine, facts) = (self.kind.engine(), self.kind.facts());
        let ports = self.ports()?;
        let certificates = self.tls.then(Certificates::generate).transpose()?;
        let folder = process::folder(facts.waits_for_disk)?;
        let config = folder.path().to_string_lossy().into_owned();
        let data = format!("{config}/data");
        std::fs::create_dir(&data).map_err(ServerError::io("make a folder for the server"))?;
        let user = user::of(facts.user);
        let disk = self.disk.map(|bytes| Disk::mount(data.as_ref(), bytes, user));
        let disk = disk.transpose()?;
        let clock = self
            .wall_clock
            .then(|| WallClock::make(folder.path()))
            .transpose()?;
        let place = self.place(ports, ports, ("127.0.0.1", &data, &config));
        let mut recipe = engine.process(&program, &place);
        recipe.files.extend(place.tls_files(certificates.as_ref()));
        let process = Process::start(program, recipe, folder, (user, disk, clock)).await?;
        let backend = Backend::Process(Box::new(process));
        Ok(self.server(Origin::LocalProcess, ports, certificates, backend))
    }

    fn server(
        &self,
        origin: Origin,
        ports: Ports,
        certificates: Option<Certificates>,
        backend: Backend,
    ) -> Server {
        let facts = self.kind.facts();
        let login = facts.login(self.password.as_deref());
        let host = ports.host(self.tls);
        let url = facts.url(&host, self.tls, &login);
        let admin_url = facts.url(&host, self.tls, &facts.admin(&login));
        let server = Server::new(
            self.kind,
            origin,
            (url, admin_url),
            ports.address(),
            login,
            backend,
        );
        server.with_certificates(certificates)
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
            plain.clone().client_certificates(),
            plain.clone().password("p"),
            plain.clone().disk_limit(1),
            plain.clone().wall_clock(),
            plain.clone().args(["--maxmemory", "2mb"]),
        ] {
            assert!(!special.origins().contains(&Origin::Url), "{special:?}");
        }
        assert_eq!(plain.origin(Origin::Container).origins(), [Origin::Container]);
    }
}
