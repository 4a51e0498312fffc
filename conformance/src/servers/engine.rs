//! What differs between one kind of server and another: a file for each kind has the answers.
//!
//! Every server hands an acknowledged write to the kernel before its reply leaves, so that SIGKILL loses none, and does not
//! wait for the disk: a loss of power is not what these servers are for, and a dozen of them would keep each other waiting.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::{sleep, timeout};

use super::{ServerError, port::free_port, process, tls::Certificates};

/// The database of an SQL server, and its user, who owns it and nothing else.
pub(super) const DATABASE: &str = "leasehold";
pub(super) const USER: &str = "leasehold";
pub(super) const PASSWORD: &str = "leasehold";
/// Who may do everything.
pub(super) const ADMIN: &str = "leasehold_admin";
pub(super) const ADMIN_PASSWORD: &str = "leasehold-admin";

const ATTEMPT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// What is known about a kind before it runs.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) name: &'static str,
    pub(super) url_variable: &'static str,
    /// The program on `PATH`.
    pub(super) program: &'static str,
    /// Debian's package that has the program.
    pub(super) package: Option<&'static str>,
    /// The system user of that package: as root we run the program as this one.
    pub(super) user: Option<&'static str>,
    /// Repository and tag of the image its makers publish.
    pub(super) official: (&'static str, &'static str),
    /// Repository and tag of the image that `cargo xtask servers` builds.
    pub(super) built: (&'static str, &'static str),
    /// The port of a container, inside it, and the one for TLS where that is another.
    pub(super) port: u16,
    pub(super) tls_port: Option<u16>,
    /// Whether a process waits for the disk whatever we say: then its data are better in memory.
    pub(super) waits_for_disk: bool,
    /// The folder of the data in a container.
    pub(super) data: &'static str,
    /// The scheme of its URL, and the one with TLS.
    pub(super) scheme: &'static str,
    pub(super) tls_scheme: &'static str,
    /// What its URL has at the end with TLS.
    pub(super) tls_options: &'static str,
    /// Other schemes that a URL given to us may have, without TLS.
    pub(super) other_schemes: &'static [&'static str],
    /// The path of its URL.
    pub(super) path: &'static str,
    /// Who the test is when there is a password.
    pub(super) login: LoginRule,
    /// Who the administrator is when there is a password; else the test is.
    pub(super) admin: Option<(&'static str, &'static str)>,
    /// Whether it can ask for client certificates.
    pub(super) asks_for_certificates: bool,
    /// Whether it asks the C library for the time.
    pub(super) steps_clock: bool,
    /// Whether several can be a cluster.
    pub(super) clusters: bool,
}

/// Who the test is.
#[derive(Debug)]
pub(super) enum LoginRule {
    /// Nobody, unless a password was asked for: then this user, if users have names.
    Optional(Option<&'static str>),
    /// Always [`USER`], with [`PASSWORD`] unless another was asked for.
    Always,
}

/// Where and how a server is to run.
#[derive(Debug)]
pub(super) struct Place<'a> {
    /// The address to listen at.
    pub(super) bind: &'a str,
    /// The ports to listen at, as the server sees them.
    pub(super) ports: Ports,
    /// The ports that clients use.
    pub(super) outside: Ports,
    /// An empty folder for its data.
    pub(super) data: &'a str,
    /// The folder of its [`Recipe::files`] and of the files of [`super::tls`].
    pub(super) config: &'a str,
    pub(super) tls: bool,
    pub(super) client_certificates: bool,
    pub(super) password: Option<&'a str>,
    /// More arguments; last, because the last of two values wins.
    pub(super) extra: &'a [String],
    /// Which node of a cluster it is.
    pub(super) member: Option<&'a Member>,
}

/// A node of a cluster on the loopback address.
#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) me: usize,
    pub(super) nodes: Vec<Node>,
}

/// The ports of a node: for clients, and for other nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) client: u16,
    pub(super) peer: u16,
    pub(super) election: u16,
}

/// How to start a server.
#[derive(Debug, Default)]
pub(super) struct Recipe {
    /// The program's path, or its name in a container, and its arguments.
    pub(super) command: Vec<String>,
    pub(super) env: Vec<(&'static str, String)>,
    /// Paths and contents.
    pub(super) files: Vec<(String, Vec<u8>)>,
    /// What a process needs to be run before its first start.
    pub(super) before: Vec<Before>,
    /// Whether a process leaves something behind on the machine unless it is asked to quit.
    pub(super) asked_to_quit: bool,
}

/// A program that fills the data folder.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) command: Vec<String>,
    pub(super) input: String,
}

/// A kind of server.
#[async_trait]
pub(super) trait Engine: fmt::Debug + Sync {
    fn facts(&self) -> &'static Facts;

    /// The program on this machine, or why there is none.
    fn find(&self) -> Result<PathBuf, String> {
        let program = self.facts().program;
        process::find(program).ok_or_else(|| format!("{program} is not on PATH"))
    }

    /// In a container: of the official image, and of ours, which has the same command, folders and variables.
    fn container(&self, place: &Place<'_>) -> Recipe;

    /// As a process.
    fn process(&self, program: &Path, place: &Place<'_>) -> Recipe;

    /// Asks it once whether it serves; its version, if it tells.
    async fn probe(&self, address: &str, login: &Login) -> io::Result<Option<String>>;

    /// Once, when it first answers.
    async fn prepare(&self, _address: &str, _login: &Login) -> io::Result<()> {
        Ok(())
    }

    /// Asks a node of a cluster whether it leads: if so, in which term.
    async fn leads(&self, _address: &str) -> io::Result<Option<u64>> {
        Ok(None)
    }

    /// A command that prints the version, for a server that tells it to nobody else.
    fn version_command(&self, _program: &str) -> Option<Vec<String>> {
        None
    }
}

/// A user's name and password.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Facts {
    /// Who the test is, with the password that was asked for.
    pub(super) fn login(&self, password: Option<&str>) -> Login {
        let user = match self.login {
            LoginRule::Optional(user) => user.filter(|_| password.is_some()),
            LoginRule::Always => Some(USER),
        };
        let password = match self.login {
            LoginRule::Optional(_) => password,
            LoginRule::Always => Some(password.unwrap_or(PASSWORD)),
        };
        Login {
            user: user.map(Into::into),
            password: password.map(Into::into),
        }
    }

    /// Who may do everything, on a server where `login` is the test's.
    pub(super) fn admin(&self, login: &Login) -> Login {
        match self.admin.filter(|_| login.password.is_some()) {
            Some((user, password)) => Login {
                user: Some(user.into()),
                password: Some(password.into()),
            },
            None => login.clone(),
        }
    }

    /// The URL at these hosts.
    pub(super) fn url(&self, hosts: &str, tls: bool, login: &Login) -> String {
        let (scheme, options) = match tls {
            true => (self.tls_scheme, self.tls_options),
            false => (self.scheme, ""),
        };
        let user = login.user.as_deref().map(encoded).unwrap_or_default();
        let password = login.password.as_deref();
        let password = password.map(|password| format!(":{}@", encoded(password)));
        let (login, path) = (password.unwrap_or_default(), self.path);
        format!("{scheme}://{user}{login}{hosts}{path}{options}")
    }

    pub(super) fn ports(&self) -> Ports {
        Ports {
            plain: self.port,
            tls: self.tls_port,
        }
    }
}

fn encoded(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

/// A port, and another for TLS where the server cannot have both at one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    pub(super) plain: u16,
    pub(super) tls: Option<u16>,
}

impl Ports {
    pub(super) fn free(second: bool) -> Result<Self, ServerError> {
        let find = || free_port().map_err(ServerError::io("find a free port"));
        let plain = find()?;
        let mut tls = second.then(find).transpose()?;
        while tls == Some(plain) {
            tls = Some(find()?);
        }
        Ok(Self { plain, tls })
    }

    pub(super) fn address(self) -> String {
        format!("127.0.0.1:{}", self.plain)
    }

    /// `host:port` for the URL.
    pub(super) fn host(self, tls: bool) -> String {
        let port = self.tls.filter(|_| tls).unwrap_or(self.plain);
        format!("127.0.0.1:{port}")
    }
}

impl Place<'_> {
    /// A file of the configuration folder.
    pub(super) fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.config)
    }

    /// The files of the certificates.
    pub(super) fn tls_files(&self, certificates: Option<&Certificates>) -> Vec<(String, Vec<u8>)> {
        let files = certificates.into_iter().flat_map(Certificates::files);
        files
            .map(|(name, content)| (self.file(name), content.into()))
            .collect()
    }
}

/// Waits until the server at `address` answers, for `limit` at most. Its version, if it tells.
pub(super) async fn ready(
    engine: &dyn Engine,
    server: &str,
    address: &str,
    login: &Login,
    limit: Duration,
) -> Result<Option<String>, ServerError> {
    let mut last = String::from("it was not asked");
    let asking = async {
        loop {
            match timeout(ATTEMPT, engine.probe(address, login)).await {
                Ok(Ok(version)) => return version,
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = format!("no reply in {ATTEMPT:?}"),
            }
            sleep(PAUSE).await;
        }
    };
    match timeout(limit, asking).await {
        Ok(version) => Ok(version),
        Err(_) => Err(ServerError::NotReady {
            server: server.into(),
            waited: limit,
            detail: last,
        }),
    }
}

/// The beginning and the end of a log: what is wrong with an argument comes first, then often a page of help.
pub(super) fn excerpt(log: &[u8]) -> String {
    const ENDS: usize = 12;
    let log = String::from_utf8_lossy(log);
    let lines: Vec<_> = log.lines().collect();
    match lines.len().checked_sub(2 * ENDS) {
        Some(more @ 1..) => {
            let (first, last) = (lines.get(..ENDS), lines.get(ENDS + more..));
            let joined = |part: Option<&[&str]>| part.unwrap_or_default().join("\n");
            format!("{}\n[{more} lines]\n{}", joined(first), joined(last))
        }
        _ => lines.join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::ServerKind;
    use super::*;

    fn url(kind: ServerKind, tls: bool, password: Option<&str>) -> String {
        let facts = kind.facts();
        facts.url("127.0.0.1:1", tls, &facts.login(password))
    }

    #[test]
    fn a_url_has_what_a_client_needs() {
        assert_eq!(url(ServerKind::Redis, false, None), "redis://127.0.0.1:1");
        assert_eq!(url(ServerKind::Valkey, true, None), "rediss://127.0.0.1:1");
        assert_eq!(
            url(ServerKind::Redis, false, Some("a b@/:ü")),
            "redis://:a%20b%40%2F%3A%C3%BC@127.0.0.1:1"
        );
        assert_eq!(url(ServerKind::Etcd, true, None), "etcds://127.0.0.1:1");
        assert_eq!(
            url(ServerKind::Etcd, false, Some("p")),
            "etcd://leasehold:p@127.0.0.1:1"
        );
        assert_eq!(url(ServerKind::ZooKeeper, false, None), "zk://127.0.0.1:1");
        assert_eq!(
            url(ServerKind::MariaDb, false, None),
            "mysql://leasehold:leasehold@127.0.0.1:1/leasehold"
        );
    }

    #[test]
    fn postgres_has_tls_by_an_option() {
        assert_eq!(
            url(ServerKind::Postgres, true, None),
            "postgres://leasehold:leasehold@127.0.0.1:1/leasehold?sslmode=require"
        );
    }

    #[test]
    fn a_long_log_is_cut_in_the_middle() {
        assert_eq!(excerpt(b"a\nb\n"), "a\nb");
        let log: String = (0..30).map(|line| format!("line {line}\n")).collect();
        let cut = excerpt(log.as_bytes());
        assert!(cut.starts_with("line 0\n") && cut.ends_with("\nline 29"), "{cut}");
        assert!(cut.contains("line 11\n[6 lines]\nline 18\n"), "{cut}");
    }

    #[test]
    fn the_administrator_is_another_where_there_are_users() {
        let facts = ServerKind::Postgres.facts();
        let admin = facts.admin(&facts.login(None));
        assert_eq!(admin.user.as_deref(), Some(ADMIN));
        let facts = ServerKind::Etcd.facts();
        assert_eq!(facts.admin(&facts.login(None)).user, None);
        assert_eq!(facts.admin(&facts.login(Some("p"))).user.as_deref(), Some("root"));
    }
}
