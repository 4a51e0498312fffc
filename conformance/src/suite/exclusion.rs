//! ME: at most one holder.

use crate::context::Context;
use crate::failure::{Checked, ensure};
use crate::scenario::Scenario;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario::new("ME1", "two_contenders_one_winner", |cx| {
    Box::pin(me1(cx))
})];

/// Of two contenders one wins; other names are not concerned; after the release the other one can have it.
async fn me1(cx: Context) -> Checked {
    let (a, b, name) = (cx.client().await?, cx.client().await?, cx.name());
    let held = a.lock(&name).acquire().await?;
    ensure!(held.is_held());
    ensure!(b.lock(&name).try_acquire().await?.is_none());
    let other = b.lock(&cx.name()).try_acquire().await?;
    ensure!(other.is_some(), "another name was refused");
    ensure!(held.release().await? == lockcore::Release::Released);
    let next = b.lock(&name).try_acquire().await?;
    ensure!(next.is_some(), "a released lock was refused");
    Ok(())
}
