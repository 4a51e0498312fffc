//! Many processes and one file, with and without killing.

use std::collections::HashSet;
use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Backend, done, on_all_by_turns, shown};

/// Reads a number, pauses, and writes the next one; tells the log when. The number is there at any time.
fn increment(backend: &Backend) -> String {
    let (counter, log) = (shown(&backend.file("counter")), shown(&backend.file("log")));
    format!(
        "say() {{ {{ read up rest < /proc/uptime; }} 2>/dev/null || up=$(date +%s); \
         echo \"$1 $LEASEHOLD_TOKEN $up\" >> '{log}'; }}\n\
         say begin; v=$(cat '{counter}'); sleep 0.005\n\
         echo $((v + 1)) > '{counter}'.$$ && mv '{counter}'.$$ '{counter}' && echo $v && say end"
    )
}

struct Entry {
    begin: bool,
    token: u64,
    /// On a clock that nobody sets, where there is one.
    seconds: f64,
}

fn log(backend: &Backend) -> Vec<Entry> {
    let log = fs::read_to_string(backend.file("log")).unwrap();
    log.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap();
            Entry {
                begin: word() == "begin",
                token: word().parse().unwrap(),
                seconds: word().parse().unwrap(),
            }
        })
        .collect()
}

fn counter(backend: &Backend) -> u64 {
    fs::read_to_string(backend.file("counter"))
        .unwrap()
        .trim()
        .parse()
        .unwrap()
}

#[test]
fn eight_processes_increment_a_file_25_times_each() {
    on_all_by_turns(|backend| {
        fs::write(backend.file("counter"), "0").unwrap();
        let script = increment(backend);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let output = done(backend.run(&[], "counter", &script));
                        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
                    }
                });
            }
        });
        assert_eq!(counter(backend), 200);
        let log = log(backend);
        assert_eq!(log.len(), 400);
        let mut last = 0;
        for pair in log.chunks(2) {
            let [begin, end] = pair else { panic!("an odd log") };
            assert!(
                begin.begin && !end.begin && begin.token == end.token,
                "two at a time"
            );
            assert!(begin.token > last, "a token that does not grow");
            last = begin.token;
        }
        backend.assert_free("counter");
    });
}

#[test]
fn survivors_of_random_kills_are_exact_and_do_not_stall() {
    const TTL: Duration = Duration::from_secs(2);
    on_all_by_turns(|backend| {
        // The claim windows of waiters that were killed as well.
        let longest_gap = backend.outlives(TTL) + Duration::from_secs(2);
        fs::write(backend.file("counter"), "0").unwrap();
        let script = increment(backend);
        let (random, killed) = (AtomicU64::new(1), AtomicU64::new(0));
        // Not random at all, so that a failure comes again; how the processes interleave is random enough.
        let draw = |below: u64| {
            let seed = random.fetch_add(1, Ordering::Relaxed);
            (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) % below
        };
        let survivors: Vec<u64> = thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|_| {
                    scope.spawn(|| {
                        let mut seen = Vec::new();
                        for _ in 0..10 {
                            let mut command = backend.run(&["--ttl", "2s"], "counter", &script);
                            let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
                            if draw(6) == 0 {
                                thread::sleep(Duration::from_millis(draw(300)));
                                child.kill().unwrap();
                            }
                            let output = child.wait_with_output().unwrap();
                            if output.status.success() {
                                seen.push(String::from_utf8(output.stdout).unwrap().trim().parse().unwrap());
                            } else {
                                killed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        seen
                    })
                })
                .collect();
            workers
                .into_iter()
                .flat_map(|worker| worker.join().unwrap())
                .collect()
        });
        let killed = killed.into_inner();
        println!("{} survived, {killed} were killed", survivors.len());
        assert!(killed > 0);
        assert_eq!(
            survivors.iter().collect::<HashSet<_>>().len(),
            survivors.len(),
            "two read the same number"
        );
        let (count, survivors) = (counter(backend), survivors.len() as u64);
        assert!((survivors..=survivors + killed).contains(&count), "{count}");
        for pair in log(backend).windows(2) {
            assert!(
                pair[0].token <= pair[1].token,
                "an earlier holder was still at it"
            );
            assert!(
                !pair[1].begin || pair[0].token < pair[1].token,
                "a token that does not grow"
            );
            let gap = Duration::from_secs_f64((pair[1].seconds - pair[0].seconds).max(0.0));
            assert!(gap < longest_gap, "nothing happened for {gap:?}");
        }
        let start = Instant::now();
        let output = done(backend.run(&["--ttl", "2s"], "counter", "true"));
        assert!(output.status.success(), "{output:?}");
        assert!(start.elapsed() < longest_gap);
        backend.assert_free("counter");
    });
}
