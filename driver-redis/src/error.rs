//! What a failure of the client or the server means to the caller.

use std::error::Error as _;

use lockcore::{Error, ErrorKind};
use redis::{ErrorKind as ClientKind, RedisError, ServerError};

/// What the first word of an error reply means, and what to do about it. What is not listed is
/// [`Internal`](ErrorKind::Internal).
const REPLIES: &[(&str, ErrorKind, &str)] = &[
    (
        "NOAUTH",
        ErrorKind::Denied,
        "the server wants a password: put it into the URL",
    ),
    (
        "WRONGPASS",
        ErrorKind::Denied,
        "the server refuses the user name or the password",
    ),
    (
        "NOPERM",
        ErrorKind::Denied,
        "the user lacks a right: see the ACL line in the driver's documentation",
    ),
    (
        "DENIED",
        ErrorKind::Denied,
        "the server is in protected mode and refuses other machines",
    ),
    (
        "OOM",
        ErrorKind::Unavailable,
        "the server is out of memory and takes no new locks: raise its maxmemory or make room",
    ),
    (
        "LOADING",
        ErrorKind::Unavailable,
        "the server is still loading its data",
    ),
    (
        "BUSY",
        ErrorKind::Unavailable,
        "the server is blocked by somebody's script",
    ),
    ("TRYAGAIN", ErrorKind::Unavailable, "the server asks to try again"),
    (
        "MASTERDOWN",
        ErrorKind::Unavailable,
        "the server is a replica that lost its primary",
    ),
    (
        "READONLY",
        ErrorKind::Unavailable,
        "the server is a replica: connect to its primary",
    ),
    ("CLUSTERDOWN", ErrorKind::Unavailable, "the cluster is down"),
    (
        "MISCONF",
        ErrorKind::Unavailable,
        "the server cannot save its data and takes no writes",
    ),
    (
        "NOREPLICAS",
        ErrorKind::Unavailable,
        "the server lacks the replicas that it wants for a write",
    ),
    (
        "MOVED",
        ErrorKind::Unsupported,
        "the server is a node of a Redis Cluster: connect to a single server",
    ),
    (
        "ASK",
        ErrorKind::Unsupported,
        "the server is a node of a Redis Cluster: connect to a single server",
    ),
    (
        "CROSSSLOT",
        ErrorKind::Unsupported,
        "the server is a node of a Redis Cluster: connect to a single server",
    ),
    (
        "NOPROTO",
        ErrorKind::Unsupported,
        "the server has no RESP3: use Redis 6.2 or newer",
    ),
    (
        "DB index",
        ErrorKind::Invalid,
        "the server has no database of this number",
    ),
    (
        "WRONGTYPE",
        ErrorKind::Internal,
        "a key under leasehold: was written by something else",
    ),
];

/// An error reply of the server.
pub(crate) fn from_server(error: &ServerError) -> Error {
    reply(error.code(), error.details().unwrap_or_default())
}

fn reply(code: &str, details: &str) -> Error {
    let code = effective_code(code, details);
    let (kind, advice) = REPLIES.iter().find(|(known, ..)| *known == code).map_or(
        (ErrorKind::Internal, "the server refused a command"),
        |(_, kind, advice)| (*kind, *advice),
    );
    Error::new(kind, advice).with_source(shown(code, details))
}

/// Some errors have a plain `ERR` in front, or are wrapped by what a script adds.
fn effective_code<'a>(code: &'a str, details: &str) -> &'a str {
    if code != "ERR" {
        return code;
    }
    if details.contains("max number of clients") {
        return "TRYAGAIN";
    }
    // Redis before 7 reports what a command inside a script was refused for as a plain error of the script.
    let wrapped = [
        ("DB index", "DB index is out of range"),
        ("NOPERM", "no permissions to run"),
        ("NOPERM", "can't access"),
        ("NOPERM", "can't run this command"),
        ("NOPERM", "No permissions"),
        ("NOPERM", "ACL failure in script"),
        ("OOM", "OOM command not allowed"),
        ("READONLY", "READONLY You can't write"),
        ("MISCONF", "MISCONF "),
        ("WRONGTYPE", "WRONGTYPE "),
        ("NOREPLICAS", "NOREPLICAS "),
    ];
    wrapped
        .into_iter()
        .find(|(_, text)| details.contains(text))
        .map_or(code, |(code, _)| code)
}

/// The server's words, without the arguments of a script that some of them repeat.
fn shown(code: &str, details: &str) -> String {
    let short: String = details
        .chars()
        .take(200)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    format!("{code} {short}").trim_end().to_owned()
}

/// A failure of the client library.
pub(crate) fn from_client(error: &RedisError) -> Error {
    match error.kind() {
        ClientKind::Server(_) | ClientKind::Extension => {
            reply(error.code().unwrap_or("ERR"), error.detail().unwrap_or_default())
        }
        ClientKind::AuthenticationFailed => Error::new(
            ErrorKind::Denied,
            "the server refuses the user name or the password",
        )
        .with_source(shown("", error.detail().unwrap_or_default())),
        ClientKind::RESP3NotSupported => Error::new(
            ErrorKind::Unsupported,
            "the server has no RESP3: use Redis 6.2 or newer",
        ),
        ClientKind::InvalidClientConfig | ClientKind::Client => {
            Error::new(ErrorKind::Invalid, "the client cannot connect like this")
                .with_source(error.to_string())
        }
        ClientKind::Parse => Error::new(
            ErrorKind::Unavailable,
            "what answers there does not speak the Redis protocol",
        ),
        ClientKind::Io if refuses_us(error) => Error::new(
            ErrorKind::Denied,
            "the server refuses the TLS handshake: it may want a client certificate, see tls_cert",
        )
        .with_source(error.to_string()),
        ClientKind::Io => {
            Error::new(ErrorKind::Unavailable, "the connection failed").with_source(error.to_string())
        }
        _ => Error::new(ErrorKind::Internal, "the client failed").with_source(error.to_string()),
    }
}

/// With TLS 1.3 the server's refusal of our certificate comes when the handshake is over for us.
fn refuses_us(error: &RedisError) -> bool {
    let io = error
        .source()
        .and_then(|source| source.downcast_ref::<std::io::Error>());
    let inner = io.and_then(std::io::Error::get_ref);
    inner.is_some_and(|inner| {
        matches!(
            inner.downcast_ref::<rustls::Error>(),
            Some(rustls::Error::AlertReceived(_))
        )
    })
}

/// The connection ended while an answer was due: the request may have been applied.
pub(crate) fn gone() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the connection broke before the answer came",
    )
}

/// The server answered with something that is not in the protocol.
pub(crate) fn unexpected(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("the server's answer to {what} has an unknown form"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Error {
        let value = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        match value {
            redis::Value::ServerError(error) => {
                let direct = from_server(&error);
                let through_client = from_client(&RedisError::from(error));
                assert_eq!(direct.kind(), through_client.kind(), "{line}");
                direct
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_by_kind() {
        use ErrorKind::{Denied, Internal, Invalid, Unavailable, Unsupported};
        for (line, kind) in [
            ("NOAUTH Authentication required.", Denied),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                Denied,
            ),
            (
                "NOPERM this user has no permissions to run the 'eval' command",
                Denied,
            ),
            ("NOPERM No permissions to access a key", Denied),
            (
                "ERR The user executing the script can't run this command or subcommand script: f_1",
                Denied,
            ),
            (
                "ERR ACL failure in script: User locks has no permissions to run the 'get' command",
                Denied,
            ),
            ("DENIED Redis is running in protected mode", Denied),
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Unavailable,
            ),
            (
                "ERR Error running script (call to f_1): @user_script:3: @user_script: 3: -OOM command not allowed when used memory > 'maxmemory'.",
                Unavailable,
            ),
            ("LOADING Redis is loading the dataset in memory", Unavailable),
            ("BUSY Redis is busy running a script.", Unavailable),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Unavailable,
            ),
            ("MASTERDOWN Link with MASTER is down", Unavailable),
            (
                "READONLY You can't write against a read only replica.",
                Unavailable,
            ),
            ("CLUSTERDOWN Hash slot not served", Unavailable),
            ("MISCONF Redis is configured to save RDB snapshots", Unavailable),
            ("NOREPLICAS Not enough good replicas to write.", Unavailable),
            ("ERR max number of clients reached", Unavailable),
            ("MOVED 3999 127.0.0.1:6381", Unsupported),
            (
                "CROSSSLOT Keys in request don't hash to the same slot",
                Unsupported,
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                Internal,
            ),
            ("ERR unknown command", Internal),
            ("SOMETHING new", Internal),
            ("ERR DB index is out of range", Invalid),
        ] {
            assert_eq!(parsed(line).kind(), kind, "{line}");
        }
    }

    #[test]
    fn io_is_worth_a_retry() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert!(from_client(&RedisError::from(refused)).is_retryable());
        assert!(gone().is_retryable());
    }

    #[test]
    fn an_error_cannot_write_to_the_terminal() {
        let text = reply("ERR", "a\u{1b}[2Jb\nc").to_string();
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}
