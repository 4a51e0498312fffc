//! What an attempt asks of a backend.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::ops::Deref;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::held::Hold;
use crate::name::Resource;
use crate::signals::WaiterSlot;

/// The id of one attempt: 128 fresh random bits, never used again. Whoever knows it can release the lock, so
/// `Debug` and `Display` show its first eight digits only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    // Two halves: the alignment of a `u128` would waste a fifth of the tables of held leases.
    high: u64,
    low: u64,
}

impl AttemptId {
    /// The attempt with these bits.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "it is cut in halves")]
    pub const fn from_bits(bits: u128) -> Self {
        Self {
            high: (bits >> 64) as u64,
            low: bits as u64,
        }
    }

    /// The bits.
    #[must_use]
    pub const fn bits(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    /// All 32 hexadecimal digits in lower case, for the backend alone.
    #[must_use]
    pub fn to_hex(self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        // Of a batch of a thousand leases, `format!` is a good part of the time.
        let mut hex = String::with_capacity(32);
        for half in [self.high, self.low] {
            hex.extend(half.to_be_bytes().iter().flat_map(|byte| {
                let (high, low) = (byte >> 4, byte & 15);
                [high, low].map(|digit| char::from(DIGITS[usize::from(digit)]))
            }));
        }
        hex
    }

    /// The attempt that [`to_hex`](Self::to_hex) wrote.
    #[must_use]
    pub fn from_hex(hex: &str) -> Option<Self> {
        if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(hex, 16).ok().map(Self::from_bits)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}..", self.high >> 32)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// By attempt. Nobody but lockcore draws the ids in it, and their bits are random already.
pub(crate) type AttemptMap<V> = HashMap<AttemptId, V, BuildHasherDefault<AttemptHasher>>;

#[derive(Debug, Default)]
pub(crate) struct AttemptHasher(u64);

impl Hasher for AttemptHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, half: u64) {
        self.0 ^= half;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A fencing token: strictly greater for a later grant of the same resource.
///
/// Give it to the guarded store with every write, and let the store refuse a token that is smaller than the
/// greatest one it has seen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(u64);

/// How many spare tokens a grant can have. To reserve them costs nothing, but those that are not used make holes.
pub(crate) const MOST_SPARE_TOKENS: u32 = u8::MAX as u32;

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

    /// The token of a grant that the backend itself names by a `revision`, which grows with every write: 256 times that,
    /// and 255 more. So those right below it are spare (see [`Grant::spare`](crate::driver::Grant::spare)), and those of a
    /// later revision are greater than all of them. `None` from 2^56 on.
    #[must_use]
    pub const fn of_revision(revision: u64) -> Option<Self> {
        match revision.checked_mul(MOST_SPARE_TOKENS as u64 + 1) {
            Some(first) => Some(Self(first + MOST_SPARE_TOKENS as u64)),
            None => None,
        }
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
    /// Is a grant to last until it is released? False when it is to end after `ttl` unless somebody renews it by hand:
    /// a backend whose locks share a session may give such a claim a lease of its own.
    pub auto_renew: bool,
    /// How long a place in the queue lasts without a sign of life.
    pub waiter_ttl: Duration,
    /// How long a lock stays reserved for the waiter that was woken, before it is offered to the next one.
    pub claim_window: Duration,
    /// How many more tokens would be of use, so that the lock can pass among those who wait for it in this process
    /// without a request (see [`Grant::spare`](crate::driver::Grant::spare)). The same for every call of an attempt.
    pub spare_tokens: u32,
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
            auto_renew: true,
            waiter_ttl: crate::settings::DEFAULT_WAITER_TTL,
            claim_window: crate::settings::DEFAULT_CLAIM_WINDOW,
            spare_tokens: 0,
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

/// A claim that many have. Cheap to clone: what lockcore keeps of an attempt, from its first request to its release, is
/// one allocation, with the claim in it.
#[derive(Clone)]
pub struct SharedClaim(Arc<Record>);

struct Record {
    claim: Claim,
    waiter: WaiterSlot,
    /// From the grant on.
    hold: OnceLock<Hold>,
}

impl SharedClaim {
    /// How it is woken while it waits.
    pub(crate) fn waiter(&self) -> &WaiterSlot {
        &self.0.waiter
    }

    /// What it holds, once it was granted.
    pub(crate) fn hold(&self) -> &OnceLock<Hold> {
        &self.0.hold
    }
}

impl From<Claim> for SharedClaim {
    fn from(claim: Claim) -> Self {
        Self(Arc::new(Record {
            claim,
            waiter: WaiterSlot::default(),
            hold: OnceLock::new(),
        }))
    }
}

impl Deref for SharedClaim {
    type Target = Claim;

    fn deref(&self) -> &Claim {
        &self.0.claim
    }
}

impl fmt::Debug for SharedClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.claim, f)
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

    #[test]
    fn tokens_of_revisions_leave_room() {
        let of = |revision| Token::of_revision(revision).map(Token::get);
        assert_eq!((of(0), of(1), of(2)), (Some(255), Some(511), Some(767)));
        assert_eq!((of((1 << 56) - 1), of(1 << 56)), (Some(u64::MAX), None));
    }
}
