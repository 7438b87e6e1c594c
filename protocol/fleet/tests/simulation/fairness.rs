//! What one tenant does is not another's loss.

use std::time::Duration;

use outrigger_fleet::batch::Policy;

use super::overload::{batching, single, world};
use super::traffic::Source;
use super::world::{End, Measured, Model};

const MS: fn(u64) -> Duration = Duration::from_millis;

/// The first source, over about 3,000 of its requests.
fn of_quiet(kind: (Model, Policy), seed: u64, sources: Vec<Source>) -> Measured {
    let long_enough = Duration::from_secs_f64(2.0 + 3000.0 / sources[0].per_s);
    let mut world = world(kind, seed, sources);
    world.run(long_enough);
    let m = world.measure(Some(0), MS(2_000));
    println!(
        "p99 {:?}, answered {}, refused {}, limit {}",
        m.p99,
        m.answered,
        m.refused,
        world.limit()
    );
    m
}

#[track_caller]
fn check((model, policy): (Model, Policy), batch: u32) {
    let kind = (Model { cores: 4, ..model }, policy);
    let capacity = kind.0.capacity(4, batch);
    for seed in [1, 2, 3] {
        let quiet = || Source::new("quiet", 0.4 * capacity);
        let alone = of_quiet(kind, seed, vec![quiet()]);
        let flood = Source::new("flood", 3.0 * capacity);
        let beside = of_quiet(kind, seed, vec![quiet(), flood]);
        assert!(beside.p99 * 10 <= alone.p99 * 13, "{:?}, alone {:?}", beside.p99, alone.p99);
        assert!(beside.refused * 100 <= beside.answered, "{} refused", beside.refused);
    }
}

#[test]
fn a_flood_leaves_another_tenants_latency_of_an_unbatched_model() {
    check(single(), 1);
}

#[test]
fn a_flood_leaves_another_tenants_latency_of_a_batched_model() {
    // What a full batch may cost a neighbour is the operator's choice.
    let (model, policy) = batching();
    let batch = 4;
    check((model, Policy { max_batch_run: model.time(batch) * 11 / 10, ..policy }), batch);
}

/// A run that has begun is not interrupted, so one run is the least that a neighbour costs: that
/// is what a tenant pays that asks so rarely that it never waited before.
#[test]
fn a_flood_costs_a_rare_request_one_run_at_most() {
    let (model, policy) = single();
    for seed in [1, 2, 3] {
        let rare = || Source::new("rare", 10.0);
        let alone = of_quiet((model, policy), seed, vec![rare()]);
        let beside = of_quiet((model, policy), seed, vec![rare(), Source::new("flood", 600.0)]);
        assert_eq!(beside.refused, 0);
        assert!(beside.p99 <= alone.p99 + model.time(1), "{:?}, {:?}", beside.p99, alone.p99);
    }
}

/// A tenant that asks for a fifth of what a single core can do, in requests that fill half a batch, beside
/// a flood: none is refused, hardly any waits for the rest of a run, and as much is done in all.
#[test]
fn with_an_express_session_a_flood_is_hardly_noticed() {
    for ((model, policy), sizes) in [(single(), &[1]), (batching(), &[16])] {
        let model = Model { cores: 1, ..model };
        let max_batch_size = if policy.batch_invariant { 2 * sizes[0] } else { 1 };
        let policy = Policy { max_batch_size, ..policy };
        let per_s = model.capacity(1, policy.max_batch_size) / f64::from(sizes[0]);
        let asks = |tenant, load: f64| Source { items: sizes, ..Source::new(tenant, load * per_s) };
        let both = || vec![asks("quiet", 0.2), asks("flood", 3.0)];
        for seed in [1, 2, 3] {
            let beside_flood = |express| {
                let mut world = world((model, Policy { express, ..policy }), seed, both());
                world.run(Duration::from_secs_f64(2.0 + 15_000.0 / per_s));
                world
            };
            let alone = of_quiet((model, policy), seed, vec![asks("quiet", 0.2)]);
            let (with, without) = (beside_flood(true), beside_flood(false));
            let [beside, before] = [&with, &without].map(|world| world.measure(Some(0), MS(2_000)));
            let [all, all_before] =
                [&with, &without].map(|world| world.measure(None, MS(2_000)).goodput);
            println!(
                "p99 {:?} beside ({} of {} on express), {:?} without, {:?} alone; {all:.0}, {all_before:.0}",
                beside.p99, with.express_runs, beside.answered, before.p99, alone.p99
            );
            assert_eq!(beside.refused + beside.dropped, 0);
            if !policy.batch_invariant {
                assert!(
                    beside.p99 * 10 <= alone.p99 * 13,
                    "{:?}, alone {:?}",
                    beside.p99,
                    alone.p99
                );
            }
            assert!(all >= 0.95 * all_before, "{all} of {all_before}");
        }
    }
}

/// Requests that are cheap together and dear alone do not run alone for ever.
#[test]
fn an_express_session_costs_little_of_what_is_done() {
    let (model, policy) = batching();
    let model = Model { cores: 1, ..model };
    let capacity = model.capacity(1, 16);
    let goodput = |express| {
        let sources =
            vec![Source::new("quiet", 0.3 * capacity), Source::new("flood", 3.0 * capacity)];
        let mut world = world((model, Policy { express, ..policy }), 5, sources);
        world.run(MS(20_000));
        (world.measure(None, MS(2_000)).goodput, world.express_runs)
    };
    let ((with, runs), (without, _)) = (goodput(true), goodput(false));
    println!("{with} with {runs} express runs, {without} without");
    assert!(runs > 0 && with >= 0.95 * without, "{with} with {runs} runs, {without} without");
}

/// Tenants that both ask for more than their share do not get ahead of each other by it.
#[test]
fn tenants_that_both_flood_share_an_express_session_by_weight() {
    let (model, policy) = single();
    let kind = (Model { cores: 1, ..model }, Policy { express: true, ..policy });
    let sources = vec![Source::new("one", 300.0), Source::new("two", 300.0)];
    let mut world = world(kind, 6, sources);
    world.run(MS(20_000));
    let of = |source| world.measure(Some(source), MS(2_000)).goodput;
    let ratio = of(0) / of(1);
    assert!((0.9..1.1).contains(&ratio), "{ratio}");
}

#[test]
fn tenants_that_both_flood_share_by_weight() {
    let (model, policy) = batching();
    let capacity = model.capacity(2, 16);
    let light = Source::new("light", 3.0 * capacity);
    let heavy = Source { weight: 3, ..Source::new("heavy", 3.0 * capacity) };
    let mut world = world((model, policy), 9, vec![light, heavy]);
    world.run(MS(10_000));
    let of = |source| world.measure(Some(source), MS(2_000)).goodput;
    let ratio = of(1) / of(0);
    assert!((2.5..3.5).contains(&ratio), "{ratio}");
}

#[test]
fn many_shapes_buy_no_larger_share() {
    let (model, policy) = batching();
    let one = Source::new("one", 2000.0);
    let many = Source { shapes: 50, ..Source::new("many", 10_000.0) };
    let mut world = world((model, policy), 10, vec![one, many]);
    world.run(MS(10_000));
    let of = |source| world.measure(Some(source), MS(2_000)).goodput;
    assert!(of(0) >= 0.9 * of(1), "{} {}", of(0), of(1));
}

/// A lower priority gets its runs, however many of a higher one come.
#[test]
fn no_priority_starves() {
    let (model, policy) = single();
    let low = Source::new("t", 4.0);
    let high = Source { priority: 3, ..Source::new("u", 600.0) };
    let mut world = world((model, policy), 11, vec![low, high]);
    world.run(MS(20_000));
    let m = world.measure(Some(0), MS(2_000));
    println!(
        "p99 {:?}, answered {}, refused {}, dropped {}",
        m.p99, m.answered, m.refused, m.dropped
    );
    assert!(m.answered >= 60 && m.dropped == 0);
    assert!(m.p99 < MS(500), "{:?}", m.p99);
    let late = world.ended.iter().filter(|e| e.end == End::Late).count();
    assert_eq!(late, 0);
}
