//! Replies of the server, taken apart.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use lockcore::driver::{Acquired, Busy, Grant, Inspection, Occupant};
use lockcore::{Claim, Error, ErrorKind, Result, Token};
use redis::Value;

use crate::error::unexpected;

/// What `acquire` answered.
pub(crate) enum Outcome {
    Done(Acquired),
    /// The script dropped as many dead waiters as it does at once, and wants to go on.
    Again,
}

pub(crate) fn acquired(reply: &Value, claim: &Claim) -> Result<Outcome> {
    let granted = |token, ttl, spare| {
        let granted = granted(token, ttl, spare).ok_or_else(|| unexpected("acquire"))?;
        Ok(Outcome::Done(granted))
    };
    if let Some(token) = int(reply) {
        return granted(token, claim.ttl, claim.spare_tokens);
    }
    let fields = array(reply).ok_or_else(|| unexpected("acquire"))?;
    let number = |at: usize| fields.get(at).and_then(int);
    match (number(0), fields.len()) {
        (Some(1), 3) => {
            let (Some(token), Some(left)) = (number(1), number(2)) else {
                return Err(unexpected("acquire"));
            };
            // -1: somebody took the expiry away, so it lasts longer than what was asked.
            let ttl = if left == -1 { claim.ttl } else { millis(left) };
            // Somebody may wait: what is spare is theirs.
            granted(token, ttl, 0)
        }
        (Some(0), 5) => {
            let (Some(rank), Some(ticket), Some(left)) = (number(1), number(2), number(3)) else {
                return Err(unexpected("acquire"));
            };
            let left = (left >= 0).then(|| millis(left));
            let holder = fields.get(4).and_then(text).and_then(|text| occupant(text, left));
            Ok(Outcome::Done(Acquired::Busy(busy(rank, ticket, left, holder))))
        }
        (Some(2), _) => Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "the queue is full: {} wait for this lock; raise the URL's option queue, or wait less long",
                number(1).unwrap_or_default()
            ),
        )),
        (Some(3), _) => Ok(Outcome::Again),
        _ => Err(unexpected("acquire")),
    }
}

fn granted(token: i64, ttl: Duration, spare: u32) -> Option<Acquired> {
    let token = Token::new(u64::try_from(token).ok()?);
    Some(Acquired::Granted(Grant::lease(token, ttl).with_spare(spare)))
}

/// What `takes` answered for the claim at this place; `None` when it is not granted.
pub(crate) fn taken(reply: &Value, at: usize, claim: &Claim) -> Option<Acquired> {
    let token = number(reply, at).filter(|token| *token > 0)?;
    granted(token, claim.ttl, claim.spare_tokens)
}

/// The number at this place of an array.
pub(crate) fn number(reply: &Value, at: usize) -> Option<i64> {
    array(reply)?.get(at).and_then(int)
}

fn busy(rank: i64, ticket: i64, left: Option<Duration>, holder: Option<Occupant>) -> Busy {
    let busy = match holder {
        Some(holder) => Busy::default().free_in(left).held_by(Some(holder)),
        None => Busy::default().reserved(left),
    };
    match u64::try_from(rank) {
        Ok(ahead) => busy.queued(ahead, u64::try_from(ticket).ok()),
        Err(_) => busy,
    }
}

/// The two flags of `release` and `force`: did anything happen, and is there more to do?
pub(crate) fn freed(reply: &Value) -> Result<(bool, bool)> {
    if int(reply) == Some(1) {
        return Ok((true, false));
    }
    match array(reply) {
        Some([done, more]) => match (int(done), int(more)) {
            (Some(done), Some(more)) => Ok((done == 1, more == 1)),
            _ => Err(unexpected("release")),
        },
        _ => Err(unexpected("release")),
    }
}

/// One digit for each of `count` leases.
pub(crate) fn renewed(reply: &Value, count: usize) -> Result<impl Iterator<Item = bool>> {
    match text(reply) {
        Some(flags) if flags.len() == count => Ok(flags.bytes().map(|flag| flag == b'1')),
        _ => Err(unexpected("renew")),
    }
}

pub(crate) fn inspection(reply: &Value) -> Result<Inspection> {
    let Some([left, waiters, holder]) = array(reply) else {
        return Err(unexpected("inspect"));
    };
    let left = int(left).filter(|left| *left >= 0).map(millis);
    let waiters = int(waiters)
        .and_then(|waiters| u64::try_from(waiters).ok())
        .unwrap_or(0);
    let holder = text(holder).and_then(|text| occupant(text, left));
    Ok(Inspection::new(holder.into_iter().collect(), waiters))
}

/// `token|since_us|channel|details`, as it is stored after the attempt.
fn occupant(record: &str, left: Option<Duration>) -> Option<Occupant> {
    let mut parts = record.splitn(4, '|');
    let token = parts.next()?.parse().ok()?;
    let since = parts.next()?.parse().ok().map(Duration::from_micros)?;
    let details: Arc<str> = parts.nth(1)?.into();
    Some(
        Occupant::new(details, Token::new(token))
            .remaining(left)
            .since(UNIX_EPOCH.checked_add(since)),
    )
}

/// What a page of SCAN holds: the next cursor and the keys.
pub(crate) fn page(reply: &Value) -> Result<(&str, Vec<&str>)> {
    let Some([cursor, keys]) = array(reply) else {
        return Err(unexpected("SCAN"));
    };
    let cursor = text(cursor).ok_or_else(|| unexpected("SCAN"))?;
    let keys = array(keys).ok_or_else(|| unexpected("SCAN"))?;
    Ok((cursor, keys.iter().filter_map(text).collect()))
}

/// What HELLO tells about the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Server<'a> {
    pub(crate) version: &'a str,
    pub(crate) mode: &'a str,
    pub(crate) role: &'a str,
}

pub(crate) fn server(reply: &Value) -> Result<Server<'_>> {
    let Value::Map(entries) = reply else {
        return Err(unexpected("HELLO"));
    };
    let mut server = Server::default();
    for (key, value) in entries {
        let (Some(key), Some(value)) = (text(key), text(value)) else {
            continue;
        };
        match key {
            "version" => server.version = value,
            "mode" => server.mode = value,
            "role" => server.role = value,
            _ => {}
        }
    }
    Ok(server)
}

/// A field of INFO.
pub(crate) fn info<'a>(reply: &'a Value, field: &str) -> Option<&'a str> {
    text(reply)?
        .lines()
        .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))
        .map(str::trim)
}

pub(crate) fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(values) => Some(values),
        _ => None,
    }
}

fn int(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

pub(crate) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text),
        Value::Okay => Some("OK"),
        _ => None,
    }
}

fn millis(value: i64) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use lockcore::{AttemptId, Kind, LockName, Namespace, Resource};

    use super::*;

    fn claim() -> Claim {
        let resource = Resource::new(Namespace::default(), Kind::Mutex, LockName::new("n").unwrap());
        Claim::new(resource, AttemptId::from_bits(1), Duration::from_secs(30))
    }

    fn ints(values: &[i64], holder: Option<&str>) -> Value {
        let mut values: Vec<_> = values.iter().copied().map(Value::Int).collect();
        values.extend(holder.map(|text| Value::BulkString(text.into())));
        Value::Array(values)
    }

    fn parse(reply: &Value) -> Acquired {
        match acquired(reply, &claim()).unwrap() {
            Outcome::Done(acquired) => acquired,
            Outcome::Again => panic!("again"),
        }
    }

    #[test]
    fn a_grant() {
        let mut claim = claim();
        claim.spare_tokens = 7;
        let token = 1_700_000_000_000_000;
        for (reply, left, spare) in [
            (Value::Int(token), 30, 7),
            (ints(&[1, token, 9_000], None), 9, 0),
            (ints(&[1, token, -1], None), 30, 0),
        ] {
            let Outcome::Done(Acquired::Granted(grant)) = acquired(&reply, &claim).unwrap() else {
                panic!("busy")
            };
            assert_eq!(grant.token.get(), 1_700_000_000_000_000);
            assert_eq!(grant.spare, spare);
            assert!(
                matches!(grant.bound, lockcore::driver::Bound::Lease(ttl) if ttl == Duration::from_secs(left))
            );
        }
    }

    #[test]
    fn busy_with_a_holder() {
        let reply = ints(
            &[0, 2, 77, 1_000],
            Some("5|1700000000000000|leasehold:1:w:ab|{\"a\":\"|\"}"),
        );
        let Acquired::Busy(busy) = parse(&reply) else {
            panic!("granted")
        };
        assert_eq!((busy.ahead, busy.ticket), (Some(2), Some(77)));
        assert_eq!(busy.free_in, Some(Duration::from_secs(1)));
        let holder = busy.holder.unwrap();
        assert_eq!(&*holder.details, "{\"a\":\"|\"}");
        assert_eq!(holder.token.get(), 5);
        assert_eq!(holder.remaining, Some(Duration::from_secs(1)));
        assert_eq!(
            holder.since,
            UNIX_EPOCH.checked_add(Duration::from_secs(1_700_000_000))
        );
    }

    #[test]
    fn a_reservation_is_no_holder() {
        for ahead in [1, 2, 3] {
            let Acquired::Busy(busy) = parse(&ints(&[0, ahead, 77, 300], Some(""))) else {
                panic!("granted")
            };
            assert!(busy.holder.is_none());
            assert_eq!(busy.reserved, Some(Duration::from_millis(300)));
            assert_eq!(busy.free_in, None);
        }
    }

    #[test]
    fn a_refused_try_has_no_place() {
        let Acquired::Busy(busy) = parse(&ints(&[0, -1, 0, -1], Some("garbage"))) else {
            panic!("granted")
        };
        assert_eq!((busy.ahead, busy.ticket, busy.free_in), (None, None, None));
        assert!(busy.holder.is_none());
    }

    #[test]
    fn a_full_queue_and_nonsense() {
        let error = acquired(&ints(&[2, 1000], None), &claim()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.to_string().contains("the queue is full"), "{error}");
        for reply in [
            Value::Nil,
            ints(&[], None),
            ints(&[1], None),
            ints(&[0, 1, 2], Some("")),
        ] {
            let error = acquired(&reply, &claim()).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Internal);
            assert!(freed(&reply).is_err() && inspection(&reply).is_err() && page(&reply).is_err());
        }
    }

    #[test]
    fn what_a_server_says_of_itself() {
        let text = |text: &str| Value::BulkString(text.into());
        let hello = Value::Map(vec![
            (text("server"), text("redis")),
            (text("version"), text("7.0.15")),
            (text("proto"), Value::Int(3)),
            (text("mode"), text("standalone")),
            (text("role"), text("master")),
        ]);
        assert_eq!(
            server(&hello).unwrap(),
            Server {
                version: "7.0.15",
                mode: "standalone",
                role: "master"
            }
        );
        let memory = text("# Memory\r\nmaxmemory:0\r\nmaxmemory_policy:noeviction\r\n");
        assert_eq!(info(&memory, "maxmemory_policy"), Some("noeviction"));
        assert_eq!(info(&memory, "maxmem"), None);
    }
}
