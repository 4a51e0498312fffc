//! Names, namespaces and kinds, and the one encoding that every backend's keys are made of.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use data_encoding::BASE32_NOPAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// The longest name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 1024;

/// The longest namespace, in bytes of UTF-8.
pub const MAX_NAMESPACE_BYTES: usize = 64;

/// The longest [`Resource::key`], in bytes of ASCII.
pub const MAX_KEY_BYTES: usize = 180;

/// The name of a lock: 1 to [`MAX_NAME_BYTES`] bytes of UTF-8, compared byte by byte.
///
/// There is no case folding, no trimming and no Unicode normalisation: `a`, `A` and `a ` are three locks.
/// `Display` quotes the name and escapes control characters, so that it is safe in a log line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockName(Arc<str>);

impl LockName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when it is empty or too long.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self> {
        let name = name.into();
        if name.is_empty() {
            return Err(Error::new(
                ErrorKind::Invalid,
                "the lock name is empty: give it at least one character",
            ));
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the lock name has {} bytes, the limit is {MAX_NAME_BYTES}: use a shorter one",
                    name.len()
                ),
            ));
        }
        Ok(Self(name))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for LockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What keeps the locks of one application apart from those of another on the same server: 1 to
/// [`MAX_NAMESPACE_BYTES`] bytes of UTF-8; `default` unless told.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    raw: Arc<str>,
    key: Arc<str>,
}

impl Namespace {
    /// Checks `namespace`.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) when it is empty or too long.
    pub fn new(namespace: impl Into<Arc<str>>) -> Result<Self> {
        let raw = namespace.into();
        if raw.is_empty() || raw.len() > MAX_NAMESPACE_BYTES {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "a namespace has 1 to {MAX_NAMESPACE_BYTES} bytes, this one has {}",
                    raw.len()
                ),
            ));
        }
        let key = encode(&raw).into();
        Ok(Self { raw, key })
    }

    /// The namespace as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.raw
    }

    /// The namespace as a part of a key; see [`Resource::key`] for its alphabet.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self {
            raw: "default".into(),
            key: "default".into(),
        }
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.raw)
    }
}

/// What a name locks. The same name as two kinds is two locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// One holder.
    Mutex,
    /// Many readers or one writer.
    ReadWrite,
    /// A number of permits.
    Semaphore,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Mutex, Self::ReadWrite, Self::Semaphore];

    /// One letter for a key: `m`, `r` or `s`.
    #[must_use]
    pub const fn code(self) -> char {
        match self {
            Self::Mutex => 'm',
            Self::ReadWrite => 'r',
            Self::Semaphore => 's',
        }
    }

    /// The kind with this [`code`](Self::code).
    #[must_use]
    pub fn from_code(code: char) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The word for people: `mutex`, `read-write` or `semaphore`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mutex => "mutex",
            Self::ReadWrite => "read-write",
            Self::Semaphore => "semaphore",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a claim is for: a namespace, a kind and a name. Two resources are one only if all three are equal. Cheap to
/// clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource(Arc<Parts>);

#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Parts {
    namespace: Namespace,
    kind: Kind,
    name: LockName,
    key: Arc<str>,
}

impl Hash for Parts {
    /// The name is enough, nearly always.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl Resource {
    /// The resource of `kind` with `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: Namespace, kind: Kind, name: LockName) -> Self {
        let key = encode(name.as_str());
        let key = if key == name.as_str() {
            Arc::clone(&name.0)
        } else {
            key.into()
        };
        Self(Arc::new(Parts {
            namespace,
            kind,
            name,
            key,
        }))
    }

    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// The kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The name as the user gave it.
    #[must_use]
    pub fn name(&self) -> &LockName {
        &self.0.name
    }

    /// The name as a part of a key on any backend: 1 to [`MAX_KEY_BYTES`] bytes of `[A-Za-z0-9_.~%-]`, case-sensitive,
    /// never `.` or `..`, and different for different names (up to a collision of SHA-256). A driver puts the
    /// namespace's key, the kind's code and this one into segments of its own; it encodes nothing itself.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.0.key
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.namespace().raw, self.kind(), self.name())
    }
}

/// What stays as it is; everything else becomes `%XX`. `~` marks a hashed name, so it is not among them.
const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-').remove(b'.');

/// How much of a long name stays readable before its hash.
const READABLE_BYTES: usize = 100;

/// The key for a name; stable for ever, since it is what is stored (golden vectors below).
fn encode(name: &str) -> Cow<'_, str> {
    let encoded = if name.bytes().all(|byte| byte == b'.') {
        "%2E".repeat(name.len()).into()
    } else {
        Cow::from(utf8_percent_encode(name, KEPT))
    };
    if encoded.len() <= MAX_KEY_BYTES {
        return encoded;
    }
    let hash = BASE32_NOPAD
        .encode(&Sha256::digest(name.as_bytes()))
        .to_ascii_lowercase();
    format!("{}~{hash}", &encoded[..READABLE_BYTES]).into()
}

/// The name that a [`Resource::key`] stands for, or `None` when it was too long and only its hash is there.
#[must_use]
pub fn decode_key(key: &str) -> Option<LockName> {
    if key.contains('~') {
        return None;
    }
    let name = percent_decode_str(key).decode_utf8().ok()?;
    LockName::new(name.into_owned()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(name: &str) -> String {
        Resource::new(Namespace::default(), Kind::Mutex, LockName::new(name).unwrap())
            .key()
            .to_owned()
    }

    #[test]
    fn golden_vectors() {
        for (name, expected) in [
            ("orders", "orders"),
            ("orders/42", "orders%2F42"),
            ("a.b_c-d", "a.b_c-d"),
            (".", "%2E"),
            ("..", "%2E%2E"),
            ("%", "%25"),
            ("~", "%7E"),
            ("{tag}", "%7Btag%7D"),
            ("a ", "a%20"),
            ("\0", "%00"),
            ("\u{e9}", "%C3%A9"),
        ] {
            assert_eq!(key(name), expected, "{name:?}");
        }
        let long = "x".repeat(1024);
        assert_eq!(
            key(&long),
            format!(
                "{}~{}",
                "x".repeat(100),
                "jgv5mw57p57ebryfkcj62lr725ps6ybpfrp47fk4ee7dcnplap3q"
            )
        );
    }

    #[test]
    fn refuses_empty_and_long() {
        for bad in [String::new(), "x".repeat(1025)] {
            assert_eq!(LockName::new(bad).unwrap_err().kind(), ErrorKind::Invalid);
        }
        assert!(Namespace::new("").is_err());
        assert!(Namespace::new("n".repeat(65)).is_err());
    }

    proptest! {
        #[test]
        fn keys_are_short_and_plain(name in "\\PC{1,200}") {
            let key = key(&name);
            prop_assert!(key.len() <= MAX_KEY_BYTES);
            prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.~%-".contains(&b)));
            prop_assert!(key != "." && key != "..");
        }

        #[test]
        fn short_keys_decode_to_their_name(name in "\\PC{1,15}") {
            let decoded = decode_key(&key(&name)).unwrap();
            prop_assert_eq!(decoded.as_str(), name);
        }

        #[test]
        fn different_names_have_different_keys(a in ".{1,80}", b in ".{1,80}") {
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}
