//! Certificates for servers that speak TLS: a certificate authority made for one server and thrown away with it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};

use super::ServerError;

pub(super) const CA: &str = "ca.crt";
pub(super) const CERT: &str = "server.crt";
pub(super) const KEY: &str = "server.key";

/// A server's certificate for `localhost` and `127.0.0.1`, and the authority that signed it. All PEM.
#[derive(Clone)]
pub(super) struct Certificates {
    pub(super) ca: String,
    pub(super) cert: String,
    pub(super) key: String,
}

impl Certificates {
    pub(super) fn generate() -> Result<Self, ServerError> {
        Self::try_generate().map_err(|error| ServerError::Io {
            action: "make a certificate".into(),
            source: std::io::Error::other(error),
        })
    }

    fn try_generate() -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::new([])?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        authority
            .distinguished_name
            .push(rcgen::DnType::CommonName, "leasehold test authority");
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let cert = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()])?
            .signed_by(&key, &authority)?;
        Ok(Self {
            ca: authority.pem(),
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }

    /// File names and contents, for a folder that the server reads.
    pub(super) fn files(&self) -> [(&'static str, &str); 3] {
        [(CA, &self.ca), (CERT, &self.cert), (KEY, &self.key)]
    }
}
