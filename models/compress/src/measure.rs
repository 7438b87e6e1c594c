//! How near a model's answers are to another's, and how long they take.

use std::time::Duration;

use models::backend::Session;
use models::numbers;
use models::timing;
use protocol::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::CompressError;

/// How near the answers of one model are to those of the float model, over some items.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Quality {
    /// How many items.
    pub items: usize,
    /// Mean cosine between the outputs, over items and outputs.
    pub cosine: f64,
    /// The least cosine of any item.
    pub cosine_min: f64,
    /// For classifiers: the share of items with the same most probable class.
    pub agreement: Option<f64>,
    /// For classifiers with labels: the share of right answers.
    pub accuracy: Option<f64>,
    /// Half the width of the 95 % confidence interval of the accuracy's (or agreement's) difference to float.
    pub margin: Option<f64>,
}

/// The float model's answers to some items, kept to compare others with them.
pub struct Reference {
    answers: Vec<Vec<Vec<f32>>>,
    classes: Vec<Option<usize>>,
    labels: Option<Vec<usize>>,
}

/// Items as a model takes them.
pub type Items<'i> = dyn Fn(usize) -> Result<Vec<Tensor>, CompressError> + 'i;

fn run(
    session: &mut dyn Session,
    items: &Items<'_>,
    item: usize,
) -> Result<(Vec<Vec<f32>>, Option<usize>), CompressError> {
    let outputs = session.run(&items(item)?, &[]);
    let outputs = outputs.map_err(|source| CompressError::Run { item, source })?;
    let classes = outputs.first().and_then(most_probable);
    // Answers to hundreds of items are kept: f32 takes half the memory.
    #[allow(clippy::cast_possible_truncation)]
    let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    Ok((outputs.iter().filter_map(numbers::to_f64).map(narrow).collect(), classes))
}

/// The most probable class, if the first output is one row of scores.
pub(crate) fn most_probable(output: &Tensor) -> Option<usize> {
    let (&[1, classes] | &[classes]) = output.shape() else { return None };
    if classes < 2 {
        return None;
    }
    let scores = numbers::to_f64(output)?;
    let best = scores.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(class, _)| class)
}

impl Reference {
    /// Asks the float model.
    ///
    /// # Errors
    /// [`CompressError::NotANumber`] for answers that are no numbers already.
    pub fn new(
        session: &mut dyn Session,
        items: &Items<'_>,
        chosen: &[usize],
        labels: Option<&[usize]>,
    ) -> Result<Self, CompressError> {
        let (mut answers, mut classes) = (Vec::new(), Vec::new());
        for &item in chosen {
            let (answer, class) = run(session, items, item)?;
            if answer.iter().flatten().any(|value| !value.is_finite()) {
                let name = session.outputs().first().map(|o| o.name.clone()).unwrap_or_default();
                return Err(CompressError::NotANumber(name));
            }
            answers.push(answer);
            classes.push(class);
        }
        let labels = labels.map(|labels| chosen.iter().map(|item| labels[*item]).collect());
        Ok(Self { answers, classes, labels })
    }

    /// How much memory the answers take.
    pub fn size_bytes(&self) -> usize {
        self.answers.iter().flatten().map(|answer| answer.len() * size_of::<f32>()).sum()
    }

    /// Compares another model's answers to the same items.
    ///
    /// # Errors
    /// [`CompressError::Run`].
    pub fn compare(
        &self,
        session: &mut dyn Session,
        items: &Items<'_>,
        chosen: &[usize],
    ) -> Result<Quality, CompressError> {
        Ok(self.compare_answers(session, items, chosen)?.0)
    }

    /// The same, with the most probable class of each item.
    ///
    /// # Errors
    /// [`CompressError::Run`].
    pub fn compare_answers(
        &self,
        session: &mut dyn Session,
        items: &Items<'_>,
        chosen: &[usize],
    ) -> Result<(Quality, Vec<Option<usize>>), CompressError> {
        let mut classes = Vec::with_capacity(chosen.len());
        let mut quality = Quality { cosine_min: 1.0, ..Quality::default() };
        let (mut same, mut right, mut changes) = (0usize, 0usize, Vec::new());
        for (index, &item) in chosen.iter().enumerate() {
            let (answer, class) = run(session, items, item)?;
            let cosines = answer.iter().zip(&self.answers[index]).map(|(a, b)| cosine(a, b));
            let cosine = cosines.fold((0.0, 0), |(sum, n), c| (sum + c, n + 1));
            let cosine = cosine.0 / f64::from(cosine.1).max(1.0);
            classes.push(class);
            quality.items += 1;
            quality.cosine += cosine;
            quality.cosine_min = quality.cosine_min.min(cosine);
            let before = self.classes[index];
            same += usize::from(class.is_some() && class == before);
            let label = self.labels.as_ref().map(|labels| labels[index]);
            let hit = |class: Option<usize>| f64::from(u8::from(class.is_some() && class == label));
            right += usize::from(class.is_some() && class == label);
            changes.push(match label {
                Some(_) => hit(class) - hit(before),
                None => f64::from(u8::from(class == before)),
            });
        }
        let count = quality.items.max(1) as f64;
        quality.cosine /= count;
        if self.classes.iter().all(Option::is_some) && quality.items > 0 {
            quality.agreement = Some(same as f64 / count);
            quality.accuracy = self.labels.as_ref().map(|_| right as f64 / count);
            quality.margin = Some(margin(&changes));
        }
        Ok((quality, classes))
    }

    /// The float model's most probable class of each item.
    pub fn classes(&self) -> &[Option<usize>] {
        &self.classes
    }

    /// The right class of each item, where it is known.
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// The float model's own quality.
    pub fn own(&self) -> Quality {
        let classifies = !self.classes.is_empty() && self.classes.iter().all(Option::is_some);
        let right = |labels: &Vec<usize>| {
            let pairs = self.classes.iter().zip(labels);
            let right = pairs.filter(|(class, label)| **class == Some(**label)).count();
            right as f64 / labels.len().max(1) as f64
        };
        Quality {
            items: self.answers.len(),
            cosine: 1.0,
            cosine_min: 1.0,
            agreement: classifies.then_some(1.0),
            accuracy: self.labels.as_ref().filter(|_| classifies).map(right),
            margin: None,
        }
    }
}

impl Quality {
    /// What was lost against the float model, as a share: accuracy where labels are known, else distance of
    /// the outputs.
    pub fn drop_from(&self, float: &Quality) -> f64 {
        match (self.accuracy, float.accuracy) {
            (Some(own), Some(float)) => float - own,
            _ => 1.0 - self.cosine,
        }
    }
}

/// Half the width of the 95 % interval of a mean, by its standard error.
fn margin(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    1.96 * (variance / count).sqrt()
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return 0.0;
    }
    let dot = |a: &[f32], b: &[f32]| {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    match lengths > 0.0 {
        true => dot(a, b) / lengths,
        false => f64::from(u8::from(dot(a, a) == dot(b, b))),
    }
}

/// Median times of two models that took turns, so that both met the same machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Of the model that is compared with, in microseconds.
    pub float_us: f64,
    /// Of the other.
    pub own_us: f64,
    /// The median of the pairs' ratios: how many times faster it is.
    pub speedup: f64,
}

/// Times two models in turn, on one thread, for at most that long.
///
/// # Errors
/// [`CompressError::Run`].
pub fn latency(
    float: &mut dyn Session,
    own: &mut dyn Session,
    inputs: &[Tensor],
    budget: Duration,
) -> Result<Latency, CompressError> {
    let times = timing::in_turn(&mut [float, own], inputs, budget);
    let times = times.map_err(|failed| CompressError::Run { item: 0, source: failed.source })?;
    let (mut float_us, mut own_us) = (times[0].clone(), times[1].clone());
    Ok(Latency {
        speedup: timing::speedup(&float_us, &own_us),
        float_us: timing::quantile(&mut float_us, 0.5),
        own_us: timing::quantile(&mut own_us, 0.5),
    })
}
