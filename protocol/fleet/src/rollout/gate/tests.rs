//! Bad versions are seen, good ones are left alone, and how often that goes wrong.

use super::*;

/// A generator of numbers for simulations (SplitMix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f64 {
        number(self.next() >> 11) / number(1 << 53)
    }

    /// About normal: the sum of twelve.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    fn times(&mut self, of: u64, chance: f64) -> u64 {
        (0..of).filter(|_| self.unit() < chance).count() as u64
    }
}

/// What a bad version does to a device.
#[derive(Clone, Copy, Default)]
struct Harm {
    slower: f64,
    errors: f64,
    disagreement: f64,
}

/// Counts of one device, which differs from others far more than from itself.
fn tally(dice: &mut Dice, own: f64, requests: u64, harm: Harm) -> Tally {
    let checked = requests / 4;
    let mut tally = Tally {
        requests,
        errors: dice.times(requests, 0.01 + harm.errors),
        deferred: dice.times(requests, 0.15 + 0.03 * own.abs()),
        checked,
        disagreed: dice.times(checked, 0.05 + harm.disagreement),
        judged: requests,
        confidence_micros: requests * 850_000 + dice.times(requests, 0.5) * 1000,
        ..Tally::default()
    };
    for _ in 0..requests {
        let noise = 0.2 * dice.normal();
        tally.add_run(5000.0 * (0.5 * own + noise + harm.slower).exp(), 1);
    }
    tally
}

fn world(dice: &mut Dice, treated: usize, control: usize, harm: Harm) -> Vec<Compared> {
    let device = |i: usize, dice: &mut Dice| {
        let (own, is_treated) = (dice.normal(), i < treated);
        let harm = if is_treated { harm } else { Harm::default() };
        let before = tally(dice, own, 200, Harm::default());
        let after = tally(dice, own, 100, harm);
        Compared { stratum: i % 2, is_treated, before, after }
    };
    (0..treated + control).map(|i| device(i, dice)).collect()
}

fn breaches(times: u64, treated: usize, control: usize, harm: Harm, limit: f64) -> usize {
    let one = |seed| look(&world(&mut Dice(seed), treated, control, harm), limit);
    (0..times).filter_map(one).count()
}

#[test]
fn a_good_version_is_left_alone() {
    // With the whole of alpha in one look: at most one in a hundred of each gate.
    let seen = breaches(200, 10, 60, Harm::default(), 0.01);
    assert!(seen <= 2, "{seen} of 200, over seven gates with a margin");
}

#[test]
fn bad_versions_are_seen_by_ten_canaries() {
    let limit = alpha_at(0.01, 3, 0);
    for harm in [
        Harm { slower: 10.0_f64.ln(), ..Harm::default() },
        Harm { errors: 1.0, ..Harm::default() },
        Harm { disagreement: 0.4, ..Harm::default() },
    ] {
        assert_eq!(breaches(50, 10, 60, harm, limit), 50);
    }
}

#[test]
fn what_is_within_the_margin_is_no_change() {
    let harm = Harm { slower: 1.05_f64.ln(), ..Harm::default() };
    assert!(breaches(100, 30, 100, harm, 0.01) <= 2);
}

#[test]
fn few_devices_are_held_against_a_bound_and_the_evidence_says_so() {
    let slow = Harm { slower: 10.0_f64.ln(), ..Harm::default() };
    let breach = look(&world(&mut Dice(1), 1, 2, slow), alpha_at(0.01, 3, 0)).unwrap();
    assert_eq!((breach.measure, breach.chance), (Measure::LatencyP50, None));
    assert_eq!(look(&world(&mut Dice(1), 1, 2, Harm::default()), 0.001), None);
}

#[test]
fn ten_unlucky_requests_on_few_devices_stop_nothing() {
    let tally = |of: u64, deferred: u64| Tally { requests: of, deferred, ..Tally::default() };
    let device =
        |is_treated, after| Compared { stratum: 0, is_treated, before: tally(1000, 150), after };
    let seen = |after: Tally| {
        let devices =
            [device(true, after.clone()), device(true, after), device(false, tally(10, 1))];
        look(&devices, alpha_at(0.01, 3, 0))
    };
    assert_eq!(seen(tally(10, 5)), None, "+35 points, of ten requests");
    assert!(seen(tally(20, 20)).is_some(), "everything is deferred");
    assert!(seen(tally(200, 130)).is_some(), "+50 points, of two hundred");
}

#[test]
fn the_evidence_is_one_line() {
    let breach = Breach {
        measure: Measure::Disagreement,
        change: 0.31,
        control_change: Some(0.002),
        treated: 8,
        control: 120,
        chance: Some(2.3e-7),
        limit: 2.4e-4,
    };
    assert_eq!(
        breach.to_string(),
        "disagreement: +31.0 points on 8 devices, +0.2 points on 120 with the old version (by chance in 2.3e-7, allowed 2.4e-4)"
    );
    let few = Breach {
        measure: Measure::LatencyP50,
        change: 10.0_f64.ln(),
        chance: None,
        limit: 2.0_f64.ln(),
        treated: 1,
        ..breach
    };
    assert_eq!(
        few.to_string(),
        "latency-p50: x 10.00 on 1 device, x 1.00 on 120 with the old version (too few devices to compare; beyond x 2.00)"
    );
}

#[test]
fn all_looks_together_stay_within_alpha() {
    let spent: f64 = (0..10_000).map(|look| alpha_at(0.01, 3, look)).sum();
    assert!(spent * number((MEASURES.len() * 3) as u64) <= 0.01);
}
