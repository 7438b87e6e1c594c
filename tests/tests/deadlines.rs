//! The short form of `cargo xtask prove deadlines`: over six real links no request is lost, and none
//! answered twice. How late the clock of a busy machine makes them is for the long form to judge.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::deadlines::{Amount, run};

#[test]
fn no_request_is_lost_or_answered_twice_over_six_links() {
    let report = run(Amount::SHORT).unwrap();
    println!("{report}");
    let counted = report.goals.iter().find(|goal| goal.name.contains("more or fewer")).unwrap();
    assert!(counted.met, "{report}");
}
