//! ZooKeeper.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    engine::{Engine, Facts, Login, LoginRule, Place, Recipe, USER},
    process, tls,
};

#[derive(Debug)]
pub(super) struct ZooKeeper;

const JARS: &str = "/usr/share/java";
const LIBRARY: &str = "zookeeper.jar";
/// With what TLS needs and Debian's package forgets.
const LIBRARIES: [&str; 4] = [
    LIBRARY,
    "slf4j-simple.jar",
    "netty-codec.jar",
    "netty-resolver.jar",
];
const CONFIG: &str = "zoo.cfg";
/// Small, and quick to start.
const JAVA: &str = "-Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1";

#[async_trait]
impl Engine for ZooKeeper {
    fn facts(&self) -> &'static Facts {
        &Facts {
            name: "zookeeper",
            url_variable: "LEASEHOLD_TEST_ZK_URL",
            program: "java",
            package: Some("zookeeper"),
            user: Some("zookeeper"),
            official: ("zookeeper", "3.9"),
            built: ("leasehold-test/zookeeper", "3.9"),
            port: 2181,
            tls_port: Some(2182),
            waits_for_disk: false,
            data: "/data",
            scheme: "zk",
            tls_scheme: "zks",
            tls_options: "",
            other_schemes: &[],
            path: "",
            login: LoginRule::Optional(Some(USER)),
            admin: None,
            asks_for_certificates: true,
            steps_clock: true,
            clusters: true,
        }
    }

    fn find(&self) -> Result<PathBuf, String> {
        let library = Path::new(JARS).join(LIBRARY);
        if !library.is_file() {
            return Err(format!("{} is not here", library.display()));
        }
        process::find("java").ok_or_else(|| "java is not on PATH".into())
    }

    fn container(&self, place: &Place<'_>) -> Recipe {
        let flags = ["JVMFLAGS", "JMXDISABLE", "ZOO_LOG4J_PROP"];
        let values = [JAVA, "true", "WARN,CONSOLE"];
        Recipe {
            command: vec!["zkServer.sh".into(), "start-foreground".into()],
            env: flags.into_iter().zip(values.map(Into::into)).collect(),
            // Where the image's own start script looks, which keeps a file that is there.
            files: files("/conf/zoo.cfg", place),
            ..Recipe::default()
        }
    }

    fn process(&self, program: &Path, place: &Place<'_>) -> Recipe {
        let mut command = vec![program.to_string_lossy().into_owned()];
        command.extend(JAVA.split(' ').map(Into::into));
        let file = place.file(CONFIG);
        for word in [
            "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
            "-cp",
            &LIBRARIES.map(|library| format!("{JARS}/{library}")).join(":"),
            "org.apache.zookeeper.server.quorum.QuorumPeerMain",
            &file,
        ] {
            command.push(word.into());
        }
        Recipe {
            command,
            files: files(&file, place),
            ..Recipe::default()
        }
    }

    async fn probe(&self, address: &str, _: &Login) -> io::Result<Option<String>> {
        let reply = four_letters(address, "srvr").await?;
        if !reply.contains("Mode: ") {
            return Err(io::Error::other(reply));
        }
        Ok(version(&reply))
    }

    async fn leads(&self, address: &str) -> io::Result<Option<u64>> {
        let reply = four_letters(address, "srvr").await?;
        Ok(reply.contains("Mode: leader").then(|| epoch(&reply)))
    }
}

/// The reply to a four letter word.
pub(super) async fn four_letters(address: &str, word: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(word.as_bytes()).await?;
    let mut reply = String::new();
    stream.take(1 << 16).read_to_string(&mut reply).await?;
    Ok(reply)
}

/// The upper half of `Zxid: 0x100000002`.
fn epoch(reply: &str) -> u64 {
    let zxid = reply.lines().find_map(|line| line.strip_prefix("Zxid: 0x"));
    zxid.and_then(|zxid| u64::from_str_radix(zxid, 16).ok())
        .unwrap_or_default()
        >> 32
}

/// `Zookeeper version: 3.8.0-${mvngit.commit.id}, built on ..`
fn version(reply: &str) -> Option<String> {
    let version = reply
        .lines()
        .find_map(|line| line.strip_prefix("Zookeeper version: "))?;
    Some(version.split(['-', ',', ' ']).next()?.to_owned())
}

fn files(config_file: &str, place: &Place<'_>) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![(config_file.into(), config(place).into())];
    files.extend(place.member.map(|member| {
        let number = member.me + 1;
        (format!("{}/myid", place.data), number.to_string().into())
    }));
    files
}

/// Ticks of half a second, so that sessions may be as short as one.
fn config(place: &Place<'_>) -> String {
    let mut lines = vec![
        "tickTime=500".into(),
        "initLimit=20".into(),
        "syncLimit=10".into(),
        "minSessionTimeout=1000".into(),
        "maxSessionTimeout=60000".into(),
        format!("dataDir={}", place.data),
        format!("clientPort={}", place.ports.plain),
        format!("clientPortAddress={}", place.bind),
        "maxClientCnxns=0".into(),
        "forceSync=no".into(),
        "4lw.commands.whitelist=*".into(),
        "admin.enableServer=false".into(),
        // In kilobytes. The 64 MiB of the default take longer than the start.
        "preAllocSize=1024".into(),
    ];
    if let (true, Some(port)) = (place.tls, place.ports.tls) {
        lines.extend([
            format!("secureClientPort={port}"),
            format!("secureClientPortAddress={}", place.bind),
            "serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory".into(),
            format!("ssl.keyStore.location={}", place.file(tls::PEM)),
            format!("ssl.trustStore.location={}", place.file(tls::CA)),
            format!(
                "ssl.clientAuth={}",
                if place.client_certificates { "need" } else { "none" }
            ),
        ]);
    }
    for (index, node) in place
        .member
        .iter()
        .flat_map(|member| member.nodes.iter().enumerate())
    {
        let (number, peer, election) = (index + 1, node.peer, node.election);
        lines.push(format!("server.{number}=127.0.0.1:{peer}:{election}"));
    }
    lines.extend_from_slice(place.extra);
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read() {
        let reply = "Zookeeper version: 3.8.0-${mvngit.commit.id}, built on 2024\nMode: standalone\n";
        assert_eq!(version(reply).as_deref(), Some("3.8.0"));
        assert_eq!(version("nothing"), None);
        assert_eq!(epoch("Mode: leader\nZxid: 0x300000002\n"), 3);
    }
}
