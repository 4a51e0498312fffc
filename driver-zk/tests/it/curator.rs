//! A Java service with Curator on the same lock.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use leasehold_driver_zk::ZkLockManager;
use lockcore::{Guard, LockManager};

use crate::support::{admin, shared, unique};

/// Where Debian has them.
const JARS: &str = "/usr/share/java";
const LIBRARIES: [&str; 9] = [
    "curator-client",
    "curator-framework",
    "curator-recipes",
    "zookeeper",
    "zookeeper-jute",
    "slf4j-api",
    "slf4j-nop",
    "guava",
    "metrics-core",
];
/// Curator is used all the same where it is elsewhere: a class path of one's own.
const CLASS_PATH: &str = "LEASEHOLD_TEST_CURATOR_CLASSPATH";

/// What Java needs; `None` where it is not.
fn class_path() -> Option<String> {
    if let Ok(path) = std::env::var(CLASS_PATH) {
        return Some(path);
    }
    let jars = LIBRARIES.map(|library| format!("{JARS}/{library}.jar"));
    let there = Path::new(&jars[2]).is_file() && Command::new("javac").arg("-version").output().is_ok();
    there.then(|| jars.join(":"))
}

struct Contender {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Contender {
    fn start(classes: &Path, class_path: &str, servers: &str, path: &str) -> Self {
        let mut process = Command::new("java")
            .args(["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(format!("{}:{class_path}", classes.display()))
            .args(["Contend", servers, path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (input, output) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let mut contender = Self {
            process,
            input,
            output: BufReader::new(output),
        };
        contender.says("ready");
        contender
    }

    fn tell(&mut self, word: &str) {
        writeln!(self.input, "{word}").unwrap();
    }

    fn says(&mut self, expected: &str) {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), expected);
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

async fn takes(locks: &ZkLockManager, name: &str) -> Guard {
    let asked = locks
        .lock(name)
        .ttl(Duration::from_secs(10))
        .wait(Duration::from_secs(10));
    asked.acquire().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_java_service_shares_the_lock() {
    let Some(class_path) = class_path() else {
        return println!(
            "NOT run: javac or the jars of Curator are not here (Debian: libcurator-recipes-java; or set {CLASS_PATH})"
        );
    };
    let classes = tempfile::tempdir().unwrap();
    let compiled = Command::new("javac")
        .args(["-cp", &class_path, "-d"])
        .arg(classes.path())
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/Contend.java"))
        .status();
    assert!(compiled.unwrap().success());

    let server = shared().await;
    let base = format!("/{}", unique("java"));
    for (locks, name) in [
        (
            ZkLockManager::connect(server.url()).await.unwrap(),
            unique("java"),
        ),
        // Where the service has its locks already.
        (
            ZkLockManager::connect(&format!("{}?curator={base}/jobs", server.url()))
                .await
                .unwrap(),
            "nightly".to_owned(),
        ),
    ] {
        let path = locks.lock_path(&name).unwrap();
        let mut java = Contender::start(classes.path(), &class_path, server.address(), &path);
        let client = admin(server).client().await.unwrap();

        // Theirs, then ours, then theirs again; each excludes the other.
        java.tell("try");
        java.says("acquired");
        assert!(locks.lock(&name).try_acquire().await.unwrap().is_none());
        assert_eq!(locks.inspect(&name).await.unwrap()[0].holders.len(), 1);
        java.tell("release");
        java.says("released");
        let guard = takes(&locks, &name).await;
        java.tell("try");
        java.says("busy");

        // Both wait for the other in turn, and are woken.
        java.tell("acquire");
        java.says("waiting");
        wait_for(&client, &path, 2).await;
        let mut guard = Some(guard);
        for round in 0..5 {
            let mine = guard.take().unwrap();
            let token = mine.token();
            let next = {
                let (locks, name) = (locks.clone(), name.clone());
                tokio::spawn(async move { takes(&locks, &name).await })
            };
            wait_for(&client, &path, 3).await;
            mine.release().await.unwrap();
            java.says("acquired");
            tokio::time::sleep(Duration::from_millis(600)).await;
            assert!(!next.is_finished(), "round {round}: granted while Java holds");
            java.tell("release");
            java.says("released");
            let mine = next.await.unwrap();
            assert!(mine.token() > token);
            java.tell("acquire");
            java.says("waiting");
            wait_for(&client, &path, 2).await;
            guard = Some(mine);
        }
        guard.take().unwrap().release().await.unwrap();
        java.says("acquired");
        java.tell("release");
        java.says("released");
        assert_eq!(client.list_children(&path).await.unwrap_or_default(), [""; 0]);
    }
}

async fn wait_for(client: &zookeeper_client::Client, path: &str, count: usize) {
    crate::support::eventually("they wait", || async {
        client
            .list_children(path)
            .await
            .is_ok_and(|children| children.len() == count)
    })
    .await;
}
