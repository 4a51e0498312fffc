//! How the program ends: exit codes after `sysexits.h`, and one line that says why.

use std::fmt;
use std::process::ExitCode;

use leasehold::{Error, ErrorKind};

/// An exit code of the program itself. CMD's own codes are passed on besides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    /// `doctor` has found a risk.
    Risky = 1,
    /// `EX_USAGE`: the command line, a name, an option or the URL is wrong.
    Usage = 64,
    /// `EX_UNAVAILABLE`: the backend cannot be reached or does not answer.
    Unavailable = 69,
    /// `EX_SOFTWARE`: a bug, here or in the backend.
    Internal = 70,
    /// `EX_OSERR`: the operating system refused something, such as one more process.
    System = 71,
    /// `EX_IOERR`: the output could not be written.
    Output = 74,
    /// `EX_TEMPFAIL`: the lock was busy to the end of the wait.
    Busy = 75,
    /// `EX_NOPERM`: the backend refused the login or the operation.
    Denied = 77,
    /// `EX_CONFIG`: there is no place for the embedded default's file.
    Config = 78,
    /// The lock was lost while CMD ran.
    Lost = 79,
    /// CMD is there and cannot be run.
    NotExecutable = 126,
    /// CMD is not there.
    NotFound = 127,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

/// Why the program ends early. Its text is one line for stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A backend's message may have line ends and worse.
        for part in self.message.split_inclusive(char::is_control) {
            match part.char_indices().next_back() {
                Some((end, last)) if last.is_control() => write!(f, "{} ", &part[..end])?,
                _ => f.write_str(part)?,
            }
        }
        Ok(())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::Timeout => Code::Busy,
            ErrorKind::Lost => Code::Lost,
            ErrorKind::Unavailable => Code::Unavailable,
            ErrorKind::Denied => Code::Denied,
            ErrorKind::Invalid | ErrorKind::Unsupported => Code::Usage,
            _ => Code::Internal,
        };
        Self::new(code, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_code() {
        for (kind, code) in [
            (ErrorKind::Timeout, 75),
            (ErrorKind::Lost, 79),
            (ErrorKind::Unavailable, 69),
            (ErrorKind::Denied, 77),
            (ErrorKind::Invalid, 64),
            (ErrorKind::Unsupported, 64),
            (ErrorKind::Closed, 70),
            (ErrorKind::Internal, 70),
        ] {
            let failure = Failure::from(Error::new(kind, "x"));
            assert_eq!(failure.code as u8, code, "{kind}");
        }
    }

    #[test]
    fn a_failure_is_one_line() {
        let failure = Failure::new(Code::Internal, "a\nb\u{1b}[2Jc\r\n");
        assert_eq!(failure.to_string(), "a b [2Jc  ");
    }
}
