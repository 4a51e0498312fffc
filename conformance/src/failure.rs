//! Why a scenario failed.

use std::fmt;
use std::panic::Location;

/// Why a scenario failed, and where it says so.
pub struct Failure {
    message: String,
    at: &'static Location<'static>,
}

impl Failure {
    /// A failure at the caller's line.
    #[must_use]
    #[track_caller]
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at: Location::caller(),
        }
    }

    /// The same, with the error that came instead.
    #[must_use]
    pub(crate) fn because(mut self, error: &dyn std::error::Error) -> Self {
        self.message = format!("{}: {error}", self.message);
        self
    }

    /// The same, with what was done before.
    #[must_use]
    pub(crate) fn after(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.at.file(), self.at.line(), self.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// Not an `Error` itself, so that every error can become one with `?`, with the line of that `?`.
impl<E: std::error::Error> From<E> for Failure {
    #[track_caller]
    fn from(error: E) -> Self {
        Self {
            message: format!("unexpected error: {error}"),
            at: Location::caller(),
        }
    }
}

/// What a scenario comes to.
pub type Checked<T = ()> = Result<T, Failure>;

/// `Err` unless the condition holds, with a message in `format!` style.
macro_rules! ensure {
    ($condition:expr $(,)?) => {
        if !$condition {
            return Err($crate::Failure::new(concat!("not true: ", stringify!($condition))));
        }
    };
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format!($($message)+)));
        }
    };
}

/// `Err` unless both sides are equal.
macro_rules! ensure_eq {
    ($left:expr, $right:expr $(,)?) => {
        match (&$left, &$right) {
            (left, right) => {
                if !(*left == *right) {
                    return Err($crate::Failure::new(format!(
                        "{} is {left:?}, not {right:?}",
                        stringify!($left)
                    )));
                }
            }
        }
    };
}

/// `Err` in any case.
macro_rules! fail {
    ($($message:tt)+) => {
        return Err($crate::Failure::new(format!($($message)+)))
    };
}

pub(crate) use {ensure, ensure_eq, fail};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_the_line() {
        fn failing() -> Checked {
            Err(std::io::Error::other("no"))?;
            Ok(())
        }
        let line = line!() - 3;
        let failure = failing().unwrap_err();
        assert_eq!(
            failure.to_string(),
            format!("{}:{line}: unexpected error: no", file!())
        );
        fn compared() -> Checked {
            ensure_eq!(1 + 1, 3);
            Ok(())
        }
        assert_eq!(compared().unwrap_err().message(), "1 + 1 is 2, not 3");
    }
}
