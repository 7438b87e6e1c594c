//! More than the model can do: as much is done as ever, and what is taken is answered soon.

use std::time::Duration;

use outrigger_fleet::admission::LimitPolicy;
use outrigger_fleet::batch::Policy;

use super::traffic::Source;
use super::world::{Measured, Model, Setup, World};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// 2 ms and 0.5 ms for each item: 400 items/s alone, 1,600 in batches of 16, for each session.
pub(crate) fn batching() -> (Model, Policy) {
    let (fixed, per_item) = (MS(2), Duration::from_micros(500));
    let model = Model { fixed, per_item, noise: 0.1, cores: 2 };
    (model, Policy { batch_invariant: true, ..Policy::default() })
}

/// 10 ms for each item, one at a time.
pub(crate) fn single() -> (Model, Policy) {
    let model = Model { fixed: MS(10), per_item: Duration::ZERO, noise: 0.1, cores: 2 };
    (model, Policy { max_batch_size: 1, ..Policy::default() })
}

/// One session for each core.
pub(crate) fn world((model, batch): (Model, Policy), seed: u64, sources: Vec<Source>) -> World {
    let limit = LimitPolicy::default();
    World::new(Setup { seed, model, sessions: model.cores, batch, limit, scaling: None, sources })
}

fn at_load(kind: (Model, Policy), seed: u64, load: f64, deadline: Duration) -> Measured {
    let per_s = load * kind.0.capacity(2, kind.1.max_batch_size);
    let source = Source { deadline, ..Source::new("a", per_s) };
    let mut world = world(kind, seed, vec![source]);
    world.run(MS(8_000));
    let m = world.measure(None, MS(2_000));
    println!(
        "load {load:.1}: goodput {:.0}/s, p99 {:?}, late {}, refused {}, dropped {}, limit {}, waited {}",
        m.goodput,
        m.p99,
        m.late,
        m.refused,
        m.dropped,
        world.limit(),
        world.waiting_max
    );
    // Bounded from the first moment on: thrice the limit that it starts with.
    assert!(world.waiting_max <= 3 * 64, "{}", world.waiting_max);
    m
}

#[track_caller]
fn check(kind: (Model, Policy), deadline: Duration, seeds: &[u64]) {
    for seed in seeds.iter().copied() {
        let at = |load| at_load(kind, seed, load, deadline);
        let quiet = at(0.8);
        let peak = [quiet.goodput, at(0.9).goodput, at(1.0).goodput, at(1.2).goodput];
        let peak = peak.into_iter().fold(0.0, f64::max);
        let over = at(3.0);
        assert!(over.goodput >= 0.95 * peak, "{} of {peak}", over.goodput);
        assert!(over.p99 <= quiet.p99 * 2, "{:?}, {:?} when quiet", over.p99, quiet.p99);
        assert!(over.dropped * 100 <= over.answered, "refused early, not dropped late");
        assert!(over.late * 100 <= over.answered);
    }
}

#[test]
fn three_times_the_capacity_of_a_batched_model() {
    check(batching(), MS(2000), &[1, 2]);
}

#[test]
fn three_times_the_capacity_of_an_unbatched_model() {
    check(single(), MS(2000), &[1, 2, 3]);
}

#[test]
fn three_times_the_capacity_with_short_deadlines() {
    check(batching(), MS(20), &[3]);
}

#[test]
fn mixed_sizes_and_bursts() {
    let (model, batch) = batching();
    for seed in [4, 5] {
        let source = |per_s, burst| Source {
            items: &[1, 1, 1, 2, 4, 8, 40],
            shapes: 3,
            burst,
            cancels_one_in: 20,
            deadline: MS(500),
            ..Source::new("a", per_s)
        };
        let mut world = world((model, batch), seed, vec![source(200.0, 1), source(300.0, 100)]);
        world.run(MS(10_000));
        let m = world.measure(None, MS(2_000));
        println!(
            "goodput {:.0}/s, p99 {:?}, late {}, refused {}, dropped {}",
            m.goodput, m.p99, m.late, m.refused, m.dropped
        );
        assert!(m.late * 100 <= m.answered);
        assert!(world.waiting_max <= 4096);
        world.finish();
    }
}

/// Without noise every run time is known, so no answer comes after its deadline.
#[test]
fn no_answer_comes_late_that_could_be_known_to() {
    let (model, batch) = batching();
    let model = Model { noise: 0.0, ..model };
    for seed in [6, 7] {
        let with = |deadline_ms| Source {
            deadline: MS(deadline_ms),
            items: &[1, 2, 3],
            ..Source::new("a", 2000.0)
        };
        let mut world = world((model, batch), seed, vec![with(8), with(20), with(100)]);
        world.run(MS(5_000)).finish();
        let m = world.measure(None, MS(0));
        assert!(m.answered > 5_000, "{}", m.answered);
        assert_eq!(m.late, 0);
    }
}
