//! The short form of `cargo xtask prove overload`: what is counted, not what is timed.
#![allow(clippy::unwrap_used)]

use outrigger_tests::overload::{Effort, run};

#[test]
fn a_flood_is_refused_in_words_and_is_not_the_others() {
    let report = run(Effort::SHORT, false).unwrap();
    println!("{report}");
    report.check().unwrap();
}
