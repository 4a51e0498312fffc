//! Where locks are, and what their nodes are called and hold.

use lockcore::{AttemptId, Error, ErrorKind, Namespace, Resource, Result};

/// What all paths of ours begin with, below the root of the URL.
const TOP: &str = "/leasehold/1";

/// What comes between the attempt and the number in a contender's name: the one that Curator's `InterProcessMutex` uses.
const INFIX: &str = "-lock-";

/// What Curator puts before the id with which it finds a node again whose creation was not acknowledged.
const PROTECTION: &str = "_c_";

/// What the data of a node of ours begins with.
const MAGIC: &str = "leasehold/1 ";

/// The folders that locks are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `<root>/leasehold/1/<namespace>/<kind>/<key>`.
    Ours {
        /// Empty, or a path without a slash at its end.
        root: String,
    },
    /// `<base>/<key>`, as a Java service has it.
    Curator {
        /// A path without a slash at its end.
        base: String,
    },
}

impl Layout {
    /// The node whose children contend for `resource`.
    pub(crate) fn lock(&self, resource: &Resource) -> Result<String> {
        let folder = self.folder(resource.namespace(), resource.kind().code())?;
        Ok(format!("{folder}/{}", resource.key()))
    }

    /// The parent of all locks of a kind in `namespace`.
    pub(crate) fn folder(&self, namespace: &Namespace, kind: char) -> Result<String> {
        match self {
            Self::Ours { root } => Ok(format!("{root}{TOP}/{}/{kind}", namespace.key())),
            Self::Curator { base } if *namespace == Namespace::default() => Ok(base.clone()),
            Self::Curator { .. } => Err(Error::new(
                ErrorKind::Invalid,
                "`curator` has no namespaces: leave the namespace out, or give each one a path of its own",
            )),
        }
    }

    /// How many bytes of a path belong to everybody, and not to one namespace.
    pub(crate) fn shared(&self) -> usize {
        match self {
            Self::Ours { root } => root.len() + TOP.len(),
            Self::Curator { base } => base.rfind('/').unwrap_or(0),
        }
    }
}

/// A path from a URL: absolute, plain, and without a slash at its end; empty for the root.
pub(crate) fn checked_path(what: &str, path: &str) -> Result<String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() {
        return Ok(String::new());
    }
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.chars().any(is_refused);
    let mut parts = path.split('/');
    if parts.next() != Some("")
        || !parts.all(plain)
        || path == "/zookeeper"
        || path.starts_with("/zookeeper/")
    {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{what} is no path that ZooKeeper takes: write e.g. /app"),
        ));
    }
    Ok(path.to_owned())
}

/// What the server refuses in a path.
fn is_refused(c: char) -> bool {
    c.is_control() || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}')
}

/// What the names of an attempt's nodes begin with: `_c_<attempt as a UUID>-lock-`. The server appends a number.
pub(crate) fn prefix(attempt: AttemptId) -> String {
    let hex = attempt.to_hex();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("{PROTECTION}{}{INFIX}", parts.join("-"))
}

/// The number in a contender's name, whichever recipe made it; `None` for a node that is no contender.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the server counts in 32 bits and wraps, a newer one in 64"
)]
fn number(name: &str) -> Option<i32> {
    let digits = match name.rfind(INFIX) {
        Some(at) => &name[at + INFIX.len()..],
        None => name.get(name.len().checked_sub(10)?..)?,
    };
    digits.parse::<i64>().ok().map(|number| number as i32)
}

/// The contenders among `children` in the order of their creation: the first one's turn it is.
///
/// Numbers wrap, so they are compared by their distance from one of them.
pub(crate) fn in_order(children: Vec<String>) -> Vec<String> {
    let numbered = |name: String| number(&name).map(|number| (number, name));
    let mut queue: Vec<_> = children.into_iter().filter_map(numbered).collect();
    if let Some(&(reference, _)) = queue.first() {
        queue.sort_unstable_by(|(a, name_a), (b, name_b)| {
            let distance = |number: i32| number.wrapping_sub(reference);
            distance(*a).cmp(&distance(*b)).then_with(|| name_a.cmp(name_b))
        });
    }
    queue.into_iter().map(|(_, name)| name).collect()
}

/// How far a node of ours has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// As it was created. If it was the first then, it holds the lock.
    New,
    /// It waits, also when it is the first: it has to claim its turn.
    Waits,
    /// It has claimed its turn.
    Holds,
}

impl Mark {
    const ALL: [(Self, &'static str); 3] =
        [(Self::New, "new"), (Self::Waits, "waits"), (Self::Holds, "holds")];

    /// The data of a node with this mark.
    pub(crate) fn record(self, details: &str) -> Vec<u8> {
        let word = Self::ALL
            .iter()
            .find(|(mark, _)| *mark == self)
            .map_or("", |(_, word)| word);
        format!("{MAGIC}{word}\n{details}").into_bytes()
    }
}

/// The mark and the details of a node of ours; `None` for one that another recipe made.
pub(crate) fn read_record(data: &[u8]) -> Option<(Mark, &str)> {
    let (word, details) = std::str::from_utf8(data)
        .ok()?
        .strip_prefix(MAGIC)?
        .split_once('\n')?;
    let (mark, _) = Mark::ALL.iter().find(|(_, known)| *known == word)?;
    Some((*mark, details))
}

#[cfg(test)]
mod tests {
    use lockcore::{Kind, LockName};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths() {
        let resource = |namespace: &str, name| {
            Resource::new(
                Namespace::new(namespace).unwrap(),
                Kind::Mutex,
                LockName::new(name).unwrap(),
            )
        };
        let ours = Layout::Ours { root: "/app".into() };
        assert_eq!(
            ours.lock(&resource("shop", "orders/42")).unwrap(),
            "/app/leasehold/1/shop/m/orders%2F42"
        );
        assert_eq!(ours.shared(), "/app/leasehold/1".len());
        let curator = Layout::Curator {
            base: "/locks/jobs".into(),
        };
        assert_eq!(
            curator.lock(&resource("default", "nightly")).unwrap(),
            "/locks/jobs/nightly"
        );
        assert_eq!(curator.shared(), "/locks".len());
        let error = curator.lock(&resource("shop", "nightly")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }

    #[test]
    fn a_root_is_checked() {
        for (path, expected) in [
            ("", ""),
            ("/", ""),
            ("/app", "/app"),
            ("/app/", "/app"),
            ("/a/b", "/a/b"),
        ] {
            assert_eq!(checked_path("it", path).unwrap(), expected);
        }
        for path in [
            "app",
            "//",
            "/a//b",
            "/./a",
            "/a/..",
            "/a\u{0}",
            "/zookeeper",
            "/zookeeper/x",
            "/\u{ffff}",
        ] {
            assert_eq!(
                checked_path("it", path).unwrap_err().kind(),
                ErrorKind::Invalid,
                "{path:?}"
            );
        }
    }

    #[test]
    fn names_are_those_of_curator() {
        let attempt = AttemptId::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(prefix(attempt), "_c_01234567-89ab-cdef-0123-456789abcdef-lock-");
        assert_eq!(
            number("_c_01234567-89ab-cdef-0123-456789abcdef-lock-0000000017"),
            Some(17)
        );
        assert_eq!(number("_c_x-lock--2147483648"), Some(i32::MIN));
        assert_eq!(number("lock-0000000003"), Some(3));
        assert_eq!(number("n_0000000003"), Some(3));
        assert_eq!(number("leases"), None);
        assert_eq!(number("\u{e9}\u{e9}\u{e9}\u{e9}\u{e9}x"), None);
    }

    #[test]
    fn the_order_outlives_a_wrap() {
        let name = |number: i64| format!("_c_x-lock-{number:010}");
        let queue = in_order(vec![
            name(-2_147_483_647),
            name(2_147_483_647),
            "leases".into(),
            name(-2_147_483_648),
        ]);
        assert_eq!(
            queue,
            [name(2_147_483_647), name(-2_147_483_648), name(-2_147_483_647)]
        );
    }

    #[test]
    fn records() {
        for (mark, _) in Mark::ALL {
            assert_eq!(
                read_record(&mark.record("{\"a\":\n1}")),
                Some((mark, "{\"a\":\n1}"))
            );
        }
        for other in [
            &b"10.0.0.1"[..],
            b"",
            b"leasehold/1 sleeps\n",
            b"leasehold/1 new",
            b"\xff",
        ] {
            assert_eq!(read_record(other), None);
        }
    }

    proptest! {
        #[test]
        fn any_children_can_be_put_in_order(children in prop::collection::vec("(_c_[a-f0-9]{4}-lock-)?-?[0-9]{1,12}", 0..20)) {
            let count = children.len();
            prop_assert!(in_order(children).len() <= count);
        }

        #[test]
        fn a_queue_is_in_order_of_creation(start: i32, lengths in prop::collection::vec(1..1_000_000i32, 0..30), seed in any::<prop::sample::Index>()) {
            let mut number = start;
            let mut names = vec![format!("n-lock-{number:010}")];
            for length in lengths {
                number = number.wrapping_add(length);
                names.push(format!("n-lock-{number:010}"));
            }
            let mut shuffled = names.clone();
            shuffled.rotate_left(seed.index(names.len()));
            prop_assert_eq!(in_order(shuffled), names);
        }
    }
}
