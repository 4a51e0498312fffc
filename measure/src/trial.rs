//! One round of one case for one contender: what it shares with the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::case::Case;
use crate::contender::{Client, Contender, Failure, ServerUse};
use crate::figure::{Curve, Figure};
use crate::process::Launch;
use crate::stats::{Times, count, rounded};
use crate::usage;

/// Clients that connect at the same time: a server's queue of connections has an end.
const CONNECT_AT_ONCE: usize = 16;
/// How long those who wait when the time is over may go on until they are dropped.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// What a round of a case has found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// Numbers.
    pub figures: BTreeMap<Figure, f64>,
    /// Times in microseconds at each of [`PERCENTILES`](crate::PERCENTILES).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub curves: BTreeMap<Curve, Vec<f64>>,
    /// What a reader has to know of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Found {
    pub(crate) fn set(&mut self, figure: Figure, value: f64) {
        // JSON has no other numbers.
        if value.is_finite() {
            self.figures.insert(figure, rounded(value));
        }
    }

    pub(crate) fn count(&mut self, figure: Figure, number: u64) {
        self.set(figure, count(number));
    }

    /// The median and the 99th percentile.
    pub(crate) fn times(&mut self, times: &Times, p50: Figure, p99: Figure) {
        if !times.is_empty() {
            self.set(p50, times.percentile(50.0));
            self.set(p99, times.percentile(99.0));
        }
    }

    pub(crate) fn curve(&mut self, curve: Curve, times: &Times) {
        if !times.is_empty() {
            self.curves
                .insert(curve, times.curve().into_iter().map(rounded).collect());
        }
    }
}

pub(crate) struct Trial {
    pub(crate) contender: Arc<dyn Contender>,
    pub(crate) case: Case,
    /// What the names of all locks start with.
    pub(crate) prefix: String,
    /// The user has had enough.
    pub(crate) stop: CancellationToken,
    pub(crate) launch: Option<Arc<dyn Launch>>,
}

/// The clients of a trial.
pub(crate) struct Clients(Vec<Arc<Box<dyn Client>>>);

impl Clients {
    pub(crate) fn get(&self, index: usize) -> Arc<Box<dyn Client>> {
        Arc::clone(&self.0[index])
    }

    /// Closes them when their tasks are gone.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let closing = self
            .0
            .into_iter()
            .filter_map(Arc::into_inner)
            .map(|client| client.close());
        let mut closing = stream::iter(closing).buffer_unordered(CONNECT_AT_ONCE);
        let mut closed = Ok(());
        while let Some(result) = closing.next().await {
            closed = closed.and(result);
        }
        closed
    }
}

impl Trial {
    pub(crate) fn name(&self, name: impl std::fmt::Display) -> String {
        format!("{}/{name}", self.prefix)
    }

    /// Clients that have had a lock each, so that nothing is done for the first time in what is measured.
    pub(crate) async fn clients(&self, number: usize) -> Result<Clients, Failure> {
        let connecting = (0..number).map(|index| async move {
            let client = self.contender.client().await?;
            let name = self.name(format_args!("warm-{index}"));
            client.acquire(&name, self.case.ttl).await?.release().await?;
            Ok::<_, Failure>(Arc::new(client))
        });
        let connected = stream::iter(connecting).buffered(CONNECT_AT_ONCE);
        connected.try_collect().await.map(Clients)
    }
}

/// When a trial ends: after its time, after its last acquisition, or when the user has had enough.
#[derive(Debug)]
pub(crate) struct Limits {
    pub(crate) begin: Instant,
    pub(crate) end: Instant,
    left: AtomicU64,
    stop: CancellationToken,
    /// One of the tasks has failed.
    pub(crate) failed: CancellationToken,
}

impl Limits {
    pub(crate) fn of(trial: &Trial) -> Self {
        let begin = Instant::now();
        Self {
            begin,
            end: begin + trial.case.time,
            left: AtomicU64::new(trial.case.most),
            stop: trial.stop.clone(),
            failed: CancellationToken::new(),
        }
    }

    /// Whether one more acquisition is begun.
    pub(crate) fn go_on(&self) -> bool {
        !self.over(Instant::now())
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
    }

    pub(crate) fn over(&self, now: Instant) -> bool {
        now >= self.end || self.stop.is_cancelled() || self.failed.is_cancelled()
    }

    /// How long acquisitions were counted.
    pub(crate) fn window(&self) -> Duration {
        Instant::now().min(self.end) - self.begin
    }

    /// The end, of whatever kind.
    pub(crate) async fn ended(&self) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = self.failed.cancelled() => {}
            () = tokio::time::sleep_until(self.end.into()) => {}
        }
    }

    /// When those who still wait are given up.
    pub(crate) async fn cut_off(&self) {
        self.ended().await;
        tokio::select! {
            () = self.failed.cancelled() => {}
            () = tokio::time::sleep(GRACE) => {}
        }
    }
}

/// What both sides have used between two points.
pub(crate) struct Meter {
    server: Result<ServerUse, Failure>,
    cpu: Option<Duration>,
    begin: Instant,
}

impl Meter {
    pub(crate) async fn start(contender: &dyn Contender) -> Self {
        let server = contender.server_use().await;
        Self {
            server,
            cpu: usage::cpu(),
            begin: Instant::now(),
        }
    }

    /// Puts what was used for each of `acquisitions` into `found`.
    pub(crate) async fn per_acquisition(
        self,
        contender: &dyn Contender,
        acquisitions: u64,
        found: &mut Found,
    ) {
        if acquisitions == 0 {
            return;
        }
        let used = self.used(contender, found).await;
        let each = count(acquisitions);
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        for (figure, value) in [
            (Figure::ClientCpu, used.cpu.map(micros)),
            (Figure::ServerCpu, used.server.cpu.map(micros)),
            (Figure::ServerRequests, used.server.requests.map(count)),
            (Figure::ServerWrites, used.server.writes.map(count)),
        ] {
            if let Some(value) = value {
                found.set(figure, value / each);
            }
        }
    }

    pub(crate) async fn used(self, contender: &dyn Contender, found: &mut Found) -> Used {
        // Before the question, which costs something itself.
        let (cpu, time) = (usage::cpu(), self.begin.elapsed());
        let server = match (self.server, contender.server_use().await) {
            (Ok(before), Ok(after)) => after.since(before),
            (Err(failure), _) | (_, Err(failure)) => {
                found
                    .notes
                    .push(format!("what the server used is not known: {failure}"));
                ServerUse::default()
            }
        };
        Used {
            server,
            cpu: cpu
                .zip(self.cpu)
                .map(|(after, before)| after.saturating_sub(before)),
            time,
        }
    }
}

pub(crate) struct Used {
    pub(crate) server: ServerUse,
    pub(crate) cpu: Option<Duration>,
    pub(crate) time: Duration,
}
