//! Scenarios that sweep over network faults.

use std::sync::Arc;
use std::time::Duration;

use lockcore::{Error, ErrorKind, LockManager, Release, Retry, Settings};
use url::Url;

use super::common::{gets, is_free_within, is_released, random};
use super::connections::recovers;
use crate::backend::Backend;
use crate::client::Client;
use crate::context::Context;
use crate::failure::{Checked, Failure, ensure, ensure_eq, fail};
use crate::history::Event;
use crate::proxy::{Cut, Direction, Proxy, Storm, Then, Trap};
use crate::scenario::ends_with_connection;

/// The backend's server with a proxy in front of it.
pub(super) struct Route {
    pub(super) proxy: Proxy,
    pub(super) backend: Arc<dyn Backend>,
}

impl Route {
    pub(super) async fn new(cx: &Context) -> Checked<Self> {
        let Some(url) = cx.backend().url() else {
            fail!("the backend has no URL");
        };
        let parsed = Url::parse(&url)?;
        let (Some(host), Some(port)) = (parsed.host(), parsed.port()) else {
            fail!("the backend's URL has no host and port");
        };
        let proxy = Proxy::start(format!("{host}:{port}")).await?;
        let through = proxy.url(&url).ok_or_else(|| Failure::new("not a URL"))?;
        let backend = cx.backend().at(&through)?;
        Ok(Self { proxy, backend })
    }

    pub(super) async fn client(&self, cx: &Context) -> Checked<Client> {
        self.client_with(cx, cx.settings()).await
    }

    pub(super) async fn client_with(&self, cx: &Context, settings: Settings) -> Checked<Client> {
        cx.client_at(&self.backend, settings).await
    }
}

/// Settings with which faults are over soon.
fn hasty(cx: &Context) -> Settings {
    let mut settings = cx.settings();
    settings.op_timeout = Duration::from_millis(500);
    settings.waiter_ttl = Duration::from_secs(6);
    settings
}

/// At the first request of a connection, at the second and so on, login and set-up included: the request or its answer is
/// lost, and the connection closed, reset or silent. What was asked for is done or fails as `Unavailable`; nothing stays
/// locked, and the client recovers.
pub(super) async fn ft4(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    // Who cannot be reached when its turn comes loses its place.
    cx.expect_no_order();
    let mut sweeps = vec![("late", cx.spawn(late(cx.clone())))];
    for then in [Then::Cut(Cut::Close), Then::Cut(Cut::Reset), Then::Stall] {
        sweeps.push(("a lost request", cx.spawn(sweep(cx.clone(), Trap::request(then)))));
        sweeps.push(("a lost answer", cx.spawn(sweep(cx.clone(), Trap::reply(then)))));
    }
    for (what, swept) in sweeps {
        swept.await?.map_err(|failure| failure.after(what))?;
    }
    Ok(())
}

/// More requests than it takes to connect, acquire, renew and release.
const MOST_REQUESTS: u32 = 60;

/// How many of them are struck at a time, each on a way of its own: a silence is long.
const ABREAST: u32 = 4;

async fn sweep(cx: Context, trap: Trap) -> Checked {
    let direct = cx.client().await?;
    for first in (0..MOST_REQUESTS).step_by(ABREAST as usize) {
        let passes: Vec<_> = (first..first + ABREAST)
            .map(|requests| {
                let pass = pass(cx.clone(), direct.clone(), trap.clone(), requests);
                (requests, cx.spawn(pass))
            })
            .collect();
        let mut over = None;
        for (requests, pass) in passes {
            let struck = pass
                .await?
                .map_err(|failure| failure.after(&format!("at request {requests}, {trap:?}")))?;
            if !struck {
                over.get_or_insert(requests);
            }
        }
        if let Some(requests) = over {
            ensure!(requests > 3, "the sweep ended after {requests} requests");
            cx.noted(format!("{trap:?}: {requests} requests"));
            return Ok(());
        }
    }
    fail!("not over after {MOST_REQUESTS} requests");
}

/// A client's turn, with a fault after so many `requests`: was there one?
async fn pass(cx: Context, direct: Client, trap: Trap, requests: u32) -> Checked<bool> {
    let (route, name) = (Route::new(&cx).await?, cx.name());
    // Somebody has it for a moment, so that there is a wait.
    let held = gets(direct.lock(&name), cx.slack()).await?;
    let env = cx.env().clone();
    let freed = cx.spawn(async move {
        env.sleep(Duration::from_millis(150)).await;
        is_released(held).await
    });
    route.proxy.set_trap(trap.after(requests));
    let client = route.client_with(&cx, hasty(&cx)).await;
    if let Ok(client) = &client {
        match turn(&cx, client, &name).await {
            Ok(()) => {}
            Err(error) if error.is_retryable() => {}
            // Renewed too late, and told so.
            Err(error) if error.kind() == ErrorKind::Lost => {}
            Err(error) => return Err(error.into()),
        }
    }
    freed.await??;
    let struck = route.proxy.struck() > 0;
    route.proxy.heal();
    ensure!(struck || client.is_ok(), "no connection without a fault");
    is_free_within(&direct, &name, cx.expiring_ttl() + cx.late()).await?;
    if let Ok(client) = &client {
        recovers(&cx, client).await?;
        // What it has to clean up needs the way to the server, which ends here.
        drop(client.close().await);
    }
    Ok(struck)
}

/// Everything that a client asks for: waits for the lock, takes it, renews it, frees it.
async fn turn(cx: &Context, client: &Client, name: &str) -> Result<(), Error> {
    let request = client.lock(name).ttl(cx.expiring_ttl()).retry(Retry::times(1));
    let held = request.wait(Duration::from_secs(3)).acquire().await?;
    let renewed = held.renew().await;
    let mut released = held.release().await;
    for _ in 0..3 {
        let Err(error) = released else { break };
        released = error.retry().await;
    }
    let _outcome: Release = released?;
    renewed
}

/// With a delay on both ways everything works, and no guard is valid for longer because its answer was late.
async fn late(cx: Context) -> Checked {
    let (route, name) = (Route::new(&cx).await?, cx.name());
    let (a, b) = (route.client(&cx).await?, cx.client().await?);
    // To open a connection takes many ways there and back.
    is_released(a.lock(&cx.name()).acquire().await?).await?;
    let delay = Duration::from_millis(150);
    for direction in [Direction::ToServer, Direction::ToClient] {
        route.proxy.delay(direction, delay);
    }
    let ttl = cx.expiring_ttl() * 2;
    let sent = cx.now();
    let held = a.lock(&name).ttl(ttl).auto_renew(false).acquire().await?;
    ensure!(cx.now().since(sent) >= 2 * delay, "it was not late at all");
    // The backend may have rounded it up.
    let (left, given) = (held.remaining(), held.ttl());
    ensure!(
        left + 2 * delay <= given,
        "the answer's way was not counted: {left:?} left of {given:?}"
    );
    let next = gets(b.lock(&name), given + cx.late()).await?;
    ensure!(!held.is_held());
    drop(next);
    let held = gets(a.lock(&name).ttl(ttl), cx.slack()).await?;
    cx.sleep(ttl * 2).await;
    ensure!(held.is_held(), "renewals that take a while are renewals");
    ensure_eq!(held.release().await?, Release::Released);
    Ok(())
}

/// Random faults of the network, one after the other, while several clients take turns: the history is that of a mutex,
/// and when the storm is over everybody recovers and nothing is locked. Where a session ends with its connection, a
/// connection that is cut frees its lock before its holder can know: what is held then is not judged from there on.
pub(super) async fn ft19(cx: Context) -> Checked {
    cx.expect_slow_hand_off();
    cx.expect_no_order();
    let route = Arc::new(Route::new(&cx).await?);
    if ends_with_connection(cx.backend().as_ref()) {
        let cx = cx.clone();
        route.proxy.on_cut(move || cx.disturbed());
    }
    let names = [cx.name(), cx.name()];
    let seed = u64::from(random(cx.env(), u32::MAX));
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(route.client_with(&cx, hasty(&cx)).await?);
    }
    let chaos = route.proxy.chaos(Storm::new(seed));
    let end = cx.now().after(Duration::from_secs(12));
    let mut tasks = Vec::new();
    for client in &clients {
        let (client, names, cx2) = (client.clone(), names.clone(), cx.clone());
        tasks.push(cx.spawn(async move {
            while cx2.now() < end {
                let name = &names[random(cx2.env(), 2) as usize];
                let request = client.lock(name).ttl(cx2.expiring_ttl());
                let request = request.retry(Retry::times(random(cx2.env(), 3)));
                let held = match request.wait(Duration::from_secs(2)).acquire().await {
                    Ok(held) => held,
                    Err(error) if [ErrorKind::Timeout, ErrorKind::Unavailable].contains(&error.kind()) => {
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                let work = Duration::from_millis(u64::from(random(cx2.env(), 60)));
                // Over when the lock is.
                let worked = held.protect(cx2.sleep(work)).await;
                ensure!(worked.is_ok() || !held.is_held(), "stopped while held");
                if random(cx2.env(), 3) > 0 {
                    drop(held.release().await);
                }
            }
            Checked::Ok(())
        }));
    }
    for task in tasks {
        let limit = Duration::from_secs(30);
        let done = cx.within("everybody ends", limit, task).await??;
        done.map_err(|failure| failure.after(&format!("storm {seed}: {:?}", chaos.log())))?;
    }
    let log = chaos.log();
    drop(chaos);
    for client in &clients {
        recovers(&cx, client).await?;
    }
    let direct = cx.client().await?;
    for name in &names {
        is_free_within(&direct, name, cx.expiring_ttl() + cx.late()).await?;
    }
    let events = cx.history().events();
    let held = events.iter().filter(|event| matches!(event, Event::Held { .. }));
    ensure!(held.count() > 20, "too few turns to prove something: {log:?}");
    Ok(())
}
