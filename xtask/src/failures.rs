//! What failed, and the first lines of why: said again at the very end, where one looks for it.

/// Reads it from what tests print.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    told: Vec<String>,
    /// How many more lines belong to the last one.
    more: usize,
}

/// As many lines as a message may have here; the whole is where the test ran.
const MESSAGE: usize = 6;

impl Failures {
    /// Takes the next line that tests printed, without colours.
    pub(crate) fn read(&mut self, line: &str) {
        let line = line.trim();
        let is_message =
            line.contains("panicked at ") || (line.starts_with("---- ") && line.ends_with(" ----"));
        if is_message {
            self.more = MESSAGE;
            self.tell(format!("  {line}"));
        } else if is_name(line) {
            self.more = 0;
            // Nextest says it when it happens, and again at its end.
            self.tell(format!("  {line}"));
        } else if line.is_empty() || line.starts_with("note: run with") {
            self.more = 0;
        } else if self.more > 0 {
            self.more -= 1;
            self.told.push(format!("    {line}"));
        }
    }

    fn tell(&mut self, line: String) {
        if !self.told.contains(&line) {
            self.told.push(line);
        }
    }

    /// All of it; nothing when nothing failed.
    pub(crate) fn lines(self) -> Vec<String> {
        self.told
    }
}

/// Nextest's line of a test that did not pass, or libtest's.
fn is_name(line: &str) -> bool {
    let [status, next, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
        return false;
    };
    let nextest =
        ["FAIL", "TIMEOUT", "ABORT", "LEAK-FAIL", "XFAIL"].contains(&status) || status.starts_with("SIG");
    (nextest && next.starts_with('[')) || (status == "test" && line.ends_with(" ... FAILED"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let mut failures = Failures::default();
        text.lines().for_each(|line| failures.read(line));
        failures.lines()
    }

    #[test]
    fn nextests_failures_are_named_once() {
        let text = "
        PASS [   0.010s] (1/3) pkg tests::good
        FAIL [   0.012s] (2/3) pkg tests::bad
  stdout ───
    thread 'tests::bad' (12) panicked at pkg/src/lib.rs:3:5:
    assertion `left == right` failed
      left: 1
     right: 2
    note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
    something else
     Summary [   0.013s] 3 tests run: 1 passed, 1 failed, 1 timed out, 0 skipped
        FAIL [   0.012s] (2/3) pkg tests::bad
     TIMEOUT [ 180.001s] (3/3) pkg tests::slow
";
        assert_eq!(
            told(text),
            [
                "  FAIL [   0.012s] (2/3) pkg tests::bad",
                "  thread 'tests::bad' (12) panicked at pkg/src/lib.rs:3:5:",
                "    assertion `left == right` failed",
                "    left: 1",
                "    right: 2",
                "  TIMEOUT [ 180.001s] (3/3) pkg tests::slow",
            ]
        );
    }

    #[test]
    fn a_suites_failures_come_with_their_messages() {
        let text = "
test x-container::ME1 ... FAILED
test x-container::ME2 ... ok

failures:

---- x-container::ME1 ----
two holders at 12 ms

failures:
    x-container::ME1
";
        assert_eq!(
            told(text),
            [
                "  test x-container::ME1 ... FAILED",
                "  ---- x-container::ME1 ----",
                "    two holders at 12 ms"
            ]
        );
        assert!(told("test a ... ok\n\ntest result: ok. 1 passed; 0 failed").is_empty());
    }
}
