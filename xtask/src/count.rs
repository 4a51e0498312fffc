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

    /// Adds what this line reports, if it is the last line of a test binary.
    pub(crate) fn libtest(&mut self, line: &str) {
        let result = line.trim().strip_prefix("test result: ");
        self.report(
            result
                .and_then(|rest| rest.split_once(". "))
                .map_or("", |(_, counts)| counts),
        );
    }

    /// Adds what this line reports, if it is nextest's summary. Nextest also shows what failed tests printed, so the
    /// last lines of their binaries must not count.
    pub(crate) fn nextest(&mut self, line: &str) {
        let result = line.trim().strip_prefix("Summary [");
        self.report(
            result
                .and_then(|rest| rest.split_once(" run: "))
                .map_or("", |(_, counts)| counts),
        );
    }

    fn report(&mut self, counts: &str) {
        for part in counts.split([',', ';', '(']) {
            let mut words = part.split_whitespace();
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            let (Some(number), Some(what)) = (number, words.next()) else {
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

    fn counted(each: fn(&mut Count, &str), lines: &[&str]) -> (u64, u64, u64) {
        let mut count = Count::default();
        lines.iter().for_each(|line| each(&mut count, line));
        (count.passed, count.failed, count.ignored)
    }

    const LIBTEST: &str =
        "test result: FAILED. 8 passed; 1 failed; 2 ignored; 0 measured; 3 filtered out; finished in 5.12s";
    const NEXTEST: &str =
        "     Summary [   0.005s] 12 tests run: 9 passed (1 slow, 1 leaky), 1 failed, 2 timed out, 4 skipped";

    #[test]
    fn summaries_are_read() {
        let noise = ["running 3 tests", "test a ... ok", ""];
        assert_eq!(
            counted(Count::libtest, &[LIBTEST, noise[0], noise[1], noise[2], LIBTEST]),
            (16, 2, 4)
        );
        assert_eq!(counted(Count::nextest, &[noise[0], NEXTEST]), (9, 3, 4));
        let one = "     Summary [   0.005s] 1 test run: 1 passed, 0 skipped";
        assert_eq!(counted(Count::nextest, &[one]), (1, 0, 0));
        // Ended early, by Ctrl-C or the first failure.
        let early = "     Summary [   0.005s] 5/12 tests run: 4 passed, 1 failed, 0 skipped";
        assert_eq!(counted(Count::nextest, &[early]), (4, 1, 0));
    }

    #[test]
    fn what_failed_tests_print_does_not_count() {
        assert_eq!(counted(Count::nextest, &[LIBTEST, NEXTEST]), (9, 3, 4));
    }
}
