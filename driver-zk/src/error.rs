//! What a failure of the client or the server means to the caller.

use lockcore::{Error, ErrorKind};
use zookeeper_client::Error as ZkError;

/// By kind. The client's messages name no credential.
pub(crate) fn from_client(error: ZkError) -> Error {
    let (kind, message) = match &error {
        ZkError::ConnectionLoss | ZkError::SessionMoved => (
            ErrorKind::Unavailable,
            "the connection broke before the answer came",
        ),
        ZkError::SessionExpired | ZkError::ClientClosed => {
            (ErrorKind::Unavailable, "the session ended before the answer came")
        }
        ZkError::Timeout | ZkError::NoHosts => (
            ErrorKind::Unavailable,
            "no server could be reached: check the addresses and, with TLS, the certificates",
        ),
        ZkError::Throttled => (ErrorKind::Unavailable, "the server is overloaded"),
        ZkError::NotReadOnly => (
            ErrorKind::Unavailable,
            "the server has lost its quorum and takes no writes",
        ),
        ZkError::Custom(_) => (ErrorKind::Unavailable, "the connection failed"),
        ZkError::NoAuth => (
            ErrorKind::Denied,
            "the server refuses this login what a lock needs: see the access control lists in the driver's documentation",
        ),
        ZkError::AuthFailed => (ErrorKind::Denied, "the server refuses the login"),
        ZkError::InvalidAcl => (
            ErrorKind::Denied,
            "the server does not take our access control list: with `acl=creator` it wants a login",
        ),
        ZkError::QuotaExceeded => (
            ErrorKind::Denied,
            "the quota of the path is used up: raise it, or set `znode.container.checkIntervalMs` lower",
        ),
        ZkError::Unimplemented => (
            ErrorKind::Unsupported,
            "the server lacks an operation: it takes ZooKeeper 3.5.3 or newer",
        ),
        ZkError::BadArguments(_) => (ErrorKind::Invalid, "the client refuses the request"),
        _ => (ErrorKind::Internal, "an answer that was not expected"),
    };
    Error::new(kind, message).with_source(error)
}

/// Can the request that failed so have taken effect, or still do?
pub(crate) fn is_uncertain(error: &ZkError) -> bool {
    matches!(
        error,
        ZkError::ConnectionLoss
            | ZkError::Timeout
            | ZkError::Custom(_)
            | ZkError::SessionMoved
            | ZkError::UnexpectedError(_)
            | ZkError::UnmarshalError { .. }
    )
}

/// Does it say that the session is gone?
pub(crate) fn ends_session(error: &ZkError) -> bool {
    matches!(error, ZkError::SessionExpired)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (error, kind) in [
            (ZkError::ConnectionLoss, ErrorKind::Unavailable),
            (ZkError::SessionExpired, ErrorKind::Unavailable),
            (ZkError::ClientClosed, ErrorKind::Unavailable),
            (ZkError::NoHosts, ErrorKind::Unavailable),
            (ZkError::Timeout, ErrorKind::Unavailable),
            (ZkError::Throttled, ErrorKind::Unavailable),
            (ZkError::NotReadOnly, ErrorKind::Unavailable),
            (ZkError::NoAuth, ErrorKind::Denied),
            (ZkError::AuthFailed, ErrorKind::Denied),
            (ZkError::InvalidAcl, ErrorKind::Denied),
            (ZkError::QuotaExceeded, ErrorKind::Denied),
            (ZkError::Unimplemented, ErrorKind::Unsupported),
            (ZkError::BadArguments(&"path"), ErrorKind::Invalid),
            (ZkError::NodeExists, ErrorKind::Internal),
            (ZkError::UnexpectedErrorCode(-1), ErrorKind::Internal),
        ] {
            assert_eq!(from_client(error.clone()).kind(), kind, "{error:?}");
        }
    }

    #[test]
    fn what_may_have_happened() {
        assert!(is_uncertain(&ZkError::ConnectionLoss));
        for error in [ZkError::NoNode, ZkError::NoAuth, ZkError::BadVersion] {
            assert!(!is_uncertain(&error), "{error:?}");
        }
    }
}
