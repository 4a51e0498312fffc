//! Bytes to and from the server: TCP, TLS, Unix sockets, or whatever an existing client does.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use lockcore::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ProtocolVersion, RedisConnectionInfo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::config::{Address, RedisConfig, TlsConfig};
use crate::error::from_client;

/// What moves a connection's bytes. It ends when the connection does.
type Pump = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How to get to the server.
pub(crate) enum Transport {
    Config(RedisConfig),
    Client(Client),
}

impl Transport {
    /// With an existing client: its address, login and TLS; RESP3 and no delay of small packets, which we need.
    pub(crate) fn client(client: &Client) -> Result<Self> {
        let info = client.get_connection_info();
        let redis = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        let info = info.clone().set_redis_settings(redis).set_tcp_settings(tcp);
        Ok(Self::Client(
            Client::open(info).map_err(|error| from_client(&error))?,
        ))
    }

    /// The database that has to be selected after the login.
    pub(crate) fn database(&self) -> u32 {
        match self {
            Self::Config(config) => config.db,
            // The client does it.
            Self::Client(_) => 0,
        }
    }

    /// Does the login have a password? An existing client keeps that to itself.
    pub(crate) fn password(&self) -> Option<bool> {
        match self {
            Self::Config(config) => Some(config.password.is_some()),
            Self::Client(_) => None,
        }
    }

    /// For messages; without a login.
    pub(crate) fn address(&self) -> String {
        match self {
            Self::Config(config) => config.address.to_string(),
            Self::Client(client) => match client.get_connection_info().addr() {
                ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
                    Address::Tcp(host.clone(), *port).to_string()
                }
                ConnectionAddr::Unix(path) => Address::Unix(path.clone()).to_string(),
                _ => "the server".to_owned(),
            },
        }
    }

    /// Connects and logs in. The pump is there when nobody else runs it.
    pub(crate) async fn open(
        &self,
        client: AsyncConnectionConfig,
    ) -> Result<(MultiplexedConnection, Option<Pump>)> {
        let config = match self {
            Self::Config(config) => config,
            Self::Client(existing) => {
                let opened = existing
                    .get_multiplexed_async_connection_with_config(&client)
                    .await;
                return Ok((opened.map_err(|error| from_client(&error))?, None));
            }
        };
        let stream: Box<dyn Stream> = match &config.address {
            Address::Tcp(host, port) => {
                let stream = TcpStream::connect((host.as_str(), *port))
                    .await
                    .map_err(unreachable)?;
                // Small requests leave at once.
                stream.set_nodelay(true).map_err(unreachable)?;
                match &config.tls {
                    None => Box::new(stream),
                    Some(tls) => Box::new(encrypt(tls, host, stream).await?),
                }
            }
            #[cfg(unix)]
            Address::Unix(path) => {
                Box::new(tokio::net::UnixStream::connect(path).await.map_err(unreachable)?)
            }
            #[cfg(not(unix))]
            Address::Unix(_) => {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    "Unix sockets work on Unix only",
                ));
            }
        };
        let (connection, pump) = MultiplexedConnection::new_with_config(&login(config), stream, client)
            .await
            .map_err(|error| from_client(&error))?;
        Ok((connection, Some(Box::pin(pump))))
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

fn login(config: &RedisConfig) -> RedisConnectionInfo {
    // One command: a server that refuses us says why in one line, and closes. The rest is sent once it has agreed.
    let mut login = RedisConnectionInfo::default()
        .set_protocol(ProtocolVersion::RESP3)
        .set_skip_set_lib_name();
    if let Some(user) = &config.user {
        login = login.set_username(user);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password.expose());
    }
    login
}

async fn encrypt(
    tls: &TlsConfig,
    host: &str,
    stream: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| {
        invalid("the host is neither a DNS name nor an address, so no certificate can be for it")
    })?;
    let tls = tls.clone();
    // Files, and a few hundred certificates to parse.
    let settings = tokio::task::spawn_blocking(move || client_config(&tls))
        .await
        .map_err(|error| Error::new(ErrorKind::Internal, "TLS could not be set up").with_source(error))??;
    TlsConnector::from(Arc::new(settings))
        .connect(name, stream)
        .await
        .map_err(handshake)
}

fn client_config(tls: &TlsConfig) -> Result<ClientConfig> {
    let roots = roots(tls.ca.as_deref())?;
    // A provider of our own: the process may have none, or one that is not ours to choose.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Internal, "TLS could not be set up").with_source(error))?
        .with_root_certificates(roots);
    let Some((cert, key)) = &tls.identity else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = certificates("tls_cert", cert)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("tls_key", key, error))?;
    builder.with_client_auth_cert(chain, key).map_err(|error| {
        invalid("tls_cert and tls_key do not belong together, or are of a kind that is not known")
            .with_source(error)
    })
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("tls_ca", path)? {
                roots
                    .add(certificate)
                    .map_err(|error| unreadable("tls_ca", path, error))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(invalid(
            "there is no certificate to trust, neither of this system nor in tls_ca: set tls_ca to a PEM file",
        ));
    }
    Ok(roots)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(option, path, error))
}

fn unreadable(option: &str, path: &Path, error: impl std::fmt::Display) -> Error {
    invalid(format!(
        "the file {} of {option} cannot be used",
        path.display().to_string().escape_debug()
    ))
    .with_source(error.to_string())
}

/// A refused certificate does not get better by trying again; a connection that ended may.
fn handshake(error: io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::new(
            ErrorKind::Denied,
            "the server's certificate is not trusted for this host: set tls_ca, or use the name it was made for",
        )
        .with_source(error),
        Some(rustls::Error::AlertReceived(_)) => Error::new(
            ErrorKind::Denied,
            "the server refuses the TLS handshake: it may want a client certificate, see tls_cert",
        )
        .with_source(error),
        Some(_) => invalid("what answers there does not speak TLS: use redis://, or the server's TLS port")
            .with_source(error),
        None => unreachable(error),
    }
}

fn unreachable(error: io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "no connection").with_source(error)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_client_gets_what_we_need_and_keeps_its_login() {
        let client = Client::open("redis://user:secret@example.invalid:7/2").unwrap();
        let Transport::Client(ours) = Transport::client(&client).unwrap() else {
            panic!("no client")
        };
        let info = ours.get_connection_info();
        assert!(info.tcp_settings().nodelay());
        assert_eq!(info.redis_settings().protocol(), ProtocolVersion::RESP3);
        assert_eq!(info.redis_settings().db(), 2);
        assert_eq!(info.redis_settings().password(), Some("secret"));
        assert_eq!(Transport::Client(ours).address(), "example.invalid:7");
    }

    #[test]
    fn tls_files_are_named_when_they_are_wrong() {
        let tls = TlsConfig {
            ca: Some("/nonexistent/ca.pem".into()),
            identity: None,
        };
        let error = client_config(&tls).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }
}
