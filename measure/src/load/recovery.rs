//! S6: the holder's process is killed.

use std::time::Instant;

use crate::contender::Failure;
use crate::figure::Figure;
use crate::process::{Job, Process, micros};
use crate::trial::{Found, Trial};

pub(super) async fn run(trial: &Trial) -> Result<Found, Failure> {
    let mut found = Found::default();
    let command = trial
        .launch
        .as_ref()
        .and_then(|launch| launch.command(&*trial.contender));
    let Some(command) = command else {
        found
            .notes
            .push("it cannot run in a process of its own, so there is nothing to kill".to_owned());
        return Ok(found);
    };
    let client = trial.contender.client().await?;
    let job = Job {
        prefix: trial.name("killed"),
        locks: 1,
        ttl_us: micros(trial.case.ttl),
        ttls: 0,
    };
    let mut process = Process::start(command, &job).await?;
    process.taken().await?;
    let name = format!("{}/held-0", job.prefix);
    let waiting = async {
        let hold = client.acquire(&name, trial.case.ttl).await?;
        Ok::<_, Failure>((hold, Instant::now()))
    };
    let killing = async {
        // Anywhere between two renewals, and long enough for the other one to stand in the queue.
        let pause = trial.case.ttl.mul_f64(0.5 + 0.5 * fastrand::f64());
        tokio::time::sleep(pause).await;
        let killed = Instant::now();
        process.kill().await.map(|()| killed)
    };
    let both = async { tokio::try_join!(waiting, killing) };
    let ((hold, granted), killed) = tokio::select! {
        both = both => both?,
        () = trial.stop.cancelled() => return Ok(found),
    };
    if granted < killed {
        // Somebody had it who was alive.
        found.count(Figure::Violations, 1);
    } else {
        found.count(Figure::Violations, 0);
        found.set(Figure::Recovery, (granted - killed).as_secs_f64() * 1e3);
    }
    hold.release().await?;
    client.close().await?;
    Ok(found)
}
