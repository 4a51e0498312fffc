//! How a connection is opened, and what the server is told on it.

use std::sync::Arc;

use lockcore::{Env, Error, ErrorKind, Result};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::config::{MysqlConfig, Tls};
use crate::error::classify;
use crate::schema;
use crate::script::{Reply, Request, answer, fill, get, run, text};

/// Session settings. Whatever the server's defaults are: names are never cut, each statement sees what is committed, and
/// no lock on a row is waited for longer than a request may take.
const SETTINGS: &str = "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', autocommit = 1, time_zone = '+00:00', \
     innodb_lock_wait_timeout = 3, lock_wait_timeout = 5, SQL_SELECT_LIMIT = DEFAULT; \
     SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ WRITE; \
     SELECT VERSION(), CONNECTION_ID(), :now";

/// More statements than are ever prepared on a connection.
const PREPARED: usize = 8;

/// The oldest servers that are tested.
const OLDEST_MYSQL: (u32, u32) = (8, 0);
const OLDEST_MARIADB: (u32, u32) = (10, 6);

/// What the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) text: Arc<str>,
    pub(crate) mariadb: bool,
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) wire: MySqlConnection,
    /// The server's number for it.
    pub(crate) id: u64,
    /// When it was opened, on the server's clock.
    pub(crate) opened: u64,
    pub(crate) version: Version,
}

impl Link {
    pub(crate) async fn run(&mut self, request: impl Into<Request>) -> sqlx::Result<Vec<Reply>> {
        run(&mut self.wire, request).await
    }

    /// Says goodbye, without a wait for the other end to hear it.
    pub(crate) async fn close(self) {
        self.wire.close().await.ok();
    }
}

/// Opens connections.
#[derive(Debug)]
pub(crate) struct Opener {
    pub(crate) config: MysqlConfig,
    pub(crate) env: Env,
}

impl Opener {
    /// A connection with our settings, and with the tables looked at if there are to be any.
    pub(crate) async fn open(&self) -> Result<Link> {
        let limit = self.config.connect_timeout;
        let error = match self.env.timeout(limit, Box::pin(self.try_open())).await {
            Some(Ok(link)) => return Ok(link),
            Some(Err(error)) => error,
            None => Error::new(ErrorKind::Unavailable, format!("no answer within {limit:?}")),
        };
        let kind = error.kind();
        Err(Error::new(
            kind,
            format!("MySQL at {}: {error}", self.config.address()),
        ))
    }

    async fn try_open(&self) -> Result<Link> {
        let mut wire = self.options().connect().await.map_err(of_login)?;
        let replies = run(&mut wire, fill(SETTINGS, &[])).await.map_err(classify)?;
        let row = answer(&replies)?;
        let version = version(&text(row, 0)?.unwrap_or_default())?;
        let (id, opened) = (get(row, 1)?, get(row, 2)?);
        if self.config.needs_tables() {
            schema::ensure(&mut wire, self.config.create, &self.env).await?;
        }
        Ok(Link {
            wire,
            id,
            opened,
            version,
        })
    }

    fn options(&self) -> MySqlConnectOptions {
        let config = &self.config;
        let mut options = MySqlConnectOptions::new()
            .host(&config.host)
            .port(config.port)
            .username(config.user.as_deref().unwrap_or("root"))
            .ssl_mode(match config.tls {
                Tls::Off => MySqlSslMode::Disabled,
                Tls::Prefer => MySqlSslMode::Preferred,
                Tls::Verify => MySqlSslMode::VerifyIdentity,
            })
            // All that sqlx would set, `SETTINGS` does.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .timezone(None::<String>)
            .set_names(false)
            .statement_cache_capacity(PREPARED)
            .disable_statement_logging();
        if let Some(path) = &config.socket {
            options = options.socket(path);
        }
        if let Some(password) = &config.password {
            options = options.password(password.expose());
        }
        if let Some(database) = &config.database {
            options = options.database(database);
        }
        if let Some(ca) = &config.tls_ca {
            options = options.ssl_ca(ca);
        }
        if let Some((cert, key)) = &config.tls_identity {
            options = options.ssl_client_cert(cert).ssl_client_key(key);
        }
        options
    }
}

/// An error before the login was done.
fn of_login(error: sqlx::Error) -> Error {
    if let sqlx::Error::Protocol(message) = &error
        && (message.contains("auth") || message.contains("rsa"))
    {
        return Error::new(
            ErrorKind::Denied,
            "the server's way to log in needs an encrypted connection: leave out tls=off",
        );
    }
    classify(error)
}

/// `8.0.36`, `9.4.0-debug`, `10.11.6-MariaDB-1~deb12u1`, `5.5.5-10.11.6-MariaDB`.
fn version(text: &str) -> Result<Version> {
    let mariadb = text.to_ascii_lowercase().contains("mariadb");
    let plain = text.strip_prefix("5.5.5-").filter(|_| mariadb).unwrap_or(text);
    let mut parts = plain
        .split(|c: char| !c.is_ascii_digit())
        .map(|part| part.parse().unwrap_or(0_u32));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let oldest = if mariadb { OLDEST_MARIADB } else { OLDEST_MYSQL };
    if found < oldest {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "the server is version {}: use MySQL 8.0 or MariaDB 10.6, or newer",
                text.escape_debug()
            ),
        ));
    }
    Ok(Version {
        text: text.into(),
        mariadb,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_servers_are_refused() {
        for (text, mariadb) in [
            ("8.0.36", false),
            ("9.4.0-debug", false),
            ("10.6.1-MariaDB", true),
            ("5.5.5-10.11.6-MariaDB-1~deb12u1", true),
            ("11.8.2-MariaDB", true),
        ] {
            assert_eq!(version(text).unwrap().mariadb, mariadb, "{text}");
        }
        for text in ["5.7.44", "10.5.9-MariaDB", "5.5.5-10.4.1-MariaDB", "", "x"] {
            assert_eq!(
                version(text).unwrap_err().kind(),
                ErrorKind::Unsupported,
                "{text}"
            );
        }
    }
}
