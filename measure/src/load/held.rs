//! S5: many locks held at once.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::contender::{Client, Contender, Failure, Hold};
use crate::figure::Figure;
use crate::process::{Job, Kept, Process, Taken, micros};
use crate::stats::count;
use crate::trial::{Found, Meter, Trial, Used};
use crate::usage;

/// Requests at the same time, to take the locks and to free them.
const AT_ONCE: usize = 64;
/// How often the TTL passes while they are held.
const TTLS: u32 = 3;

pub(super) async fn run(trial: &Trial) -> Result<Found, Failure> {
    let job = Job {
        prefix: trial.prefix.clone(),
        locks: trial.case.names,
        ttl_us: micros(trial.case.ttl),
        ttls: TTLS,
    };
    let contender = &*trial.contender;
    let mut found = Found::default();
    let command = trial.launch.as_ref().and_then(|launch| launch.command(contender));
    let (taken, kept, used, late) = match command {
        Some(command) => {
            let mut process = Process::start(command, &job).await?;
            let taken = process.taken().await?;
            let meter = Meter::start(contender).await;
            let kept = tokio::select! {
                kept = process.kept() => Some(kept?),
                () = trial.stop.cancelled() => None,
            };
            let kept = match kept {
                Some(kept) => kept,
                None => {
                    process.end_soon();
                    process.kept().await?
                }
            };
            let used = meter.used(contender, &mut found).await;
            (taken, kept, used, process.free().await?)
        }
        None => {
            found
                .notes
                .push("memory is that of a process with other things in it".to_owned());
            let mut holding = Holding::take(contender, &job).await?;
            let meter = Meter::start(contender).await;
            let kept = holding.keep(TTLS, &trial.stop).await;
            let used = meter.used(contender, &mut found).await;
            (holding.taken, kept, used, holding.let_go().await?)
        }
    };
    tell(&mut found, trial.case.names, taken, kept, &used, late);
    Ok(found)
}

fn tell(found: &mut Found, locks: usize, taken: Taken, kept: Kept, used: &Used, late: u64) {
    let (locks, seconds) = (
        count(u64::try_from(locks).unwrap_or(u64::MAX)),
        used.time.as_secs_f64(),
    );
    found.set(
        Figure::PerSecond,
        locks / Duration::from_micros(taken.took_us).as_secs_f64(),
    );
    if let Some((before, after)) = taken.memory {
        found.set(Figure::MemoryPerLock, count(after.saturating_sub(before)) / locks);
    }
    found.count(Figure::Losses, kept.losses + late);
    let percent = |time: Duration| 100.0 * time.as_secs_f64() / seconds;
    if let Some(cpu) = kept.cpu_us {
        found.set(Figure::ClientLoad, percent(Duration::from_micros(cpu)));
    }
    if let Some(cpu) = used.server.cpu {
        found.set(Figure::ServerLoad, percent(cpu));
    }
    if let Some(requests) = used.server.requests {
        found.set(Figure::ServerRequestsPerSecond, count(requests) / seconds);
    }
    let given = Duration::from_micros(taken.ttl_us);
    found.notes.push(format!(
        "held for {TTLS} x {} s, the TTL that was given",
        given.as_secs_f64()
    ));
}

/// Locks that one client holds.
pub(crate) struct Holding {
    client: Box<dyn Client>,
    holds: Vec<Box<dyn Hold>>,
    pub(crate) taken: Taken,
}

impl Holding {
    pub(crate) async fn take(contender: &dyn Contender, job: &Job) -> Result<Self, Failure> {
        let ttl = Duration::from_micros(job.ttl_us);
        let client = contender.client().await?;
        let take = |name: String| {
            let client = &client;
            async move { client.acquire(&name, ttl).await }
        };
        let name = |kind: &str, number: usize| format!("{}/{kind}-{number}", job.prefix);
        // What is there once and for all is no lock's memory: connections, and room for as many requests.
        let warm = (0..AT_ONCE.min(job.locks)).map(|number| take(name("warm", number)));
        for hold in try_join_all(warm).await? {
            hold.release().await?;
        }
        let mut holds = Vec::with_capacity(job.locks);
        let (before, begun) = (usage::memory(), Instant::now());
        let mut taking =
            stream::iter((0..job.locks).map(|number| take(name("held", number)))).buffer_unordered(AT_ONCE);
        while let Some(hold) = taking.try_next().await? {
            holds.push(hold);
        }
        drop(taking);
        let took = begun.elapsed();
        let given = holds.first().and_then(|hold| hold.ttl()).unwrap_or(ttl);
        Ok(Self {
            taken: Taken {
                ttl_us: micros(given),
                took_us: micros(took).max(1),
                memory: before.zip(usage::memory()),
            },
            client,
            holds,
        })
    }

    /// Lets the TTL pass `ttls` times, unless `stop` comes first, and says what became of the locks.
    pub(crate) async fn keep(&mut self, ttls: u32, stop: &CancellationToken) -> Kept {
        let before = usage::cpu();
        let time = Duration::from_micros(self.taken.ttl_us) * ttls;
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = stop.cancelled() => {}
        }
        let cpu = usage::cpu()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(before));
        let lost = self.holds.iter().filter(|hold| !hold.is_held()).count();
        Kept {
            losses: u64::try_from(lost).unwrap_or(u64::MAX),
            cpu_us: cpu.map(micros),
        }
    }

    /// Frees all of them. How many were found lost only now.
    pub(crate) async fn let_go(self) -> Result<u64, Failure> {
        let held = self.holds.into_iter().filter(|hold| hold.is_held());
        let mut releasing = stream::iter(held.map(|hold| hold.release())).buffer_unordered(AT_ONCE);
        let mut late = 0;
        while let Some(released) = releasing.next().await {
            late += u64::from(released.is_err());
        }
        drop(releasing);
        self.client.close().await?;
        Ok(late)
    }
}
