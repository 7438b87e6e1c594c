//! The short form of `cargo xtask prove soak`.
#![allow(clippy::unwrap_used)]

use outrigger_tests::soak::{Amount, run};

#[test]
fn nothing_is_lost_and_nothing_grows() {
    let report = run(Amount::SHORT).unwrap();
    println!("{report}");
    report.check().unwrap();
}
