//! The scores of a calibration rule, and the rule's confidence.
//!
//! Shares are turned into log-odds where they are computed, from the logits and without `1 - p`: a
//! share near 1 would lose all that tells two sure answers apart. Sources: maximum softmax, Hendrycks
//! and Gimpel (arXiv:1610.02136); energy, Liu et al. (arXiv:2010.03759); temperature, Guo et al.
//! (arXiv:1706.04599); token scores of sequences, Malinin and Gales (arXiv:2002.07650).

use protocol::manifest::{ConfidenceRule, Score};

use super::largest;

/// The calibrated confidence of one item, 0 to 1; `None` where the logits have no softmax.
pub fn confidence(rule: &ConfidenceRule, logits: &[f64]) -> Option<f32> {
    confidence_of(rule, logits, logits.len())
}

/// The same of an item, or of a sequence of tokens that have so many classes each.
#[allow(clippy::cast_possible_truncation)] // thresholds are f32 too
pub fn confidence_of(rule: &ConfidenceRule, logits: &[f64], classes: usize) -> Option<f32> {
    let (class, _) = largest(logits)?;
    let temperature = temperature(&rule.temperatures, class);
    let score = score_of(rule.score, logits, classes, temperature)?;
    Some(logistic(rule.slope * score + rule.offset) as f32)
}

/// A score of one item, or of a sequence of tokens that have so many classes each.
pub(crate) fn score_of(
    kind: Score,
    logits: &[f64],
    classes: usize,
    temperature: f64,
) -> Option<f64> {
    match Score::OF_SEQUENCES.contains(&kind) {
        true => sequence_score(kind, logits.chunks(classes.max(1)), temperature),
        false => score(kind, logits, temperature),
    }
}

/// `1 / (1 + exp(-x))`, for infinite `x` too.
pub(crate) fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// That of the most probable class; of one for all.
fn temperature(temperatures: &[f32], class: usize) -> f64 {
    f64::from(temperatures.get(class).or(temperatures.first()).copied().unwrap_or(1.0))
}

/// A score of one item; more is surer. `None` where the logits have no softmax, for scores of
/// sequences, and for a score that is no number.
pub fn score(score: Score, logits: &[f64], temperature: f64) -> Option<f64> {
    let (class, max) = largest(logits)?;
    let shifted = Shifted::new(logits, class, max, temperature);
    let value = match score {
        Score::MaxSoftmax => shifted.max_softmax(),
        Score::Margin => shifted.margin(),
        Score::ProbabilityMargin => shifted.probability_margin(),
        Score::Entropy => shifted.entropy(),
        Score::Energy => max / temperature + shifted.others.ln_1p(),
        Score::MeanToken | Score::LeastToken => return None,
    };
    (!value.is_nan()).then_some(value)
}

/// A score of a sequence, from the logits of each of its tokens; more is surer, and the length does
/// not count. `None` for a sequence without tokens, a token without a softmax, and scores of items.
pub fn sequence_score<'t>(
    score: Score,
    tokens: impl Iterator<Item = &'t [f64]>,
    temperature: f64,
) -> Option<f64> {
    let (mut sum, mut least, mut count) = (0.0, 0.0f64, 0u32);
    for logits in tokens {
        let (class, max) = largest(logits)?;
        let log_share = -Shifted::new(logits, class, max, temperature).others.ln_1p();
        sum += log_share;
        least = least.min(log_share);
        count += 1;
    }
    if count == 0 {
        return None;
    }
    match score {
        Score::MeanToken => Some(log_odds(sum / f64::from(count))),
        Score::LeastToken => Some(log_odds(least)),
        _ => None,
    }
}

/// `logit(exp(l))` of a logarithm of a share.
fn log_odds(log_share: f64) -> f64 {
    log_share - (-log_share.exp_m1()).ln()
}

/// `exp((z - max) / temperature)`, in sums: the most probable class has 1.
struct Shifted<'l> {
    logits: &'l [f64],
    class: usize,
    max: f64,
    temperature: f64,
    /// The sum over all classes but the most probable.
    others: f64,
}

impl<'l> Shifted<'l> {
    fn new(logits: &'l [f64], class: usize, max: f64, temperature: f64) -> Self {
        let mut new = Self { logits, class, max, temperature, others: 0.0 };
        new.others = new.rest().map(f64::exp).sum();
        new
    }

    /// `(z - max) / temperature` of all classes but the most probable.
    fn rest(&self) -> impl Iterator<Item = f64> + '_ {
        let rest = self.logits.iter().enumerate().filter(|(index, _)| *index != self.class);
        rest.map(|(_, logit)| (logit - self.max) / self.temperature)
    }

    fn max_softmax(&self) -> f64 {
        -self.others.ln()
    }

    fn margin(&self) -> f64 {
        -self.rest().fold(f64::NEG_INFINITY, f64::max)
    }

    /// `(1 + d) / (1 - d)` with `d = (1 - second) / sum`.
    fn probability_margin(&self) -> f64 {
        let second = (-self.margin()).exp();
        ((2.0 + self.others - second) / (self.others + second)).ln()
    }

    /// With `l = (z - max) / temperature` and `s = sum(exp l)`: `H = ln s - sum(l exp l) / s`.
    fn entropy(&self) -> f64 {
        let classes = f64::from(u32::try_from(self.logits.len()).unwrap_or(u32::MAX));
        let weighted: f64 =
            self.rest().filter(|l| *l > f64::NEG_INFINITY).map(|l| l * l.exp()).sum();
        let entropy = self.others.ln_1p() - weighted / (1.0 + self.others);
        if entropy <= 0.0 {
            return f64::INFINITY;
        }
        ((classes.ln() - entropy).max(0.0) / entropy).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn softmax(logits: &[f64]) -> Vec<f64> {
        let sum: f64 = logits.iter().map(|z| z.exp()).sum();
        let mut shares: Vec<f64> = logits.iter().map(|z| z.exp() / sum).collect();
        shares.sort_by(|a, b| b.total_cmp(a));
        shares
    }

    fn logit(p: f64) -> f64 {
        (p / (1.0 - p)).ln()
    }

    /// The definitions, written as the manifest has them.
    fn by_definition(kind: Score, logits: &[f64]) -> f64 {
        let p = softmax(logits);
        let entropy: f64 = p.iter().map(|p| -p * p.ln()).sum();
        match kind {
            Score::MaxSoftmax => logit(p[0]),
            Score::Margin => (p[0] / p[1]).ln(),
            Score::ProbabilityMargin => logit(f64::midpoint(1.0, p[0] - p[1])),
            Score::Entropy => logit(1.0 - entropy / (p.len() as f64).ln()),
            _ => logits.iter().map(|z| z.exp()).sum::<f64>().ln(),
        }
    }

    #[test]
    fn scores_are_what_the_manifest_says() {
        let cases = [vec![1.0, -0.5], vec![0.3, 2.0, -1.0], vec![4.0, 3.9, 0.0, -2.0, 1.0]];
        for logits in &cases {
            for kind in Score::OF_ITEMS {
                for temperature in [1.0, 2.5] {
                    let cooled: Vec<f64> = logits.iter().map(|z| z / temperature).collect();
                    let (found, expected) =
                        (score(kind, logits, temperature).unwrap(), by_definition(kind, &cooled));
                    assert!((found - expected).abs() < 1e-9, "{kind:?} {logits:?} {temperature}");
                }
            }
        }
    }

    #[test]
    fn nothing_overflows_and_sure_answers_stay_apart() {
        for kind in Score::OF_ITEMS {
            for logits in [vec![1e300, -1e300], vec![0.0, f64::NEG_INFINITY], vec![3.0]] {
                assert!(score(kind, &logits, 1.0).is_some(), "{kind:?} {logits:?}");
            }
            assert_eq!(score(kind, &[f64::NAN, 1.0], 1.0), None);
            assert_eq!(score(kind, &[], 1.0), None);
            let (sure, surer) = (score(kind, &[50.0, 0.0], 1.0), score(kind, &[60.0, 0.0], 1.0));
            assert!(sure < surer, "{kind:?}");
        }
        for kind in Score::OF_SEQUENCES {
            assert_eq!(score(kind, &[1.0, 0.0], 1.0), None);
        }
    }

    #[test]
    fn sequences_are_as_sure_as_their_tokens_whatever_their_length() {
        let (sure, doubtful): (&[f64], &[f64]) = (&[3.0, 0.0], &[0.5, 0.0]);
        let read = |kind, tokens: &[&[f64]]| sequence_score(kind, tokens.iter().copied(), 1.0);
        let one = read(Score::MeanToken, &[sure]).unwrap();
        let many = read(Score::MeanToken, &[sure; 9]).unwrap();
        assert!((one - 3.0).abs() < 1e-9 && (one - many).abs() < 1e-9, "{one} {many}");
        let least = read(Score::LeastToken, &[sure, doubtful, sure]).unwrap();
        assert!((least - 0.5).abs() < 1e-9);
        let mean = read(Score::MeanToken, &[sure, doubtful]).unwrap();
        let shares = (logistic(3.0) * logistic(0.5)).sqrt();
        assert!((logistic(mean) - shares).abs() < 1e-9);
        assert_eq!(read(Score::MeanToken, &[]), None);
        assert_eq!(read(Score::Margin, &[sure]), None);
        assert_eq!(read(Score::LeastToken, &[sure, &[f64::NAN, 0.0]]), None);
    }

    #[test]
    fn the_plain_rule_is_the_softmax() {
        let plain = ConfidenceRule {
            score: Score::MaxSoftmax,
            temperatures: vec![1.0],
            slope: 1.0,
            offset: 0.0,
        };
        let logits = [0.2, 1.7, -3.0];
        let read = confidence(&plain, &logits).unwrap();
        assert!((f64::from(read) - softmax(&logits)[0]).abs() < 1e-7);
        let by_class = ConfidenceRule { temperatures: vec![9.0, 1.0, 9.0], ..plain };
        assert_eq!(confidence(&by_class, &logits), Some(read));
    }
}
