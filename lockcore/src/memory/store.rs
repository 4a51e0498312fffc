//! The store: the model behind a lock, its clients, and the script of faults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::driver::MemoryDriver;
use super::faults::{Call, Fault, Faults};
use super::model::{ClientId, Model, Now, WakeUp};
use crate::driver::DriverContext;
use crate::env::Env;
use crate::error::Result;
use crate::manager::Manager;
use crate::name::{Kind, LockName, Namespace, Resource};
use crate::settings::Settings;
use crate::signals::Signals;

struct Inner {
    env: Env,
    model: Mutex<Model>,
    clients: Mutex<Clients>,
    faults: Mutex<Faults>,
    healed: Notify,
}

#[derive(Default)]
struct Clients {
    last: ClientId,
    /// A client that is gone is not here: nobody hears its wake-ups.
    signals: BTreeMap<ClientId, Signals>,
}

/// A store in memory. Cheap to clone; it lives as long as somebody has a clone or a driver.
///
/// The methods that make something go wrong take effect at once and for every client.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("resources", &self.resources())
            .finish()
    }
}

impl MemoryStore {
    /// An empty store on the clock of `env`.
    #[must_use]
    pub fn new(env: &Env) -> Self {
        Self(Arc::new(Inner {
            env: env.clone(),
            model: Mutex::default(),
            clients: Mutex::default(),
            faults: Mutex::default(),
            healed: Notify::new(),
        }))
    }

    /// A new connection; its context is for the manager that will use it.
    #[must_use]
    pub fn driver(&self) -> (MemoryDriver, DriverContext) {
        let context = DriverContext::new(self.0.env.clone());
        let mut clients = lock(&self.0.clients);
        clients.last += 1;
        let client = clients.last;
        clients.signals.insert(client, context.signals.clone());
        (MemoryDriver::new(self.clone(), client), context)
    }

    /// A manager on a new connection.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) when a setting is out of bounds.
    pub fn manager(&self, settings: Settings) -> Result<Manager> {
        let (driver, context) = self.driver();
        Manager::new(driver, context, settings)
    }

    /// The clock of this store.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// How many names are held or waited for: zero when nothing was leaked.
    #[must_use]
    pub fn resources(&self) -> usize {
        lock(&self.0.model).len()
    }

    /// How many requests of this kind arrived or were struck by a fault.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        lock(&self.0.faults).calls.get(&call).copied().unwrap_or(0)
    }

    /// Ends every lease on the mutex `name` in the default namespace now; nobody is told.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a bad name.
    pub fn expire_now(&self, name: &str) -> Result<()> {
        lock(&self.0.model).expire(&mutex(name)?);
        Ok(())
    }

    /// Gives the mutex `name` in the default namespace to a stranger, who keeps it for `ttl`; its holder is told.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a bad name, [`Internal`](crate::ErrorKind::Internal) without random
    /// bits.
    pub fn steal(&self, name: &str, ttl: Duration) -> Result<()> {
        let resource = mutex(name)?;
        let attempt = crate::claim::AttemptId::from_bits(self.0.env.random_u128()?);
        let claim = crate::claim::Claim::new(resource, attempt, ttl);
        self.apply(|model, now, wakes| model.seize(now, &claim, wakes));
        Ok(())
    }

    /// While true, requests do not arrive and wake-ups neither; those under way fail when it ends.
    pub fn partition(&self, on: bool) {
        lock(&self.0.faults).partitioned = on;
        if !on {
            self.0.healed.notify_waiters();
            for signals in self.signals() {
                signals.wake_all();
            }
        }
    }

    /// While true, no wake-up is delivered, and nobody learns that it was not.
    pub fn drop_wake_ups(&self, on: bool) {
        lock(&self.0.faults).mute = on;
    }

    /// Delays every request by a random time up to `request`, and every answer up to `reply`.
    pub fn set_latency(&self, request: Duration, reply: Duration) {
        lock(&self.0.faults).latency = (request, reply);
    }

    /// What happens to the next requests of this kind, one after the other; `None` lets one pass.
    pub fn script(&self, call: Call, faults: impl IntoIterator<Item = Option<Fault>>) {
        lock(&self.0.faults).next.entry(call).or_default().extend(faults);
    }

    /// Ends everything that was made to go wrong with requests and wake-ups, and forgets the rest of the script.
    pub fn heal(&self) {
        self.with_faults(|faults| {
            faults.next.clear();
            faults.latency = (Duration::ZERO, Duration::ZERO);
            faults.mute = false;
        });
        self.partition(false);
    }

    /// Forgets every lock, waiter and token, like a server that was started with no data, and tells the clients that
    /// they are connected again.
    pub fn restart_empty(&self) {
        lock(&self.0.model).clear();
        for signals in self.signals() {
            signals.wake_all();
        }
    }

    pub(super) fn disconnect(&self, client: ClientId) {
        lock(&self.0.clients).signals.remove(&client);
    }

    pub(super) fn now(&self) -> Now {
        let env = &self.0.env;
        Now {
            at: env.now(),
            wall: env.wall_clock(),
            unix_micros: env.unix_micros(),
        }
    }

    /// Applies a request to the model, and delivers what follows from it.
    pub(super) fn apply<T>(&self, request: impl FnOnce(&mut Model, Now, &mut Vec<WakeUp>) -> T) -> T {
        let mut wakes = Vec::new();
        let now = self.now();
        let output = request(&mut lock(&self.0.model), now, &mut wakes);
        self.deliver(wakes);
        output
    }

    pub(super) fn with_faults<T>(&self, look: impl FnOnce(&mut Faults) -> T) -> T {
        look(&mut lock(&self.0.faults))
    }

    /// Waits for the end of a partition.
    pub(super) async fn healed(&self) {
        loop {
            let healed = self.0.healed.notified();
            if !self.with_faults(|faults| faults.partitioned) {
                return;
            }
            healed.await;
        }
    }

    /// Wakes whoever can be reached; who cannot is dropped from the queue, and the next one woken.
    fn deliver(&self, mut wakes: Vec<WakeUp>) {
        while !wakes.is_empty() {
            if self.with_faults(|faults| faults.mute || faults.partitioned) {
                return;
            }
            let mut next = Vec::new();
            for wake in wakes {
                let signals = lock(&self.0.clients).signals.get(&wake.client).cloned();
                match (signals, wake.after) {
                    (Some(signals), None) => signals.wake(wake.attempt),
                    (Some(signals), Some(after)) => signals.wake_in(wake.attempt, after),
                    (None, _) => lock(&self.0.model).drop_waiter(self.now(), wake.attempt, &mut next),
                }
            }
            wakes = next;
        }
    }

    fn signals(&self) -> Vec<Signals> {
        lock(&self.0.clients).signals.values().cloned().collect()
    }
}

fn mutex(name: &str) -> Result<Resource> {
    Ok(Resource::new(
        Namespace::default(),
        Kind::Mutex,
        LockName::new(name)?,
    ))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
