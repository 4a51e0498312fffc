//! What a proxy is told to do.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A way through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    ToServer = 0,
    /// From the server to the client.
    ToClient = 1,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cut {
    /// In order, with FIN.
    Close,
    /// At once, with RST.
    Reset,
}

/// Who learns that a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Both.
    Both,
    /// The client alone. The server keeps a half-open connection: it can send, and hears nothing any more.
    Client,
    /// The server alone.
    Server,
}

/// What becomes of new connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Entrance {
    /// They are carried to the server.
    #[default]
    Open,
    /// They are reset at once.
    Refuse,
    /// They are accepted, and nothing happens until the entrance is open again.
    Ignore,
}

/// What happens to the connection in which a trap has struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Then {
    /// It is cut on both sides.
    Cut(Cut),
    /// It stays open, and nothing gets through any more, either way.
    Stall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prey {
    Request,
    Reply,
}

type Matcher = Arc<dyn Fn(&[u8]) -> bool + Send + Sync>;

/// Strikes at one request: at what the client sends at a time, which is one request where it does not pipeline.
#[derive(Clone)]
pub struct Trap {
    pub(super) prey: Prey,
    pub(super) then: Then,
    pub(super) pass: u32,
    matching: Option<Matcher>,
}

impl fmt::Debug for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trap")
            .field("prey", &self.prey)
            .field("then", &self.then)
            .field("pass", &self.pass)
            .finish_non_exhaustive()
    }
}

impl Trap {
    const fn new(prey: Prey, then: Then) -> Self {
        Self {
            prey,
            then,
            pass: 0,
            matching: None,
        }
    }

    /// The server never sees the request.
    #[must_use]
    pub const fn request(then: Then) -> Self {
        Self::new(Prey::Request, then)
    }

    /// The server gets the request, and the client no answer: what comes from the server next on that connection is
    /// dropped, and the connection with it.
    #[must_use]
    pub const fn reply(then: Then) -> Self {
        Self::new(Prey::Reply, then)
    }

    /// Lets the first `requests` pass.
    #[must_use]
    pub const fn after(mut self, requests: u32) -> Self {
        self.pass = requests;
        self
    }

    /// Waits for a request that `matching` says yes to, by its bytes. The others are not counted by
    /// [`after`](Self::after).
    #[must_use]
    pub fn matching(mut self, matching: impl Fn(&[u8]) -> bool + Send + Sync + 'static) -> Self {
        self.matching = Some(Arc::new(matching));
        self
    }

    /// Waits for a request that contains `word`.
    #[must_use]
    pub fn containing(self, word: impl Into<Vec<u8>>) -> Self {
        let word = word.into();
        self.matching(move |request| {
            word.is_empty() || request.windows(word.len()).any(|window| window == word)
        })
    }

    pub(super) fn wants(&self, request: &[u8]) -> bool {
        self.matching.as_ref().is_none_or(|matching| matching(request))
    }
}

/// What has come through a proxy, or one of its connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Traffic {
    /// Connections that were accepted; 1 for a connection.
    pub accepted: u64,
    /// Connections that were refused.
    pub refused: u64,
    /// Connections that are open.
    pub open: u64,
    /// Times that something was forwarded to the server.
    pub requests: u64,
    /// Bytes that were forwarded to the server.
    pub to_server: u64,
    /// Bytes that were forwarded to the client.
    pub to_client: u64,
}

/// The rules for all connections, or for one.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub(super) entrance: Entrance,
    pub(super) stalled: [bool; 2],
    pub(super) delay: [Duration; 2],
    pub(super) cut: Option<(Side, Cut)>,
}
