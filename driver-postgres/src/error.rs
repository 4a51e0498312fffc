//! What the server and the client library say, as kinds of errors.

use lockcore::{Error, ErrorKind};

pub(crate) const POOLED: &str = "the server is behind a pooler that gives a session to each transaction (PgBouncer's pool_mode=transaction): \
     locks need sessions of their own, so connect to the server itself, or to a pool with pool_mode=session";

/// The SQLSTATE of an answer of the server.
pub(crate) fn state(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

/// Is the connection of no more use after this error?
pub(crate) fn is_fatal(error: &sqlx::Error) -> bool {
    match state(error) {
        // The server went, is going, or is not (any more) one that takes writes; or the tables are gone.
        Some(state) => {
            matches!(&state[..], "25006" | "26000" | "42P01" | "42883" | "3F000")
                || matches!(&state[..2], "08" | "57") && state != "57014"
        }
        None => true,
    }
}

/// Did the connection end, so that nobody knows whether the request took effect?
pub(crate) fn is_cut(error: &sqlx::Error) -> bool {
    match state(error) {
        Some(state) => matches!(
            &state[..],
            "57P01" | "57P02" | "57P05" | "08003" | "08006" | "26000"
        ),
        None => matches!(error, sqlx::Error::Io(_) | sqlx::Error::Protocol(_)),
    }
}

/// Is the connection, or what was prepared on it, from before something that happened meanwhile? Then another one is
/// worth a try.
pub(crate) fn is_stale(error: &sqlx::Error) -> bool {
    let gone = matches!(state(error).as_deref(), Some("42P01" | "42883" | "3F000"));
    gone || is_cut(error)
}

/// The kind and what to do, by SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn by_state(state: &str) -> (ErrorKind, &'static str) {
    use ErrorKind::{Denied, Internal, Invalid, Unavailable, Unsupported};
    match state {
        "42501" => (Denied, "the user lacks a right: see the grants in SECURITY.md"),
        "3D000" => (Invalid, "there is no such database: make it, or fix the URL"),
        "25006" => (
            Unavailable,
            "the server is read-only, perhaps a standby: connect to its primary",
        ),
        "26000" | "42P05" => (Unsupported, POOLED),
        "42P01" | "42883" | "3F000" => (
            Unavailable,
            "the tables or functions are gone; they are made again with the next connection",
        ),
        "42704" | "42703" | "42804" => (
            Unsupported,
            "the tables do not fit this version: use another schema, or make them anew",
        ),
        "55P03" => (
            Unavailable,
            "somebody else's transaction keeps the lock's row locked",
        ),
        "57014" => (Unavailable, "the request was cancelled at the server"),
        "53300" => (Unavailable, "the server takes no more connections"),
        "53100" => (Unavailable, "the server's disk is full"),
        "57P03" => (Unavailable, "the server is starting or shutting down"),
        "LH001" => (
            Invalid,
            "a lock is used in one mode: another client uses this one in the other mode, lease or session",
        ),
        _ => match state.get(..2).unwrap_or_default() {
            "28" => (Denied, "the server refused the login"),
            "08" | "40" | "53" | "57" | "58" => (Unavailable, "the server could not answer"),
            "0A" => (Unsupported, "the server cannot do this"),
            _ => (Internal, "the server refused the request"),
        },
    }
}

pub(crate) fn classify(error: sqlx::Error) -> Error {
    let (kind, message) = match (&error, state(&error)) {
        (_, Some(state)) => by_state(&state),
        (sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed, _) => {
            (ErrorKind::Unavailable, "the connection broke")
        }
        (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed, _) => {
            (ErrorKind::Unavailable, "there is no connection")
        }
        (sqlx::Error::Tls(_), _) => (
            ErrorKind::Denied,
            "no TLS with this server: check its certificate, sslmode and sslrootcert",
        ),
        (sqlx::Error::Configuration(_), _) => (ErrorKind::Invalid, "the server cannot be reached so"),
        _ => (
            ErrorKind::Internal,
            "the server gave an answer that makes no sense",
        ),
    };
    let outer = Error::new(kind, message);
    match error {
        // Without sqlx's wrapper, which says the same once more.
        sqlx::Error::Database(error) => outer.with_source(error.into_error()),
        error => outer.with_source(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states() {
        use ErrorKind::{Denied, Internal, Invalid, Unavailable, Unsupported};
        for (state, kind) in [
            ("28P01", Denied),
            ("28000", Denied),
            ("42501", Denied),
            ("3D000", Invalid),
            ("53300", Unavailable),
            ("57P01", Unavailable),
            ("57P03", Unavailable),
            ("40001", Unavailable),
            ("40P01", Unavailable),
            ("25006", Unavailable),
            ("55P03", Unavailable),
            ("42P01", Unavailable),
            ("26000", Unsupported),
            ("LH001", Invalid),
            ("22012", Internal),
            ("", Internal),
        ] {
            assert_eq!(by_state(state).0, kind, "{state}");
        }
    }

    #[test]
    fn the_client() {
        let broken = sqlx::Error::Io(std::io::ErrorKind::UnexpectedEof.into());
        assert!(is_cut(&broken) && is_fatal(&broken));
        assert_eq!(classify(broken).kind(), ErrorKind::Unavailable);
        assert_eq!(classify(sqlx::Error::RowNotFound).kind(), ErrorKind::Internal);
        assert!(is_fatal(&sqlx::Error::RowNotFound) && !is_cut(&sqlx::Error::RowNotFound));
    }
}
