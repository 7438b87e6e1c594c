//! The short form of `cargo xtask prove rollout`.
#![allow(clippy::unwrap_used)]

use outrigger_tests::rollouts::{Amount, run};

#[test]
fn bad_versions_stay_among_their_canaries_and_good_ones_reach_everybody() {
    let report = run(Amount::TEST).unwrap();
    println!("{report}");
    report.check().unwrap();
}
