//! The least of HTTP/1.1: one request on a connection of its own, without TLS.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

pub(super) async fn get(address: &str, path: &str) -> io::Result<String> {
    ask(address, "GET", path, "").await
}

pub(super) async fn post(address: &str, path: &str, body: &str) -> io::Result<String> {
    ask(address, "POST", path, body).await
}

/// The body of the reply. Any status but 200 is an error, which shows the reply's body and not the request's.
async fn ask(address: &str, method: &str, path: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut reply = Vec::new();
    // HTTP/1.0: the reply ends with the connection, and is in one piece.
    stream.take(1 << 20).read_to_end(&mut reply).await?;
    let reply = String::from_utf8_lossy(&reply);
    let (head, content) = reply.split_once("\r\n\r\n").unwrap_or((&reply, ""));
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status == "200" {
        Ok(content.to_owned())
    } else {
        Err(io::Error::other(format!(
            "HTTP {status} to {method} {path}: {content}"
        )))
    }
}
