//! Redis and Valkey.

use std::{io, path::Path};

use async_trait::async_trait;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};

use super::{
    engine::{Engine, Facts, Login, LoginRule, Place, Recipe},
    tls,
};

#[derive(Debug)]
pub(super) struct Redis;

#[derive(Debug)]
pub(super) struct Valkey;

#[async_trait]
impl Engine for Redis {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "redis",
            url_variable: "LEASEHOLD_TEST_REDIS_URL",
            program: "redis-server",
            package: Some("redis-server"),
            user: None,
            official: ("redis", "8"),
            built: ("leasehold-test/redis", "8"),
            port: 6379,
            tls_port: Some(6380),
            waits_for_disk: false,
            data: "/data",
            scheme: "redis",
            tls_scheme: "rediss",
            tls_options: "",
            other_schemes: &["valkey"],
            path: "",
            login: LoginRule::Optional(None),
            admin: None,
            asks_for_certificates: true,
            steps_clock: true,
            clusters: false,
        }
    }

    fn container(&self, place: &Place<'_>) -> Recipe {
        recipe("redis-server", place)
    }

    fn process(&self, program: &Path, place: &Place<'_>) -> Recipe {
        recipe(&program.to_string_lossy(), place)
    }

    async fn probe(&self, address: &str, login: &Login) -> io::Result<Option<String>> {
        probe(address, login).await
    }
}

#[async_trait]
impl Engine for Valkey {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "valkey",
            url_variable: "LEASEHOLD_TEST_VALKEY_URL",
            program: "valkey-server",
            package: Some("valkey-server"),
            user: None,
            official: ("valkey/valkey", "8"),
            built: ("leasehold-test/valkey", "8"),
            port: 6379,
            tls_port: Some(6380),
            waits_for_disk: false,
            data: "/data",
            scheme: "redis",
            tls_scheme: "rediss",
            tls_options: "",
            other_schemes: &["valkey"],
            path: "",
            login: LoginRule::Optional(None),
            admin: None,
            asks_for_certificates: true,
            steps_clock: true,
            clusters: false,
        }
    }

    fn container(&self, place: &Place<'_>) -> Recipe {
        recipe("valkey-server", place)
    }

    fn process(&self, program: &Path, place: &Place<'_>) -> Recipe {
        recipe(&program.to_string_lossy(), place)
    }

    async fn probe(&self, address: &str, login: &Login) -> io::Result<Option<String>> {
        probe(address, login).await
    }
}

fn recipe(program: &str, place: &Place<'_>) -> Recipe {
    let mut command = vec![program.to_owned()];
    command.extend(arguments(place));
    Recipe {
        command,
        ..Recipe::default()
    }
}

/// The arguments of `redis-server` and `valkey-server`.
///
/// `appendfsync no` writes at once and leaves the flush to the kernel, where `everysec` may hold a write back
/// while a flush is under way.
fn arguments(place: &Place<'_>) -> Vec<String> {
    let mut args: Vec<String> = [
        "--port",
        &place.ports.plain.to_string(),
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
    if let (true, Some(port)) = (place.tls, place.ports.tls) {
        let certificates = if place.client_certificates { "yes" } else { "no" };
        args.extend(["--tls-port".into(), port.to_string()]);
        args.extend(["--tls-auth-clients".into(), certificates.into()]);
        for (option, file) in [
            ("cert-file", tls::CERT),
            ("key-file", tls::KEY),
            ("ca-cert-file", tls::CA),
        ] {
            args.extend([format!("--tls-{option}"), place.file(file)]);
        }
    }
    if let Some(password) = place.password {
        args.extend(["--requirepass".into(), password.into()]);
    }
    args.extend_from_slice(place.extra);
    args
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
    use super::super::engine::Ports;
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
        let ports = Ports {
            plain: 1,
            tls: Some(2),
        };
        let place = Place {
            bind: "127.0.0.1",
            ports,
            outside: ports,
            data: "/d",
            config: "/t",
            tls: true,
            client_certificates: false,
            password: Some("p"),
            extra: &extra,
            member: None,
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
