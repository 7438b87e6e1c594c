//! Chooses from which confidence on an edge answer is accepted, with a bound on what that may cost.
//!
//! [`calibrate`] cuts its examples into three splits, and no example serves twice: on the first it fits
//! the temperature and each score's map to a confidence (`fit`), on the second it chooses the score
//! (`select`), on the third it tests thresholds ([`learn_then_test`], [`binomial`]), from a start that
//! the others have chosen (`sequence`). So with the stated probability over the draw of the examples, of
//! the answers that the rule accepts at most a share `risk` are wrong where the cloud's are right. That
//! holds for inputs like the examples, whatever the models are. How many accepted answers *differ* from
//! the cloud's, all that a device can see, is bounded from the same items (`disagreement`).
//!
//! Scores of one model order its answers nearly alike, so that choosing among them gains less than the
//! bound loses with fewer items. So with fewer than [`CHOICE_MIN`] examples nothing is chosen: the score
//! is `select::STANDARD`, a twentieth fits its map and chooses the start, and the rest is for the bound.
//! From there on a fortieth fits, and a fortieth chooses. [`empirical`] is the rule without a bound.

use protocol::manifest::{
    Bound, Calibration, ConfidenceRule, Reliability, Score, SplitCounts, Truth,
};

use crate::confidence::{confidence_of, largest, top};

pub mod binomial;
mod disagreement;
pub mod empirical;
mod fit;
pub mod learn_then_test;
pub mod random;
mod reliability;
mod select;
mod sequence;

use learn_then_test::{Outcomes, Test, Tested, fixed_sequence};
use random::Random;

/// How a bounded threshold was chosen, as manifests record it.
pub const METHOD: &str = "learn then test over a fixed sequence of thresholds (arXiv:2110.01052) with \
                          exact randomised binomial tests (Stevens 1950)";

/// With fewer examples the score is not chosen.
pub const CHOICE_MIN: usize = 8000;

/// One item, answered by both variants.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The edge's logits; of a sequence those of each token in turn.
    pub logits: Vec<f64>,
    /// Absent for an item of one class.
    pub sequence: Option<Sequence>,
    /// The class that counts as right: the label, or the cloud's for [`Truth::Cloud`].
    pub truth: usize,
    /// The cloud's class; of a sequence the number of what the cloud spells.
    pub cloud: usize,
}

/// What makes a sequence of tokens an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sequence {
    /// Classes of each token.
    pub classes: usize,
    /// The number of what the edge spells: the same for the same text, whoever spells it.
    pub spells: usize,
}

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// The largest share of accepted answers that may be wrong where the cloud is right.
    pub risk: f64,
    /// With which probability that must hold.
    pub confidence: f64,
    /// What the examples' `truth` is.
    pub truth: Truth,
    /// Decides which example is in which split, and the test's coin. One and the same for the same data:
    /// whoever tries seeds until a rule pleases has no bound.
    pub seed: u64,
}

/// Why there is no rule.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CalibrateError {
    /// A risk or confidence outside 0..1.
    #[error("risk and confidence lie between 0 and 1, not {risk} and {confidence}")]
    Options {
        /// The risk.
        risk: f64,
        /// The confidence.
        confidence: f64,
    },
    /// Too few examples, even if all were accepted and right.
    #[error(
        "with {accepted} accepted items no threshold can hold {}: needs >= {needed}",
        percent(*risk)
    )]
    TooFew {
        /// How many are left for the bound.
        accepted: usize,
        /// The risk.
        risk: f64,
        /// How many there must be at least, none of them wrong.
        needed: u64,
    },
    /// All examples have the same right class.
    #[error(
        "all {items} items are of class {class}: an edge that always says so would seem perfect"
    )]
    OneClass {
        /// How many.
        items: usize,
        /// The class.
        class: usize,
    },
    /// Logits that no score can be read from, or a class that they do not have.
    #[error("item {item}: its logits are NaN, infinite or none, or its class is none of theirs")]
    Logits {
        /// Which, from 0.
        item: usize,
    },
    /// Even the strictest threshold is not shown to keep the risk.
    #[error(
        "no threshold is shown to hold {}: of the {accepted} surest items {errors} are wrong where the \
         cloud is right",
        percent(*risk)
    )]
    Refuted {
        /// The risk.
        risk: f64,
        /// How many the strictest tested threshold accepts.
        accepted: u64,
        /// How many of them are errors.
        errors: u64,
    },
}

impl CalibrateError {
    /// What the person can do now.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Options { .. } => "for example --risk 0.01 --confidence 0.95",
            Self::TooFew { .. } => "give more calibration data, or allow a larger risk",
            Self::OneClass { .. } => "give data of all classes, as the application will see them",
            Self::Logits { .. } => "look at what the model says to that item",
            Self::Refuted { .. } => "allow a larger risk, give more data, or a better edge model",
        }
    }
}

fn percent(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

impl Example {
    /// The edge's class, or the number of what it spells.
    pub fn edge(&self) -> usize {
        let class = || largest(&self.logits).map_or(0, |(class, _)| class);
        self.sequence.map_or_else(class, |sequence| sequence.spells)
    }

    /// Classes of the item, or of each token.
    fn classes(&self) -> usize {
        self.sequence.map_or(self.logits.len(), |sequence| sequence.classes)
    }

    /// How sure a rule is of it.
    fn confidence(&self, rule: &ConfidenceRule) -> f32 {
        confidence_of(rule, &self.logits, self.classes()).unwrap_or(0.0)
    }

    fn is_readable(&self) -> bool {
        let known = self.sequence.is_some() || self.logits.len() > self.truth.max(self.cloud);
        let mut tokens = self.logits.chunks(self.classes().max(1));
        known && !self.logits.is_empty() && tokens.all(|token| largest(token).is_some())
    }

    /// Whether the edge is right.
    pub fn is_right(&self) -> bool {
        self.edge() == self.truth
    }

    /// The softmax of the edge's class; of a sequence the geometric mean over its tokens.
    pub fn plain_confidence(&self) -> f32 {
        if self.sequence.is_some() {
            return self.confidence(&plain(Score::MeanToken));
        }
        top(&self.logits).map_or(f32::NAN, |top| top.confidence)
    }

    /// Whether accepting the edge's answer is an error: the cloud would have done better.
    pub fn is_error(&self) -> bool {
        !self.is_right() && self.cloud == self.truth
    }
}

/// The three splits.
struct Splits<'e> {
    fit: &'e [&'e Example],
    selection: &'e [&'e Example],
    bound: &'e [&'e Example],
}

impl<'e> Splits<'e> {
    /// A twentieth for the fit, or a fortieth each for fit and selection; 100 to 1,000, but not more
    /// than an eighth.
    fn cut(examples: &'e [&'e Example]) -> Self {
        let chooses = examples.len() >= CHOICE_MIN;
        let share = examples.len() / if chooses { 40 } else { 20 };
        let small = share.max(100.min(examples.len() / 8)).min(1000);
        let (fit, rest) = examples.split_at(small);
        let (selection, bound) = rest.split_at(if chooses { small } else { 0 });
        Self { fit, selection, bound }
    }
}

/// A rule with its bound.
///
/// # Errors
/// [`CalibrateError`].
pub fn calibrate(examples: &[&Example], options: &Options) -> Result<Calibration, CalibrateError> {
    check(examples, options)?;
    let mut random = Random::new(options.seed);
    let mut shuffled = examples.to_vec();
    random.shuffle(&mut shuffled);
    let test = Test::Stevens { coin: random.share() };
    let splits = Splits::cut(&shuffled);
    check_enough(splits.bound.len(), options)?;

    let rule = select::rule(splits.fit, splits.selection);
    let known = outcomes(&rule, splits.fit.iter().chain(splits.selection));
    let measured = outcomes(&rule, splits.bound.iter());
    let sequence =
        |risk: f64| sequence::thresholds(&known, splits.bound.len(), (risk, options.confidence));
    let find = |risk: f64, thresholds: &[f32]| {
        let found = fixed_sequence(&measured, thresholds, test, (risk, options.confidence));
        found.ok_or_else(|| refuted(&measured, thresholds, risk))
    };
    let thresholds = sequence(options.risk);
    let found = find(options.risk, &thresholds)?;
    let half = options.risk / 2.0;
    let strict = find(half, &sequence(half)).ok().map(|t| t.threshold.max(found.threshold));
    let differing = disagreement::bound(&rule, splits.bound, &thresholds, found, options);
    Ok(Calibration {
        deferral_rate: 1.0 - binomial::as_f64(found.accepted) / splits.bound.len() as f64,
        bound: Some(bound(options, &splits, found, (strict, differing))),
        reliability: Some(reliability_of(&rule, splits.bound)),
        rule: Some(rule),
        ..Calibration::bare(found.threshold, METHOD, examples.len() as u64, 0.0)
    })
}

fn bound(
    options: &Options,
    splits: &Splits<'_>,
    found: Tested,
    (strict_threshold, disagreement): (Option<f32>, f64),
) -> Bound {
    let items = SplitCounts {
        fit: splits.fit.len() as u64,
        selection: splits.selection.len() as u64,
        bound: splits.bound.len() as u64,
        accepted: found.accepted,
        errors: found.errors,
    };
    let Options { risk, confidence, truth, seed } = *options;
    let disagreement = Some(disagreement);
    Bound { risk, confidence, truth, strict_threshold, disagreement, items, seed }
}

fn check(examples: &[&Example], options: &Options) -> Result<(), CalibrateError> {
    let &Options { risk, confidence, .. } = options;
    let open = |x: f64| x > 0.0 && x < 1.0;
    if !(open(risk) && open(confidence)) {
        return Err(CalibrateError::Options { risk, confidence });
    }
    if let Some(item) = examples.iter().position(|e| !e.is_readable()) {
        return Err(CalibrateError::Logits { item });
    }
    check_enough(examples.len(), options)?;
    let class = examples.first().map_or(0, |e| e.truth);
    if examples.iter().all(|e| e.truth == class) {
        return Err(CalibrateError::OneClass { items: examples.len(), class });
    }
    Ok(())
}

fn check_enough(accepted: usize, options: &Options) -> Result<(), CalibrateError> {
    let needed = binomial::fewest_without_error(options.risk, options.confidence);
    match accepted as u64 >= needed {
        true => Ok(()),
        false => Err(CalibrateError::TooFew { accepted, risk: options.risk, needed }),
    }
}

fn refuted(measured: &Outcomes, thresholds: &[f32], risk: f64) -> CalibrateError {
    let first = measured.at(thresholds.first().copied().unwrap_or(0.0));
    CalibrateError::Refuted { risk, accepted: first.accepted, errors: first.errors }
}

/// What a rule says to each example, and which are errors.
fn outcomes<'e>(
    rule: &ConfidenceRule,
    examples: impl Iterator<Item = &'e &'e Example>,
) -> Outcomes {
    Outcomes::new(examples.map(|e| (e.confidence(rule), e.is_error())))
}

fn reliability_of(rule: &ConfidenceRule, examples: &[&Example]) -> Reliability {
    let item = |e: &&Example| (e.plain_confidence(), e.confidence(rule), e.is_right());
    reliability::reliability(&examples.iter().map(item).collect::<Vec<_>>())
}

/// A score's rule before anything is fitted.
fn plain(score: Score) -> ConfidenceRule {
    ConfidenceRule { score, temperatures: vec![1.0], slope: 1.0, offset: 0.0 }
}

#[cfg(test)]
mod tests;
