//! What became of earlier requests of an attempt.

use lockcore::Result;
use zookeeper_client::Error as ZkError;

use crate::head::{Head, token};
use crate::layout::Mark;
use crate::place::{Node, Queued, Stage, State};
use crate::queue::{Acquire, Step, client_of};

impl Acquire<'_> {
    /// Finds out what became of earlier requests. A session that connects again fences what was sent before, and
    /// `sync` makes the server know all that was agreed upon, so what is not there now will not come any more.
    pub(crate) async fn recover(&self, state: &mut State) -> Result<Step> {
        let client = client_of(state)?;
        let nodes = self
            .driver
            .nodes_of(&client, &self.lock, self.claim.attempt)
            .await;
        let nodes = nodes.map_err(|error| self.failed(state, error))?;
        let session = client.session_id().0;
        let mut found = None;
        for name in nodes {
            let path = format!("{}/{name}", self.lock);
            let (data, stat) = match client.get_data(&path).await {
                Ok(answer) => answer,
                Err(ZkError::NoNode) => continue,
                Err(error) => return Err(self.failed(state, error)),
            };
            let mark = Head::new(&name, &data, stat).mark();
            match (mark, token(&stat)) {
                (Some(mark), Some(token)) if found.is_none() && stat.ephemeral_owner == session => {
                    let version = stat.version;
                    found = Some(Node {
                        path: path.into(),
                        token,
                        version,
                        mark,
                    });
                }
                // Of a session of before, or made twice.
                _ => match client.delete(&path, None).await {
                    Ok(()) | Err(ZkError::NoNode) => {}
                    Err(error) => return Err(self.failed(state, error)),
                },
            }
        }
        match found {
            None => state.forget_node(self.claim.attempt),
            Some(node) if node.mark == Mark::Holds => return Ok(self.hold(state, node, false)),
            Some(node) => state.stage = Queued::stage(node, &self.driver.context, self.claim),
        }
        Ok(Step::Again)
    }

    /// Was granted before: the same grant, if it is still there.
    pub(crate) async fn confirm(&self, state: &mut State) -> Result<Step> {
        let client = client_of(state)?;
        let Stage::Held(node) = &state.stage else {
            return Ok(Step::Again);
        };
        let node = node.clone();
        match client.check_stat(&node.path).await {
            Ok(Some(_)) => Ok(self.hold(state, node, false)),
            Ok(None) | Err(ZkError::NoNode) => {
                state.forget_node(self.claim.attempt);
                Ok(Step::Again)
            }
            Err(error) => Err(self.failed(state, error)),
        }
    }
}
