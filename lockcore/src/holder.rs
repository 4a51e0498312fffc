//! Who holds a lock, for people and for error messages.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::claim::Token;
use crate::driver::Occupant;
use crate::name::{Kind, LockName, Resource};

/// The longest label, in bytes.
pub const MAX_LABEL_BYTES: usize = 128;

/// Who took a lock: a machine, a process, and what it calls itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Owner {
    /// The host's name.
    pub host: String,
    /// The process id on that host.
    pub pid: u32,
    /// What `.label()` said, such as a job's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
}

impl Owner {
    /// This process, with a label.
    #[must_use]
    pub fn this_process(label: Option<&str>) -> Self {
        let mut host = gethostname::gethostname().to_string_lossy().into_owned();
        host.truncate(host.floor_char_boundary(255));
        Self {
            host,
            pid: std::process::id(),
            label: label.map(str::to_owned),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Another process wrote these: no control character reaches a terminal or a log.
        write!(f, "{}/{}", self.host.escape_debug(), self.pid)?;
        if let Some(label) = &self.label {
            write!(f, " ({})", label.escape_debug())?;
        }
        Ok(())
    }
}

/// What lockcore stores with a grant. The name stands here only where the key does not tell it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Details {
    #[serde(flatten)]
    pub(crate) owner: Owner,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

impl Details {
    pub(crate) fn encode(owner: Owner, name: Option<&LockName>) -> Arc<str> {
        let name = name.map(|name| name.as_str().to_owned());
        serde_json::to_string(&Self { owner, name })
            .unwrap_or_default()
            .into()
    }

    /// The name of `resource`, if it has to stand there.
    pub(crate) fn name(resource: &Resource) -> Option<&LockName> {
        let hashed = crate::name::decode_key(resource.key()).is_none();
        hashed.then(|| resource.name())
    }

    pub(crate) fn decode(details: &str) -> Option<Self> {
        serde_json::from_str(details).ok()
    }
}

/// Somebody who holds a lock, as the backend tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Holder {
    /// Who; `None` when something other than this library wrote the record.
    pub owner: Option<Owner>,
    /// The fencing token of the grant.
    #[serde(serialize_with = "token_as_number")]
    pub token: Token,
    /// How long the lease still lasts if it is not renewed; `None` when the backend cannot tell.
    #[serde(serialize_with = "duration_as_millis", rename = "remaining_ms")]
    pub remaining: Option<Duration>,
    /// Since when, by the wall clock of the server (or of this machine where there is none).
    #[serde(serialize_with = "time_as_rfc3339")]
    pub since: Option<SystemTime>,
    /// How much of the capacity it holds.
    pub weight: u32,
}

impl Holder {
    pub(crate) fn from_occupant(occupant: Occupant) -> Self {
        Self {
            owner: Details::decode(&occupant.details).map(|details| details.owner),
            token: occupant.token,
            remaining: occupant.remaining,
            since: occupant.since,
            weight: occupant.weight,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => owner.fmt(f)?,
            None => f.write_str("an unknown owner")?,
        }
        write!(f, ", token {}", self.token)?;
        if let Some(since) = self.since {
            write!(f, ", since {}", humantime::format_rfc3339_millis(since))?;
        }
        Ok(())
    }
}

/// What a backend knows about one lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LockStatus {
    /// The lock's name.
    #[serde(serialize_with = "name_as_str")]
    pub name: LockName,
    /// What the name locks.
    #[serde(serialize_with = "kind_as_str")]
    pub kind: Kind,
    /// Who holds it: empty when it is free, several for readers and permits.
    pub holders: Vec<Holder>,
    /// How many wait in the backend's queue; the local waiters of one process stand there as one.
    pub waiters: u64,
}

impl LockStatus {
    /// Is it held by anybody?
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.holders.is_empty()
    }
}

fn token_as_number<S: serde::Serializer>(token: &Token, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(token.get())
}

fn duration_as_millis<S: serde::Serializer>(
    value: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value
        .map(|value| u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
        .serialize(serializer)
}

fn time_as_rfc3339<S: serde::Serializer>(
    value: &Option<SystemTime>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value
        .map(|value| humantime::format_rfc3339_millis(value).to_string())
        .serialize(serializer)
}

fn name_as_str<S: serde::Serializer>(name: &LockName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name.as_str())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn kind_as_str<S: serde::Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Namespace;

    #[test]
    fn details_carry_the_name_only_when_the_key_does_not() {
        let owner = Owner::this_process(Some("nightly"));
        for (name, stored) in [
            ("short".to_owned(), None),
            ("x".repeat(500), Some("x".repeat(500))),
        ] {
            let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new(name).unwrap());
            let details = Details::encode(owner.clone(), Details::name(&resource));
            let details = Details::decode(&details).unwrap();
            assert_eq!(details.owner, owner);
            assert_eq!(details.name, stored);
        }
    }

    #[test]
    fn an_owner_cannot_write_to_the_terminal() {
        let owner = Owner {
            host: "h\u{1b}[2J".into(),
            pid: 1,
            label: Some("a\nb".into()),
        };
        assert_eq!(owner.to_string(), "h\\u{1b}[2J/1 (a\\nb)");
    }
}
