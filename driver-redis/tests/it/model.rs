//! The scripts against a model of a dozen lines each, with random calls of two processes, of which one may die.

use std::time::Duration;

use leasehold_driver_redis::RedisDriver;
use lockcore::driver::{Acquired, Intent, Released};
use lockcore::{Claim, Driver, Token};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::support::{Admin, WAIT, claim, driver, eventually, own, resource, unique};

const ATTEMPTS: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Lease {
    Free,
    Held(usize),
    Reserved(usize),
}

#[derive(Clone, Debug)]
enum Call {
    Wait(usize),
    Try(usize),
    Release(usize),
    Force,
    /// The lease or the reservation ends.
    Expire,
    /// The process with the odd attempts dies.
    Die,
}

#[derive(Debug, PartialEq)]
enum Answer {
    Granted,
    Busy(Option<u64>),
    Freed(bool),
    Nothing,
}

struct Model {
    lease: Lease,
    queue: Vec<usize>,
    dead: bool,
}

impl Model {
    fn dies(&self, attempt: usize) -> bool {
        self.dead && attempt % 2 == 1
    }

    /// Drops the dead from `at` on; who is there then.
    fn live(&mut self, at: usize, me: usize) -> Option<usize> {
        while let Some(&next) = self.queue.get(at) {
            if next == me || !self.dies(next) {
                return Some(next);
            }
            self.queue.remove(at);
        }
        None
    }

    /// Whose turn it is.
    fn offer(&mut self, me: usize) -> Option<usize> {
        while let Some(&first) = self.queue.first() {
            if first == me {
                return Some(me);
            }
            // Those who are told to stand by.
            self.live(1, me);
            self.live(2, me);
            self.queue.remove(0);
            if !self.dies(first) {
                self.lease = Lease::Reserved(first);
                return Some(first);
            }
        }
        None
    }

    fn leave(&mut self, attempt: usize) {
        self.queue.retain(|other| *other != attempt);
    }

    fn acquire(&mut self, attempt: usize, waits: bool) -> Answer {
        if self.lease == Lease::Held(attempt) {
            return Answer::Granted;
        }
        let free = self.lease == Lease::Free && self.offer(attempt).is_none_or(|first| first == attempt);
        if free || self.lease == Lease::Reserved(attempt) {
            self.lease = Lease::Held(attempt);
            self.leave(attempt);
            return Answer::Granted;
        }
        if !waits {
            return Answer::Busy(None);
        }
        if !self.queue.contains(&attempt) {
            self.queue.push(attempt);
        }
        let rank = self.queue.iter().position(|other| *other == attempt);
        Answer::Busy(rank.map(|rank| rank as u64 + self.reserved()))
    }

    fn release(&mut self, attempt: usize) -> Answer {
        let held = self.lease == Lease::Held(attempt);
        if !held {
            self.leave(attempt);
        }
        if held || self.lease == Lease::Reserved(attempt) {
            self.lease = Lease::Free;
        }
        if self.lease == Lease::Free {
            self.offer(usize::MAX);
        }
        Answer::Freed(held)
    }

    fn force(&mut self) -> Answer {
        let held = matches!(self.lease, Lease::Held(_));
        if !matches!(self.lease, Lease::Reserved(_)) {
            self.lease = Lease::Free;
            self.offer(usize::MAX);
        }
        Answer::Freed(held)
    }

    fn reserved(&self) -> u64 {
        u64::from(matches!(self.lease, Lease::Reserved(_)))
    }

    fn waiters(&self) -> u64 {
        self.queue.len() as u64 + self.reserved()
    }
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let attempt = 0..ATTEMPTS;
    let call = prop_oneof![
        6 => attempt.clone().prop_map(Call::Wait),
        2 => attempt.clone().prop_map(Call::Try),
        5 => attempt.prop_map(Call::Release),
        1 => Just(Call::Force),
        2 => Just(Call::Expire),
        1 => Just(Call::Die),
    ];
    prop::collection::vec(call, 1..60)
}

struct World {
    name: String,
    claims: Vec<Claim>,
    lives: RedisDriver,
    dies: Option<RedisDriver>,
    admin: Admin,
    last: Option<(usize, Token)>,
}

impl World {
    async fn acquire(&mut self, attempt: usize, intent: Intent) -> Answer {
        let driver = self
            .dies
            .as_ref()
            .filter(|_| attempt % 2 == 1)
            .unwrap_or(&self.lives);
        match driver.acquire(&self.claims[attempt], intent).await.unwrap() {
            Acquired::Granted(grant) => {
                let same = self
                    .last
                    .is_some_and(|(holder, token)| (holder, token) == (attempt, grant.token));
                assert!(same || self.last.is_none_or(|(_, token)| token < grant.token));
                self.last = Some((attempt, grant.token));
                Answer::Granted
            }
            Acquired::Busy(busy) => Answer::Busy(busy.ahead),
            other => panic!("{other:?}"),
        }
    }

    async fn apply(&mut self, call: &Call, dead: bool) -> Answer {
        match call {
            Call::Wait(attempt) => self.acquire(*attempt, WAIT).await,
            Call::Try(attempt) => self.acquire(*attempt, Intent::Try).await,
            Call::Release(attempt) => {
                let answer = self.lives.release(&self.claims[*attempt]).await.unwrap();
                Answer::Freed(answer == Released::Released)
            }
            Call::Force => Answer::Freed(self.lives.force_release(&resource(&self.name)).await.unwrap()),
            Call::Expire => {
                self.admin
                    .run::<()>(&format!("DEL leasehold:1:default:m:{{{}}}:L", self.name))
                    .await;
                Answer::Nothing
            }
            Call::Die => {
                if let Some(driver) = self.dies.take().filter(|_| !dead) {
                    driver.close().await.unwrap();
                    while self
                        .admin
                        .run::<Vec<String>>("PUBSUB CHANNELS leasehold:*")
                        .await
                        .len()
                        > 1
                    {
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                Answer::Nothing
            }
        }
    }
}

async fn agree(world: &mut World, calls: &[Call]) {
    let mut model = Model {
        lease: Lease::Free,
        queue: Vec::new(),
        dead: false,
    };
    for (at, call) in calls.iter().enumerate() {
        let expected = match call {
            // The dead say nothing.
            Call::Wait(attempt) | Call::Try(attempt) if model.dies(*attempt) => continue,
            Call::Wait(attempt) => model.acquire(*attempt, true),
            Call::Try(attempt) => model.acquire(*attempt, false),
            Call::Release(attempt) => model.release(*attempt),
            Call::Force => model.force(),
            Call::Expire => {
                model.lease = Lease::Free;
                Answer::Nothing
            }
            Call::Die => Answer::Nothing,
        };
        let answer = world.apply(call, model.dead).await;
        model.dead |= matches!(call, Call::Die);
        assert_eq!(answer, expected, "call {at} of {calls:?}");
        let seen = world.lives.inspect(&resource(&world.name)).await.unwrap();
        let holder = seen.holders.first().map(|holder| holder.token);
        let held = matches!(model.lease, Lease::Held(_));
        assert_eq!(
            holder,
            world.last.map(|(_, token)| token).filter(|_| held),
            "after call {at} of {calls:?}"
        );
        assert_eq!(seen.waiters, model.waiters(), "after call {at} of {calls:?}");
    }
    for claim in &world.claims {
        world.lives.release(claim).await.unwrap();
    }
    assert!(
        ["", "F"].contains(&world.admin.keys(&world.name).await.as_str()),
        "{calls:?}"
    );
}

#[test]
fn the_scripts_do_what_the_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(own());
    let config = Config {
        cases: 150,
        failure_persistence: None,
        ..Config::default()
    };
    let run = |calls: Vec<Call>| {
        runtime.block_on(async {
            let name = unique("model");
            let mut world = World {
                claims: (0..ATTEMPTS).map(|_| claim(&name)).collect(),
                name,
                lives: driver(&server).await,
                dies: Some(driver(&server).await),
                admin: Admin::new(&server).await,
                last: None,
            };
            agree(&mut world, &calls).await;
            for driver in [Some(world.lives), world.dies].into_iter().flatten() {
                driver.close().await.unwrap();
            }
            eventually("they are gone", || async {
                let mut admin = Admin::new(&server).await;
                admin
                    .run::<Vec<String>>("PUBSUB CHANNELS leasehold:*")
                    .await
                    .is_empty()
            })
            .await;
        });
        Ok(())
    };
    TestRunner::new(config).run(&calls(), run).unwrap();
    drop(server);
}
