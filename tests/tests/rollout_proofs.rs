//! The short form of `cargo xtask prove fleet`, and `cargo xtask prove rollout` with fewer runs than its own, which takes
//! a release build.
#![allow(clippy::unwrap_used)]

use outrigger_tests::rollouts::{self, Amount};

#[test]
fn versions_go_over_real_and_simulated_devices_as_they_deserve() {
    let report = rollouts::mixed::run(true).unwrap();
    println!("{report}");
    report.check().unwrap();
}

#[test]
fn the_rules_alone_tell_good_versions_from_bad_ones() {
    let report = rollouts::run(Amount { good: 2, bad: 1 }).unwrap();
    println!("{report}");
    report.check().unwrap();
}
