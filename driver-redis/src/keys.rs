//! The names of keys.

use lockcore::{Kind, LockName, Namespace, Resource};
use redis::Cmd;

/// The layout's version: another one would be another prefix.
const LAYOUT: &str = "leasehold:1";

/// What a lock's lease key ends in, after the resource's own key.
const LEASE: &str = "}:L";

/// How much of a name is kept in the key of a long one: what follows is a hash.
const READABLE: usize = 100;

/// The four keys of a lock, in one slot: see `scripts/offer.lua`.
#[derive(Default)]
pub(crate) struct Keys(String);

impl Keys {
    pub(crate) fn new(resource: &Resource) -> Self {
        Self::from_parts(resource.namespace(), resource.kind(), resource.key())
    }

    /// As stored: `key` is a [`Resource::key`].
    pub(crate) fn from_parts(namespace: &Namespace, kind: Kind, key: &str) -> Self {
        let mut keys = Self::default();
        keys.set_parts(namespace, kind, key);
        keys
    }

    /// Those of another lock, where those of this one are.
    pub(crate) fn set(&mut self, resource: &Resource) {
        self.set_parts(resource.namespace(), resource.kind(), resource.key());
    }

    fn set_parts(&mut self, namespace: &Namespace, kind: Kind, key: &str) {
        let (Self(base), namespace) = (self, namespace.key());
        base.clear();
        base.reserve(LAYOUT.len() + namespace.len() + key.len() + 8);
        for part in [LAYOUT, ":", namespace, ":"] {
            base.push_str(part);
        }
        base.push(kind.code());
        for part in [":{", key, LEASE] {
            base.push_str(part);
        }
    }

    /// The lease key.
    pub(crate) fn lease(&self) -> &str {
        &self.0
    }

    /// All four, as the scripts number them.
    pub(crate) fn add_to(self, command: &mut Cmd) {
        command.arg(4);
        self.add(command, "LFWQ");
    }

    /// Those that end in one of `ends`.
    pub(crate) fn add(mut self, command: &mut Cmd, ends: &str) {
        for end in ends.chars() {
            self.0.pop();
            self.0.push(end);
            command.arg(self.0.as_str());
        }
    }
}

/// The pattern that the lease keys of `kind` in `namespace` match, whose names may start with `prefix`; `None` when
/// no name can.
pub(crate) fn pattern(namespace: &Namespace, kind: Kind, prefix: &str) -> Option<String> {
    let start = match prefix {
        // A name of dots alone is spelt in another way than one that goes on.
        dots if dots.bytes().all(|byte| byte == b'.') => String::new(),
        _ => {
            let name = LockName::new(prefix).ok()?;
            let resource = Resource::new(namespace.clone(), kind, name);
            let readable = resource.key().split('~').next().unwrap_or_default();
            readable.get(..READABLE).unwrap_or(readable).to_owned()
        }
    };
    // Nothing in keys means anything in a pattern.
    Some(format!(
        "{LAYOUT}:{}:{}:{{{start}*{LEASE}",
        namespace.key(),
        kind.code()
    ))
}

/// The resource's key in a lease key.
pub(crate) fn resource_key(lease: &str) -> Option<&str> {
    lease.split_once('{')?.1.strip_suffix(LEASE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn resource(name: &str) -> Resource {
        Resource::new(
            Namespace::new("my app").unwrap(),
            Kind::Mutex,
            LockName::new(name).unwrap(),
        )
    }

    #[test]
    fn layout() {
        let keys = Keys::new(&resource("a{b}"));
        assert_eq!(keys.lease(), "leasehold:1:my%20app:m:{a%7Bb%7D}:L");
        assert_eq!(resource_key(keys.lease()), Some("a%7Bb%7D"));
        let mut command = redis::cmd("X");
        keys.add_to(&mut command);
        let packed = String::from_utf8(command.get_packed_command()).unwrap();
        for key in ["L", "F", "W", "Q"] {
            assert!(
                packed.contains(&format!("leasehold:1:my%20app:m:{{a%7Bb%7D}}:{key}\r")),
                "{packed}"
            );
        }
    }

    #[test]
    fn patterns() {
        let namespace = Namespace::default();
        let pattern = |prefix: &str| pattern(&namespace, Kind::Mutex, prefix);
        assert_eq!(pattern("").unwrap(), "leasehold:1:default:m:{*}:L");
        assert_eq!(pattern("..").unwrap(), "leasehold:1:default:m:{*}:L");
        assert_eq!(pattern("a/*").unwrap(), "leasehold:1:default:m:{a%2F%2A*}:L");
        assert_eq!(pattern(&"x".repeat(1025)), None);
    }

    proptest! {
        #[test]
        fn a_pattern_matches_every_name_with_the_prefix(prefix in "[.a~é/]{0,120}", rest in "[.a~é/]{0,120}") {
            let name = format!("{prefix}{rest}");
            prop_assume!(!name.is_empty());
            let resource = resource(&name);
            let keys = Keys::new(&resource);
            let pattern = pattern(resource.namespace(), Kind::Mutex, &prefix).unwrap();
            let (start, end) = pattern.split_once('*').unwrap();
            prop_assert!(keys.lease().starts_with(start) && keys.lease().ends_with(end), "{pattern}");
        }
    }
}
