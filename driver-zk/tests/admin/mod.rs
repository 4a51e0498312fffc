//! What an administrator does: nodes, four letter words, and other clients' sessions.

use std::io;

use leasehold_driver_zk::zookeeper_client::{Client, Error as ZkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An administrator of the server at `address`, with a session for each question.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    address: String,
}

impl Admin {
    pub(crate) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
        }
    }

    pub(crate) async fn client(&self) -> Result<Client, ZkError> {
        Client::connect(&self.address).await
    }

    /// The reply to a four letter word.
    pub(crate) async fn ask(&self, word: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(&self.address).await?;
        stream.write_all(word.as_bytes()).await?;
        let mut reply = String::new();
        stream.take(1 << 20).read_to_string(&mut reply).await?;
        Ok(reply)
    }

    /// One of the numbers that `mntr` tells.
    pub(crate) async fn number(&self, name: &str) -> io::Result<u64> {
        let reply = self.ask("mntr").await?;
        let value = reply
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'));
        value
            .and_then(|value| value.trim().parse::<f64>().ok())
            .map(|value| value as u64)
            .ok_or_else(|| io::Error::other(format!("mntr does not tell {name}")))
    }

    /// How many transactions there were since the server was started the first time.
    pub(crate) async fn writes(&self) -> io::Result<u64> {
        let reply = self.ask("srvr").await?;
        let zxid = reply.lines().find_map(|line| line.strip_prefix("Zxid: 0x"));
        let zxid = zxid.and_then(|zxid| u64::from_str_radix(zxid.trim(), 16).ok());
        // The upper half counts leaders.
        zxid.map(|zxid| zxid & 0xffff_ffff)
            .ok_or_else(|| io::Error::other("srvr does not tell the last transaction"))
    }

    /// The sessions of those who are connected, the oldest first.
    pub(crate) async fn sessions(&self) -> io::Result<Vec<i64>> {
        let reply = self.ask("cons").await?;
        let session = |line: &str| {
            let (_, rest) = line.split_once("sid=0x")?;
            let end = rest.find([',', ')'])?;
            u64::from_str_radix(&rest[..end], 16).ok().map(|id| id as i64)
        };
        let mut sessions: Vec<_> = reply.lines().filter_map(session).filter(|id| *id != 0).collect();
        sessions.sort_unstable();
        sessions.dedup();
        Ok(sessions)
    }

    /// Cuts the connection of a session at the server, as a client does that takes the session over. It goes on, and
    /// its client may connect again.
    pub(crate) async fn cut(&self, session: i64) -> io::Result<()> {
        self.take_over(session, false).await
    }

    /// Ends a session at the server, as if it had expired.
    pub(crate) async fn end(&self, session: i64) -> io::Result<()> {
        // Its client connects again at once, and may be faster.
        for _ in 0..100 {
            match self.take_over(session, true).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                _ => {}
            }
        }
        Err(io::Error::other("the session does not end"))
    }

    async fn take_over(&self, session: i64, end: bool) -> io::Result<()> {
        let mut stream = TcpStream::connect(&self.address).await?;
        let mut hello = Vec::new();
        hello.extend(0_i32.to_be_bytes());
        hello.extend(0_i64.to_be_bytes());
        hello.extend(60_000_i32.to_be_bytes());
        hello.extend(session.to_be_bytes());
        hello.extend(16_i32.to_be_bytes());
        hello.extend(password(session));
        hello.push(0);
        let mut packets = packet(&hello);
        if end {
            packets.extend(packet(&[1_i32.to_be_bytes(), (-11_i32).to_be_bytes()].concat()));
        }
        stream.write_all(&packets).await?;
        let answer = receive(&mut stream).await?;
        if answer.get(8..16) != Some(&session.to_be_bytes()[..]) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if end {
            // It answers by closing the connection.
            receive(&mut stream).await.ok();
        }
        Ok(())
    }

    /// Deletes `path` and all below it, in one transaction.
    pub(crate) async fn delete_all(&self, path: &str) -> Result<(), ZkError> {
        let client = self.client().await?;
        loop {
            let found = below(&client, path).await?;
            let mut writer = client.new_multi_writer();
            for path in found.iter().rev() {
                writer.add_delete(path, None)?;
            }
            if found.is_empty() || writer.commit().await.is_ok() {
                return Ok(());
            }
            // Somebody has changed something meanwhile.
        }
    }
}

/// `path` and all below it that can be deleted, parents first.
async fn below(client: &Client, path: &str) -> Result<Vec<String>, ZkError> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while let Some(parent) = found.get(next).cloned() {
        next += 1;
        match client.list_children(&parent).await {
            Ok(children) => found.extend(
                children
                    .iter()
                    .map(|child| format!("{}/{child}", parent.trim_end_matches('/'))),
            ),
            Err(ZkError::NoNode) => {}
            Err(error) => return Err(error),
        }
        found.retain(|path| !path.starts_with("/zookeeper"));
    }
    found.retain(|path| path != "/");
    Ok(found)
}

fn packet(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or_default();
    [&length.to_be_bytes()[..], body].concat()
}

async fn receive(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u32().await?;
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// What the server gives for a session's password: sixteen bytes of `java.util.Random`, seeded by the session's id.
fn password(session: i64) -> [u8; 16] {
    const MULTIPLIER: u64 = 0x5_DEEC_E66D;
    const MASK: u64 = (1 << 48) - 1;
    let mut state = ((session as u64 ^ 0xB341_5C00) ^ MULTIPLIER) & MASK;
    let mut bytes = [0; 16];
    for chunk in bytes.chunks_exact_mut(4) {
        state = state.wrapping_mul(MULTIPLIER).wrapping_add(0xB) & MASK;
        chunk.copy_from_slice(&((state >> 16) as u32).to_le_bytes());
    }
    bytes
}
