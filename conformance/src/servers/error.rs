//! What can go wrong with a test server.

use std::{error::Error, fmt, io, time::Duration};

use super::{Origin, ServerKind};

/// Why a test server could not be had, or did not obey.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServerError {
    /// No origin has such a server. The message says what was looked for and what to run.
    #[error("no {kind} server to test with: {}. Run `cargo xtask servers`, which gets what is missing, or set {} to the URL of a server that may be written to", joined(.tried), .kind.url_variable())]
    Unavailable {
        /// The kind asked for.
        kind: ServerKind,
        /// What was looked for, in order.
        tried: Vec<Missing>,
    },
    /// An environment variable has a value that makes no sense.
    #[error("{variable}: {reason}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong with it. Never quotes a password.
        reason: String,
    },
    /// The server was started, or given, and does not answer.
    #[error("{server} gave no answer within {waited:?}: {detail}")]
    NotReady {
        /// Which server.
        server: String,
        /// How long it had.
        waited: Duration,
        /// The last error, and the last lines of its log where there is one.
        detail: String,
    },
    /// The server was given by URL, so it is not ours to stop.
    #[error("{server} was given by URL: it cannot be stopped, restarted or paused from here")]
    NotOurs {
        /// Which server.
        server: String,
    },
    /// This kind of server cannot be had like that.
    #[error("{kind} servers are not made with {what}")]
    Unsupported {
        /// The kind asked for.
        kind: ServerKind,
        /// What cannot be.
        what: String,
    },
    /// Docker refused.
    #[error("Docker could not {action}: {source}")]
    Docker {
        /// What was tried.
        action: String,
        /// Its answer.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The operating system refused.
    #[error("could not {action}: {source}")]
    Io {
        /// What was tried.
        action: String,
        /// Its answer.
        source: io::Error,
    },
}

/// An origin that has no server, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missing {
    /// Where was looked.
    pub origin: Origin,
    /// Why there is none.
    pub reason: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "by {}: {}", self.origin, self.reason)
    }
}

fn joined(tried: &[Missing]) -> String {
    tried
        .iter()
        .map(Missing::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

impl ServerError {
    pub(super) fn docker(action: impl Into<String>) -> impl FnOnce(DockerCause) -> Self {
        let action = action.into();
        |cause| Self::Docker {
            action,
            source: cause.0,
        }
    }

    pub(super) fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        |source| Self::Io { action, source }
    }
}

/// The two error types that Docker's clients have, made one.
pub(super) struct DockerCause(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for DockerCause {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}
