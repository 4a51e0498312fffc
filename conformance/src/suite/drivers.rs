//! What the driver interface promises and no guard would ask for twice.

use std::time::Duration;

use lockcore::driver::{Acquired, Bound, Grant, Intent, Lease, Released, Renewal};
use lockcore::{Claim, Driver, DynDriver};

use crate::context::Context;
use crate::failure::{Checked, ensure, ensure_eq, fail};
use crate::scenario::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario::new("EX11", "a_repeated_request_is_one_grant", |cx| Box::pin(ex11(cx))),
    Scenario::new("RN14", "each_lease_of_a_batch_has_its_answer", |cx| {
        Box::pin(rn14(cx))
    }),
];

async fn granted(driver: &DynDriver, claim: &Claim, intent: Intent) -> Checked<Grant> {
    match driver.acquire(claim, intent).await? {
        Acquired::Granted(grant) => Ok(grant),
        other => fail!("not granted: {other:?}"),
    }
}

const WAIT: Intent = Intent::Wait { ticket: None };

/// A request may be sent again, by the engine, the client library or a proxy: it is the same grant, with the same token,
/// and no day longer; the same place in the queue; the same release.
async fn ex11(cx: Context) -> Checked {
    let (driver, name) = (cx.driver().await?, cx.name());
    // Long enough not to be over before it was asked for again, on a slow machine.
    let ttl = cx.renewed_ttl() * 2;
    let claim = cx.claim(&name, ttl)?;
    let first = granted(&driver, &claim, Intent::Try).await?;
    let received = cx.now();
    for intent in [Intent::Try, WAIT] {
        cx.sleep(ttl / 5).await;
        let age = cx.now().since(received);
        let again = granted(&driver, &claim, intent).await?;
        ensure_eq!(again.token, first.token);
        if let Bound::Lease(left) = again.bound {
            // Servers count in milliseconds.
            let most = ttl.saturating_sub(age) + Duration::from_millis(2);
            ensure!(
                left <= most,
                "{left:?} are left {age:?} after the grant for {ttl:?}"
            );
        }
    }
    let next = cx.claim(&name, ttl)?;
    let mut ticket = None;
    loop {
        let answer = driver.acquire(&next, Intent::Wait { ticket }).await?;
        let age = cx.now().since(received);
        match answer {
            Acquired::Granted(grant) => {
                ensure!(grant.token > first.token);
                break;
            }
            Acquired::Busy(busy) => {
                if cx.capabilities().sessions {
                    // Its session lives, and so does it.
                    driver.release(&claim).await?;
                }
                ensure!(
                    age <= ttl + cx.late(),
                    "still there {age:?} after the grant for {ttl:?}"
                );
                ensure!(
                    ticket.is_none() || busy.ticket == ticket,
                    "another place for the same request"
                );
                ensure!(busy.ahead.unwrap_or(0) == 0, "it stands in the queue twice");
                ticket = busy.ticket;
            }
            other => fail!("{other:?}"),
        }
        cx.sleep(Duration::from_millis(20)).await;
    }
    ensure_eq!(driver.release(&next).await?, Released::Released);
    ensure_eq!(driver.release(&next).await?, Released::NotHeld);
    ensure_eq!(driver.release(&claim).await?, Released::NotHeld);
    Ok(driver.close().await?)
}

/// Some leases of a batch are gone: the answers say which.
async fn rn14(cx: Context) -> Checked {
    let driver = cx.driver().await?;
    let ttl = cx.ttl(Duration::from_secs(60));
    let (mut claims, mut leases) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        let claim = cx.claim(&cx.name(), ttl)?;
        let grant = granted(&driver, &claim, Intent::Try).await?;
        leases.push(Lease::new(claim.clone().into(), grant.token, ttl));
        claims.push(claim);
    }
    for gone in [1, 2] {
        ensure_eq!(driver.release(&claims[gone]).await?, Released::Released);
    }
    for batch in leases.chunks(cx.capabilities().renew_batch) {
        let answers = driver.renew(batch).await?;
        let expected: Vec<_> = batch
            .iter()
            .map(|lease| {
                let gone = [1, 2]
                    .iter()
                    .any(|gone| claims[*gone].attempt == lease.claim.attempt);
                if gone { Renewal::NotHeld } else { Renewal::Renewed }
            })
            .collect();
        ensure_eq!(answers, expected);
    }
    for (index, claim) in claims.iter().enumerate() {
        let held = driver.release(claim).await? == Released::Released;
        ensure_eq!(held, ![1, 2].contains(&index));
    }
    Ok(driver.close().await?)
}
