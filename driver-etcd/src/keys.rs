//! The names of keys, and what is stored in them.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lockcore::driver::Occupant;
use lockcore::{AttemptId, Kind, Namespace, Resource, Token};

/// Everything of ours starts with this. The number is the layout's version: another one would be another prefix.
pub(crate) const ROOT: &str = "leasehold/1/";

/// The keys of one lock: one for each attempt that holds it or waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LockKeys(Arc<str>);

impl LockKeys {
    pub(crate) fn new(resource: &Resource) -> Self {
        let (namespace, kind) = (resource.namespace().key(), resource.kind().code());
        Self(format!("{ROOT}{namespace}/{kind}/{}/", resource.key()).into())
    }

    /// The first key of the range.
    pub(crate) fn start(&self) -> &str {
        &self.0
    }

    /// The first key behind the range: `0` follows `/`, so `a/` does not cover `ab/`.
    pub(crate) fn end(&self) -> String {
        behind(&self.0)
    }

    /// The first key of the namespace that the lock is in.
    pub(crate) fn folder(&self) -> Option<&str> {
        let namespace = self.0.strip_prefix(ROOT)?.find('/')?;
        self.0.get(..=ROOT.len() + namespace)
    }

    pub(crate) fn of(&self, attempt: AttemptId) -> String {
        format!("{}{}", self.0, attempt.to_hex())
    }
}

/// The range of a namespace's locks.
pub(crate) fn namespace(namespace: &Namespace) -> (String, String) {
    let start = format!("{ROOT}{}/", namespace.key());
    let end = behind(&start);
    (start, end)
}

fn behind(folder: &str) -> String {
    format!("{}0", folder.trim_end_matches('/'))
}

/// A key, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed<'a> {
    pub(crate) keys: LockKeys,
    pub(crate) kind: Kind,
    /// The resource's key.
    pub(crate) name: &'a str,
    pub(crate) attempt: AttemptId,
}

/// `None` for a key that is not ours.
pub(crate) fn parse(key: &[u8]) -> Option<Parsed<'_>> {
    let text = std::str::from_utf8(key).ok()?;
    let mut parts = text.strip_prefix(ROOT)?.split('/');
    let (_namespace, kind, name, attempt) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let mut code = kind.chars();
    let kind = Kind::from_code(code.next()?)?;
    if code.next().is_some() || parts.next().is_some() {
        return None;
    }
    let folder = text.len() - attempt.len();
    Some(Parsed {
        keys: LockKeys(text[..folder].into()),
        kind,
        name,
        attempt: AttemptId::from_hex(attempt)?,
    })
}

/// What an attempt does at its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Holds,
    Waits,
}

/// A value: the state, since when in microseconds of the writer's wall clock, and the claim's details.
pub(crate) fn value(state: State, since_us: u64, details: &str) -> String {
    let letter = match state {
        State::Holds => 'H',
        State::Waits => 'W',
    };
    format!("{letter}{since_us}|{details}")
}

/// What a value says; what is not ours counts as held, since nobody will claim it.
pub(crate) fn state(value: &[u8]) -> State {
    if value.first() == Some(&b'W') {
        State::Waits
    } else {
        State::Holds
    }
}

/// The holder whose value this is.
pub(crate) fn occupant(value: &[u8], created: i64) -> Occupant {
    let text = String::from_utf8_lossy(value);
    let (head, details) = text.split_once('|').unwrap_or(("", &text));
    let micros = head.get(1..).and_then(|micros| micros.parse().ok());
    let since: Option<SystemTime> =
        micros.and_then(|micros| UNIX_EPOCH.checked_add(Duration::from_micros(micros)));
    Occupant::new(details, token(created).unwrap_or(Token::new(u64::MAX))).since(since)
}

/// The store's revisions are positive, and end long before tokens do.
pub(crate) fn token(revision: i64) -> Option<Token> {
    u64::try_from(revision).ok().and_then(Token::of_revision)
}

#[cfg(test)]
mod tests {
    use lockcore::LockName;
    use proptest::prelude::*;

    use super::*;

    fn resource(name: &str) -> Resource {
        Resource::new(Namespace::default(), Kind::Mutex, LockName::new(name).unwrap())
    }

    #[test]
    fn the_namespace_of_a_lock() {
        let key = format!("{ROOT}shop/m/orders/{:032x}", 1);
        let keys = parse(key.as_bytes()).unwrap().keys;
        assert_eq!(keys.folder(), Some("leasehold/1/shop/"));
    }

    #[test]
    fn golden() {
        let keys = LockKeys::new(&resource("orders/42"));
        assert_eq!(keys.start(), "leasehold/1/default/m/orders%2F42/");
        assert_eq!(keys.end(), "leasehold/1/default/m/orders%2F420");
        let key = keys.of(AttemptId::from_bits(7));
        assert_eq!(key, format!("leasehold/1/default/m/orders%2F42/{:032x}", 7));
        let parsed = parse(key.as_bytes()).unwrap();
        assert_eq!((parsed.name, parsed.kind), ("orders%2F42", Kind::Mutex));
        assert_eq!((parsed.attempt, parsed.keys), (AttemptId::from_bits(7), keys));
        assert_eq!(namespace(&Namespace::default()).1, "leasehold/1/default0");
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        for key in [
            "",
            "x",
            "leasehold/1/",
            "leasehold/1/n/m/k/xyz",
            "leasehold/1/n/mm/k/",
        ] {
            assert_eq!(parse(key.as_bytes()), None, "{key}");
        }
        assert_eq!(state(b"garbage"), State::Holds);
        assert_eq!(state(b""), State::Holds);
        let occupant = occupant(&[0xff, b'|', b'x'], 3);
        assert_eq!((&*occupant.details, occupant.since), ("x", None));
    }

    #[test]
    fn a_value_comes_back() {
        let value = value(State::Waits, 5_000_000, "{\"host\":\"a|b\"}");
        assert_eq!(state(value.as_bytes()), State::Waits);
        let occupant = occupant(value.as_bytes(), 9);
        assert_eq!(&*occupant.details, "{\"host\":\"a|b\"}");
        assert_eq!(occupant.since, Some(UNIX_EPOCH + Duration::from_secs(5)));
        assert_eq!(Some(occupant.token), token(9));
    }

    proptest! {
        #[test]
        fn no_lock_covers_another(a in ".{1,40}", b in ".{1,40}") {
            let (range, other) = (LockKeys::new(&resource(&a)), LockKeys::new(&resource(&b)));
            let key = other.of(AttemptId::from_bits(1));
            let covers = *range.start() <= *key && key < range.end();
            prop_assert_eq!(covers, a == b);
        }
    }
}
