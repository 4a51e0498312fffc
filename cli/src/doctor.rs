//! `doctor`: tries a backend out, and says what is risky about it.

mod report;

use std::process::ExitCode;
use std::time::Duration;

use leasehold::{
    Diagnosis, DistributedLock, Env, Error, ErrorKind, Guard, Instant, LockManager, Release, Result, Severity,
};

use crate::args::{Common, Doctor};
use crate::exit::{Code, Failure};
use crate::{logging, output, place};
use report::Report;

/// How long the scratch lock outlives us when we are killed meanwhile.
const SCRATCH_TTL: Duration = Duration::from_secs(10);
/// How long one connection waits for what the other one frees.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take until the backend shows that somebody waits, and how often it is asked.
const QUEUED: (Duration, Duration) = (Duration::from_secs(2), Duration::from_millis(20));
/// How often the round trip is measured.
const PINGS: usize = 10;
/// A round trip that people notice, and one that a TTL has to be chosen for.
const SLOW: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// The report goes to stdout, also when the backend does not answer; the exit status is for scripts.
pub(crate) async fn doctor(common: &Common, args: &Doctor) -> Result<ExitCode, Failure> {
    logging::start(common)?;
    let url = place::url(args.server.as_deref().or(common.url.as_deref()))?;
    let mut examination = Examination {
        env: Env::system(),
        step: "connect",
        report: Report::default(),
    };
    let examined = examination.examine(&url).await;
    let Examination { step, mut report, .. } = examination;
    let Err(error) = examined else {
        report.print(args.format.json)?;
        let risky = report.severity() > Severity::Note;
        return Ok(if risky {
            Code::Risky.into()
        } else {
            ExitCode::SUCCESS
        });
    };
    let remedy = remedy(&error);
    report.failed(step, &error, remedy);
    if args.format.json || report.backend.is_some() {
        report.print(args.format.json)?;
    }
    let failure = Failure::from(error);
    Err(Failure::new(failure.code, format!("{failure}; {remedy}")))
}

/// What to do about an error that ends the examination.
fn remedy(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::Unavailable => {
            "see whether the server runs, whether the URL has its host and port, and whether anything in between holds \
             connections up"
        }
        ErrorKind::Denied => {
            "see the URL's user and password, and the rights of that user: SECURITY.md lists what each backend needs"
        }
        ErrorKind::Invalid | ErrorKind::Unsupported => {
            "see `leasehold --help` for the URLs, and the driver's documentation for their options"
        }
        _ => "see the server's log, and run this again with -vv",
    }
}

struct Examination {
    env: Env,
    /// What is being done, for when it fails.
    step: &'static str,
    report: Report,
}

impl Examination {
    async fn examine(&mut self, url: &str) -> Result<()> {
        let started = self.begin("connect");
        let locks = leasehold::connect(url).await?;
        self.done(started);
        self.report.backend = Some(locks.backend());
        self.report.capabilities = Some(locks.capabilities());
        let examined = self.look(&*locks, url).await;
        // Also ends what a failure left behind.
        locks.close().await.ok();
        examined
    }

    async fn look(&mut self, locks: &dyn LockManager, url: &str) -> Result<()> {
        self.begin("ping");
        let mut pings = Vec::with_capacity(PINGS);
        for _ in 0..PINGS {
            pings.push(locks.ping().await?);
        }
        pings.sort_unstable();
        let round_trip = pings[PINGS / 2];
        self.report.round_trip = Some((round_trip, pings[PINGS - 1]));
        self.begin("diagnose");
        let mut diagnosis = locks.diagnose().await?;
        judge_round_trip(&mut diagnosis, round_trip);
        judge_ttl(&mut diagnosis, locks);
        self.report.diagnosis = Some(diagnosis);
        self.try_out(locks, url).await
    }

    /// Takes a lock of our own through all that happens to one.
    async fn try_out(&mut self, locks: &dyn LockManager, url: &str) -> Result<()> {
        let capabilities = locks.capabilities();
        let name = format!("leasehold-doctor/{:032x}", self.env.random_u128()?);
        let lock = |locks: &dyn LockManager| {
            let scratch = locks.lock(&name).ttl(SCRATCH_TTL).wait(PATIENCE);
            scratch.label("leasehold doctor").build()
        };
        let ours = lock(locks)?;
        let started = self.begin("acquire");
        let mut guard = ours.acquire().await?;
        self.done(started);
        let started = self.begin("renew");
        guard.renew().await?;
        self.done(started);
        if capabilities.inspect {
            let started = self.begin("inspect");
            self.optional(started, ours.inspect().await.map(drop), "status")?;
        }
        if capabilities.list {
            let started = self.begin("list");
            self.optional(started, locks.list(&name).await.map(drop), "list")?;
        }
        if !capabilities.cross_process {
            return self.release(guard).await;
        }
        self.begin("hand-off");
        let others = leasehold::connect(url).await?;
        let theirs = lock(&*others)?;
        let released = match self.hand_off(&ours, guard, &theirs).await {
            Ok(next) => {
                guard = next;
                self.release(guard).await
            }
            Err(error) => Err(error),
        };
        others.close().await.ok();
        released
    }

    /// Frees the lock while another connection waits for it: that is what queues and wake-ups are for.
    async fn hand_off(
        &mut self,
        ours: &impl DistributedLock,
        guard: Guard,
        theirs: &impl DistributedLock,
    ) -> Result<Guard> {
        let env = &self.env;
        let token = guard.token();
        let waiting = async {
            let next = theirs.acquire().await;
            next.map(|next| (next, env.now()))
        };
        let freeing = async {
            queued(env, ours).await;
            let started = env.now();
            let freed = guard.release().await;
            freed.map(|_| started).map_err(Error::from)
        };
        let (next, freed) = tokio::join!(waiting, freeing);
        let ((next, granted), started) = (next?, freed?);
        self.report.took("hand-off", granted.since(started));
        if let Some(diagnosis) = &mut self.report.diagnosis {
            if next.token() > token {
                diagnosis.ok(
                    "tokens",
                    "the second holder's token is larger than the first one's",
                );
            } else {
                diagnosis.error(
                    "tokens",
                    format!(
                        "{} came after {token}: a store that checks tokens refuses the later holder",
                        next.token()
                    ),
                    "report this, with the server's version",
                );
            }
        }
        Ok(next)
    }

    async fn release(&mut self, guard: Guard) -> Result<()> {
        let started = self.begin("release");
        let released = guard.release().await?;
        self.done(started);
        if let (Release::NotHeld, Some(diagnosis)) = (released, &mut self.report.diagnosis) {
            diagnosis.error(
                "release",
                "the scratch lock was lost within moments, without anybody's doing",
                "see what else writes to the server's data, and whether its clock steps",
            );
        }
        Ok(())
    }

    fn begin(&mut self, step: &'static str) -> Instant {
        self.step = step;
        self.env.now()
    }

    fn done(&mut self, started: Instant) {
        self.report.took(self.step, self.env.now().since(started));
    }

    /// What locks do not need: a missing right is worth a note.
    fn optional(&mut self, started: Instant, outcome: Result<()>, command: &str) -> Result<()> {
        match outcome {
            Err(error) if error.kind() == ErrorKind::Denied => {
                if let Some(diagnosis) = &mut self.report.diagnosis {
                    let found = format!("`leasehold {command}` does not work: {}", error.message());
                    diagnosis.note(self.step, found);
                }
                Ok(())
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.done(started);
                Ok(())
            }
        }
    }
}

/// Waits until somebody stands in the queue for `lock`, as far as the backend tells.
async fn queued(env: &Env, lock: &impl DistributedLock) {
    let (patience, pause) = QUEUED;
    let end = env.now().after(patience);
    while env.now() < end {
        env.sleep(pause).await;
        match lock.inspect().await {
            Ok(status) if status.waiters == 0 => {}
            Ok(_) => return,
            // Time enough to get in line.
            Err(_) => return env.sleep(patience / 4).await,
        }
    }
}

fn judge_round_trip(diagnosis: &mut Diagnosis, round_trip: Duration) {
    const SUBJECT: &str = "round trip";
    let (notable, slow) = SLOW;
    let took = output::brief(round_trip);
    match round_trip {
        trip if trip < notable => diagnosis.ok(SUBJECT, took),
        trip if trip < slow => diagnosis.note(
            SUBJECT,
            format!("{took}: each acquire and each release takes as long"),
        ),
        _ => diagnosis.warning(
            SUBJECT,
            format!("{took}: leases of a few seconds end before a lost request has been repeated"),
            "bring the server nearer, or choose TTLs of a hundred round trips and more",
        ),
    }
}

/// Says what becomes of the TTL that locks have unless they say otherwise.
fn judge_ttl(diagnosis: &mut Diagnosis, locks: &dyn LockManager) {
    let asked = locks.settings().ttl;
    let given = locks.capabilities().effective_ttl(asked);
    if given != asked {
        let [asked, given] = [asked, given].map(humantime::format_duration);
        diagnosis.note(
            "ttl",
            format!(
                "a lock that asks for {asked} gets {given} here, and is renewed for as long as it is held"
            ),
        );
    }
}
