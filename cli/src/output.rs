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
    print(|out| writeln!(out, "{text}"))
}
