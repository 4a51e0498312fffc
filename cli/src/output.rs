//! What the program prints: results to stdout, everything else to stderr as `leasehold: ...`.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use serde::Serialize;

use crate::exit::{Code, Failure};

const ERROR: Style = AnsiColor::Red.on_default().bold();
const NOTE: Style = Style::new().bold();
/// For what matters most in a result.
pub(crate) const STRONG: Style = Style::new().bold();
/// For labels and column heads.
pub(crate) const FAINT: Style = Style::new().dimmed();

/// One line about what went wrong.
pub(crate) fn error(message: impl Display) {
    line(ERROR, message);
}

/// One line about what happens.
pub(crate) fn note(message: impl Display) {
    line(NOTE, message);
}

fn line(style: Style, message: impl Display) {
    // Nobody can be told that stderr is closed.
    writeln!(anstream::stderr(), "{style}leasehold:{style:#} {message}").ok();
}

/// A duration without digits that tell nobody anything.
pub(crate) fn rounded(duration: Duration) -> String {
    let grain = match duration.as_secs() {
        0 => 10,
        1..10 => 100,
        _ => 1000,
    };
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    humantime::format_duration(Duration::from_millis(millis - millis % grain)).to_string()
}

/// A short duration to three digits, such as `84us` or `1.25ms`.
pub(crate) fn brief(duration: Duration) -> String {
    let micros = u32::try_from(duration.as_micros()).map_or(f64::MAX, f64::from);
    match duration.as_micros() {
        0..1000 => format!("{micros}us"),
        1000..10_000 => format!("{:.2}ms", micros / 1e3),
        10_000..100_000 => format!("{:.1}ms", micros / 1e3),
        100_000..1_000_000 => format!("{:.0}ms", micros / 1e3),
        _ => rounded(duration),
    }
}

/// Writes a result. A reader that has seen enough, like `head`, is no failure.
pub(crate) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut stdout = anstream::AutoStream::auto(io::stdout()).lock();
    let written = write(&mut stdout).and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::new(
            Code::Output,
            format!("cannot write the output: {error}"),
        )),
        _ => Ok(()),
    }
}

/// Writes a result as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::new(Code::Internal, format!("cannot write JSON: {error}")))?;
    let text = escaped(&text);
    print(|out| writeln!(out, "{text}"))
}

/// Control characters that JSON leaves as they are in strings, and that would not get through our own stream, which keeps
/// terminals safe.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        if char.is_control() && char != '\n' {
            // All control characters have 16 bits.
            text.push_str(&format!("\\u{:04x}", u32::from(char)));
        } else {
            text.push(char);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_raw_control_characters() {
        let name = "a\u{7f}\u{9b}\u{1b}\n\u{e9}";
        let text = escaped(&serde_json::to_string_pretty(&[name]).unwrap());
        assert!(
            !text.contains(|char: char| char.is_control() && char != '\n'),
            "{text:?}"
        );
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), [name]);
    }

    #[test]
    fn durations_have_three_digits() {
        for (micros, expected) in [
            (0, "0us"),
            (999, "999us"),
            (1_234, "1.23ms"),
            (12_345, "12.3ms"),
            (123_456, "123ms"),
            (1_234_567, "1s 200ms"),
        ] {
            assert_eq!(brief(Duration::from_micros(micros)), expected, "{micros}");
        }
    }
}
