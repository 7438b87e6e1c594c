//! The number of sessions follows the load and then stays.

use std::time::Duration;

use outrigger_fleet::admission::LimitPolicy;
use outrigger_fleet::batch::Policy;
use outrigger_fleet::scaling::ScalingPolicy;

use super::overload::single;
use super::traffic::Source;
use super::world::{Model, Setup, World};

const S: fn(u64) -> Duration = Duration::from_secs;

fn world(seed: u64, cores: u32, per_s: f64, scaling: ScalingPolicy) -> World {
    let (model, batch): (Model, Policy) = single();
    let model = Model { cores, ..model };
    let (limit, sources) = (LimitPolicy::default(), vec![Source::new("a", per_s)]);
    World::new(Setup { seed, model, sessions: 0, batch, limit, scaling: Some(scaling), sources })
}

/// Changes after `from`, and the number of sessions at the end.
fn changes(world: &World, from: Duration) -> (usize, u32) {
    println!("{:?}", world.session_counts);
    let later = world.session_counts.iter().filter(|(at, _)| *at > from).count();
    (later, world.session_counts.last().unwrap().1)
}

#[test]
fn it_settles_at_every_constant_load() {
    for (seed, load) in [(1, 0.1), (2, 0.35), (3, 0.5), (4, 0.7), (5, 0.9), (6, 1.5)] {
        let policy = ScalingPolicy::for_cores(8, 1);
        let mut world = world(seed, 8, load * 800.0, policy);
        world.run(S(300));
        let (later, sessions) = changes(&world, S(120));
        assert!(later <= 1, "{later} changes at load {load}");
        let needed = load.min(1.0) * 8.0;
        assert!(f64::from(sessions) >= needed.min(8.0) - 0.01, "{sessions} at load {load}");
        assert!(f64::from(sessions) <= (needed / 0.6 + 2.0).min(8.0), "{sessions} at load {load}");
    }
}

#[test]
fn it_follows_a_change() {
    let mut world = world(7, 8, 80.0, ScalingPolicy::for_cores(8, 1));
    world.run(S(100));
    let before = changes(&world, S(60)).1;
    world.set_rate(0, 640.0);
    world.run(S(100));
    let during = changes(&world, S(160));
    world.set_rate(0, 80.0);
    world.run(S(200));
    let after = changes(&world, S(360));
    assert!(before <= 2 && after.1 <= 3, "{before} {after:?}");
    assert!(during.1 >= 7 && during.0 <= 1, "{during:?}");
}

/// Two cores: the third session only makes the other two slower. It is tried and taken back.
#[test]
fn sessions_that_bring_nothing_are_taken_back() {
    let mut world =
        world(8, 2, 600.0, ScalingPolicy { start: 2, ..ScalingPolicy::for_cores(8, 1) });
    world.run(S(280));
    assert_eq!(changes(&world, S(60)), (0, 2));
}
