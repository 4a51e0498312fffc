//! Certificates for servers that speak TLS: a certificate authority made for one server and thrown away with it.

use std::{io, time::Duration};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{ServerError, engine::USER};

pub(super) const CA: &str = "ca.pem";
pub(super) const CERT: &str = "server.crt";
pub(super) const KEY: &str = "server.key";
/// Both, which is how ZooKeeper wants them.
pub(super) const PEM: &str = "server.pem";

/// A server's certificate for `localhost` and `127.0.0.1`, a client's for the user of the tests, and the authority that
/// signed both. All PEM.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) ca: String,
    pub(super) server: Pair,
    pub(super) client: Pair,
}

/// A certificate and its key.
#[derive(Clone)]
pub(super) struct Pair {
    pub(super) cert: String,
    pub(super) key: String,
}

impl Certificates {
    pub(super) fn generate() -> Result<Self, ServerError> {
        Self::try_generate().map_err(|error| ServerError::Io {
            action: "make a certificate".into(),
            source: io::Error::other(error),
        })
    }

    fn try_generate() -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::new([])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        authority
            .distinguished_name
            .push(DnType::CommonName, "leasehold test authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let pair = |params: CertificateParams| {
            let key = KeyPair::generate()?;
            let cert = params.signed_by(&key, &authority)?;
            Ok::<_, rcgen::Error>(Pair {
                cert: cert.pem(),
                key: key.serialize_pem(),
            })
        };
        let mut client = CertificateParams::new([])?;
        // etcd takes the common name for the user.
        client.distinguished_name.push(DnType::CommonName, USER);
        Ok(Self {
            server: pair(CertificateParams::new(["localhost".into(), "127.0.0.1".into()])?)?,
            client: pair(client)?,
            ca: authority.pem(),
        })
    }

    /// File names and contents, for a folder that the server reads.
    pub(super) fn files(&self) -> [(&'static str, String); 4] {
        let Self { ca, server, .. } = self;
        [
            (CA, ca.clone()),
            (CERT, server.cert.clone()),
            (KEY, server.key.clone()),
            (PEM, format!("{}{}", server.cert, server.key)),
        ]
    }
}

/// A client's hello without content.
const HELLO: [u8; 9] = [22, 3, 1, 0, 4, 1, 0, 0, 0];
const ALERT: u8 = 21;
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Whether somebody at `address` refuses a senseless hello as one does who speaks TLS. That it can be connected to says
/// nothing: the proxy of a container takes every connection.
pub(super) async fn answers(address: &str) -> io::Result<bool> {
    let asking = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&HELLO).await?;
        stream.read_u8().await
    };
    Ok(timeout(ANSWER_LIMIT, asking).await?? == ALERT)
}
