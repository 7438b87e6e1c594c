//! The simulated world, in its short forms; `cargo xtask prove simulation` has the long one.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::simulation::{Report, Terms, World, run_seeds};

#[test]
fn a_thousand_seeds() {
    let halves = std::thread::scope(|scope| {
        let even = scope.spawn(|| run_seeds((0..1_000).step_by(2)));
        let odd = run_seeds((1..1_000).step_by(2));
        [even.join().unwrap(), odd]
    });
    let mut report = Report::default();
    for half in halves {
        report.add(&half.unwrap_or_else(|broken| panic!("{broken}")));
    }
    println!("{report:#?}");
    assert_eq!(report.seeds, 1_000);
    assert!(report.spared > 0 && report.checks > 0 && report.alarms > 0 && report.restarts > 0);
    for end in ["cloud hedged", "cloud deferred", "edge-degraded budget", "edge confident"] {
        assert!(report.ends.contains_key(end), "{end} happens");
    }
}

#[test]
fn the_same_seed_is_the_same_world() {
    let run = || World::new(&Terms::of_seed(7), 7).run().unwrap();
    assert_eq!(run(), run());
}

#[test]
fn two_thousand_devices() {
    let report = World::new(&Terms::fleet(2_000), 1).run().unwrap_or_else(|e| panic!("{e}"));
    println!("{report:#?}");
    assert!(report.requests >= 20_000);
    assert!(report.asked_again > 0, "so many at once that the cloud says no");
}

#[test]
fn no_answer_is_late_over_six_links() {
    let report = World::new(&Terms::deadlines(12_000), 1).run().unwrap_or_else(|e| panic!("{e}"));
    println!("{report:#?}");
    assert!(report.requests >= 12_000);
}
