//! What a server of each kind is asked, in its own protocol and no more of it than it takes.

use std::io;

use leasehold_conformance::servers::ServerKind;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::SOON;

/// Sends `request`, and reads until the reply has `wanted` in it or ends.
async fn exchange(address: &str, request: &[u8], wanted: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut reply = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&reply).into_owned();
        if text.contains(wanted) || stream.read_buf(&mut reply).await? == 0 {
            return Ok(text);
        }
    }
}

/// Inline commands of Redis.
pub(crate) async fn redis(address: &str, commands: &str, wanted: &str) -> io::Result<String> {
    exchange(address, format!("{commands}\r\n").as_bytes(), wanted).await
}

pub(crate) async fn etcd(address: &str, call: &str, body: &str, wanted: &str) -> io::Result<String> {
    let head = format!("POST /v3/{call} HTTP/1.0\r\nContent-Length: {}", body.len());
    exchange(address, format!("{head}\r\n\r\n{body}").as_bytes(), wanted).await
}

/// Whether it serves; waits for ever on a server that does not answer.
pub(crate) async fn is_well(kind: ServerKind, address: &str) -> io::Result<()> {
    let (reply, wanted) = match kind {
        ServerKind::Redis | ServerKind::Valkey => (redis(address, "PING", "PONG").await, "PONG"),
        ServerKind::Etcd => (
            etcd(address, "maintenance/status", "{}", "leader").await,
            "leader",
        ),
        ServerKind::ZooKeeper => (exchange(address, b"ruok", "imok").await, "imok"),
        // It greets.
        ServerKind::MySql | ServerKind::MariaDb => (exchange(address, b"", "_password").await, "_password"),
        // `S` or `N`: whether it would speak TLS.
        ServerKind::Postgres => {
            let request = [0, 0, 0, 8, 4, 210, 22, 47];
            let mut stream = TcpStream::connect(address).await?;
            stream.write_all(&request).await?;
            return stream.read_u8().await.map(drop);
        }
        _ => panic!("what is asked of {kind}?"),
    };
    match reply {
        Ok(reply) if reply.contains(wanted) => Ok(()),
        Ok(reply) => Err(io::Error::other(reply)),
        Err(error) => Err(error),
    }
}

/// Writes something, where that is simple.
pub(crate) async fn keep(kind: ServerKind, address: &str) {
    let reply = match kind {
        ServerKind::Redis | ServerKind::Valkey => redis(address, "SET kept 42", "OK").await,
        ServerKind::Etcd => {
            etcd(
                address,
                "kv/put",
                r#"{"key": "a2VwdA==", "value": "NDI="}"#,
                "revision",
            )
            .await
        }
        _ => return,
    };
    reply.unwrap();
}

/// What was written is still there.
pub(crate) async fn kept(kind: ServerKind, address: &str) {
    let (reply, wanted) = match kind {
        ServerKind::Redis | ServerKind::Valkey => (redis(address, "GET kept", "42\r\n").await, "42\r\n"),
        ServerKind::Etcd => (
            etcd(address, "kv/range", r#"{"key": "a2VwdA=="}"#, "NDI=").await,
            "NDI=",
        ),
        _ => return,
    };
    let reply = reply.unwrap();
    assert!(reply.contains(wanted), "{reply}");
}

/// Whether the port answers the start of a TLS handshake, even a senseless one, with a TLS record.
pub(crate) async fn speaks_tls(address: &str) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[0x16, 3, 1, 0, 4, 1, 0, 0, 0]).await.unwrap();
    let mut reply = [0; 2];
    timeout(SOON, stream.read_exact(&mut reply))
        .await
        .unwrap()
        .unwrap();
    reply == [0x15, 3]
}
