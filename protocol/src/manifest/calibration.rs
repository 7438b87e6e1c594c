//! When an edge answer is accepted, and what that is worth: the record that `outrigger model calibrate`
//! measures, and that is signed with the bundle.

use serde::{Deserialize, Serialize};

use super::InvalidManifest;
use crate::infer::Risk;

/// When an edge answer is accepted: its confidence, lowest over the items of the request, reaches the
/// threshold. How the confidence is read is [`Calibration::rule`]'s to say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// The least confidence, 0 to 1.
    pub threshold: f32,
    /// How it was chosen.
    pub method: String,
    /// On how many items, all splits together.
    pub samples: u64,
    /// The share of items that is deferred, measured on those that chose the threshold.
    pub deferral_rate: f64,
    /// How the confidence is read; the softmax of the most probable class when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<ConfidenceRule>,
    /// What is promised of accepted answers; nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bound: Option<Bound>,
    /// How well confidences match shares of right answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reliability: Option<Reliability>,
}

/// From logits to a confidence: `logistic(slope * score(logits / temperature) + offset)`, an estimate
/// of the probability that the answer is right. All of a rule is monotone in the score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfidenceRule {
    /// The score.
    pub score: Score,
    /// One temperature, or one for each class, taken by the most probable class.
    pub temperatures: Vec<f32>,
    /// Above 0.
    pub slope: f64,
    /// Any finite number.
    pub offset: f64,
}

/// What is read from the logits `z` of an item, as log-odds where it is a share. `p` is their softmax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Score {
    /// `logit(max p)`, the softmax of the most probable class.
    MaxSoftmax,
    /// The largest logit less the second: `ln(p1 / p2)`.
    Margin,
    /// `logit((1 + p1 - p2) / 2)`: the difference of the two largest shares.
    ProbabilityMargin,
    /// `logit(1 - H(p) / ln(classes))` with the entropy `H`.
    Entropy,
    /// `ln(sum(exp z))`, the free energy with its sign turned.
    Energy,
    /// Of a sequence: `logit(exp(mean over its tokens of ln max p))`.
    MeanToken,
    /// Of a sequence: `logit(min over its tokens of max p)`.
    LeastToken,
}

impl Score {
    /// Every score of one item.
    pub const OF_ITEMS: [Self; 5] =
        [Self::MaxSoftmax, Self::Margin, Self::ProbabilityMargin, Self::Entropy, Self::Energy];
    /// Every score of a sequence of tokens.
    pub const OF_SEQUENCES: [Self; 2] = [Self::MeanToken, Self::LeastToken];

    /// The name, as manifests and reports have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxSoftmax => "max-softmax",
            Self::Margin => "margin",
            Self::ProbabilityMargin => "probability-margin",
            Self::Entropy => "entropy",
            Self::Energy => "energy",
            Self::MeanToken => "mean-token",
            Self::LeastToken => "least-token",
        }
    }
}

/// With probability `confidence` over the draw of the calibration data, of the accepted answers at most
/// a share `risk` are wrong where the cloud's are right.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bound {
    /// The share, above 0 and below 1.
    pub risk: f64,
    /// Above 0 and below 1.
    pub confidence: f64,
    /// What "wrong" was judged by.
    pub truth: Truth,
    /// The threshold that keeps half the risk, for machines that compute other numbers; where it is
    /// absent, those accept nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict_threshold: Option<f32>,
    /// With the same probability, at most this share of the accepted answers differs from the cloud's;
    /// older records do not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disagreement: Option<f64>,
    /// Which items did what.
    pub items: SplitCounts,
    /// Decides which item is in which split, and the test's coin.
    pub seed: u64,
}

/// What edge answers were compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// Labels.
    Labels,
    /// The cloud's own answers: what is bounded is disagreement, not error.
    Cloud,
}

/// How many items served for what. No item serves twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitCounts {
    /// Temperatures, slope and offset.
    pub fit: u64,
    /// The choice of the score, and of the thresholds that are tested.
    pub selection: u64,
    /// The bound.
    pub bound: u64,
    /// Of those for the bound, the accepted.
    pub accepted: u64,
    /// Of the accepted, the wrong ones that the cloud gets right.
    pub errors: u64,
}

/// Confidences beside shares of right answers, on items that fitted nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reliability {
    /// Bins of equal width over the confidence from 0 to 1; empty ones are left out.
    pub bins: Vec<ReliabilityBin>,
    /// Expected calibration error of the plain softmax.
    pub ece_before: f64,
    /// The same of the rule.
    pub ece_after: f64,
}

/// One bin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReliabilityBin {
    /// Mean confidence.
    pub confidence: f64,
    /// Share of right answers.
    pub accuracy: f64,
    /// How many items.
    pub items: u64,
}

/// What a device does by a calibration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Acceptance {
    /// The least confidence of an accepted answer; infinite where none is accepted.
    pub threshold: f32,
    /// What is promised of accepted answers.
    pub risk: Risk,
}

impl Calibration {
    /// A bare threshold on the softmax of the most probable class, without a bound.
    pub fn bare(threshold: f32, method: &str, samples: u64, deferral_rate: f64) -> Self {
        let method = method.to_owned();
        let (rule, bound, reliability) = (None, None, None);
        Self { threshold, method, samples, deferral_rate, rule, bound, reliability }
    }

    /// What a device does. The bound is about the numbers that were calibrated: where this machine
    /// computes others (`same_numbers` is false), nothing is promised and the stricter threshold holds.
    pub fn acceptance(&self, same_numbers: bool) -> Acceptance {
        let threshold = match &self.bound {
            Some(bound) if !same_numbers => bound.strict_threshold.unwrap_or(f32::INFINITY),
            _ => self.threshold,
        };
        let risk = match &self.bound {
            Some(bound) if same_numbers => Risk::AtMost(bound.risk),
            _ => Risk::Unverified,
        };
        Acceptance { threshold, risk }
    }

    /// Refuses numbers that cannot be.
    pub(super) fn check(&self) -> Result<(), InvalidManifest> {
        let refuse = |text: &str| Err(InvalidManifest::Contradiction(text.to_owned()));
        let share = |x: f32| (0.0..=1.0).contains(&x); // NaN fails it
        let strict = self.bound.as_ref().and_then(|bound| bound.strict_threshold);
        if !share(self.threshold) || strict.is_some_and(|t| !share(t) || t < self.threshold) {
            return refuse("a threshold must lie in 0..1, and the stricter not below the other");
        }
        if self.rule.as_ref().is_some_and(|rule| !rule.is_possible()) {
            return refuse("temperatures and slope must be finite and above 0, the offset finite");
        }
        if self.bound.as_ref().is_some_and(|bound| !bound.is_possible()) {
            return refuse("risk, confidence and disagreement of a bound must lie between 0 and 1");
        }
        Ok(())
    }
}

impl Bound {
    /// The share of accepted answers that differs from the cloud's, at most.
    pub fn disagreement(&self) -> Option<f64> {
        let by_cloud = (self.truth == Truth::Cloud).then_some(self.risk);
        self.disagreement.or(by_cloud)
    }

    fn is_possible(&self) -> bool {
        let open = |x: f64| x > 0.0 && x < 1.0;
        let differ = self.disagreement.is_none_or(|share| share > 0.0 && share <= 1.0);
        open(self.risk) && open(self.confidence) && differ
    }
}

impl ConfidenceRule {
    fn is_possible(&self) -> bool {
        let positive = |x: f64| x > 0.0 && x.is_finite();
        !self.temperatures.is_empty()
            && self.temperatures.iter().all(|t| positive(f64::from(*t)))
            && positive(self.slope)
            && self.offset.is_finite()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounded() -> Calibration {
        let items = SplitCounts { fit: 1, selection: 1, bound: 8, accepted: 7, errors: 0 };
        Calibration {
            rule: Some(ConfidenceRule {
                score: Score::Margin,
                temperatures: vec![1.5],
                slope: 1.0,
                offset: 0.0,
            }),
            bound: Some(Bound {
                risk: 0.01,
                confidence: 0.95,
                truth: Truth::Labels,
                strict_threshold: Some(0.95),
                disagreement: Some(0.03),
                items,
                seed: 7,
            }),
            ..Calibration::bare(0.9, "m", 10, 0.1)
        }
    }

    #[test]
    fn a_bare_threshold_of_before_still_parses_and_promises_nothing() {
        let text = r#"{"threshold":0.8,"method":"fixed","samples":1000,"deferral_rate":0.1}"#;
        let old: Calibration = serde_json::from_str(text).unwrap();
        assert_eq!(old, Calibration::bare(0.8, "fixed", 1000, 0.1));
        assert_eq!(serde_json::to_string(&old).unwrap(), text);
        for same in [true, false] {
            let expected = Acceptance { threshold: 0.8, risk: Risk::Unverified };
            assert_eq!(old.acceptance(same), expected);
        }
    }

    #[test]
    fn other_numbers_take_the_bound_away_and_the_stricter_rule_holds() {
        let here = bounded().acceptance(true);
        assert_eq!(here, Acceptance { threshold: 0.9, risk: Risk::AtMost(0.01) });
        let elsewhere = bounded().acceptance(false);
        assert_eq!(elsewhere, Acceptance { threshold: 0.95, risk: Risk::Unverified });
        let mut without = bounded();
        without.bound.as_mut().unwrap().strict_threshold = None;
        assert_eq!(without.acceptance(false).threshold, f32::INFINITY);
    }

    #[test]
    fn answers_differ_no_more_often_than_was_measured_or_than_the_risk_where_the_cloud_judged() {
        let mut bound = bounded().bound.unwrap();
        assert_eq!(bound.disagreement(), Some(0.03));
        bound.disagreement = None;
        assert_eq!(bound.disagreement(), None, "labels say nothing of it");
        bound.truth = Truth::Cloud;
        assert_eq!(bound.disagreement(), Some(0.01));
    }

    #[test]
    fn impossible_numbers_are_refused() {
        assert_eq!(bounded().check(), Ok(()));
        let spoilt: [fn(&mut Calibration); 9] = [
            |c| c.threshold = f32::NAN,
            |c| c.bound.as_mut().unwrap().strict_threshold = Some(0.5),
            |c| c.bound.as_mut().unwrap().risk = 0.0,
            |c| c.bound.as_mut().unwrap().confidence = 1.0,
            |c| c.bound.as_mut().unwrap().disagreement = Some(f64::NAN),
            |c| c.rule.as_mut().unwrap().temperatures.clear(),
            |c| c.rule.as_mut().unwrap().temperatures[0] = 0.0,
            |c| c.rule.as_mut().unwrap().slope = -1.0,
            |c| c.rule.as_mut().unwrap().offset = f64::INFINITY,
        ];
        for spoil in spoilt {
            let mut calibration = bounded();
            spoil(&mut calibration);
            assert!(calibration.check().is_err(), "{calibration:?}");
        }
    }
}
