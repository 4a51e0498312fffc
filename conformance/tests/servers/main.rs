//! The test servers themselves: each kind from each origin that this machine should have.
#![expect(clippy::disallowed_methods, reason = "real servers live in real time")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests fail and report like tests"
)]

use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use leasehold_conformance::servers::{
    Origin, Server, ServerError, ServerKind, ServerRequest, Target, survey,
};
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

mod ask;
mod clusters;
mod limits;
mod secure;

const SOON: Duration = Duration::from_secs(5);
/// Less than a server that gives no answer has to give one.
const LONG: Duration = Duration::from_secs(45);

async fn obeys(target: Target) {
    let start = Instant::now();
    let server = target.request().start().await.unwrap();
    println!("{}, in {:?}", server.describe(), start.elapsed());
    assert!(server.can_restart());
    assert!(server.version().is_some());
    let address = server.address().to_owned();
    let kind = target.kind;
    ask::is_well(kind, &address).await.unwrap();

    ask::keep(kind, &address).await;
    let start = Instant::now();
    server.restart().await.unwrap();
    println!("back in {:?}", start.elapsed());
    assert_eq!(server.address(), address);
    ask::kept(kind, &address).await;

    server.stop().await.unwrap();
    assert!(
        timeout(SOON, ask::is_well(kind, &address))
            .await
            .unwrap()
            .is_err()
    );
    server.start_again().await.unwrap();
    ask::is_well(kind, &address).await.unwrap();

    server.pause().await.unwrap();
    let answer = timeout(Duration::from_millis(300), ask::is_well(kind, &address));
    assert!(answer.await.is_err(), "a paused server answers");
    server.resume().await.unwrap();
    timeout(SOON, ask::is_well(kind, &address))
        .await
        .unwrap()
        .unwrap();

    // A paused one can be killed, restarted and dropped.
    server.pause().await.unwrap();
    server.restart().await.unwrap();
    server.pause().await.unwrap();
    drop(server);
    gone(&address).await;
}

async fn gone(address: &str) {
    let end = Instant::now() + SOON;
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < end, "{address} still listens");
        sleep(Duration::from_millis(50)).await;
    }
}

/// The targets that have to run here, as the suites see them.
fn planned() -> Vec<Target> {
    let plan = Target::plan(&Target::all()).unwrap();
    plan.left_out
        .iter()
        .for_each(|target| println!("left out, as asked: {target}"));
    plan.run
        .into_iter()
        .filter(|target| target.origin != Origin::Url)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_target_can_be_restarted_paused_and_dropped() {
    for target in planned() {
        obeys(target).await;
    }
}

/// Those of the plan that have to do with Redis.
fn redis_like() -> impl Iterator<Item = Target> {
    let redis = [ServerKind::Redis, ServerKind::Valkey];
    planned()
        .into_iter()
        .filter(move |target| redis.contains(&target.kind))
}

#[tokio::test]
async fn passwords_arguments_and_tls_reach_the_server() {
    for target in redis_like() {
        let request = target
            .request()
            .password("a b@c")
            .args(["--maxmemory", "7mb"])
            .tls();
        let server = request.start().await.unwrap();
        println!("{server:?}");
        assert!(!format!("{server:?}").contains("a b@c"));
        let url = server.url();
        assert!(url.starts_with("rediss://:a%20b%40c@127.0.0.1:"), "{url}");
        let ca = server.ca_certificate().unwrap();
        assert!(ca.starts_with("-----BEGIN CERTIFICATE-----"));
        let denied = ask::redis(server.address(), "PING", "\n").await.unwrap();
        assert!(denied.starts_with("-NOAUTH"));
        let login = "AUTH \"a b@c\"\r\nCONFIG GET maxmemory";
        let reply = ask::redis(server.address(), login, "7340032").await.unwrap();
        assert!(reply.contains("7340032"), "{reply}");
        let tls = server.url().rsplit(':').next().unwrap().to_owned();
        assert!(ask::speaks_tls(&format!("127.0.0.1:{tls}")).await);
    }
}

#[tokio::test]
async fn an_argument_that_the_server_refuses_is_reported_with_its_log() {
    for target in planned() {
        let wrong = match target.kind {
            // It ignores what it does not know.
            ServerKind::ZooKeeper => "tickTime=no-such-option",
            ServerKind::Postgres => "--port=no-such-option",
            _ => "--no-such-option",
        };
        let start = Instant::now();
        let error = target.request().args([wrong]).start().await.unwrap_err();
        assert!(matches!(error, ServerError::NotReady { .. }), "{error}");
        assert!(error.to_string().contains("no-such-option"), "{error}");
        assert!(start.elapsed() < LONG);
    }
}

#[tokio::test]
async fn the_survey_names_every_origin() {
    for kind in ServerKind::ALL {
        let found = survey(kind).await;
        println!("{kind}: {found:?}");
        assert_eq!(found.len(), 3);
    }
}

/// A guard that a panic drops, on a runtime of one thread and on none.
#[test]
fn a_panic_cleans_up() {
    for target in planned() {
        let address = std::sync::Mutex::new(String::new());
        let panicked = std::panic::catch_unwind(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let server: Server = runtime.block_on(target.request().start()).unwrap();
            *address.lock().unwrap() = server.address().to_owned();
            drop(runtime);
            std::panic::resume_unwind(Box::new(server.describe()));
        });
        assert!(panicked.is_err());
        let address = address.lock().unwrap().clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(gone(&address));
    }
}

const HOLDER: &str = "LEASEHOLD_TEST_HOLD_TARGET";

/// Not a test of its own: the process that `a_killed_test_leaves_nothing` kills.
#[tokio::test]
async fn holder() {
    let Ok(target) = std::env::var(HOLDER) else { return };
    let server = target.parse::<Target>().unwrap().request().start().await.unwrap();
    println!("address={}", server.address());
    sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_killed_test_leaves_nothing() {
    for target in planned() {
        if target.origin == Origin::Container && !on_path("docker") {
            println!("{target}: no docker program, so nothing removes a container after SIGKILL");
            continue;
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holder", "--nocapture"])
            .env(HOLDER, target.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = std::io::BufReader::new(child.stdout.take().unwrap());
        let address = std::io::BufRead::lines(output)
            .map_while(Result::ok)
            .find_map(|line| Some(line.split_once("address=")?.1.to_owned()))
            .unwrap();
        TcpStream::connect(&address).await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        gone(&address).await;
    }
}

fn on_path(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .any(|folder| Path::new(&folder).join(program).is_file())
}

#[tokio::test]
async fn what_cannot_be_had_says_what_to_run() {
    let error = ServerRequest::new(ServerKind::Valkey)
        .origin(Origin::Url)
        .start()
        .await;
    if std::env::var_os(ServerKind::Valkey.url_variable()).is_none() {
        let message = error.unwrap_err().to_string();
        assert!(
            message.contains("cargo xtask servers") && message.contains("LEASEHOLD_TEST_VALKEY_URL"),
            "{message}"
        );
    }
}
