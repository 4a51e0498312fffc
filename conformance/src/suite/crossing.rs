//! Requests that cross each other: FT.

use std::time::Duration;

use lockcore::driver::{Acquired, Intent, Lease, Released, Renewal};
use lockcore::{Driver, ErrorKind};

use super::common::{gets, is_free_within, is_released, random};
use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::scenario::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("FT13", "crossing_batches_do_not_lock_up", |cx| Box::pin(ft13(cx))),
    Scenario::new("FT14", "a_wait_that_ends_with_the_release_keeps_nothing", |cx| {
        Box::pin(ft14(cx))
    }),
];

/// Batches with the same leases in another order, at one time, and releases in between: a server that finds them in each
/// other's way is not heard of.
async fn ft13(cx: Context) -> Checked {
    const LEASES: usize = 24;
    let driver = cx.driver().await?;
    let ttl = cx.ttl(Duration::from_secs(60));
    let (mut claims, mut leases) = (Vec::new(), Vec::new());
    for _ in 0..LEASES {
        let claim = cx.claim(&cx.name(), ttl)?;
        let Acquired::Granted(grant) = driver.acquire(&claim, Intent::Try).await? else {
            fail!("a free lock was refused");
        };
        leases.push(Lease::new(claim.clone().into(), grant.token, ttl));
        claims.push(claim);
    }
    let mut tasks = Vec::new();
    for number in 0..4_usize {
        let (driver, cx2, mut leases) = (driver.clone(), cx.clone(), leases.clone());
        tasks.push(cx.spawn(async move {
            for _ in 0..cx2.pick(8, 20) {
                let turn = usize::try_from(random(cx2.env(), 24))?;
                leases.rotate_left(turn);
                if number % 2 == 0 {
                    leases.reverse();
                }
                for batch in leases.chunks(cx2.capabilities().renew_batch) {
                    let answers = driver.renew(batch).await?;
                    ensure!(
                        answers.len() == batch.len() && !answers.contains(&Renewal::Unknown),
                        "{answers:?}"
                    );
                }
            }
            Checked::Ok(())
        }));
    }
    for claim in claims.iter().step_by(2) {
        ensure_eq!(driver.release(claim).await?, Released::Released);
        cx.sleep(Duration::from_millis(2)).await;
    }
    for task in tasks {
        cx.within("the batches are over", cx.slack() * 2, task)
            .await???;
    }
    for claim in claims.iter().skip(1).step_by(2) {
        ensure_eq!(driver.release(claim).await?, Released::Released);
    }
    Ok(driver.close().await?)
}

/// The wait is over at the moment in which the lock is given back: it is had, or it is free for the next one.
async fn ft14(cx: Context) -> Checked {
    let (a, b, c, name) = (
        cx.client().await?,
        cx.client().await?,
        cx.client().await?,
        cx.name(),
    );
    let (mut had, mut over) = (0, 0);
    for round in 0..cx.pick(24_u64, 120) {
        let held = gets(a.lock(&name), cx.slack()).await?;
        // Around the time that a release takes.
        let wait = Duration::from_millis(20);
        let pause = Duration::from_millis(14 + round % 8);
        let waiting = b.lock(&name).wait(wait).acquire();
        let releasing = async {
            cx.sleep(pause).await;
            is_released(held).await
        };
        let (waited, released) = tokio::join!(waiting, releasing);
        released?;
        match waited {
            Ok(held) => {
                had += 1;
                is_released(held).await?;
            }
            Err(error) if error.kind() == ErrorKind::Timeout => over += 1,
            Err(error) => return Err(error.into()),
        }
        is_free_within(&c, &name, cx.slack())
            .await
            .map_err(|failure| failure.after(&format!("round {round}, {had} had it, {over} did not")))?;
    }
    Ok(())
}
