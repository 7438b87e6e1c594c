//! How many tests passed and failed, read from what `cargo test` prints.

use std::fmt;

/// The sum over all test programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

impl Tally {
    /// Counts `line` if it is a test program's last, `test result: ok. 3 passed; 0 failed; ...`.
    pub(crate) fn read(&mut self, line: &str) {
        let line = without_colour(line);
        // A test that prints without a newline can push the result behind its own output.
        let Some((_, result)) = line.split_once("test result: ") else { return };
        let Some((_, counts)) = result.split_once(". ") else { return };
        for count in counts.split(';') {
            match count.trim().split_once(' ') {
                Some((number, "passed")) => self.passed += number.parse().unwrap_or(0),
                Some((number, "failed")) => self.failed += number.parse().unwrap_or(0),
                _ => {}
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

/// `text` without its colour sequences (`ESC [ ... m`, ECMA-48).
fn without_colour(text: &str) -> String {
    let mut parts = text.split("\u{1b}[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(output: &str, expected: &str) {
        let mut tally = Tally::default();
        output.lines().for_each(|line| tally.read(line));
        assert_eq!(tally.to_string(), expected);
    }

    #[test]
    fn all_test_programs_are_summed() {
        let output = "
running 3 tests
test a ... ok
test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.03s
test result: FAILED. 12 passed; 2 failed; 0 ignored; 0 measured; 1 filtered out; finished in 1.20s
   Doc-tests outrigger_protocol
test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.21s; merged doctests compilation took 0.2s
";
        check(output, "16 passed, 2 failed");
    }

    #[test]
    fn colour_does_not_hide_a_result() {
        check(
            "test result: \u{1b}[32mok\u{1b}(B\u{1b}[m. 4 passed; 0 failed; 0 ignored",
            "4 passed, 0 failed",
        );
    }

    #[test]
    fn other_lines_do_not_count() {
        check(
            "test result_is_kept ... ok\n7 passed; 7 failed\ntest result: what",
            "0 passed, 0 failed",
        );
    }

    #[test]
    fn a_result_behind_a_tests_own_output_counts() {
        check("half a line test result: ok. 2 passed; 0 failed; 0 ignored", "2 passed, 0 failed");
    }
}
