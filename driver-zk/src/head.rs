//! The first node of a queue, as somebody else sees it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockcore::Token;
use lockcore::driver::Occupant;
use zookeeper_client::Stat;

use crate::layout::{Mark, read_record};

/// What a node says about itself.
#[derive(Debug)]
pub(crate) struct Head {
    name: String,
    stat: Stat,
    /// `None` for a node that another recipe made: its owner knows nothing of claims, and holds as soon as it is the
    /// first.
    mark: Option<Mark>,
    details: String,
}

impl Head {
    pub(crate) fn new(name: &str, data: &[u8], stat: Stat) -> Self {
        let record = read_record(data);
        Self {
            name: name.to_owned(),
            stat,
            mark: record.map(|(mark, _)| mark),
            details: record.map_or("", |(_, details)| details).to_owned(),
        }
    }

    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name
    }

    pub(crate) fn path(&self, lock: &str) -> String {
        format!("{lock}/{}", self.name)
    }

    pub(crate) fn version(&self) -> i32 {
        self.stat.version
    }

    /// Being the first, does it hold the lock, as far as can be told?
    pub(crate) fn holds(&self) -> bool {
        self.mark != Some(Mark::Waits)
    }

    /// The same for one who knows that only `first_seen` can have been the first when it was created.
    pub(crate) fn holds_for(&self, first_seen: Option<&str>) -> bool {
        match self.mark {
            Some(Mark::New) => first_seen.is_none_or(|first| first == self.name),
            _ => self.holds(),
        }
    }

    pub(crate) fn occupant(&self) -> Occupant {
        // When it was created or, having waited, when it claimed its turn.
        let since = u64::try_from(self.stat.mtime).ok();
        let since = since.map(|ms| UNIX_EPOCH + Duration::from_millis(ms));
        let token = token(&self.stat).unwrap_or(Token::new(u64::MAX));
        Occupant::new(self.details.as_str(), token)
            .since(since.filter(|since| *since > SystemTime::UNIX_EPOCH))
    }
}

/// That of the transaction that created the node, whose number has the epoch of the leader in its upper half.
pub(crate) fn token(stat: &Stat) -> Option<Token> {
    let created = u64::try_from(stat.czxid).ok().filter(|_| !stat.is_invalid())?;
    Token::of_revision(created)
}
