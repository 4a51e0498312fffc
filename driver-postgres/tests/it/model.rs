//! The functions against a model of the queue: random calls, each answer compared.

use std::collections::BTreeMap;

use leasehold_conformance::servers::Server;
use leasehold_driver_postgres::PostgresDriver;
use lockcore::driver::{Acquired, Driver, Intent, Released};
use lockcore::{Claim, Token};
use proptest::prelude::*;

use crate::support::{Admin, claim, driver, own, resource};

#[derive(Clone, Copy, Debug)]
enum Step {
    /// A try by an attempt that is used for nothing else.
    Barge,
    /// A try by an attempt that may hold the lock.
    Try(usize),
    Wait(usize),
    Release(usize),
    Force,
    /// The lease or the reservation, whichever there is, runs out.
    Expire,
}

fn step() -> impl Strategy<Value = Step> {
    let who = 0..5_usize;
    prop_oneof![
        1 => Just(Step::Barge),
        1 => who.clone().prop_map(Step::Try),
        6 => who.clone().prop_map(Step::Wait),
        4 => who.prop_map(Step::Release),
        1 => Just(Step::Force),
        2 => Just(Step::Expire),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lock {
    Free,
    Held { by: usize, live: bool },
    Reserved { of: usize, live: bool },
}

#[derive(Debug)]
struct Model {
    lock: Lock,
    token: Token,
    /// By ticket.
    queue: BTreeMap<u64, usize>,
    /// What each one was told last.
    tickets: [Option<u64>; 6],
}

/// What the model expects of an acquire.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Again,
    Grant,
    Busy { ahead: Option<u64>, held: bool },
}

impl Model {
    fn new() -> Self {
        Self {
            lock: Lock::Free,
            token: Token::new(0),
            queue: BTreeMap::new(),
            tickets: [None; 6],
        }
    }

    fn leave(&mut self, who: usize) {
        self.queue.retain(|_, waiter| *waiter != who);
    }

    fn is_free(&self) -> bool {
        matches!(
            self.lock,
            Lock::Free | Lock::Held { live: false, .. } | Lock::Reserved { live: false, .. }
        )
    }

    fn drop_the_late(&mut self, but: usize) {
        if let Lock::Reserved { of, live: false } = self.lock
            && of != but
        {
            self.leave(of);
        }
    }

    fn offer(&mut self) {
        if self.is_free()
            && let Some((_, head)) = self.queue.first_key_value()
        {
            self.lock = Lock::Reserved {
                of: *head,
                live: true,
            };
        }
    }

    /// `ticket` is where a waiter without a place gets one; `None` for a try.
    fn acquire(&mut self, who: usize, ticket: Option<u64>) -> Expected {
        self.drop_the_late(who);
        if self.lock == (Lock::Held { by: who, live: true }) {
            return Expected::Again;
        }
        let place = self.queue.iter().find(|(_, waiter)| **waiter == who);
        let place = place.map(|(ticket, _)| *ticket).or(ticket);
        let mine = matches!(self.lock, Lock::Reserved { of, .. } if of == who);
        let first = !self
            .queue
            .iter()
            .any(|(other, waiter)| *waiter != who && place.is_none_or(|place| *other < place));
        if mine || (self.is_free() && first) {
            self.leave(who);
            self.lock = Lock::Held { by: who, live: true };
            return Expected::Grant;
        }
        let ahead = ticket.and(place).map(|place| {
            self.queue.insert(place, who);
            self.queue.range(..place).count() as u64
        });
        self.offer();
        let held = matches!(self.lock, Lock::Held { live: true, .. });
        Expected::Busy { ahead, held }
    }

    fn release(&mut self, who: usize) -> Released {
        let held = self.lock == (Lock::Held { by: who, live: true });
        self.leave(who);
        self.drop_the_late(who);
        match self.lock {
            Lock::Held { by, .. } | Lock::Reserved { of: by, .. } if by == who => self.lock = Lock::Free,
            _ => {}
        }
        self.offer();
        if held {
            Released::Released
        } else {
            Released::NotHeld
        }
    }

    fn expire(&mut self) {
        if let Lock::Held { live, .. } | Lock::Reserved { live, .. } = &mut self.lock {
            *live = false;
        }
    }
}

struct Run {
    driver: PostgresDriver,
    admin: Admin,
    claims: Vec<Claim>,
    model: Model,
}

impl Run {
    async fn acquire(&mut self, who: usize, waits: bool) {
        let known = self.model.tickets[who];
        let intent = if waits {
            Intent::Wait { ticket: known }
        } else {
            Intent::Try
        };
        let answer = self.driver.acquire(&self.claims[who], intent).await.unwrap();
        // A new place is the last one, whatever its number is.
        let fresh = match &answer {
            Acquired::Busy(busy) => busy.ticket.unwrap_or(u64::MAX),
            _ => u64::MAX,
        };
        let expected = self.model.acquire(who, waits.then_some(known.unwrap_or(fresh)));
        match answer {
            Acquired::Granted(grant) => {
                let again = grant.token == self.model.token;
                assert_eq!(expected, if again { Expected::Again } else { Expected::Grant });
                assert!(again || grant.token > self.model.token);
                self.model.token = grant.token;
            }
            Acquired::Busy(busy) => {
                let (ahead, held) = (busy.ahead, busy.holder.is_some());
                assert_eq!(expected, Expected::Busy { ahead, held });
                assert_eq!(busy.reserved.is_some(), !held);
                assert_eq!(busy.ticket.is_some(), waits);
                self.model.tickets[who] = busy.ticket.or(known);
            }
            other => panic!("{other:?}"),
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Barge => self.acquire(5, false).await,
            // The engine tries with attempts that never waited.
            Step::Try(who) if self.model.tickets[who].is_some() => {}
            Step::Try(who) => self.acquire(who, false).await,
            Step::Wait(who) => self.acquire(who, true).await,
            Step::Release(who) => {
                let answer = self.driver.release(&self.claims[who]).await.unwrap();
                assert_eq!(answer, self.model.release(who));
                // An attempt is used once.
                self.claims[who] = claim("q");
                self.model.tickets[who] = None;
            }
            Step::Force => {
                let answer = self.driver.force_release(&resource("q")).await.unwrap();
                let expected = match self.model.lock {
                    Lock::Held { by, live: true } => self.model.release(by) == Released::Released,
                    _ => false,
                };
                assert_eq!(answer, expected);
            }
            Step::Expire => {
                self.admin
                    .run("UPDATE leasehold.lock SET expires = '-infinity'")
                    .await;
                self.model.expire();
            }
        }
        let found = self.driver.inspect(&resource("q")).await.unwrap();
        assert_eq!(found.waiters, self.model.queue.len() as u64);
        let held = matches!(self.model.lock, Lock::Held { live: true, .. });
        assert_eq!(found.holders.len(), usize::from(held));
    }
}

async fn run(server: &Server, steps: Vec<Step>) {
    let mut admin = Admin::new(server).await;
    admin
        .run("DELETE FROM leasehold.lock; DELETE FROM leasehold.waiter")
        .await;
    let mut run = Run {
        driver: driver(server).await,
        admin,
        claims: (0..6).map(|_| claim("q")).collect(),
        model: Model::new(),
    };
    for step in steps {
        run.step(step).await;
    }
    run.driver.close().await.unwrap();
}

#[test]
fn answers_are_those_of_the_model() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let server = runtime.block_on(async {
        let server = own().await;
        driver(&server).await.close().await.unwrap();
        server
    });
    let config = ProptestConfig {
        cases: 100,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in prop::collection::vec(step(), 1..60))| {
        runtime.block_on(run(&server, steps));
    });
    runtime.block_on(async { drop(server) });
}
