//! Encrypted, and through a socket of the machine.

use leasehold_conformance::servers::{Origin, ServerKind, ServerRequest};
use lockcore::{Driver, ErrorKind};

use crate::support::{connect, request};

#[tokio::test]
async fn tls_trusts_what_it_is_told_to() {
    let server = request().tls().start().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, server.ca_certificate().unwrap()).unwrap();
    let ca = ca.display();
    connect(&format!("{}?tls_ca={ca}", server.url()))
        .await
        .unwrap()
        .ping()
        .await
        .unwrap();

    let error = connect(server.url()).await.unwrap_err();
    // A machine without any trusted certificate says so instead.
    assert!(
        [ErrorKind::Denied, ErrorKind::Invalid].contains(&error.kind()),
        "{error}"
    );
    assert!(error.to_string().contains("tls_ca"), "{error}");

    let plain = format!("rediss://{}?tls_ca={ca}", server.address());
    let error = connect(&plain).await.unwrap_err();
    assert!(!error.to_string().is_empty());
    assert!(
        [ErrorKind::Invalid, ErrorKind::Unavailable].contains(&error.kind()),
        "{error}"
    );
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("redis.sock");
    let path = socket.display().to_string();
    let request = ServerRequest::new(ServerKind::Redis).origin(Origin::LocalProcess);
    let server = match request.args(["--unixsocket", &path]).start().await {
        Ok(server) => server,
        Err(error) => return println!("left out: {error}"),
    };
    connect(&format!("redis+unix://{path}?db=1"))
        .await
        .unwrap()
        .ping()
        .await
        .unwrap();
    drop(server);
}
