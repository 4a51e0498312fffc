//! TLS for the client, which takes PEM.

use std::path::Path;

use data_encoding::BASE64;
use lockcore::{Error, ErrorKind, Result};
use zookeeper_client::TlsOptions;

use crate::config::TlsConfig;

/// What the client needs. Reads the files.
pub(crate) fn options(tls: &TlsConfig) -> Result<TlsOptions> {
    // The client takes the provider of the process, and panics when there is none and several could be meant. One that
    // the application has chosen stays.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        rustls::crypto::ring::default_provider().install_default().ok();
    }
    let ca = match &tls.ca {
        Some(path) => read("tls_ca", path)?,
        None => of_the_system(),
    };
    let options = TlsOptions::new().with_pem_ca(&ca).map_err(|error| {
        refused(
            "there is no certificate to trust, of this system or in tls_ca",
            error,
        )
    })?;
    let Some((cert, key)) = &tls.identity else {
        return Ok(options);
    };
    options
        .with_pem_identity(&read("tls_cert", cert)?, &read("tls_key", key)?)
        .map_err(|error| refused("tls_cert and tls_key cannot be used", error))
}

/// The certificates that the operating system trusts, as PEM.
fn of_the_system() -> String {
    let mut pem = String::new();
    for certificate in rustls_native_certs::load_native_certs().certs {
        pem.push_str("-----BEGIN CERTIFICATE-----\n");
        let encoded = BASE64.encode(&certificate);
        for line in encoded.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
    }
    pem
}

fn read(option: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| {
        let path = path.display().to_string();
        refused(
            &format!("the file {} of {option} cannot be used", path.escape_debug()),
            error,
        )
    })
}

fn refused(what: &str, error: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, what).with_source(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_when_they_are_wrong() {
        let tls = TlsConfig {
            ca: Some("/nonexistent/ca.pem".into()),
            identity: None,
        };
        let error = options(&tls).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }
}
