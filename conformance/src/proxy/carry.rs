//! One connection, from its acceptance to its end.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::time::Instant;

use super::link::Link;
use super::reset;
use super::rules::{Cut, Direction, Entrance, Side};

/// What is read at a time.
const CHUNK: usize = 16 * 1024;
/// What a delay may hold back in one direction; beyond it the sender has to wait.
const MOST_HELD: usize = 64 * CHUNK;

/// Carries `client` to the server and back until one of them, or the proxy, ends it.
pub(super) async fn carry(mut client: TcpStream, link: Arc<Link>) {
    let connected = tokio::select! {
        biased;
        _ = link.cut() => return reset(client),
        connected = connect(&link) => connected,
    };
    let Ok(mut server) = connected else {
        return reset(client);
    };
    // The grain of a test is one request.
    client
        .set_nodelay(true)
        .and_then(|()| server.set_nodelay(true))
        .ok();
    let (side, how) = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let both_ways = async {
            tokio::try_join!(
                pump(client_read, server_write, Direction::ToServer, &link),
                pump(server_read, client_write, Direction::ToClient, &link),
            )
        };
        tokio::select! {
            biased;
            cut = link.cut() => cut,
            ended = both_ways => (Side::Both, if ended.is_ok() { Cut::Close } else { Cut::Reset }),
        }
    };
    let (ended, left) = match side {
        Side::Both => {
            end(server, how);
            return end(client, how);
        }
        Side::Client => (client, server),
        Side::Server => (server, client),
    };
    end(ended, how);
    keep_half_open(left, side, &link).await;
}

async fn connect(link: &Link) -> io::Result<TcpStream> {
    let mut rules = link.shared.rules.subscribe();
    let entrance = rules.wait_for(|rules| rules.entrance != Entrance::Ignore).await;
    match entrance.map(|rules| rules.entrance) {
        Ok(Entrance::Refuse) | Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        Ok(_) => TcpStream::connect(&link.shared.server).await,
    }
}

fn end(stream: TcpStream, how: Cut) {
    match how {
        Cut::Close => drop(stream),
        Cut::Reset => reset(stream),
    }
}

/// Takes what comes, and says nothing, until the peer ends it or the side that is left is cut as well.
async fn keep_half_open(mut stream: TcpStream, ended: Side, link: &Link) {
    let mut rules = link.rules.subscribe();
    let mut buffer = vec![0; CHUNK];
    loop {
        let cut = rules.borrow_and_update().cut;
        if let Some((_, how)) = cut.filter(|(side, _)| *side != ended) {
            return end(stream, how);
        }
        tokio::select! {
            biased;
            changed = rules.changed() => if changed.is_err() { return },
            read = stream.read(&mut buffer) => if !read.is_ok_and(|bytes| bytes > 0) { return },
        }
    }
}

/// Forwards one direction up to its end of stream.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    direction: Direction,
    link: &Link,
) -> io::Result<()> {
    let (mut all, mut one) = (link.shared.rules.subscribe(), link.rules.subscribe());
    let mut buffer = vec![0; CHUNK];
    let mut held = VecDeque::<(Instant, Vec<u8>)>::new();
    let mut held_bytes = 0;
    let mut ended = false;
    loop {
        if ended && held.is_empty() {
            return to.shutdown().await;
        }
        let (stalled, delay) = link.lane(direction);
        let due = held.front().map(|(due, _)| *due);
        tokio::select! {
            biased;
            Ok(()) = all.changed() => {}
            Ok(()) = one.changed() => {}
            () = until(due), if !stalled => {
                let Some((_, chunk)) = held.pop_front() else { continue };
                held_bytes -= chunk.len();
                if link.lets_pass(direction, &chunk) {
                    link.count(direction, chunk.len());
                    to.write_all(&chunk).await?;
                }
            }
            read = from.read(&mut buffer), if !stalled && !ended && held_bytes < MOST_HELD => match read? {
                0 => ended = true,
                bytes => {
                    held_bytes += bytes;
                    held.push_back((Instant::now() + delay, buffer[..bytes].to_vec()));
                }
            },
        }
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) if due > Instant::now() => tokio::time::sleep_until(due).await,
        Some(_) => {}
        None => std::future::pending().await,
    }
}
