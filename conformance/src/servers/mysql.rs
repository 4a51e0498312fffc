//! MySQL and MariaDB.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use tokio::{io::AsyncReadExt, net::TcpStream};

use super::{
    engine::{
        ADMIN, ADMIN_PASSWORD, Before, DATABASE, Engine, Facts, Login, LoginRule, PASSWORD, Place, Recipe,
        USER,
    },
    process, tls,
};

#[derive(Debug)]
pub(super) struct MySql;

#[derive(Debug)]
pub(super) struct MariaDb;

const INIT: &str = "init.sql";
/// Where the images look for SQL to be run at the first start.
const IMAGE_INIT: &str = "/docker-entrypoint-initdb.d/leasehold.sql";

#[async_trait]
impl Engine for MySql {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "mysql",
            url_variable: "LEASEHOLD_TEST_MYSQL_URL",
            program: "mysqld",
            package: None,
            user: Some("mysql"),
            official: ("mysql", "9"),
            built: ("leasehold-test/mysql", "9"),
            port: 3306,
            tls_port: None,
            waits_for_disk: false,
            data: "/var/lib/mysql",
            scheme: "mysql",
            tls_scheme: "mysqls",
            tls_options: "",
            other_schemes: &[],
            path: "/leasehold",
            login: LoginRule::Always,
            admin: Some((ADMIN, ADMIN_PASSWORD)),
            asks_for_certificates: false,
            steps_clock: true,
            clusters: false,
        }
    }

    /// MariaDB brings a `mysqld`, too.
    fn find(&self) -> Result<PathBuf, String> {
        let program = process::find("mysqld").ok_or("mysqld is not on PATH")?;
        match fs::canonicalize(&program) {
            Ok(real) if real.ends_with("mariadbd") => Err(format!("{} is MariaDB's", program.display())),
            _ => Ok(program),
        }
    }

    fn container(&self, place: &Place<'_>) -> Recipe {
        let mut command = vec!["mysqld".into()];
        command.extend(Self::arguments(place));
        in_container(command, "MYSQL_ROOT_PASSWORD", place)
    }

    fn process(&self, program: &Path, place: &Place<'_>) -> Recipe {
        let program = program.to_string_lossy().into_owned();
        let fill = words(&[&program, "--no-defaults", "--initialize-insecure"]);
        let mut args = Self::arguments(place);
        args.push("--innodb-redo-log-capacity=8M".into());
        as_process(program, fill, args, place)
    }

    async fn probe(&self, address: &str, _: &Login) -> io::Result<Option<String>> {
        greeting(address).await.map(Some)
    }
}

impl MySql {
    fn arguments(place: &Place<'_>) -> Vec<String> {
        let mut args = common(place);
        args.push("--mysqlx=OFF".into());
        args
    }
}

#[async_trait]
impl Engine for MariaDb {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "mariadb",
            url_variable: "LEASEHOLD_TEST_MARIADB_URL",
            program: "mariadbd",
            package: Some("mariadb-server"),
            official: ("mariadb", "11"),
            built: ("leasehold-test/mariadb", "11"),
            other_schemes: &["mariadb"],
            user: Some("mysql"),
            port: 3306,
            tls_port: None,
            waits_for_disk: false,
            data: "/var/lib/mysql",
            scheme: "mysql",
            tls_scheme: "mysqls",
            tls_options: "",
            path: "/leasehold",
            login: LoginRule::Always,
            admin: Some((ADMIN, ADMIN_PASSWORD)),
            asks_for_certificates: false,
            steps_clock: true,
            clusters: false,
        }
    }

    fn container(&self, place: &Place<'_>) -> Recipe {
        let mut command = vec!["mariadbd".into()];
        command.extend(common(place));
        in_container(command, "MARIADB_ROOT_PASSWORD", place)
    }

    fn process(&self, program: &Path, place: &Place<'_>) -> Recipe {
        let fill = words(&[
            "mariadb-install-db",
            "--no-defaults",
            "--skip-name-resolve",
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
            "--innodb-log-file-size=8M",
        ]);
        let mut args = common(place);
        args.push("--innodb-log-file-size=8M".into());
        as_process(program.to_string_lossy().into_owned(), fill, args, place)
    }

    async fn probe(&self, address: &str, _: &Login) -> io::Result<Option<String>> {
        greeting(address).await.map(Some)
    }
}

/// Small and quick to start; every commit is in the kernel's hands before its reply leaves.
fn common(place: &Place<'_>) -> Vec<String> {
    let mut args = vec![
        format!("--port={}", place.ports.plain),
        format!("--bind-address={}", place.bind),
    ];
    args.extend(words(&[
        "--max-connections=1000",
        "--innodb-buffer-pool-size=32M",
        "--innodb-flush-log-at-trx-commit=2",
        "--performance-schema=OFF",
        "--skip-name-resolve",
        "--skip-log-bin",
    ]));
    if place.tls {
        for (option, file) in [("cert", tls::CERT), ("key", tls::KEY), ("ca", tls::CA)] {
            args.push(format!("--ssl-{option}={}", place.file(file)));
        }
    }
    args
}

fn in_container(mut command: Vec<String>, root_password: &'static str, place: &Place<'_>) -> Recipe {
    command.push(format!("--datadir={}", place.data));
    command.extend_from_slice(place.extra);
    Recipe {
        command,
        env: vec![(root_password, ADMIN_PASSWORD.into())],
        files: vec![(IMAGE_INIT.into(), init(place).into())],
        ..Recipe::default()
    }
}

fn as_process(program: String, fill: Vec<String>, args: Vec<String>, place: &Place<'_>) -> Recipe {
    // A server that starts removes the temporary tables that it finds, also those of its neighbours.
    let data = format!("--datadir={}", place.data);
    let temporary = format!("--tmpdir={}", place.data);
    let before = Before {
        command: fill
            .into_iter()
            .chain([data.clone(), temporary.clone()])
            .collect(),
        input: String::new(),
    };
    let file = place.file(INIT);
    let mut command = vec![program, "--no-defaults".into(), data, temporary];
    // In the data folder: a socket's path may not be long.
    command.extend(words(&["--socket=mysqld.sock", "--pid-file=mysqld.pid"]));
    command.extend(args);
    command.push(format!("--init-file={file}"));
    command.extend_from_slice(place.extra);
    Recipe {
        command,
        files: vec![(file, init(place).into())],
        before: vec![before],
        ..Recipe::default()
    }
}

/// Also run at every later start of a process, so it has to bear that.
fn init(place: &Place<'_>) -> String {
    let password = quoted(place.password.unwrap_or(PASSWORD));
    let admin_password = quoted(ADMIN_PASSWORD);
    format!(
        "CREATE DATABASE IF NOT EXISTS {DATABASE};\n\
         CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY {password};\n\
         GRANT ALL ON {DATABASE}.* TO '{USER}'@'%';\n\
         CREATE USER IF NOT EXISTS '{ADMIN}'@'%' IDENTIFIED BY {admin_password};\n\
         GRANT ALL ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION;\n"
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).into()).collect()
}

/// The version in the packet with which the server greets. It greets when it can serve.
async fn greeting(address: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let [low, middle, high, _] = head;
    let length = u32::from_le_bytes([low, middle, high, 0]);
    let mut packet = Vec::new();
    stream.take(length.into()).read_to_end(&mut packet).await?;
    match packet.split_first() {
        Some((10, rest)) => Ok(version(rest)),
        // An error packet, which has a code and a text.
        Some((255, rest)) => Err(io::Error::other(String::from_utf8_lossy(rest).into_owned())),
        _ => Err(io::Error::other("no greeting of MySQL's")),
    }
}

/// `5.5.5-10.11.11-MariaDB-..`, where the first part is for old replicas, or `9.7.4`.
fn version(greeting: &[u8]) -> String {
    let text = greeting.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    let text = text.strip_prefix("5.5.5-").unwrap_or(&text);
    text.split('-').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        assert_eq!(version(b"5.5.5-10.11.11-MariaDB-0+deb12u1\0\x07rest"), "10.11.11");
        assert_eq!(version(b"9.7.4-debian\0rest"), "9.7.4");
    }

    #[test]
    fn a_password_is_quoted() {
        assert_eq!(quoted(r"a'b\c"), r"'a''b\\c'");
    }
}
