//! Who is served next, when nothing goes wrong: the queue of the store and those of the nodes, from the outside.

use std::collections::VecDeque;

use lockcore::Instant;

/// One mutex. Actors are known by their number.
#[derive(Debug, Default)]
pub(crate) struct Line {
    holder: Option<usize>,
    free_since: Option<Instant>,
    /// The first waiter of each node, in order of arrival.
    at_the_store: VecDeque<usize>,
    /// By node.
    at_home: Vec<VecDeque<usize>>,
}

impl Line {
    fn home(&mut self, node: usize) -> &mut VecDeque<usize> {
        if self.at_home.len() <= node {
            self.at_home.resize_with(node + 1, VecDeque::new);
        }
        &mut self.at_home[node]
    }

    pub(crate) fn enters(&mut self, actor: usize, node: usize) {
        let home = self.home(node);
        home.push_back(actor);
        if home.len() == 1 {
            self.at_the_store.push_back(actor);
        }
    }

    /// Would a try be granted?
    pub(crate) fn is_free_for(&mut self, node: usize) -> bool {
        self.holder.is_none() && self.at_the_store.is_empty() && self.home(node).is_empty()
    }

    pub(crate) fn tries(&mut self, actor: usize, node: usize, granted: bool) -> Result<(), String> {
        let expected = self.is_free_for(node);
        if expected != granted {
            return Err(format!(
                "a try was granted: {granted}, expected: {expected}: {self:?}"
            ));
        }
        if granted {
            self.holder = Some(actor);
        }
        Ok(())
    }

    pub(crate) fn granted(&mut self, actor: usize, node: usize, now: Instant) -> Result<(), String> {
        if self.holder.is_some() || self.at_the_store.front() != Some(&actor) {
            return Err(format!("actor {actor} was served out of turn: {self:?}"));
        }
        let waited = self
            .free_since
            .map_or(std::time::Duration::ZERO, |free| now.since(free));
        if waited > crate::ms(1) {
            return Err(format!(
                "a free lock was handed to actor {actor} after {waited:?}"
            ));
        }
        self.leaves(actor, node);
        self.holder = Some(actor);
        Ok(())
    }

    /// Granted, given up or cancelled.
    pub(crate) fn leaves(&mut self, actor: usize, node: usize) {
        let home = self.home(node);
        let was_first = home.front() == Some(&actor);
        home.retain(|other| *other != actor);
        let next = home.front().copied();
        if was_first {
            self.at_the_store.retain(|other| *other != actor);
            self.at_the_store.extend(next);
        }
    }

    pub(crate) fn released(&mut self, now: Instant) {
        self.holder = None;
        self.free_since = (!self.at_the_store.is_empty()).then_some(now);
    }
}
