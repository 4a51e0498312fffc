//! Libraries in other languages. A program of `foreign/` has the library, takes one request a line on stdin, and answers
//! each with a line on stdout when it is done: `7 acquire 1 name 30000`, `7 ok`.
//!
//! All clients of a contender are in one such process, each with connections of its own. The two lines cost some tens of
//! microseconds on top of what the library takes, in every acquire and every release.

use std::collections::HashMap;
use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use leasehold_bench::backend::Backend;
use leasehold_bench::contender::Entry;
use leasehold_bench::place::Place;
use leasehold_measure::{Client, Failure, Hold, Offers};
use tokio::sync::oneshot;

/// The Python that has the libraries.
const PYTHON: &str = "LEASEHOLD_BENCH_PYTHON";
/// The class path of Curator, where it is not Debian's.
const CLASS_PATH: &str = "LEASEHOLD_BENCH_CURATOR_CLASSPATH";
/// Debian's.
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

/// A library, and how it is got.
struct Library {
    name: &'static str,
    backends: &'static [Backend],
    offers: Offers,
    /// What its clients send to Redis.
    commands: &'static [&'static str],
    /// What prints its version, when it is there.
    version: fn() -> Command,
    start: fn(&Path) -> Result<Command, Failure>,
    remedy: &'static str,
}

const QUEUE: Offers = Offers {
    queue: true,
    tokens: false,
    renewal: false,
};
const POLLS: Offers = Offers {
    queue: false,
    ..QUEUE
};
const REQUIREMENTS: &str =
    "pip install -r bench/rivals/foreign/requirements.txt, for the Python in LEASEHOLD_BENCH_PYTHON";
const REDIS: &[Backend] = &[Backend::Redis, Backend::Valkey];

const ALL: [Library; 4] = [
    Library {
        name: "redis-py",
        backends: REDIS,
        offers: POLLS,
        commands: &["set", "eval", "evalsha"],
        version: || python("import redis; print(redis.__version__)"),
        start: |_| Ok(script("redis-py")),
        remedy: REQUIREMENTS,
    },
    Library {
        name: "python-redis-lock",
        backends: REDIS,
        offers: QUEUE,
        // Its script calls `del` and `lpush`, which are no requests.
        commands: &["set", "eval", "evalsha", "blpop"],
        version: || python("import redis_lock; print(redis_lock.__version__)"),
        start: |_| Ok(script("python-redis-lock")),
        remedy: REQUIREMENTS,
    },
    Library {
        name: "kazoo",
        backends: &[Backend::ZooKeeper],
        offers: QUEUE,
        commands: &[],
        version: || python("import kazoo; print(kazoo.__version__)"),
        start: |_| Ok(script("kazoo")),
        remedy: REQUIREMENTS,
    },
    Library {
        name: "curator",
        backends: &[Backend::ZooKeeper],
        offers: QUEUE,
        commands: &[],
        version: curator_version,
        start: curator,
        remedy: "apt-get install libcurator-recipes-java default-jdk-headless, or a class path in \
                 LEASEHOLD_BENCH_CURATOR_CLASSPATH",
    },
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("foreign")
}

fn python(code: &str) -> Command {
    let mut command = Command::new(std::env::var(PYTHON).unwrap_or_else(|_| "python3".to_owned()));
    command.args(["-c", code]);
    command
}

fn script(library: &str) -> Command {
    let mut command = Command::new(std::env::var(PYTHON).unwrap_or_else(|_| "python3".to_owned()));
    command.arg(folder().join("locks.py")).arg(library);
    command
}

fn class_path() -> String {
    std::env::var(CLASS_PATH).unwrap_or_else(|_| LIBRARIES.map(|jar| format!("{JARS}/{jar}.jar")).join(":"))
}

/// The jar with a number in its name, beside the one on the class path.
fn curator_version() -> Command {
    let mut command = Command::new("sh");
    let look = "command -v javac >/dev/null || exit 1; for jar in $(echo \"$0\" | tr : ' '); do \
                case $jar in *curator-recipes*.jar) [ -f \"$jar\" ] || exit 1; \
                cd \"$(dirname \"$jar\")\" && echo curator-recipes-*.jar; exit;; esac; done; exit 1";
    command.args(["-c", look]).arg(class_path());
    command
}

fn curator(classes: &Path) -> Result<Command, Failure> {
    let class_path = class_path();
    let compiled = Command::new("javac")
        .args(["-cp", &class_path, "-d"])
        .arg(classes)
        .arg(folder().join("Locks.java"))
        .status()?;
    if !compiled.success() {
        return Err("javac failed".into());
    }
    let mut command = Command::new("java");
    command.args(["-Xmx512m", "-cp"]);
    command
        .arg(format!("{}:{class_path}", classes.display()))
        .arg("Locks");
    Ok(command)
}

/// The version of each that is here.
fn installed() -> &'static [Option<String>; 4] {
    static FOUND: OnceLock<[Option<String>; 4]> = OnceLock::new();
    FOUND.get_or_init(|| {
        ALL.map(|library| {
            let output = (library.version)().stderr(Stdio::null()).output().ok()?;
            let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            (output.status.success() && !version.is_empty()).then_some(version)
        })
    })
}

pub(crate) fn versions() -> Vec<(String, String)> {
    let known = ALL.iter().zip(installed());
    known
        .filter_map(|(library, version)| Some((library.name.to_owned(), version.clone()?)))
        .collect()
}

pub(crate) fn missing() -> Vec<String> {
    let absent = ALL
        .iter()
        .zip(installed())
        .filter(|(_, version)| version.is_none());
    absent
        .map(|(library, _)| format!("{}: {}", library.name, library.remedy))
        .collect()
}

pub(crate) fn contenders(place: &Arc<Place>) -> Vec<Entry> {
    let here = ALL
        .into_iter()
        .zip(installed())
        .filter(|(_, version)| version.is_some());
    let fitting = here.filter(|(library, _)| library.backends.contains(&place.backend()));
    fitting
        .map(|(library, _)| {
            let program = Arc::new(Mutex::new(None::<Arc<Program>>));
            let start = library.start;
            let connect = move |place: Arc<Place>| {
                let program = Arc::clone(&program);
                async move {
                    let program = {
                        let mut known = lock(&program);
                        match &*known {
                            Some(program) => Arc::clone(program),
                            None => {
                                let started = Program::start(start, place.address())?;
                                Arc::clone(known.insert(Arc::new(started)))
                            }
                        }
                    };
                    let number = program.ask("open").await?;
                    let client: Box<dyn Client> = Box::new(Foreign { program, number });
                    Ok(client)
                }
            };
            Entry::new(place, library.name, library.offers, connect).commands(library.commands)
        })
        .collect()
}

type Waiting = Mutex<HashMap<u64, oneshot::Sender<Result<(), String>>>>;

/// A process with the library. Threads of ours and not of a runtime wait for it: it outlives the runtimes of single
/// trials.
struct Program {
    child: Mutex<Child>,
    requests: Mutex<ChildStdin>,
    waiting: Arc<Waiting>,
    next: AtomicU64,
    _classes: tempfile::TempDir,
}

impl Program {
    fn start(command: fn(&Path) -> Result<Command, Failure>, address: &str) -> Result<Self, Failure> {
        let classes = tempfile::tempdir()?;
        let mut command = command(classes.path())?;
        let mut child = command
            .arg(address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let requests = child.stdin.take().ok_or("no stdin")?;
        let answers = child.stdout.take().ok_or("no stdout")?;
        let waiting = Arc::new(Waiting::default());
        let hearing = Arc::clone(&waiting);
        thread::Builder::new()
            .name("foreign".into())
            .spawn(move || hear(answers, &hearing))?;
        Ok(Self {
            child: Mutex::new(child),
            requests: Mutex::new(requests),
            waiting,
            next: AtomicU64::new(1),
            _classes: classes,
        })
    }

    /// The number of the request, which is that of what it made.
    async fn ask(&self, request: impl fmt::Display) -> Result<u64, Failure> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, told) = oneshot::channel();
        lock(&self.waiting).insert(number, sender);
        lock(&self.requests).write_all(format!("{number} {request}\n").as_bytes())?;
        told.await.map_err(|_| "the program has ended")??;
        Ok(number)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        // Both fail only when it has ended and been waited for.
        child.kill().ok();
        child.wait().ok();
    }
}

/// Until the program ends.
fn hear(answers: ChildStdout, waiting: &Waiting) {
    for line in BufReader::new(answers).lines().map_while(Result::ok) {
        let mut words = line.splitn(3, ' ');
        let number = words.next().and_then(|number| number.parse().ok());
        let answer = match words.next() {
            Some("ok") => Ok(()),
            _ => Err(line.clone()),
        };
        if let Some(asker) = number.and_then(|number: u64| lock(waiting).remove(&number)) {
            // It may have given up.
            asker.send(answer).ok();
        }
    }
    lock(waiting).clear();
}

struct Foreign {
    program: Arc<Program>,
    number: u64,
}

struct Held {
    program: Arc<Program>,
    number: u64,
}

impl fmt::Debug for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Foreign({})", self.number)
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({})", self.number)
    }
}

#[async_trait]
impl Client for Foreign {
    async fn acquire(&self, name: &str, ttl: Duration) -> Result<Box<dyn Hold>, Failure> {
        let name = name.replace([' ', '/'], "_");
        let request = format!("acquire {} {name} {}", self.number, ttl.as_millis());
        let number = self.program.ask(request).await?;
        let program = Arc::clone(&self.program);
        Ok(Box::new(Held { program, number }))
    }

    async fn close(self: Box<Self>) -> Result<(), Failure> {
        self.program.ask(format!("close {}", self.number)).await?;
        Ok(())
    }
}

#[async_trait]
impl Hold for Held {
    async fn release(self: Box<Self>) -> Result<(), Failure> {
        self.program.ask(format!("release {}", self.number)).await?;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
