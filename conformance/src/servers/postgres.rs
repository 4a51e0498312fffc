//! PostgreSQL.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    engine::{
        ADMIN, ADMIN_PASSWORD, Before, DATABASE, Engine, Facts, Login, LoginRule, PASSWORD, Place, Recipe,
        USER,
    },
    process, scram, tls,
};

#[derive(Debug)]
pub(super) struct Postgres;

/// Debian's programs are not on PATH, because a machine may have several versions.
const DEBIAN: &str = "/usr/lib/postgresql";
const IMAGE_INIT: &str = "/docker-entrypoint-initdb.d/leasehold.sql";

#[async_trait]
impl Engine for Postgres {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "postgres",
            url_variable: "LEASEHOLD_TEST_POSTGRES_URL",
            program: "postgres",
            package: Some("postgresql"),
            user: Some("postgres"),
            official: ("postgres", "17"),
            built: ("leasehold-test/postgres", "17"),
            port: 5432,
            tls_port: None,
            waits_for_disk: false,
            data: "/var/lib/postgresql/data",
            scheme: "postgres",
            tls_scheme: "postgres",
            tls_options: "?sslmode=require",
            other_schemes: &["postgresql"],
            path: "/leasehold",
            login: LoginRule::Always,
            admin: Some((ADMIN, ADMIN_PASSWORD)),
            asks_for_certificates: false,
            steps_clock: true,
            clusters: false,
        }
    }

    fn find(&self) -> Result<PathBuf, String> {
        process::find("postgres")
            .or_else(newest)
            .ok_or_else(|| format!("postgres is neither on PATH nor below {DEBIAN}"))
    }

    fn container(&self, place: &Place<'_>) -> Recipe {
        let mut command: Vec<String> = Vec::new();
        if place.tls {
            // The key has to be the server's own, which only root can see to, and the image starts as root.
            let (from, to) = (place.file(tls::KEY), place.file(OWN_KEY));
            let script = format!(
                r#"install -o postgres -g postgres -m 600 "{from}" "{to}" && exec docker-entrypoint.sh "$@""#
            );
            command.extend(["sh".into(), "-c".into(), script, "sh".into()]);
        }
        command.push("postgres".into());
        command.extend(arguments(place, OWN_KEY));
        Recipe {
            command,
            env: vec![
                ("POSTGRES_PASSWORD", ADMIN_PASSWORD.into()),
                ("PGDATA", place.data.into()),
            ],
            files: vec![(IMAGE_INIT.into(), init(place).into())],
            ..Recipe::default()
        }
    }

    fn process(&self, program: &Path, place: &Place<'_>) -> Recipe {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let words = |words: &[&str]| words.iter().map(|word| (*word).into()).collect();
        let initdb = Before {
            command: words(&[
                &text(&program.with_file_name("initdb")),
                "--pgdata",
                place.data,
                "--no-sync",
                "--username=postgres",
                "--auth-local=trust",
                "--auth-host=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
            ]),
            input: String::new(),
        };
        let program = text(program);
        let fill = Before {
            command: words(&[
                &program,
                "--single",
                "-D",
                place.data,
                "-c",
                "fsync=off",
                "postgres",
            ]),
            input: init(place),
        };
        let mut command: Vec<String> = vec![program, "-D".into(), place.data.into()];
        command.extend(["-k".into(), place.data.into()]);
        command.extend(arguments(place, tls::KEY));
        Recipe {
            command,
            before: vec![initdb, fill],
            // A segment of System V's shared memory, of which a system has a limited number.
            asked_to_quit: true,
            ..Recipe::default()
        }
    }

    async fn probe(&self, address: &str, login: &Login) -> io::Result<Option<String>> {
        greet(address, login.user.as_deref().unwrap_or(USER)).await?;
        Ok(None)
    }

    fn version_command(&self, program: &str) -> Option<Vec<String>> {
        Some(vec![program.into(), "--version".into()])
    }
}

const OWN_KEY: &str = "own.key";

/// The program of the newest version.
fn newest() -> Option<PathBuf> {
    let versions = fs::read_dir(DEBIAN).ok()?.filter_map(|entry| {
        let folder = entry.ok()?.path();
        let version: u32 = folder.file_name()?.to_str()?.parse().ok()?;
        let program = folder.join("bin/postgres");
        program.is_file().then_some((version, program))
    });
    versions.max().map(|(_, program)| program)
}

/// A commit is in the kernel's hands before its reply leaves, whether or not the disk has it.
fn arguments(place: &Place<'_>, key: &str) -> Vec<String> {
    let mut settings = vec![
        format!("port={}", place.ports.plain),
        format!("listen_addresses={}", place.bind),
        "max_connections=300".into(),
        "fsync=off".into(),
        "shared_buffers=32MB".into(),
        // In files of the data folder: other shared memory would outlive SIGKILL.
        "dynamic_shared_memory_type=mmap".into(),
    ];
    if place.tls {
        settings.extend([
            "ssl=on".into(),
            format!("ssl_cert_file={}", place.file(tls::CERT)),
            format!("ssl_key_file={}", place.file(key)),
        ]);
    }
    let mut args: Vec<String> = settings
        .into_iter()
        .flat_map(|setting| ["-c".into(), setting])
        .collect();
    args.extend_from_slice(place.extra);
    args
}

/// A statement a line, which is what a server without clients reads.
fn init(place: &Place<'_>) -> String {
    let password = quoted(&scram::verifier(place.password.unwrap_or(PASSWORD)));
    let admin_password = quoted(&scram::verifier(ADMIN_PASSWORD));
    format!(
        "CREATE ROLE {USER} LOGIN PASSWORD {password};\n\
         CREATE ROLE {ADMIN} SUPERUSER LOGIN PASSWORD {admin_password};\n\
         CREATE DATABASE {DATABASE} OWNER {USER};\n"
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Says who we are, and hears that it wants proof: then it serves.
async fn greet(address: &str, user: &str) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut body = 196_608_u32.to_be_bytes().to_vec();
    for word in ["user", user, "database", DATABASE, ""] {
        body.extend_from_slice(word.as_bytes());
        body.push(0);
    }
    let length = u32::try_from(body.len() + 4).map_err(io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(&body).await?;
    let kind = stream.read_u8().await?;
    let length = stream.read_u32().await?.saturating_sub(4);
    let mut reply = Vec::new();
    stream.take(length.into()).read_to_end(&mut reply).await?;
    match kind {
        b'R' => Ok(()),
        _ => Err(io::Error::other(
            String::from_utf8_lossy(&reply).replace('\0', " "),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_quoted() {
        assert_eq!(quoted("a'b"), "'a''b'");
    }
}
