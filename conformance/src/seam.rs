//! A layer around any driver: it writes the history, and makes go wrong what a scenario scripts. Faults of the
//! network come from the proxy; these are the same faults at the driver interface, exact to the request.

use std::collections::{HashMap, HashSet, VecDeque};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lockcore::driver::{Acquired, Inspection, Intent, Lease, Listed, Released, Renewal};
use lockcore::memory::{Call, Fault};
use lockcore::{
    AttemptId, Capabilities, Claim, Diagnosis, Driver, DynDriver, Env, Error, ErrorKind, Instant, Namespace,
    Resource, Result,
};
use tokio::sync::Notify;

use crate::history::{Event, History, key};

#[derive(Debug, Default)]
struct Script {
    next: HashMap<Call, VecDeque<Option<Fault>>>,
    partitioned: bool,
    calls: HashMap<Call, u64>,
    /// When an attempt's first request was sent.
    first_sent: HashMap<AttemptId, Instant>,
    /// Attempts that were told to wait.
    waiting: HashSet<AttemptId>,
    /// The one that was sent last.
    latest: Option<AttemptId>,
}

#[derive(Debug, Default)]
struct Inner {
    script: Mutex<Script>,
    healed: Notify,
}

/// One client's way to the backend: counts its requests, and breaks them as told. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<Inner>);

impl Link {
    /// While true, no request arrives and no answer does; those under way fail when it ends. What the backend pushes
    /// still arrives.
    pub fn partition(&self, on: bool) {
        self.script().partitioned = on;
        if !on {
            self.0.healed.notify_waiters();
        }
    }

    /// Whether it is cut off now: see [`partition`](Self::partition).
    #[must_use]
    pub fn is_partitioned(&self) -> bool {
        self.script().partitioned
    }

    /// What happens to the next requests of this kind, one after the other; `None` lets one pass.
    pub fn script_faults(&self, call: Call, faults: impl IntoIterator<Item = Option<Fault>>) {
        self.script().next.entry(call).or_default().extend(faults);
    }

    /// What happens to the next request of this kind.
    pub fn next(&self, call: Call, fault: Fault) {
        self.script_faults(call, [Some(fault)]);
    }

    /// Takes back every fault that has not struck yet.
    pub fn heal(&self) {
        self.script().next.clear();
        self.partition(false);
    }

    /// How many requests of this kind were sent, those that did not arrive included.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        self.script().calls.get(&call).copied().unwrap_or(0)
    }

    /// How many requests of any kind were sent.
    #[must_use]
    pub fn all_calls(&self) -> u64 {
        self.script().calls.values().sum()
    }

    /// How many attempts were ever told by the backend that they have to wait.
    #[must_use]
    pub fn waiters(&self) -> usize {
        self.script().waiting.len()
    }

    /// The attempt that was sent last, for what an administrator does to it.
    #[must_use]
    pub fn attempt(&self) -> Option<AttemptId> {
        self.script().latest
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.0.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn healed(&self) {
        loop {
            let healed = self.0.healed.notified();
            if !self.script().partitioned {
                return;
            }
            healed.await;
        }
    }
}

fn broken() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the connection broke before the answer came (a fault of the suite)",
    )
}

/// The layer.
#[derive(Debug)]
pub(crate) struct Seam {
    driver: DynDriver,
    env: Env,
    link: Link,
    history: History,
}

impl Seam {
    pub(crate) fn new(driver: DynDriver, env: Env, link: Link, history: History) -> Self {
        Self {
            driver,
            env,
            link,
            history,
        }
    }

    async fn request<T: Send>(
        &self,
        call: Call,
        request: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let (fault, partitioned) = {
            let mut script = self.link.script();
            *script.calls.entry(call).or_default() += 1;
            let fault = script.next.get_mut(&call).and_then(VecDeque::pop_front).flatten();
            (fault, script.partitioned)
        };
        if partitioned {
            self.link.healed().await;
            return Err(broken());
        }
        match fault {
            Some(Fault::Refuse(kind)) => return Err(Error::new(kind, "refused (a fault of the suite)")),
            Some(Fault::SwallowRequest) => pending().await,
            Some(Fault::DelayRequest(delay)) => self.env.sleep(delay).await,
            _ => {}
        }
        let answer = request.await;
        match fault {
            Some(Fault::LoseReply) => return Err(broken()),
            Some(Fault::SwallowReply) => pending().await,
            Some(Fault::DelayReply(delay)) => self.env.sleep(delay).await,
            _ => {}
        }
        if self.link.script().partitioned {
            self.link.healed().await;
            return Err(broken());
        }
        answer
    }

    /// Whether it is the first that this attempt hears of a wait.
    fn begins_to_wait(&self, claim: &Claim) -> bool {
        self.link.script().waiting.insert(claim.attempt)
    }
}

impl Driver for Seam {
    fn backend(&self) -> &'static str {
        self.driver.backend()
    }

    fn capabilities(&self) -> Capabilities {
        self.driver.capabilities()
    }

    async fn acquire(&self, claim: &Claim, intent: Intent) -> Result<Acquired> {
        let sent = self.env.now();
        let first_sent = {
            let mut script = self.link.script();
            if !script.first_sent.contains_key(&claim.attempt) {
                script.latest = Some(claim.attempt);
            }
            *script.first_sent.entry(claim.attempt).or_insert(sent)
        };
        let answer = self
            .request(Call::Acquire, self.driver.acquire(claim, intent))
            .await?;
        let received = self.env.now();
        match &answer {
            Acquired::Granted(grant) => {
                self.history
                    .granted(claim, grant.token, (first_sent, sent, received));
            }
            Acquired::Busy(busy)
                if intent != Intent::Try && self.begins_to_wait(claim) && busy.ahead.is_some() =>
            {
                self.history.record(Event::Queued {
                    key: key(&claim.resource),
                    attempt: claim.attempt.to_hex(),
                    weight: claim.weight,
                    sent: first_sent.as_nanos(),
                    acked: received.as_nanos(),
                });
            }
            _ => {}
        }
        Ok(answer)
    }

    async fn release(&self, claim: &Claim) -> Result<Released> {
        let sent = self.env.now();
        let answer = self.request(Call::Release, self.driver.release(claim)).await;
        self.history.record(Event::Released {
            key: key(&claim.resource),
            attempt: claim.attempt.to_hex(),
            sent: sent.as_nanos(),
            received: answer.is_ok().then(|| self.env.now().as_nanos()),
            held: matches!(answer, Ok(Released::Released)),
        });
        answer
    }

    async fn renew(&self, leases: &[Lease]) -> Result<Vec<Renewal>> {
        self.request(Call::Renew, self.driver.renew(leases)).await
    }

    async fn inspect(&self, resource: &Resource) -> Result<Inspection> {
        self.request(Call::Other, self.driver.inspect(resource)).await
    }

    async fn list(&self, namespace: &Namespace, prefix: &str) -> Result<Vec<Listed>> {
        self.request(Call::Other, self.driver.list(namespace, prefix))
            .await
    }

    async fn force_release(&self, resource: &Resource) -> Result<bool> {
        let answer = self
            .request(Call::Other, self.driver.force_release(resource))
            .await;
        self.history.disturbed(Some(key(resource)), self.env.now());
        answer
    }

    async fn ping(&self) -> Result<()> {
        self.request(Call::Other, self.driver.ping()).await
    }

    async fn diagnose(&self) -> Result<Diagnosis> {
        self.request(Call::Other, self.driver.diagnose()).await
    }

    async fn close(&self) -> Result<()> {
        self.driver.close().await
    }
}
