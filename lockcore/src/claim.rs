//! What an attempt asks of a backend.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::name::Resource;

/// The id of one attempt: 128 fresh random bits, never used again. Whoever knows it can release the lock, so
/// `Debug` and `Display` show its first eight digits only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId(u128);

impl AttemptId {
    /// The attempt with these bits.
    #[must_use]
    pub const fn from_bits(bits: u128) -> Self {
        Self(bits)
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        self.0
    }

    /// All 32 hexadecimal digits in lower case, for the backend alone.
    #[must_use]
    pub fn to_hex(self) -> String {
        format!("{:032x}", self.0)
    }

    /// The attempt that [`to_hex`](Self::to_hex) wrote.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(hex, 16).ok().map(Self)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}..", self.0 >> 96)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A fencing token: strictly greater for a later grant of the same resource.
///
/// Give it to the guarded store with every write, and let the store refuse a token that is smaller than the
/// greatest one it has seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

impl Token {
    /// The token with this value.
    #[must_use]
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The value to store.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The token that follows `last`, and is no smaller than `floor`, a clock reading in microseconds since 1970
    /// at the server: so tokens grow even after the last one was forgotten.
    #[must_use]
    pub fn next(last: Option<Self>, floor: u64) -> Self {
        Self(last.map_or(floor.max(1), |last| floor.max(last.0.saturating_add(1))))
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Token> for u64 {
    fn from(token: Token) -> Self {
        token.0
    }
}

/// One attempt's wish: `weight` out of `capacity` of a resource for `ttl`.
///
/// A mutex is 1 of 1, a reader 1 of many, a writer all of them, k permits of a semaphore k of n. The same claim is
/// sent for the first try, as the waiter's sign of life, and to take the lock when its turn has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Claim {
    /// What is claimed.
    pub resource: Resource,
    /// Who claims it. Every call with the same id is about the same grant or the same place in the queue.
    pub attempt: AttemptId,
    /// How much of the capacity is asked for, 1 to `capacity`.
    pub weight: u32,
    /// How much there is; all claims on one resource agree, except that a semaphore's size may be changed while
    /// nobody holds it or waits for it.
    pub capacity: u32,
    /// How long a grant lasts without renewal: what the driver said it can do (see
    /// [`Capabilities::effective_ttl`](crate::Capabilities::effective_ttl)).
    pub ttl: Duration,
    /// How long a place in the queue lasts without a sign of life.
    pub waiter_ttl: Duration,
    /// How long a lock stays reserved for the waiter that was woken, before it is offered to the next one.
    pub claim_window: Duration,
    /// Who asks, for people: at most 1 KiB of text that lockcore wrote. Stored with the grant, given back by
    /// `inspect` as it is, never read by a driver.
    pub details: Arc<str>,
}

impl Claim {
    /// A claim on the whole of a mutex, with the defaults of [`Settings`](crate::Settings).
    #[must_use]
    pub fn new(resource: Resource, attempt: AttemptId, ttl: Duration) -> Self {
        Self {
            resource,
            attempt,
            weight: 1,
            capacity: 1,
            ttl,
            waiter_ttl: crate::settings::DEFAULT_WAITER_TTL,
            claim_window: crate::settings::DEFAULT_CLAIM_WINDOW,
            details: "".into(),
        }
    }

    /// The same for `weight` of `capacity`.
    #[must_use]
    pub fn of(mut self, weight: u32, capacity: u32) -> Self {
        self.weight = weight;
        self.capacity = capacity;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_shows_its_head_only() {
        let id = AttemptId::from_bits(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
        assert_eq!(format!("{id:?}"), "01234567..");
        assert_eq!(AttemptId::from_hex(&id.to_hex()), Some(id));
        assert_eq!(AttemptId::from_hex("12"), None);
    }

    #[test]
    fn tokens_grow_past_both_terms() {
        assert_eq!(Token::next(None, 0).get(), 1);
        assert_eq!(Token::next(Some(Token::new(9)), 5).get(), 10);
        assert_eq!(Token::next(Some(Token::new(9)), 50).get(), 50);
    }
}
