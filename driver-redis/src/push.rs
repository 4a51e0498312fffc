//! What the server pushes: other processes' messages to our waiters and holders.

use std::convert::Infallible;
use std::time::Duration;

use lockcore::{AttemptId, Signals};
use redis::{PushInfo, PushKind, Value};
use tokio_util::sync::CancellationToken;

/// Hears what the server pushes on a connection.
pub(crate) fn listener(
    signals: Signals,
    ended: CancellationToken,
) -> impl Fn(PushInfo) -> Result<(), Infallible> + Send + Sync + 'static {
    move |push| {
        match push.kind {
            PushKind::Message => {
                if let [_, Value::BulkString(message)] = push.data.as_slice() {
                    hear(&signals, message);
                }
            }
            PushKind::Disconnection => ended.cancel(),
            _ => {}
        }
        Ok(())
    }
}

fn hear(signals: &Signals, message: &[u8]) {
    match read(message) {
        Some((attempt, None)) => signals.wake(attempt),
        Some((attempt, Some(delay))) => signals.wake_in(attempt, delay),
        None => {}
    }
}

/// `w<attempt>`: ask now. `s<attempt>|<ms>`: ask then, which is when a reservation ends.
fn read(message: &[u8]) -> Option<(AttemptId, Option<Duration>)> {
    let message = std::str::from_utf8(message).ok()?;
    if let Some(attempt) = message.strip_prefix('w') {
        return Some((AttemptId::from_hex(attempt)?, None));
    }
    let (attempt, window) = message.strip_prefix('s')?.split_once('|')?;
    let window: u32 = window.parse().ok()?;
    // Past its last millisecond, by the server's clock, which is read in whole ones.
    let delay = Duration::from_millis(u64::from(window) + 2);
    Some((AttemptId::from_hex(attempt)?, Some(delay)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let attempt = AttemptId::from_bits(0xab);
        let hex = attempt.to_hex();
        assert_eq!(read(format!("w{hex}").as_bytes()), Some((attempt, None)));
        assert_eq!(
            read(format!("s{hex}|400").as_bytes()),
            Some((attempt, Some(Duration::from_millis(402))))
        );
        for bad in [
            "",
            "w",
            "wab",
            "x",
            &format!("s{hex}"),
            &format!("s{hex}|-1"),
            "\u{fffd}",
        ] {
            assert_eq!(read(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(read(&[0xff, 0xfe]), None);
    }
}
