//! What the server pushes: other processes' messages to our waiters and holders.

use std::time::Duration;

use lockcore::{AttemptId, Signals};

/// Hears a message of a function in the database, which came with NOTIFY or, from our own process, with an answer.
pub(crate) fn hear(signals: &Signals, message: &str) {
    match read(message) {
        Some((attempt, None)) => signals.wake(attempt),
        Some((attempt, Some(delay))) => signals.wake_in(attempt, delay),
        None => {}
    }
}

/// `w<attempt>`: ask now. `s<attempt>|<us>`: ask then, which is when a reservation has ended.
fn read(message: &str) -> Option<(AttemptId, Option<Duration>)> {
    if let Some(attempt) = message.strip_prefix('w') {
        return Some((AttemptId::from_hex(attempt)?, None));
    }
    let (attempt, micros) = message.strip_prefix('s')?.split_once('|')?;
    let delay = Duration::from_micros(micros.parse().ok()?);
    Some((AttemptId::from_hex(attempt)?, Some(delay)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages() {
        let attempt = AttemptId::from_bits(0xab);
        let hex = attempt.to_hex();
        assert_eq!(read(&format!("w{hex}")), Some((attempt, None)));
        assert_eq!(
            read(&format!("s{hex}|405000")),
            Some((attempt, Some(Duration::from_millis(405))))
        );
        for bad in [
            "",
            "w",
            "wab",
            "x",
            "hello",
            &format!("s{hex}"),
            &format!("s{hex}|-1"),
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
