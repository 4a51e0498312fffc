//! How Redis and Valkey are started, and how to tell that one answers.

use std::{io, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::ServerError;

/// The port of a container, inside it; with TLS there is [`TLS_PORT`] as well.
pub(super) const PORT: u16 = 6379;
pub(super) const TLS_PORT: u16 = 6380;

const ATTEMPT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(20);

/// What the command line depends on.
#[derive(Debug)]
pub(super) struct Place<'a> {
    pub(super) bind: &'a str,
    pub(super) port: u16,
    pub(super) data: &'a str,
    /// The TLS port, and the folder that has the files of [`super::tls`].
    pub(super) tls: Option<(u16, &'a str)>,
    pub(super) password: Option<&'a str>,
    pub(super) extra: &'a [String],
}

/// The arguments of `redis-server` and `valkey-server`.
///
/// Every acknowledged write is in the kernel's hands before its reply leaves, so that SIGKILL loses none:
/// `appendfsync no` writes at once and leaves the flush to the kernel, where `everysec` may hold a write back
/// while a flush is under way. A loss of power is not what these servers are for.
pub(super) fn arguments(place: &Place<'_>) -> Vec<String> {
    let mut args: Vec<String> = [
        "--port",
        &place.port.to_string(),
        "--bind",
        place.bind,
        "--protected-mode",
        "no",
        "--dir",
        place.data,
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "no",
    ]
    .map(String::from)
    .into();
    if let Some((port, folder)) = place.tls {
        args.extend([
            "--tls-port".into(),
            port.to_string(),
            "--tls-auth-clients".into(),
            "no".into(),
        ]);
        for (option, file) in [
            ("cert-file", super::tls::CERT),
            ("key-file", super::tls::KEY),
            ("ca-cert-file", super::tls::CA),
        ] {
            args.extend([format!("--tls-{option}"), format!("{folder}/{file}")]);
        }
    }
    if let Some(password) = place.password {
        args.extend(["--requirepass".into(), password.into()]);
    }
    // Last, because the last of two values wins.
    args.extend_from_slice(place.extra);
    args
}

/// Who to be at the probe.
#[derive(Debug, Clone, Default)]
pub(super) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// Waits until the server at `address` answers PING, for `limit` at most. Its version, if it tells.
pub(super) async fn ready(
    server: &str,
    address: &str,
    login: &Login,
    limit: Duration,
) -> Result<Option<String>, ServerError> {
    let mut last = String::from("it was not asked");
    let asking = async {
        loop {
            match timeout(ATTEMPT, probe(address, login)).await {
                Ok(Ok(version)) => return version,
                Ok(Err(error)) => last = error.to_string(),
                Err(_) => last = format!("no reply to PING in {ATTEMPT:?}"),
            }
            sleep(PAUSE).await;
        }
    };
    match timeout(limit, asking).await {
        Ok(version) => Ok(version),
        Err(_) => Err(ServerError::NotReady {
            server: server.into(),
            waited: limit,
            detail: last,
        }),
    }
}

async fn probe(address: &str, login: &Login) -> io::Result<Option<String>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    if let Some(password) = &login.password {
        let auth: Vec<&str> = ["AUTH"]
            .into_iter()
            .chain(login.user.as_deref())
            .chain([password.as_str()])
            .collect();
        let reply = ask(&mut stream, &auth).await?;
        if reply.starts_with('-') {
            return Err(io::Error::other(reply));
        }
    }
    let reply = ask(&mut stream, &["PING"]).await?;
    // It is up; that it wants a password we were not given is what the test is about.
    if reply.starts_with("-NOAUTH") || reply.starts_with("-NOPERM") {
        return Ok(None);
    }
    if reply != "+PONG" {
        return Err(io::Error::other(reply));
    }
    Ok(version(&ask(&mut stream, &["INFO", "server"]).await?))
}

/// Valkey tells the version of Redis it is compatible with, too.
fn version(info: &str) -> Option<String> {
    ["valkey_version:", "redis_version:"].iter().find_map(|field| {
        let line = info.lines().find_map(|line| line.strip_prefix(field))?;
        Some(line.trim().to_owned())
    })
}

/// One command and its reply: a bulk string's content, or the line of any other reply.
async fn ask(stream: &mut BufReader<TcpStream>, words: &[&str]) -> io::Result<String> {
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let Some(length) = line.strip_prefix('$') else {
        return Ok(line.to_owned());
    };
    let length: usize = length
        .parse()
        .map_err(|_| io::Error::other(format!("not RESP: {line:?}")))?;
    if length > 1 << 20 {
        return Err(io::Error::other("a reply over 1 MiB"));
    }
    let mut content = vec![0; length + 2];
    stream.read_exact(&mut content).await?;
    content.truncate(length);
    Ok(String::from_utf8_lossy(&content).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_valkey_wins_over_the_compatible_one() {
        let info = "# Server\r\nserver_name:valkey\r\nredis_version:7.2.4\r\nvalkey_version:8.1.1\r\n";
        assert_eq!(version(info).as_deref(), Some("8.1.1"));
        assert_eq!(version("redis_version:7.0.15\r\n").as_deref(), Some("7.0.15"));
        assert_eq!(version("# Server\r\n"), None);
    }

    #[test]
    fn extra_arguments_come_last() {
        let extra = ["--appendonly".to_owned(), "no".to_owned()];
        let place = Place {
            bind: "127.0.0.1",
            port: 1,
            data: "/d",
            tls: Some((2, "/t")),
            password: Some("p"),
            extra: &extra,
        };
        let args = arguments(&place);
        assert_eq!(args[args.len() - 2..], extra);
        assert!(args.windows(2).any(|pair| pair == ["--requirepass", "p"]));
        assert!(
            args.windows(2)
                .any(|pair| pair == ["--tls-cert-file", "/t/server.crt"])
        );
    }
}
