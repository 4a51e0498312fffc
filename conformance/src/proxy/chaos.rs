//! Random disturbances from a seed.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::link::{Shared, lock};
use super::rules::{Cut, Direction, Entrance, Rules, Side, Then, Trap};

/// One thing that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Disturbance {
    /// Every connection is cut.
    CutAll(Side, Cut),
    /// One connection is cut: the one with this number, modulo how many there are.
    CutOne(usize, Side, Cut),
    /// Nothing is forwarded for a while, both ways.
    Stall(Duration),
    /// Nothing is forwarded in one direction for a while.
    StallOneWay(Direction, Duration),
    /// What is sent in one direction is late by the first, for as long as the second.
    Delay(Direction, Duration, Duration),
    /// Every connection is cut, and new ones are refused for a while.
    Outage(Duration),
    /// The next request is swallowed.
    SwallowRequest(Then),
    /// The next request is forwarded, and its answer is swallowed.
    SwallowReply(Then),
}

/// An endless sequence of pauses and disturbances, decided by its seed alone.
#[derive(Clone, Debug)]
pub struct Storm {
    random: fastrand::Rng,
    pause: (Duration, Duration),
    longest: Duration,
}

impl Storm {
    /// The storm of `seed`: a disturbance every 20 to 300 ms, none longer than 200 ms.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            pause: (Duration::from_millis(20), Duration::from_millis(300)),
            longest: Duration::from_millis(200),
        }
    }

    /// With pauses between the disturbances from `shortest` to `longest`.
    #[must_use]
    pub const fn pauses(mut self, shortest: Duration, longest: Duration) -> Self {
        self.pause = (shortest, longest);
        self
    }

    /// With disturbances that last up to `longest`.
    #[must_use]
    pub const fn longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    fn between(&mut self, low: Duration, high: Duration) -> Duration {
        low + high.saturating_sub(low).mul_f64(self.random.f64())
    }

    fn disturbance(&mut self) -> Disturbance {
        let cut = *self.pick(&[Cut::Close, Cut::Reset]);
        let side = *self.pick(&[Side::Both, Side::Both, Side::Client, Side::Server]);
        let direction = *self.pick(&[Direction::ToServer, Direction::ToClient]);
        let then = *self.pick(&[Then::Cut(Cut::Close), Then::Cut(Cut::Reset), Then::Stall]);
        let lasts = self.between(self.longest / 10, self.longest);
        match self.random.u8(..8) {
            0 => Disturbance::CutAll(side, cut),
            1 => Disturbance::CutOne(self.random.usize(..1 << 16), side, cut),
            2 => Disturbance::Stall(lasts),
            3 => Disturbance::StallOneWay(direction, lasts),
            4 => Disturbance::Delay(direction, self.between(Duration::ZERO, lasts), lasts),
            5 => Disturbance::Outage(lasts),
            6 => Disturbance::SwallowRequest(then),
            _ => Disturbance::SwallowReply(then),
        }
    }

    fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.random.usize(..among.len())]
    }
}

impl Iterator for Storm {
    type Item = (Duration, Disturbance);

    fn next(&mut self) -> Option<Self::Item> {
        let pause = self.between(self.pause.0, self.pause.1);
        Some((pause, self.disturbance()))
    }
}

/// A storm that rages. Dropped, it ends, and the proxy is healed.
pub struct Chaos {
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    over: bool,
    log: Vec<Disturbance>,
}

impl fmt::Debug for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Chaos").field("log", &self.log()).finish()
    }
}

impl Chaos {
    pub(super) fn start(shared: Arc<Shared>, storm: Storm) -> Self {
        let state = Arc::<Mutex<State>>::default();
        let task = tokio::spawn(rage(Arc::clone(&shared), Arc::clone(&state), storm));
        Self { shared, state, task }
    }

    /// What has gone wrong so far.
    #[must_use]
    pub fn log(&self) -> Vec<Disturbance> {
        lock(&self.state).log.clone()
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.task.abort();
        // The task may be running on another thread: under the lock, nothing of it comes after this.
        let mut state = lock(&self.state);
        state.over = true;
        calm(&self.shared);
        self.shared.set_trap(None);
    }
}

async fn rage(shared: Arc<Shared>, state: Arc<Mutex<State>>, storm: Storm) {
    for (pause, disturbance) in storm {
        tokio::time::sleep(pause).await;
        let lasts = {
            let mut state = lock(&state);
            if state.over {
                return;
            }
            state.log.push(disturbance);
            disturb(&shared, disturbance)
        };
        tokio::time::sleep(lasts).await;
        // Disturbances do not add up.
        let state = lock(&state);
        if state.over {
            return;
        }
        calm(&shared);
    }
}

fn calm(shared: &Shared) {
    shared.rules.send_replace(Rules::default());
}

/// Does it, and says how long it lasts.
fn disturb(shared: &Shared, disturbance: Disturbance) -> Duration {
    let change = |change: &dyn Fn(&mut Rules)| shared.rules.send_modify(|rules| change(rules));
    match disturbance {
        Disturbance::CutAll(side, how) => shared.cut_all(side, how),
        Disturbance::CutOne(number, side, how) => {
            let connections = shared.connections();
            if let Some(index) = number.checked_rem(connections.len()) {
                connections[index].cut(side, how);
            }
        }
        Disturbance::Stall(lasts) => {
            change(&|rules| rules.stalled = [true; 2]);
            return lasts;
        }
        Disturbance::StallOneWay(direction, lasts) => {
            change(&|rules| rules.stalled[direction as usize] = true);
            return lasts;
        }
        Disturbance::Delay(direction, delay, lasts) => {
            change(&|rules| rules.delay[direction as usize] = delay);
            return lasts;
        }
        Disturbance::Outage(lasts) => {
            change(&|rules| rules.entrance = Entrance::Refuse);
            shared.cut_all(Side::Both, Cut::Reset);
            return lasts;
        }
        Disturbance::SwallowRequest(then) => drop(shared.set_trap(Some(Trap::request(then)))),
        Disturbance::SwallowReply(then) => drop(shared.set_trap(Some(Trap::reply(then)))),
    }
    Duration::ZERO
}
