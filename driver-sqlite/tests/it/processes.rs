//! Many processes on one file.

use std::process::Command;
use std::time::{Duration, Instant};

use lockcore::driver::{Driver, Intent};

use crate::support::{Ask, Place, claim, driver};
use crate::worker::Worker;

#[tokio::test]
async fn eight_processes_count_without_a_slip() {
    let place = Place::new();
    std::fs::write(place.path.with_file_name("count"), "0").unwrap();
    let mut workers: Vec<_> = (0..8).map(|_| Worker::start("count", &place.path)).collect();
    for worker in &mut workers {
        worker.expect("done");
        worker.succeed();
    }
    let count = std::fs::read_to_string(place.path.with_file_name("count")).unwrap();
    assert_eq!(count, "400");
}

#[test]
fn killed_processes_do_not_stop_the_others() {
    let place = Place::new();
    let tokens = place.path.with_file_name("tokens");
    std::fs::write(&tokens, "").unwrap();
    let mut survivors: Vec<_> = (0..3).map(|_| Worker::start("contend", &place.path)).collect();
    for round in 0_u64..10 {
        let mut victim = Worker::start("contend", &place.path);
        victim.expect("ready");
        std::thread::sleep(Duration::from_millis(round * 7));
        victim.kill();
    }
    for worker in &mut survivors {
        worker.expect("done");
        worker.succeed();
    }
    let tokens = std::fs::read_to_string(tokens).unwrap();
    let tokens: Vec<u64> = tokens.lines().map(|token| token.parse().unwrap()).collect();
    assert!(tokens.len() >= 80, "{}", tokens.len());
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
}

#[tokio::test]
async fn eight_processes_make_the_file_at_once() {
    let place = Place::new();
    let mut workers: Vec<_> = (0..8).map(|_| Worker::start("open", place.folder())).collect();
    for worker in &mut workers {
        worker.expect("ready");
    }
    for number in 0..20 {
        std::fs::write(place.folder().join(format!("go{number}")), "").unwrap();
        for worker in &mut workers {
            worker.expect("opened");
        }
    }
    for worker in &mut workers {
        println!("slowest: {} ms", worker.expect("slowest"));
        worker.succeed();
    }
}

#[tokio::test]
async fn a_crash_leaves_the_lock_for_its_ttl_and_no_longer() {
    let place = Place::new();
    let mut worker = Worker::start("hold", &place.path);
    let token: u64 = worker.expect("token").parse().unwrap();
    worker.kill();
    let killed = Instant::now();
    let driver = driver(&place.path).await;
    loop {
        let claim = claim("held");
        match driver.acquire(&claim, Intent::Try).await.unwrap() {
            lockcore::driver::Acquired::Granted(grant) => {
                assert!(grant.token.get() > token);
                break;
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
    let took = killed.elapsed();
    assert!(
        took > Duration::from_millis(100) && took < Duration::from_secs(2),
        "{took:?}"
    );
    driver.grant(&claim("another"), Intent::Try).await;
}

/// A command that runs this test program inside namespaces of its own; `None` where that is not allowed.
fn in_namespace(script: &str) -> Option<Command> {
    let allowed = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .stderr(std::process::Stdio::null())
        .status();
    if !allowed.is_ok_and(|status| status.success()) {
        println!("left out: no namespaces here");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c"]);
    command.arg(format!("{script} && exec \"$0\" \"$@\""));
    command.arg(std::env::current_exe().unwrap());
    Some(command)
}

#[test]
fn a_full_disk_is_an_error_and_not_a_hang() {
    let place = Place::new();
    let disk = place.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o size=512k none {}", disk.display());
    let Some(command) = in_namespace(&mount) else {
        return;
    };
    let start = Instant::now();
    let mut worker = Worker::start_with(command, "fill", &disk.join("locks.db"));
    let answer = worker.expect("full");
    assert!(answer.starts_with("unavailable true"), "{answer}");
    assert!(answer.contains("room"), "{answer}");
    assert!(start.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_folder_without_the_right_to_write() {
    let place = Place::new();
    let disk = place.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let mount = format!("mount -t tmpfs -o ro none {}", disk.display());
    let Some(command) = in_namespace(&mount) else {
        return;
    };
    let mut worker = Worker::start_with(command, "try-open", &disk.join("locks.db"));
    let answer = worker.expect("refused");
    assert!(answer.starts_with("denied"), "{answer}");
}

#[test]
fn a_file_that_is_mounted_without_its_folder() {
    let place = Place::new();
    let disk = place.folder().join("disk");
    std::fs::create_dir(&disk).unwrap();
    std::fs::write(&place.path, "").unwrap();
    let (from, to) = (disk.join("locks.db"), place.path.display());
    let mount = format!(
        "mount -t tmpfs none {} && touch {from} && mount --bind {from} {to}",
        disk.display(),
        from = from.display()
    );
    let Some(command) = in_namespace(&mount) else {
        return;
    };
    let mut worker = Worker::start_with(command, "try-open", &place.path);
    let answer = worker.expect("refused");
    assert!(answer.starts_with("unsupported"), "{answer}");
}
