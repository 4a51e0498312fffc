//! Several servers that are one: etcd and ZooKeeper.

use std::{collections::BTreeSet, fmt, time::Duration};

use futures_util::future::{join_all, try_join_all};
use tokio::time::{Instant, sleep, timeout};

use super::{
    Missing, Origin, Server, ServerError, ServerKind, ServerRequest,
    container::is_taken_port,
    engine::{Member, Node},
    port::free_port,
    request::{Source, locate},
};

const ATTEMPTS: u32 = 5;
/// A node that is paused does not answer at all.
const ASK_LIMIT: Duration = Duration::from_millis(500);
const LEADER_LIMIT: Duration = Duration::from_secs(30);

/// A cluster that is wanted. Start it with [`start`](Self::start).
///
/// ```no_run
/// # async fn demo() -> Result<(), leasehold_conformance::servers::ServerError> {
/// use leasehold_conformance::servers::{ClusterRequest, ServerKind};
///
/// let cluster = ClusterRequest::new(ServerKind::Etcd).start().await?;
/// println!("{}", cluster.url()); // etcd://127.0.0.1:21001,127.0.0.1:21004,127.0.0.1:21007
/// let leader = cluster.leader().await?;
/// cluster.node(leader).pause().await?;
/// let next = cluster.leader().await?;
/// assert_ne!(leader, next);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct ClusterRequest {
    kind: ServerKind,
    origin: Origin,
    nodes: usize,
    args: Vec<String>,
}

impl ClusterRequest {
    /// Three nodes: local processes where the machine has the program, else containers on the machine's network.
    pub fn new(kind: ServerKind) -> Self {
        Self {
            kind,
            origin: Origin::Any,
            nodes: 3,
            args: Vec::new(),
        }
    }

    /// Only from here. A URL is no origin of a cluster.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// How many nodes.
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// More arguments for each node, as [`ServerRequest::args`].
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Starts it and waits until every node answers, and one leads.
    ///
    /// # Errors
    /// As [`ServerRequest::start`], and [`ServerError::Unsupported`] for a kind that has no clusters.
    pub async fn start(&self) -> Result<Cluster, ServerError> {
        if !self.kind.facts().clusters {
            return Err(ServerError::Unsupported {
                kind: self.kind,
                what: "several nodes".into(),
            });
        }
        let origins = match self.origin {
            Origin::Any => vec![Origin::LocalProcess, Origin::Container],
            one => vec![one],
        };
        let mut tried = Vec::new();
        for origin in origins {
            match locate(self.kind, origin, true).await {
                Ok(source) => {
                    let mut attempt = 1;
                    loop {
                        match Box::pin(self.start_from(&source)).await {
                            Err(error) if attempt < ATTEMPTS && is_taken_port(&error) => attempt += 1,
                            done => return done,
                        }
                    }
                }
                Err(reason) => tried.push(Missing { origin, reason }),
            }
        }
        Err(ServerError::Unavailable {
            kind: self.kind,
            tried,
        })
    }

    async fn start_from(&self, source: &Source) -> Result<Cluster, ServerError> {
        let mut launched = Vec::new();
        // None waits for the others yet.
        for node in self.requests()? {
            launched.push(node.launch(source).await?);
        }
        let nodes = try_join_all(launched.into_iter().map(Server::ready)).await?;
        Cluster::of(self.kind, nodes).await
    }

    fn requests(&self) -> Result<Vec<ServerRequest>, ServerError> {
        let mut ports = BTreeSet::new();
        while ports.len() < 3 * self.nodes {
            ports.insert(free_port().map_err(ServerError::io("find a free port"))?);
        }
        let ports: Vec<_> = ports.into_iter().collect();
        let nodes: Vec<_> = ports
            .chunks_exact(3)
            .filter_map(|ports| match *ports {
                [client, peer, election] => Some(Node {
                    client,
                    peer,
                    election,
                }),
                _ => None,
            })
            .collect();
        let request = |me| {
            let mut request = ServerRequest::new(self.kind).args(self.args.clone());
            request.member = Some(Member {
                me,
                nodes: nodes.clone(),
            });
            request
        };
        Ok((0..self.nodes).map(request).collect())
    }
}

/// A running cluster. Dropping it removes it, as [`Server`].
pub struct Cluster {
    kind: ServerKind,
    nodes: Vec<Server>,
    url: String,
}

impl Cluster {
    async fn of(kind: ServerKind, nodes: Vec<Server>) -> Result<Self, ServerError> {
        let hosts: Vec<_> = nodes.iter().map(Server::address).collect();
        let facts = kind.facts();
        let url = facts.url(&hosts.join(","), false, &facts.login(None));
        let cluster = Self { kind, nodes, url };
        cluster.leader().await?;
        Ok(cluster)
    }

    /// The URL of all nodes together.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The nodes, each of which can be stopped, started again, paused and resumed. A node of etcd answers, and so
    /// comes back, only when a majority is up: for more than one at a time there is [`restart`](Self::restart).
    #[must_use]
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "as it says")]
    pub fn node(&self, index: usize) -> &Server {
        &self.nodes[index]
    }

    /// The node that leads, as soon as one says so that answers. Where two do, the one of the later term.
    ///
    /// # Errors
    /// [`ServerError::NotReady`] when there is none within half a minute.
    pub async fn leader(&self) -> Result<usize, ServerError> {
        let end = Instant::now() + LEADER_LIMIT;
        while Instant::now() < end {
            if let Some(leader) = self.look_for_leader().await {
                return Ok(leader);
            }
            sleep(Duration::from_millis(50)).await;
        }
        Err(ServerError::NotReady {
            server: format!("{self:?}"),
            waited: LEADER_LIMIT,
            detail: "no node leads".into(),
        })
    }

    async fn look_for_leader(&self) -> Option<usize> {
        let engine = self.kind.engine();
        let asked = self
            .nodes
            .iter()
            .map(|node| timeout(ASK_LIMIT, engine.leads(node.address())));
        let replies = join_all(asked).await.into_iter().enumerate();
        let leaders = replies.filter_map(|(node, reply)| Some((reply.ok()?.ok()??, node)));
        leaders.max().map(|(_, node)| node)
    }

    /// Kills all nodes with SIGKILL, and starts them again with the same ports and data.
    ///
    /// # Errors
    /// As [`Server::restart`].
    pub async fn restart(&self) -> Result<(), ServerError> {
        try_join_all(self.nodes.iter().map(Server::stop)).await?;
        try_join_all(self.nodes.iter().map(Server::start_again)).await?;
        self.leader().await.map(drop)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.nodes).finish()
    }
}
