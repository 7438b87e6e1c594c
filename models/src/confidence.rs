//! How sure a classifier is: what its calibration's rule reads from the logits, or the softmax of its
//! most probable class; and which its most probable classes are.

use protocol::manifest::{Classes, ConfidenceRule, LABEL_OUTPUT, PROBABILITY_OUTPUT};
use protocol::tensor::{InvalidTensor, Tensor};

use crate::error::RunError;
use crate::numbers;

mod score;
pub(crate) use score::logistic;
pub use score::{confidence, score, sequence_score};

/// Reads the confidence and the label from a classifier's logits.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassReader {
    /// The output `[n, classes]` with the logits.
    pub logits: String,
    /// The labels in class order; empty when there are none.
    pub labels: Vec<String>,
    /// How many classes the labels and probabilities tell, at least 1.
    pub top_k: usize,
    /// How the confidence is read; the softmax of the most probable class when absent.
    pub rule: Option<ConfidenceRule>,
}

/// What a classifier said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reading {
    /// The lowest confidence over the items, 0 to 1; `None` for a batch of none.
    pub confidence: Option<f32>,
    /// The most probable class's label, for a batch of one and a labelled model.
    pub label: Option<String>,
}

/// The most probable class of one item.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Top {
    /// The class; the first of equals.
    pub class: usize,
    /// Its softmax, or what a rule makes of the logits, 0 to 1.
    pub confidence: f32,
}

impl ClassReader {
    /// A reader for a manifest's classes.
    pub fn new(classes: &Classes, labels: Vec<String>, rule: Option<ConfidenceRule>) -> Self {
        let top_k = classes.top_k.unwrap_or(1).max(1) as usize;
        Self { logits: classes.logits.clone(), labels, top_k, rule }
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// As [`top_classes`].
    pub fn read(&self, logits: &Tensor) -> Result<Reading, RunError> {
        let tops = top_classes_by(logits, self.rule.as_ref())?;
        let label = match tops.as_slice() {
            [only] => self.labels.get(only.class).cloned(),
            _ => None,
        };
        Ok(Reading { confidence: tops.iter().map(|t| t.confidence).reduce(f32::min), label })
    }

    /// The labels of the `k` most probable classes of each item, `BYTES` `[n,k]`, most probable
    /// first; a class without a label is its number.
    ///
    /// # Errors
    /// As [`top_classes`].
    pub fn label_tensor(&self, logits: &Tensor) -> Result<Tensor, RunError> {
        let (shape, best) = self.best(logits)?;
        let label = |top: &Top| match self.labels.get(top.class) {
            Some(label) => label.clone(),
            None => top.class.to_string(),
        };
        let labels: Vec<String> = best.iter().map(label).collect();
        Tensor::from_byte_strings(LABEL_OUTPUT, shape, &labels).map_err(|e| failed(&e))
    }

    /// The probabilities of those classes, `FP32` `[n,k]`.
    ///
    /// # Errors
    /// As [`top_classes`].
    pub fn probability_tensor(&self, logits: &Tensor) -> Result<Tensor, RunError> {
        let (shape, best) = self.best(logits)?;
        let values: Vec<f32> = best.iter().map(|top| top.confidence).collect();
        Tensor::from_f32(PROBABILITY_OUTPUT, shape, &values).map_err(|e| failed(&e))
    }

    /// `[n,k]` and the most probable classes of each item, one item after the other.
    fn best(&self, logits: &Tensor) -> Result<(Vec<i64>, Vec<Top>), RunError> {
        let (classes, items) = items_of(logits)?;
        let k = self.top_k.min(classes);
        let not_a_number = || RunError::NotANumber(logits.name().to_owned());
        let mut best = Vec::new();
        for item in items.chunks(classes) {
            let mut all = shares(item).ok_or_else(not_a_number)?;
            all.sort_by(|a, b| b.confidence.total_cmp(&a.confidence)); // stable: first of equals
            best.extend_from_slice(&all[..k]);
        }
        Ok((vec![logits.shape()[0], i64::try_from(k).unwrap_or(i64::MAX)], best))
    }
}

fn failed(error: &InvalidTensor) -> RunError {
    RunError::Failed(error.to_string())
}

/// The most probable class of each item of logits `[n, classes]`, of any numeric datatype.
///
/// # Errors
/// [`RunError::NotANumber`] for NaN or infinity, [`RunError::Failed`] for another shape.
pub fn top_classes(logits: &Tensor) -> Result<Vec<Top>, RunError> {
    top_classes_by(logits, None)
}

/// The same, with the confidence as a rule reads it.
fn top_classes_by(logits: &Tensor, rule: Option<&ConfidenceRule>) -> Result<Vec<Top>, RunError> {
    let (classes, values) = items_of(logits)?;
    let not_a_number = || RunError::NotANumber(logits.name().to_owned());
    let read = |item: &[f64]| match rule {
        None => top(item),
        Some(rule) => Some(Top { class: largest(item)?.0, confidence: confidence(rule, item)? }),
    };
    values.chunks(classes).map(|item| read(item).ok_or_else(not_a_number)).collect()
}

/// The logits of each item of `[n, classes]`, for whoever calibrates.
///
/// # Errors
/// As [`top_classes`].
pub fn rows(logits: &Tensor) -> Result<Vec<Vec<f64>>, RunError> {
    let (classes, values) = items_of(logits)?;
    Ok(values.chunks(classes).map(<[f64]>::to_vec).collect())
}

/// The share of items whose most probable class differs; nothing where the two are no logits of
/// the same items.
pub fn disagreement(one: &Tensor, other: &Tensor) -> Option<f64> {
    let (one, other) = (top_classes(one).ok()?, top_classes(other).ok()?);
    if one.len() != other.len() || one.is_empty() {
        return None;
    }
    let differ = one.iter().zip(&other).filter(|(a, b)| a.class != b.class).count();
    Some(differ as f64 / one.len() as f64)
}

/// How many classes there are, and the logits of all items.
fn items_of(logits: &Tensor) -> Result<(usize, Vec<f64>), RunError> {
    let values = numbers::to_f64(logits);
    let (Some(values), &[_, 1..=i64::MAX]) = (values, logits.shape()) else {
        let text = format!("the logits {:?} are not numbers [n, classes]", logits.name());
        return Err(RunError::Failed(text));
    };
    Ok((usize::try_from(logits.shape()[1]).unwrap_or(usize::MAX), values))
}

/// Softmax of the largest logit, `1 / sum(exp(x - max))`, which cannot overflow. A logit of
/// negative infinity is a class that is ruled out. `None` where there is no softmax.
#[allow(clippy::cast_possible_truncation)] // a share of 1 rounds well
pub(crate) fn top(logits: &[f64]) -> Option<Top> {
    let (class, max) = largest(logits)?;
    let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
    Some(Top { class, confidence: (1.0 / sum) as f32 })
}

/// The softmax of every class, under the same rules.
#[allow(clippy::cast_possible_truncation)] // shares of 1 round well
fn shares(logits: &[f64]) -> Option<Vec<Top>> {
    let (_, max) = largest(logits)?;
    let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
    let share =
        |(class, x): (usize, &f64)| Top { class, confidence: ((x - max).exp() / sum) as f32 };
    Some(logits.iter().enumerate().map(share).collect())
}

/// The first of the largest logits; `None` for NaN, and where the largest is infinite.
pub(crate) fn largest(logits: &[f64]) -> Option<(usize, f64)> {
    let (mut class, mut max) = (0, f64::NEG_INFINITY);
    for (index, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if logit > max {
            (class, max) = (index, logit);
        }
    }
    max.is_finite().then_some((class, max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: &[i64], values: &[f32]) -> Result<Reading, RunError> {
        let labels = vec!["cat".to_owned(), "dog".to_owned()];
        let reader = ClassReader { logits: "y".into(), labels, top_k: 1, rule: None };
        reader.read(&Tensor::from_f32("y", shape.to_vec(), values).unwrap())
    }

    #[test]
    fn one_item_has_a_label() {
        let reading = check(&[1, 2], &[0.0, 3f32.ln()]).unwrap();
        assert_eq!(reading.label.as_deref(), Some("dog"));
        assert!((reading.confidence.unwrap() - 0.75).abs() < 1e-6);
    }

    #[test]
    fn a_batch_is_as_sure_as_its_least_sure_item() {
        let reading = check(&[3, 2], &[9.0, 0.0, 1.0, 1.0, 0.0, 9.0]).unwrap();
        assert_eq!(reading, Reading { confidence: Some(0.5), label: None });
        assert_eq!(check(&[0, 2], &[]).unwrap(), Reading::default());
    }

    #[test]
    fn a_rule_reads_the_confidence_and_the_label_stays() {
        let rule = ConfidenceRule {
            score: protocol::manifest::Score::Margin,
            temperatures: vec![2.0],
            slope: 1.0,
            offset: 0.5,
        };
        let labels = vec!["cat".to_owned(), "dog".to_owned()];
        let reader = ClassReader { logits: "y".into(), labels, top_k: 1, rule: Some(rule) };
        let reading =
            reader.read(&Tensor::from_f32("y", vec![1, 2], &[0.0, 3.0]).unwrap()).unwrap();
        let expected = 1.0 / (1.0 + f64::exp(-2.0));
        assert_eq!(reading.label.as_deref(), Some("dog"));
        assert!((f64::from(reading.confidence.unwrap()) - expected).abs() < 1e-6);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        for values in [[1e30, -1e30], [3e38, 3e37], [0.0, f32::NEG_INFINITY]] {
            assert_eq!(check(&[1, 2], &values).unwrap().confidence, Some(1.0), "{values:?}");
        }
    }

    #[test]
    fn the_most_probable_classes_come_first() {
        let reader = |top_k| {
            let labels = vec!["cat".into()];
            ClassReader { logits: "y".into(), labels, top_k, rule: None }
        };
        let logits = Tensor::from_f32("y", vec![2, 3], &[0.0, 3f32.ln(), 0.0, 5.0, 5.0, -9e9]);
        let logits = logits.unwrap();
        let labels = |k| {
            let tensor = reader(k).label_tensor(&logits).unwrap();
            let texts = tensor.byte_elements().map(|b| String::from_utf8(b.to_vec()).unwrap());
            (tensor.shape().to_vec(), texts.collect::<Vec<_>>().join(" "))
        };
        assert_eq!(labels(1), (vec![2, 1], "1 cat".to_owned()));
        assert_eq!(labels(2), (vec![2, 2], "1 cat cat 1".to_owned()));
        assert_eq!(labels(9), (vec![2, 3], "1 cat 2 cat 1 2".to_owned()));
        let shares = reader(3).probability_tensor(&logits).unwrap().to_f32().unwrap();
        for (share, expected) in shares.iter().zip([0.6, 0.2, 0.2, 0.5, 0.5, 0.0]) {
            assert!((share - expected).abs() < 1e-6, "{shares:?}");
        }
    }

    #[test]
    fn what_has_no_softmax_is_an_error() {
        let infinite = [f32::INFINITY, 0.0];
        for values in [[f32::NAN, 1.0], [1.0, f32::NAN], infinite, [f32::NEG_INFINITY; 2]] {
            assert_eq!(check(&[1, 2], &values), Err(RunError::NotANumber("y".into())));
        }
        for shape in [vec![2], vec![1, 2, 1], vec![2, 0]] {
            let len = usize::try_from(shape.iter().product::<i64>()).unwrap();
            assert!(matches!(check(&shape, &vec![0.0; len]), Err(RunError::Failed(_))));
        }
    }
}
