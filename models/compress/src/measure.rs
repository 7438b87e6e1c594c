//! How near a model's answers are to another's, and how long they take.

use std::time::Duration;

use models::backend::Session;
use models::numbers;
use models::timing;
use protocol::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::error::CompressError;
use kept::Kept;
use lines::Line;

mod kept;
mod lines;

/// The most that one item counts for surprise.
const SURPRISE_MAX: f64 = 20.0;

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
    /// For recognisers: the share of items that are read as the float model reads them.
    #[serde(default)]
    pub lines: Option<f64>,
    /// For recognisers: by how much the share of lines that are read right is expected to be smaller, by the float model's
    /// own probabilities.
    #[serde(default)]
    pub lines_lost: Option<f64>,
    /// For recognisers: how much less probable the lines of the float model are here; mean of the logarithms.
    #[serde(default)]
    pub surprise: Option<f64>,
    /// Half the width of the 95 % confidence interval of the accuracy's (or agreement's) difference to float.
    pub margin: Option<f64>,
}

/// The float model's answers to some items, kept to compare others with them.
pub struct Reference {
    answers: Vec<Vec<Kept>>,
    says: Vec<Says>,
    labels: Option<Vec<usize>>,
    blank: Option<u32>,
}

/// What an answer says, beside its numbers.
#[derive(Debug, Clone, PartialEq)]
enum Says {
    /// The most probable class.
    Class(usize),
    /// What is read.
    Line(Line),
    Nothing,
}

impl Says {
    fn of(output: &Tensor, blank: Option<u32>) -> Self {
        match blank {
            None => most_probable(output).map_or(Self::Nothing, Self::Class),
            Some(blank) => Line::of(output, blank).map_or(Self::Nothing, Self::Line),
        }
    }

    fn class(&self) -> Option<usize> {
        if let Self::Class(class) = self { Some(*class) } else { None }
    }

    fn line(&self) -> Option<&Line> {
        if let Self::Line(line) = self { Some(line) } else { None }
    }
}

/// Items as a model takes them.
pub type Items<'i> = dyn Fn(usize) -> Result<Vec<Tensor>, CompressError> + 'i;

fn run(
    session: &mut dyn Session,
    items: &Items<'_>,
    item: usize,
    blank: Option<u32>,
) -> Result<(Vec<Vec<f32>>, Says), CompressError> {
    let outputs = session.run(&items(item)?, &[]);
    let outputs = outputs.map_err(|source| CompressError::Run { item, source })?;
    let says = outputs.first().map_or(Says::Nothing, |first| Says::of(first, blank));
    // Answers to hundreds of items are kept: f32 takes half the memory.
    #[allow(clippy::cast_possible_truncation)]
    let narrow = |values: Vec<f64>| values.into_iter().map(|value| value as f32).collect();
    let values = |tensor: &Tensor| tensor.to_f32().or_else(|| numbers::to_f64(tensor).map(narrow));
    Ok((outputs.iter().filter_map(values).collect(), says))
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
        Self::reading(session, items, chosen, (labels, None))
    }

    /// The same for a recogniser, whose first output is `[1, tokens, classes]`, where its blank is known: what counts is
    /// what is spelled.
    ///
    /// # Errors
    /// As [`Reference::new`]; [`CompressError::NoLines`] for another form of output.
    pub fn reading(
        session: &mut dyn Session,
        items: &Items<'_>,
        chosen: &[usize],
        (labels, blank): (Option<&[usize]>, Option<u32>),
    ) -> Result<Self, CompressError> {
        let (mut answers, mut all) = (Vec::new(), Vec::new());
        let name = session.outputs().first().map(|o| o.name.clone()).unwrap_or_default();
        for &item in chosen {
            let (answer, says) = run(session, items, item, blank)?;
            if answer.iter().flatten().any(|value| !value.is_finite()) {
                return Err(CompressError::NotANumber(name));
            }
            if blank.is_some() && says == Says::Nothing {
                return Err(CompressError::NoLines(name));
            }
            answers.push(answer.into_iter().map(Kept::of).collect());
            all.push(says);
        }
        let labels = labels.map(|labels| chosen.iter().map(|item| labels[*item]).collect());
        Ok(Self { answers, says: all, labels, blank })
    }

    /// How much memory the answers take.
    pub fn size_bytes(&self) -> usize {
        self.answers.iter().flatten().map(Kept::size_bytes).sum()
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
        let mut says = Vec::with_capacity(chosen.len());
        let mut quality = Quality { cosine_min: 1.0, ..Quality::default() };
        for (index, &item) in chosen.iter().enumerate() {
            let (answer, said) = run(session, items, item, self.blank)?;
            let cosines = answer.iter().zip(&self.answers[index]).map(|(a, b)| b.cosine(a));
            let cosine = cosines.fold((0.0, 0), |(sum, n), c| (sum + c, n + 1));
            let cosine = cosine.0 / f64::from(cosine.1).max(1.0);
            says.push(said);
            quality.items += 1;
            quality.cosine += cosine;
            quality.cosine_min = quality.cosine_min.min(cosine);
        }
        quality.cosine /= quality.items.max(1) as f64;
        self.count(&says, &mut quality);
        Ok((quality, says.iter().map(Says::class).collect()))
    }

    /// How many answers say the same, and how many the right thing.
    fn count(&self, says: &[Says], quality: &mut Quality) {
        let share = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        let one = |same: bool| f64::from(u8::from(same));
        let pairs = says.iter().zip(&self.says);
        let same: Vec<f64> = pairs.clone().map(|(now, before)| one(now == before)).collect();
        if self.blank.is_some() {
            self.count_lines(says, quality);
        } else if self.classifies() {
            quality.agreement = Some(share(&same));
            let right = |says: &Says, label: &usize| one(says.class() == Some(*label));
            let labels = self.labels.as_ref();
            let all = |says: &[Says], labels: &Vec<usize>| {
                says.iter().zip(labels).map(|(s, l)| right(s, l)).collect::<Vec<f64>>()
            };
            let now = labels.map(|labels| all(says, labels));
            quality.accuracy = now.as_ref().map(|now| share(now));
            let changes = now.zip(labels).map(|(now, labels)| {
                let before = all(&self.says, labels);
                now.iter().zip(before).map(|(now, before)| now - before).collect()
            });
            quality.margin = Some(margin(&changes.unwrap_or(same)));
        }
    }

    /// How many lines are read the same, and what those are worth that are not.
    fn count_lines(&self, says: &[Says], quality: &mut Quality) {
        let count = says.len().max(1) as f64;
        let (mut same, mut lost, mut surprise) = (0.0, Vec::new(), 0.0);
        for (now, before) in says.iter().zip(&self.says) {
            let Some(before) = before.line() else { continue };
            let held = before.probability(&before.spelled);
            let Some(now) = now.line() else {
                lost.push(held);
                surprise += SURPRISE_MAX;
                continue;
            };
            let alike = now.spelled == before.spelled;
            same += f64::from(u8::from(alike));
            lost.push(if alike { 0.0 } else { held - before.probability(&now.spelled) });
            let less = held.max(f64::MIN_POSITIVE) / now.probability(&before.spelled).max(1e-30);
            surprise += less.ln().clamp(-SURPRISE_MAX, SURPRISE_MAX);
        }
        quality.lines = Some(same / count);
        quality.lines_lost = Some(lost.iter().sum::<f64>() / count);
        quality.surprise = Some(surprise / count);
        quality.margin = Some(margin(&lost));
    }

    fn classifies(&self) -> bool {
        !self.says.is_empty() && self.says.iter().all(|says| says.class().is_some())
    }

    /// The float model's most probable class of each item.
    pub fn classes(&self) -> Vec<Option<usize>> {
        self.says.iter().map(Says::class).collect()
    }

    /// The right class of each item, where it is known.
    pub fn labels(&self) -> Option<&[usize]> {
        self.labels.as_deref()
    }

    /// The float model's own quality.
    pub fn own(&self) -> Quality {
        let mut own = Quality {
            items: self.answers.len(),
            cosine: 1.0,
            cosine_min: 1.0,
            ..Quality::default()
        };
        self.count(&self.says, &mut own);
        Quality { margin: None, ..own }
    }
}

impl Quality {
    /// What was lost against the float model, as a share: accuracy where labels are known, else lines for what reads lines,
    /// else distance of the outputs.
    pub fn drop_from(&self, float: &Quality) -> f64 {
        match (self.accuracy, float.accuracy, self.lines_lost) {
            (Some(own), Some(float), _) => float - own,
            (_, _, Some(lost)) => lost,
            _ => 1.0 - self.cosine,
        }
    }

    /// The same as a number that also tells builds apart that lose nothing.
    pub(crate) fn distance(&self) -> f64 {
        self.surprise.unwrap_or(1.0 - self.cosine)
    }
}

/// Half the width of the 95 % interval of a mean, by its standard error.
fn margin(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    1.96 * (variance / count).sqrt()
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
