//! Everything that can go wrong, at random.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use lockcore::memory::{Call, Fault};
use lockcore::{ErrorKind, LockManager};

use crate::ms;
use crate::table::Shape;
use crate::world::{LONGEST_TTL, Weather, World};

/// A request that was not answered in time takes effect this much later at most.
const LATEST: Duration = ms(6500);

pub(crate) async fn rage(world: Arc<World>, random: Rng) {
    if world.weather == Weather::Calm {
        return;
    }
    let mut storm = Storm { world, random };
    while !storm.world.is_over() {
        let pause = storm.upto(600);
        storm.world.env.sleep(pause).await;
        storm.strike().await;
        storm.world.check();
    }
}

struct Storm {
    world: Arc<World>,
    random: Rng,
}

impl Storm {
    fn upto(&mut self, millis: u64) -> Duration {
        ms(self.random.u64(1..=millis))
    }

    async fn strike(&mut self) {
        let row = self.random.usize(..self.world.rows.len());
        let node = self.random.usize(..self.world.nodes.lock().unwrap().len());
        let world = Arc::clone(&self.world);
        match self.random.u32(..100) {
            0..30 => self.script(),
            30..40 => {
                let (request, reply) = (self.upto(200), self.upto(200));
                world.note(format_args!("latency {request:?}, {reply:?}"));
                world.store.set_latency(request, reply);
            }
            40..47 => {
                let lasts = self.upto(3000);
                world.note(format_args!("partition for {lasts:?}"));
                world.store.partition(true);
                self.later(lasts, |world| world.store.partition(false));
            }
            47..54 => {
                let lasts = self.upto(3000);
                world.note(format_args!("no wake-ups for {lasts:?}"));
                world.store.drop_wake_ups(true);
                self.later(lasts, |world| world.store.drop_wake_ups(false));
            }
            54..70 => {
                let lasts = self.upto(4000);
                world.note(format_args!("node {node} is cut off for {lasts:?}"));
                let link = Arc::clone(&world.nodes.lock().unwrap()[node].link);
                link.set_down(true);
                self.later(lasts, move |_| link.set_down(false));
            }
            70..75 => self.steal(row),
            75..80 => self.expire(row),
            80..86 => self.force_release(row).await,
            86..89 => self.restart_empty().await,
            89..95 => self.kill(node),
            _ => self.close(node),
        }
    }

    fn later(&self, delay: Duration, undo: impl FnOnce(&World) + Send + 'static) {
        let world = Arc::clone(&self.world);
        drop(tokio::spawn(async move {
            world.env.sleep(delay).await;
            undo(&world);
        }));
    }

    fn script(&mut self) {
        let call = [Call::Acquire, Call::Release, Call::Renew, Call::Other][self.random.usize(..4)];
        let mut faults = vec![None; self.random.usize(..3)];
        for _ in 0..self.random.usize(1..4) {
            faults.push(Some(match self.random.u32(..7) {
                0 => Fault::Refuse(ErrorKind::Unavailable),
                1 => Fault::Refuse(ErrorKind::Denied),
                2 => Fault::LoseReply,
                3 => Fault::SwallowReply,
                4 => Fault::SwallowRequest,
                5 => Fault::DelayRequest(self.upto(6000)),
                _ => Fault::DelayReply(self.upto(6000)),
            }));
        }
        self.world.note(format_args!("script {call:?} {faults:?}"));
        self.world.store.script(call, faults);
    }

    fn taint(&self, row: usize, certainly: bool) {
        let now = self.world.env.now();
        self.world.rows[row].lock().unwrap().taint(now, certainly);
    }

    fn name(&self, row: usize) -> Option<String> {
        let row = self.world.rows[row].lock().unwrap();
        (row.shape == Shape::Mutex).then(|| row.name.clone())
    }

    fn steal(&mut self, row: usize) {
        let Some(name) = self.name(row) else { return };
        let ttl = self.upto(u64::try_from(LONGEST_TTL.as_millis()).unwrap());
        self.world.note(format_args!("row {row} is stolen for {ttl:?}"));
        self.taint(row, true);
        self.world.store.steal(&name, ttl).unwrap();
    }

    fn expire(&self, row: usize) {
        let Some(name) = self.name(row) else { return };
        self.world.note(format_args!("row {row} expires"));
        self.taint(row, true);
        self.world.store.expire_now(&name).unwrap();
    }

    async fn force_release(&self, row: usize) {
        let world = &self.world;
        let table = &world.rows[row];
        let name = table.lock().unwrap().name.clone();
        world.note(format_args!("row {row} is freed by force"));
        table.lock().unwrap().threaten(world.env.now());
        let admin = world.new_node();
        let answer = admin.manager.force_release(&name).await;
        world.note(format_args!(
            "row {row} was freed by force: {:?}",
            answer.map_err(|error| error.kind())
        ));
        self.later(LATEST, move |world| {
            world.rows[row].lock().unwrap().threat_is_over(world.env.now())
        });
        world.close_node(admin.manager).await;
    }

    /// Down for a moment, so that the clock that tokens grow by has gone on.
    async fn restart_empty(&self) {
        self.world.note("the store starts anew");
        self.world.store.partition(true);
        for row in 0..self.world.rows.len() {
            self.taint(row, true);
        }
        self.world.store.restart_empty();
        self.world.env.sleep(ms(50)).await;
        self.world.store.partition(false);
    }

    /// Its process ends, or is stopped for ever; another one starts.
    fn kill(&mut self, node: usize) {
        let seen = self.random.bool();
        self.world.note(format_args!("node {node} dies, seen: {seen}"));
        let fresh = self.world.new_node();
        let old = std::mem::replace(&mut self.world.nodes.lock().unwrap()[node], fresh);
        old.link.die(seen);
        old.gone.cancel();
        self.world.buried.lock().unwrap().push(old);
    }

    /// Its process ends in an orderly way; another one starts.
    fn close(&self, node: usize) {
        self.world.note(format_args!("node {node} closes"));
        let fresh = self.world.new_node();
        let old = std::mem::replace(&mut self.world.nodes.lock().unwrap()[node], fresh);
        let world = Arc::clone(&self.world);
        drop(tokio::spawn(async move { world.close_node(old.manager).await }));
    }
}
