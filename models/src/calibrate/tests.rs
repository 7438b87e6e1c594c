use super::*;
use crate::confidence::confidence;

/// Two classes; the edge's margin is drawn, and it is right as often as the margin says (at another
/// temperature); the cloud is right nine times of ten.
fn examples(count: usize, seed: u64) -> Vec<Example> {
    let mut random = Random::new(seed);
    let example = |_| {
        let margin = 6.0 * random.share();
        let edge = usize::from(random.share() < 0.5);
        let right = random.share() < 1.0 / (1.0 + (-margin).exp());
        let truth = if right { edge } else { 1 - edge };
        let cloud = if random.share() < 0.9 { truth } else { 1 - truth };
        let mut logits = vec![0.0, 0.0];
        logits[edge] = 2.0 * margin; // twice as sure as it may be
        Example { logits, sequence: None, truth, cloud }
    };
    (0..count).map(example).collect()
}

fn options(risk: f64) -> Options {
    Options { risk, confidence: 0.95, truth: Truth::Labels, seed: 1 }
}

fn run(examples: &[Example], options: &Options) -> Result<Calibration, CalibrateError> {
    calibrate(&examples.iter().collect::<Vec<_>>(), options)
}

#[test]
fn the_record_says_what_was_measured() {
    let data = examples(4000, 1);
    let calibration = run(&data, &options(0.05)).unwrap();
    let bound = calibration.bound.as_ref().unwrap();
    assert_eq!((bound.items.fit, bound.items.selection, bound.items.bound), (200, 0, 3800));
    assert_eq!((bound.risk, bound.confidence, bound.truth), (0.05, 0.95, Truth::Labels));
    let share = bound.items.accepted as f64 / bound.items.bound as f64;
    assert!((calibration.deferral_rate - (1.0 - share)).abs() < 1e-12);
    assert!(bound.strict_threshold.unwrap() > calibration.threshold);
    assert!((bound.items.errors as f64) < 0.05 * bound.items.accepted as f64);
    let rule = calibration.rule.as_ref().unwrap();
    let heat = f64::from(rule.temperatures[0]) / rule.slope;
    assert!((1.3..3.0).contains(&heat), "logits were twice too large: {rule:?}");
    let reliability = calibration.reliability.as_ref().unwrap();
    assert!(reliability.ece_after < reliability.ece_before, "{reliability:?}");
    assert_eq!(reliability.bins.iter().map(|bin| bin.items).sum::<u64>(), 3800);
    assert_eq!(run(&data, &options(0.05)), Ok(calibration), "the same data, the same rule");
}

#[test]
fn what_differs_is_bounded_beside_what_is_wrong() {
    let data = examples(4000, 1);
    let calibration = run(&data, &options(0.05)).unwrap();
    let bound = calibration.bound.unwrap();
    let rule = calibration.rule.unwrap();
    let accepted = data.iter().filter(|e| e.confidence(&rule) >= calibration.threshold);
    let differing: Vec<bool> = accepted.map(|e| e.edge() != e.cloud).collect();
    let share = differing.iter().filter(|d| **d).count() as f64 / differing.len() as f64;
    let differs = bound.disagreement().unwrap();
    assert!(share > 0.1 && differs > share && differs < share + 0.04, "{share} {differs}");
    let by_cloud = Options { truth: Truth::Cloud, ..options(0.05) };
    let own: Vec<Example> = data.into_iter().map(|e| Example { truth: e.cloud, ..e }).collect();
    let bound = run(&own, &Options { risk: 0.2, ..by_cloud }).unwrap().bound.unwrap();
    assert_eq!(bound.disagreement(), Some(0.2));
}

/// Sequences of four tokens, each right as often as its margin says; all that is known of them is what the
/// cloud spells, so that an error is a difference.
#[test]
fn what_a_recogniser_spells_is_accepted_by_how_sure_its_tokens_are() {
    let mut random = Random::new(9);
    let mut sequence = |_: usize| {
        let (mut logits, mut all_right) = (Vec::new(), true);
        for _ in 0..4 {
            let margin = 8.0 * random.share();
            all_right &= random.share() < 1.0 / (1.0 + (-margin).exp());
            logits.extend([margin, 0.0]);
        }
        let answer = random.below(50);
        let truth = if all_right { answer } else { answer + 1 };
        let sequence = Some(Sequence { classes: 2, spells: answer });
        Example { logits, sequence, truth, cloud: truth }
    };
    let data: Vec<Example> = (0..9000).map(&mut sequence).collect();
    let found = run(&data, &Options { truth: Truth::Cloud, ..options(0.05) }).unwrap();
    let rule = found.rule.as_ref().unwrap();
    assert!(Score::OF_SEQUENCES.contains(&rule.score), "{rule:?}");
    assert!(found.deferral_rate < 0.8, "{found:?}");
    let fresh: Vec<Example> = (0..9000).map(&mut sequence).collect();
    let accepted = fresh.iter().filter(|e| e.confidence(rule) >= found.threshold);
    let wrong: Vec<bool> = accepted.map(Example::is_error).collect();
    let share = wrong.iter().filter(|wrong| **wrong).count() as f64 / wrong.len() as f64;
    assert!(share < 0.06, "{share} of {}", wrong.len());
}

#[test]
fn with_enough_examples_the_score_is_chosen_by_those_that_do_nothing_else() {
    let calibration = run(&examples(8000, 1), &options(0.05)).unwrap();
    let items = calibration.bound.unwrap().items;
    assert_eq!((items.fit, items.selection, items.bound), (200, 200, 7600));
}

/// The true risk of the law behind `examples` from a margin on: the mean of `0.9 / (1 + exp(m))`.
fn true_risk(margin: f64) -> f64 {
    let area = |m: f64| (-m).exp().ln_1p();
    0.9 * (area(margin) - area(6.0)) / (6.0 - margin)
}

#[test]
fn the_bound_holds_in_most_draws() {
    const DRAWS: u64 = 200;
    let risk = 0.03;
    let mut violations = 0;
    for seed in 0..DRAWS {
        let calibration = run(&examples(1500, seed), &Options { seed, ..options(risk) });
        let Ok(calibration) = calibration else { continue };
        let rule = calibration.rule.as_ref().unwrap();
        let accepts = |m: f64| confidence(rule, &[2.0 * m, 0.0]) >= Some(calibration.threshold);
        let least = (0..6000u16).map(|i| f64::from(i) / 1000.0).find(|m| accepts(*m));
        violations += u32::from(least.is_some_and(|margin| true_risk(margin) > risk));
    }
    // 5 % of 200, and three standard deviations.
    assert!(violations <= 19, "{violations} of {DRAWS}");
}

#[test]
fn what_cannot_be_calibrated_says_why() {
    let check = |data: &[Example], options: &Options| run(data, options).unwrap_err().to_string();
    let good = examples(500, 1);
    let spoil = |change: fn(&mut Example)| {
        let mut data = good.clone();
        data.iter_mut().for_each(change);
        data
    };
    assert_eq!(
        check(&good, &options(0.005)),
        "with 500 accepted items no threshold can hold 0.5 %: needs >= 598"
    );
    assert_eq!(
        check(&spoil(|e| e.truth = 1), &options(0.02)),
        "all 500 items are of class 1: an edge that always says so would seem perfect"
    );
    for broken in [
        spoil(|e| e.logits[0] = f64::NAN),
        spoil(|e| e.logits.clear()),
        spoil(|e| e.truth = 2),
        spoil(|e| e.logits = vec![f64::INFINITY, 0.0]),
    ] {
        let error = check(&broken, &options(0.02));
        assert!(error.starts_with("item 0: its logits"), "{error}");
    }
    let wrong = spoil(|e| (e.truth, e.cloud) = (1 - e.edge(), 1 - e.edge()));
    let error = check(&wrong, &options(0.02));
    assert!(error.starts_with("no threshold is shown to hold 2 %: of the "), "{error}");
    for (risk, confidence) in [(0.0, 0.95), (1.0, 0.95), (f64::NAN, 0.95), (0.01, 1.0)] {
        let error = run(&good, &Options { confidence, ..options(risk) }).unwrap_err();
        assert!(matches!(error, CalibrateError::Options { .. }));
    }
}

#[test]
fn an_edge_as_good_as_the_cloud_defers_nothing() {
    let mut data = examples(2000, 4);
    data.iter_mut().for_each(|e| e.cloud = 1 - e.truth);
    let calibration = run(&data, &options(0.02)).unwrap();
    assert_eq!((calibration.threshold, calibration.deferral_rate), (0.0, 0.0));
}
