//! Clients that can be cut off from the backend, with everything that their drivers do by themselves.

use lockcore::{LossReason, Settings};

use super::network::Route;
use crate::backend::Ability;
use crate::client::Client;
use crate::context::Context;
use crate::failure::Checked;
use crate::proxy::Direction;

/// A client, and what is between it and the backend.
pub(super) struct Reach {
    pub(super) client: Client,
    /// Where a driver keeps its sessions alive, requests that do not arrive are not enough of a silence.
    route: Option<Route>,
}

impl Reach {
    pub(super) async fn new(cx: &Context) -> Checked<Self> {
        Self::with(cx, cx.settings()).await
    }

    pub(super) async fn with(cx: &Context, settings: Settings) -> Checked<Self> {
        let on_the_wire = cx.backend().abilities().contains(&Ability::Network);
        if !(cx.capabilities().sessions && on_the_wire) {
            let client = cx.client_with(settings).await?;
            return Ok(Self { client, route: None });
        }
        let route = Route::new(cx).await?;
        let client = route.client_with(cx, settings).await?;
        Ok(Self {
            client,
            route: Some(route),
        })
    }

    /// While true nothing arrives and nothing is answered.
    pub(super) fn cut_off(&self, on: bool) {
        match &self.route {
            None => self.client.link().partition(on),
            Some(route) if on => {
                for direction in [Direction::ToServer, Direction::ToClient] {
                    route.proxy.stall_one_way(direction, true);
                }
            }
            Some(route) => route.proxy.heal(),
        }
    }
}

/// Whether somebody whose lock was deleted may give this reason: with it, its session may be gone.
pub(super) fn is_of_deletion(cx: &Context, reason: LossReason) -> bool {
    reason == LossReason::Revoked || (cx.capabilities().sessions && reason == LossReason::SessionEnded)
}

/// Whether somebody who was cut off may give this reason: it cannot know more, unless its session told it that it was
/// over.
pub(super) fn is_of_silence(cx: &Context, reason: LossReason) -> bool {
    reason == LossReason::Unreachable || (cx.capabilities().sessions && reason == LossReason::SessionEnded)
}
