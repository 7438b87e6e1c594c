//! What a model is worth on labelled data: accuracy with its interval, over all and by class, time and size.

use std::path::{Path, PathBuf};
use std::time::Instant;

use models::authoring::dataset::Dataset;
use models::backend::{Backend, Session, SessionOptions};
use models::calibrate::binomial::clopper_pearson_upper;
use models::timing::quantile;
use serde::Serialize;

use crate::error::{CompressError, io_error};
use crate::measure::most_probable;

/// With which probability an interval holds the true accuracy.
pub const CONFIDENCE: f64 = 0.95;
/// The fewest runs that are timed.
const TIMED_MIN: usize = 100;

/// A share of right answers with its interval (Clopper and Pearson 1934).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Accuracy {
    /// Right answers.
    pub right: usize,
    /// All answers.
    pub items: usize,
    /// The share.
    pub share: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

impl Accuracy {
    /// Of counts.
    pub fn of(right: usize, items: usize) -> Self {
        let (k, n) = (right as u64, items as u64);
        let one_sided = f64::midpoint(1.0, CONFIDENCE);
        let (low, high) = match items {
            0 => (0.0, 1.0),
            _ => (
                1.0 - clopper_pearson_upper(n - k, n, one_sided),
                clopper_pearson_upper(k, n, one_sided),
            ),
        };
        Self { right, items, share: right as f64 / items.max(1) as f64, low, high }
    }
}

/// What was measured of one model.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// The file.
    pub onnx: PathBuf,
    /// Its length.
    pub size_bytes: u64,
    /// How many items were asked.
    pub items: usize,
    /// Right answers, where the data have labels and the model scores classes.
    pub accuracy: Option<Accuracy>,
    /// The same for the items of each class, by class number; those without items are left out.
    pub classes: Vec<(usize, Accuracy)>,
    /// The most probable class of each item.
    #[serde(skip)]
    pub answers: Vec<Option<usize>>,
    /// Time of a run on one thread: median and 95th percentile, in microseconds.
    pub latency_us: (f64, f64),
}

/// Measures a model.
///
/// # Errors
/// [`CompressError`].
pub fn evaluate(
    onnx: &Path,
    dataset: &Dataset,
    backend: &dyn Backend,
) -> Result<Evaluation, CompressError> {
    let mut session = backend.load(onnx, &SessionOptions::default())?;
    let data = dataset.for_model(session.inputs())?;
    let (mut answers, mut times) = (Vec::new(), Vec::new());
    for item in 0..dataset.len() {
        let inputs = data.inputs(item)?;
        let begin = Instant::now();
        let outputs = session.run(&inputs, &[]);
        times.push(begin.elapsed().as_secs_f64() * 1e6);
        let outputs = outputs.map_err(|source| CompressError::Run { item, source })?;
        answers.push(outputs.first().and_then(most_probable));
    }
    while times.len() < TIMED_MIN {
        times.push(again(&mut *session, &data.inputs(times.len() % dataset.len())?)?);
    }
    let labels = dataset.labels().filter(|_| answers.iter().all(Option::is_some));
    let right = |item: usize, labels: &[usize]| answers[item] == Some(labels[item]);
    let accuracy = labels.map(|labels| {
        Accuracy::of((0..answers.len()).filter(|item| right(*item, labels)).count(), answers.len())
    });
    let size_bytes = onnx.metadata().map_err(io_error(onnx))?.len();
    let latency_us = (quantile(&mut times, 0.5), quantile(&mut times, 0.95));
    Ok(Evaluation {
        onnx: onnx.to_owned(),
        size_bytes,
        items: answers.len(),
        accuracy,
        classes: labels.map(|labels| by_class(&answers, labels)).unwrap_or_default(),
        answers,
        latency_us,
    })
}

fn again(
    session: &mut dyn Session,
    inputs: &[protocol::tensor::Tensor],
) -> Result<f64, CompressError> {
    let begin = Instant::now();
    session.run(inputs, &[]).map_err(|source| CompressError::Run { item: 0, source })?;
    Ok(begin.elapsed().as_secs_f64() * 1e6)
}

/// The accuracy on the items of each class.
pub fn by_class(answers: &[Option<usize>], labels: &[usize]) -> Vec<(usize, Accuracy)> {
    let classes = labels.iter().copied().max().map_or(0, |most| most + 1);
    let mut counts = vec![(0, 0); classes];
    for (answer, label) in answers.iter().zip(labels) {
        counts[*label].0 += usize::from(*answer == Some(*label));
        counts[*label].1 += 1;
    }
    let known = counts.into_iter().enumerate().filter(|(_, (_, items))| *items > 0);
    known.map(|(class, (right, items))| (class, Accuracy::of(right, items))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_clopper_pearson() {
        // Tables: 8 of 10 -> 0.444 to 0.975; 0 of 10 -> 0 to 0.308.
        let some = Accuracy::of(8, 10);
        assert!((some.low - 0.4439).abs() < 1e-3 && (some.high - 0.9748).abs() < 1e-3, "{some:?}");
        let none = Accuracy::of(0, 10);
        assert!(none.low == 0.0 && (none.high - 0.3085).abs() < 1e-3, "{none:?}");
        assert_eq!(Accuracy::of(10, 10).high, 1.0);
    }

    #[test]
    fn classes_without_items_are_left_out() {
        let found = by_class(&[Some(2), Some(0), None], &[2, 2, 0]);
        let counts: Vec<_> = found.iter().map(|(class, a)| (*class, a.right, a.items)).collect();
        assert_eq!(counts, [(0, 0, 1), (2, 1, 2)]);
    }
}
