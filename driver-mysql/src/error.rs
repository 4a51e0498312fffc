//! What a failure of the client or the server means to the caller.

use lockcore::{Error, ErrorKind};
use sqlx::mysql::MySqlDatabaseError;

/// What the servers' numbers mean, and what to do about it. What is not listed is
/// [`Internal`](ErrorKind::Internal).
const NUMBERS: &[(&[u16], ErrorKind, &str)] = &[
    (
        &[
            1045, 1251, 1396, 1524, 1698, 1820, 1862, 3118, 3159, 3955, 4151, 4165,
        ],
        ErrorKind::Denied,
        "the server refuses the user name or the password",
    ),
    (
        &[1044, 1142, 1143, 1227, 1370],
        ErrorKind::Denied,
        "the user lacks a right: see the grants in the driver's documentation",
    ),
    (
        &[1129, 1130],
        ErrorKind::Denied,
        "the server takes no connections from this host",
    ),
    (
        &[1049],
        ErrorKind::Invalid,
        "the server has no such database: create it, or name another one in the URL",
    ),
    (
        &[1046],
        ErrorKind::Invalid,
        "the URL names no database: write mysql://host/database",
    ),
    (
        &[1040, 1041, 1203, 1226, 1135],
        ErrorKind::Unavailable,
        "the server takes no more connections: raise its limit, or open fewer",
    ),
    (
        &[1290, 1792, 1836, 3100],
        ErrorKind::Unavailable,
        "the server is read-only: connect to the primary",
    ),
    (
        &[1205, 1213, 1614, 3058, 3572, 1020],
        ErrorKind::Unavailable,
        "other transactions stood in the way",
    ),
    (
        &[1317, 1028, 1969, 3024],
        ErrorKind::Unavailable,
        "the statement was interrupted at the server",
    ),
    (
        &[
            1053, 1077, 1078, 1079, 1152, 1158, 1159, 1160, 1161, 1184, 1927, 3169, 4031,
        ],
        ErrorKind::Unavailable,
        "the server ended the connection",
    ),
    (
        &[1021, 1114, 1030, 1037, 1038, 1026, 3675],
        ErrorKind::Unavailable,
        "the server has no room left to write to, or its disk fails",
    ),
    (
        &[1047, 1180, 3101],
        ErrorKind::Unavailable,
        "the server's cluster takes no writes now",
    ),
    (
        &[1146, 1054],
        ErrorKind::Unavailable,
        "the tables are gone or were changed: they are looked at again with the next connection",
    ),
    (
        &[1665, 1662, 1663, 1664, 1598],
        ErrorKind::Unsupported,
        "the server logs statements (binlog_format=STATEMENT): set binlog_format to ROW or MIXED",
    ),
];

/// The server's number for `error`, if it is the server's.
pub(crate) fn number(error: &sqlx::Error) -> Option<u16> {
    let error = error
        .as_database_error()?
        .try_downcast_ref::<MySqlDatabaseError>()?;
    Some(error.number())
}

/// Is it about a table that is not there?
pub(crate) fn is_missing_table(error: &sqlx::Error) -> bool {
    number(error) == Some(1146)
}

/// Was it undone for another transaction's sake, or did it wait for one for too long?
pub(crate) fn is_in_the_way(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1205 | 1213))
}

/// Did somebody kill the statement?
pub(crate) fn is_interrupted(error: &sqlx::Error) -> bool {
    matches!(number(error), Some(1317 | 1028 | 1969 | 3024))
}

pub(crate) fn classify(error: sqlx::Error) -> Error {
    use ErrorKind::{Internal, Invalid, Unavailable};
    let (kind, message) = match number(&error) {
        Some(number) => NUMBERS
            .iter()
            .find(|(numbers, ..)| numbers.contains(&number))
            .map_or(
                (Internal, "the server refused the request"),
                |(_, kind, message)| (*kind, *message),
            ),
        None => match &error {
            sqlx::Error::Io(_) => (Unavailable, "the connection to the server broke"),
            sqlx::Error::Tls(_) => (Invalid, "no TLS with the server: see the option tls"),
            sqlx::Error::Configuration(_) => (Invalid, "the client refuses its settings"),
            // What comes from a connection that was cut in the middle of a packet, too.
            sqlx::Error::Protocol(_) => (Unavailable, "the server's answer could not be read"),
            _ => (Internal, "the server gave an answer that makes no sense"),
        },
    };
    let outer = Error::new(kind, message);
    match error {
        // Without sqlx's wrapper, which says the same once more.
        sqlx::Error::Database(error) => outer.with_source(error.into_error()),
        error => outer.with_source(error),
    }
}

/// There was no answer, and the connection was given up.
pub(crate) fn silent() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the server did not answer, and the connection was given up",
    )
}

/// After the end.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the connections were closed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds() {
        for (error, kind) in [
            (
                sqlx::Error::Io(std::io::ErrorKind::BrokenPipe.into()),
                ErrorKind::Unavailable,
            ),
            (sqlx::Error::Tls("x".into()), ErrorKind::Invalid),
            (sqlx::Error::RowNotFound, ErrorKind::Internal),
        ] {
            assert_eq!(classify(error).kind(), kind);
        }
        let mut seen = std::collections::HashSet::new();
        for (numbers, ..) in NUMBERS {
            for number in *numbers {
                assert!(seen.insert(number), "{number} is listed twice");
            }
        }
    }
}
