//! The short form of `cargo xtask prove fuzz`.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fuzz::{Amount, run};

#[test]
fn hostile_files_end_with_an_answer_or_a_typed_error() {
    let tally = run(Amount { cases: 500, ..Amount::SHORT }).unwrap();
    println!("{tally:?}");
    assert!(tally.read > 50 && tally.refused > 50, "both kinds are there: {tally:?}");
}
