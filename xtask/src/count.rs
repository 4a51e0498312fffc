//! How many tests a step ran, read from what it printed.

/// The tests of a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl Count {
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }

    pub(crate) fn one(passed: bool) -> Self {
        Self {
            passed: passed.into(),
            failed: (!passed).into(),
            ignored: 0,
        }
    }

    /// Adds what this line reports, if it is the summary of a test binary or of nextest.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.trim();
        let report = match line.strip_prefix("test result: ") {
            Some(rest) => rest.split_once(". ").map(|(_, counts)| counts),
            None if line.starts_with("Summary [") => line
                .split_once("tests run: ")
                .or(line.split_once("test run: "))
                .map(|(_, counts)| counts),
            None => None,
        };
        for part in report.unwrap_or_default().split([',', ';', '(']) {
            let mut words = part.split_whitespace();
            let (Some(number), Some(what)) = (
                words.next().and_then(|word| word.parse::<u64>().ok()),
                words.next(),
            ) else {
                continue;
            };
            match what.trim_end_matches(')') {
                "passed" => self.passed += number,
                "failed" | "timed" | "exec" => self.failed += number,
                "ignored" | "skipped" => self.ignored += number,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(lines: &[&str]) -> (u64, u64, u64) {
        let mut count = Count::default();
        lines.iter().for_each(|line| count.line(line));
        (count.passed, count.failed, count.ignored)
    }

    #[test]
    fn summaries_are_read() {
        let libtest = "test result: FAILED. 8 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 5.12s";
        assert_eq!(counted(&[libtest, libtest]), (16, 2, 4));
        let nextest = "     Summary [   0.005s] 12 tests run: 9 passed (1 slow, 1 leaky), 1 failed, 2 timed out, 4 skipped";
        assert_eq!(counted(&[nextest]), (9, 3, 4));
        assert_eq!(
            counted(&["     Summary [   0.005s] 1 test run: 1 passed, 0 skipped"]),
            (1, 0, 0)
        );
        assert_eq!(counted(&["running 3 tests", "test a ... ok", ""]), (0, 0, 0));
    }
}
