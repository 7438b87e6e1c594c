//! How sure a classifier is: the softmax of its most probable class.

use protocol::manifest::Classes;
use protocol::tensor::Tensor;

use crate::error::RunError;
use crate::numbers;

/// Reads the confidence and the label from a classifier's logits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassReader {
    /// The output `[n, classes]` with the logits.
    pub logits: String,
    /// The labels in class order; empty when there are none.
    pub labels: Vec<String>,
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
    /// Its softmax, 0 to 1.
    pub confidence: f32,
}

impl ClassReader {
    /// A reader for a manifest's classes.
    pub fn new(classes: &Classes, labels: Vec<String>) -> Self {
        Self { logits: classes.logits.clone(), labels }
    }

    /// Reads a batch.
    ///
    /// # Errors
    /// As [`top_classes`].
    pub fn read(&self, logits: &Tensor) -> Result<Reading, RunError> {
        let tops = top_classes(logits)?;
        let label = match tops.as_slice() {
            [only] => self.labels.get(only.class).cloned(),
            _ => None,
        };
        Ok(Reading { confidence: tops.iter().map(|t| t.confidence).reduce(f32::min), label })
    }
}

/// The most probable class of each item of logits `[n, classes]`, of any numeric datatype.
///
/// # Errors
/// [`RunError::NotANumber`] for NaN or infinity, [`RunError::Failed`] for another shape.
pub fn top_classes(logits: &Tensor) -> Result<Vec<Top>, RunError> {
    let values = numbers::to_f64(logits);
    let (Some(values), &[_, 1..=i64::MAX]) = (values, logits.shape()) else {
        let text = format!("the logits {:?} are not numbers [n, classes]", logits.name());
        return Err(RunError::Failed(text));
    };
    let classes = usize::try_from(logits.shape()[1]).unwrap_or(usize::MAX);
    let not_a_number = || RunError::NotANumber(logits.name().to_owned());
    values.chunks(classes).map(|item| top(item).ok_or_else(not_a_number)).collect()
}

/// Softmax of the largest logit, `1 / sum(exp(x - max))`, which cannot overflow. A logit of
/// negative infinity is a class that is ruled out. `None` where there is no softmax.
#[allow(clippy::cast_possible_truncation)] // a share of 1 rounds well
fn top(logits: &[f64]) -> Option<Top> {
    let (mut class, mut max) = (0, f64::NEG_INFINITY);
    for (index, &logit) in logits.iter().enumerate() {
        if logit.is_nan() {
            return None;
        }
        if logit > max {
            (class, max) = (index, logit);
        }
    }
    let sum: f64 = logits.iter().map(|x| (x - max).exp()).sum();
    max.is_finite().then(|| Top { class, confidence: (1.0 / sum) as f32 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(shape: &[i64], values: &[f32]) -> Result<Reading, RunError> {
        let labels = vec!["cat".to_owned(), "dog".to_owned()];
        let reader = ClassReader { logits: "y".into(), labels };
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
    fn large_logits_do_not_overflow() {
        for values in [[1e30, -1e30], [3e38, 3e37], [0.0, f32::NEG_INFINITY]] {
            assert_eq!(check(&[1, 2], &values).unwrap().confidence, Some(1.0), "{values:?}");
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
