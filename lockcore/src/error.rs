//! One error type; its kind tells the caller what to do.

use std::fmt;

use crate::holder::Holder;
use crate::loss::LossReason;
use crate::name::LockName;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller should do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The wait was over before the lock was free. Try again later; [`Error::holder`] says who has it, if known.
    Timeout,
    /// The lock was lost: stop the work that it protected. [`Error::loss`] says why.
    Lost,
    /// The backend could not be reached or did not answer in time. The only kind that is worth a retry.
    Unavailable,
    /// The backend refused the credentials or the operation. Fix the login or its rights.
    Denied,
    /// A name, an option or a URL is wrong. Fix the call.
    Invalid,
    /// This backend cannot do what was asked. Use another backend or another option.
    Unsupported,
    /// The manager was closed.
    Closed,
    /// A bug, or a backend that broke its own rules. Report it.
    Internal,
}

impl ErrorKind {
    /// A short lower-case name, stable for logs and scripts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Lost => "lost",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Unsupported => "unsupported",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

type Source = Box<dyn std::error::Error + Send + Sync>;

struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    backend: Option<&'static str>,
    name: Option<LockName>,
    holder: Option<Holder>,
    loss: Option<LossReason>,
    source: Option<Source>,
}

/// What went wrong, in which operation, on which backend and lock, and why.
///
/// Neither `Display` nor `Debug` shows a credential: drivers keep them out of messages and sources.
pub struct Error(Box<Inner>);

impl Error {
    /// An error of `kind`; `message` says what went wrong and what to do about it.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            backend: None,
            name: None,
            holder: None,
            loss: None,
            source: None,
        }))
    }

    /// Adds the error below this one.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    pub(crate) fn with_holder(mut self, holder: Option<Holder>) -> Self {
        self.0.holder = holder;
        self
    }

    pub(crate) fn with_loss(mut self, reason: LossReason) -> Self {
        self.0.loss = Some(reason);
        self
    }

    /// Says where it happened. Parts that are already known stay.
    #[must_use]
    pub(crate) fn at(
        mut self,
        operation: &'static str,
        backend: &'static str,
        name: Option<&LockName>,
    ) -> Self {
        self.0.operation.get_or_insert(operation);
        self.0.backend.get_or_insert(backend);
        if self.0.name.is_none() {
            self.0.name = name.cloned();
        }
        self
    }

    /// What to do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What went wrong and what to do, without the place and the source.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Is the same call worth another try? True for [`ErrorKind::Unavailable`] alone.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.kind == ErrorKind::Unavailable
    }

    /// The operation that failed, such as `acquire`.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// The backend's name, such as `memory`.
    #[must_use]
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The lock's name.
    #[must_use]
    pub fn name(&self) -> Option<&LockName> {
        self.0.name.as_ref()
    }

    /// Who held the lock when a wait was over, as far as the backend told.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        self.0.holder.as_ref()
    }

    /// Why the lock was lost, for [`ErrorKind::Lost`].
    #[must_use]
    pub fn loss(&self) -> Option<LossReason> {
        self.0.loss
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        if let Some(operation) = inner.operation {
            f.write_str(operation)?;
            if let Some(name) = &inner.name {
                write!(f, " {name}")?;
            }
            if let Some(backend) = inner.backend {
                write!(f, " ({backend})")?;
            }
            f.write_str(": ")?;
        }
        f.write_str(&inner.message)?;
        let mut source = inner
            .source
            .as_ref()
            .map(|source| source.as_ref() as &dyn std::error::Error);
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        f.debug_struct("Error")
            .field("kind", &inner.kind)
            .field("operation", &inner.operation)
            .field("backend", &inner.backend)
            .field("name", &inner.name)
            .field("message", &inner.message)
            .field("holder", &inner.holder)
            .field("loss", &inner.loss)
            .field("source", &inner.source)
            .finish()
    }
}

impl std::error::Error for Error {
    // The source's text is part of ours already: reporters that print the chain would print it twice.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_where_and_why() {
        let name = LockName::new("orders/42").unwrap();
        let error = Error::new(ErrorKind::Unavailable, "no answer")
            .with_source(std::io::Error::other("refused"))
            .at("acquire", "memory", Some(&name))
            .at("other", "other", None);
        assert_eq!(
            error.to_string(),
            "acquire \"orders/42\" (memory): no answer: refused"
        );
        assert!(error.is_retryable());
    }
}
