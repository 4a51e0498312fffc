//! What a failure of the client or the server means to the caller.

use std::error::Error as StdError;

use etcd_client::Error as ClientError;
use lockcore::{Error, ErrorKind};

/// The numbers of gRPC's status codes.
mod code {
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const OUT_OF_RANGE: i32 = 11;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAUTHENTICATED: i32 = 16;
}

/// What the server's words mean. The first that the message has counts.
const MESSAGES: &[(&str, ErrorKind, &str)] = &[
    (
        "authentication failed",
        ErrorKind::Denied,
        "the server refuses the user name or the password",
    ),
    (
        "authentication is not enabled",
        ErrorKind::Denied,
        "the server has authentication switched off and takes no login: take it out of the URL",
    ),
    (
        "user name is empty",
        ErrorKind::Denied,
        "the server wants a login: put it into the URL",
    ),
    (
        "permission denied",
        ErrorKind::Denied,
        "the user lacks a right: its role needs readwrite on the prefix, see the driver's documentation",
    ),
    (
        "invalid auth token",
        ErrorKind::Unavailable,
        "the login has run out, logging in again",
    ),
    (
        "revision of auth store is old",
        ErrorKind::Unavailable,
        "the server's users were changed, logging in again",
    ),
    (
        "database space exceeded",
        ErrorKind::Unavailable,
        "the server's database is full and takes no writes: compact and defragment it, and disarm its alarm",
    ),
    (
        "too many operations in txn",
        ErrorKind::Unsupported,
        "the server allows too few operations in one transaction: set its max-txn-ops to the default of 128",
    ),
    (
        "too large Lease TTL",
        ErrorKind::Invalid,
        "the server refuses so long a TTL",
    ),
];

/// Do these words of the server say that our login is of no more use?
pub(crate) fn wants_login(error: &ClientError) -> bool {
    let ClientError::GRpcStatus(status) = error else {
        return false;
    };
    let message = status.message();
    i32::from(status.code()) == code::UNAUTHENTICATED
        || message.contains("invalid auth token")
        || message.contains("revision of auth store is old")
}

/// The server does not know the lease (any more).
pub(crate) fn is_lease_gone(error: &ClientError) -> bool {
    match error {
        ClientError::GRpcStatus(status) => status.message().contains("requested lease not found"),
        ClientError::LeaseKeepAliveError(message) => message.contains("lease not found"),
        _ => false,
    }
}

/// There is a lease of this id.
pub(crate) fn is_lease_there(error: &ClientError) -> bool {
    matches!(error, ClientError::GRpcStatus(status) if status.message().contains("lease already exists"))
}

/// The reply is larger than the client reads.
pub(crate) fn is_too_long(error: &ClientError) -> bool {
    matches!(error, ClientError::GRpcStatus(status) if i32::from(status.code()) == code::OUT_OF_RANGE)
}

/// The connection ended before there was an answer.
pub(crate) fn gone() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the connection ended before the answer came",
    )
}

/// A failure of the client library.
pub(crate) fn from_client(error: &ClientError) -> Error {
    match error {
        ClientError::GRpcStatus(status) => from_status(
            i32::from(status.code()),
            status.message(),
            StdError::source(status),
        ),
        ClientError::TransportError(transport) => {
            from_transport("the connection failed", StdError::source(transport))
        }
        ClientError::InvalidArgs(_) | ClientError::InvalidUri(_) | ClientError::InvalidMetadataValue(_) => {
            Error::new(ErrorKind::Invalid, "the client cannot connect like this").with_source(shown(error))
        }
        ClientError::IoError(_)
        | ClientError::WatchError(_)
        | ClientError::LeaseKeepAliveError(_)
        | ClientError::EndpointError(_) => {
            Error::new(ErrorKind::Unavailable, "the connection failed").with_source(shown(error))
        }
        _ => Error::new(ErrorKind::Internal, "the client failed").with_source(shown(error)),
    }
}

fn from_status(code: i32, message: &str, source: Option<&(dyn StdError + 'static)>) -> Error {
    if let Some((_, kind, advice)) = MESSAGES.iter().find(|(words, ..)| message.contains(words)) {
        return Error::new(*kind, *advice);
    }
    let (kind, what) = match code {
        code::PERMISSION_DENIED | code::UNAUTHENTICATED => {
            (ErrorKind::Denied, "the server refuses the login or its rights")
        }
        code::RESOURCE_EXHAUSTED => (ErrorKind::Unavailable, "the server has too much to do"),
        code::UNIMPLEMENTED => (
            ErrorKind::Unsupported,
            "what answers there is no etcd of version 3.4 or newer",
        ),
        // No words of the server: the transport failed.
        _ if !message.starts_with("etcdserver:") && code != code::OUT_OF_RANGE => {
            return from_transport(message, source);
        }
        // No leader, leader changed, timed out, stopped.
        14 | 4 | 1 => (ErrorKind::Unavailable, "the server cannot answer now"),
        _ => (ErrorKind::Internal, "the server refused a request"),
    };
    Error::new(kind, what).with_source(plain(message))
}

/// TLS shows only in what is below the transport's error.
fn from_transport(message: &str, mut source: Option<&(dyn StdError + 'static)>) -> Error {
    let mut last = String::new();
    while let Some(error) = source {
        last = error.to_string();
        source = error.source();
    }
    let below = plain(&last);
    if below.contains("invalid peer certificate") {
        return Error::new(
            ErrorKind::Denied,
            "the server's certificate is not trusted, see tls_ca",
        )
        .with_source(below);
    }
    if below.contains("received fatal alert") {
        return Error::new(
            ErrorKind::Denied,
            "the server refuses the TLS handshake: it may want a client certificate, see tls_cert",
        )
        .with_source(below);
    }
    let what = if below.is_empty() { plain(message) } else { below };
    Error::new(ErrorKind::Unavailable, "the connection failed").with_source(what)
}

fn shown(error: &ClientError) -> String {
    plain(&error.to_string())
}

/// Somebody else's words, short and on one line.
fn plain(text: &str) -> String {
    text.chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_what_the_server_says() {
        for (code, message, kind) in [
            (
                3,
                "etcdserver: authentication failed, invalid user ID or password",
                ErrorKind::Denied,
            ),
            (9, "etcdserver: authentication is not enabled", ErrorKind::Denied),
            (3, "etcdserver: user name is empty", ErrorKind::Denied),
            (7, "etcdserver: permission denied", ErrorKind::Denied),
            (16, "etcdserver: invalid auth token", ErrorKind::Unavailable),
            (
                3,
                "etcdserver: revision of auth store is old",
                ErrorKind::Unavailable,
            ),
            (14, "etcdserver: no leader", ErrorKind::Unavailable),
            (14, "etcdserver: leader changed", ErrorKind::Unavailable),
            (14, "etcdserver: request timed out", ErrorKind::Unavailable),
            (
                8,
                "etcdserver: mvcc: database space exceeded",
                ErrorKind::Unavailable,
            ),
            (8, "etcdserver: too many requests", ErrorKind::Unavailable),
            (
                3,
                "etcdserver: too many operations in txn request",
                ErrorKind::Unsupported,
            ),
            (
                3,
                "etcdserver: duplicate key given in txn request",
                ErrorKind::Internal,
            ),
            (12, "unknown service etcdserverpb.KV", ErrorKind::Unsupported),
            (2, "transport error", ErrorKind::Unavailable),
            (13, "h2 protocol error: http2 error", ErrorKind::Unavailable),
            (14, "tcp connect error", ErrorKind::Unavailable),
        ] {
            assert_eq!(from_status(code, message, None).kind(), kind, "{message}");
        }
    }

    #[test]
    fn tls_is_told_from_the_rest() {
        let refused = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        let error = from_status(14, "tcp connect error", Some(&refused));
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
        let refused = std::io::Error::other("received fatal alert: CertificateRequired");
        assert_eq!(from_transport("", Some(&refused)).kind(), ErrorKind::Denied);
    }
}
