//! Whether requests may share a run, and what that saves: found at load, by running probes alone
//! and together in every size that will be used.
//!
//! Beside the other probes each one meets a loud neighbour, whose numbers are [`LOUD`] times as
//! large: where a scale is taken from the whole batch, as dynamic quantization does, probes that
//! all have the same range would not show it.

use std::time::Duration;

use protocol::tensor::Tensor;

use super::difference;
use crate::error::RunError;
use crate::model::ProbeError;
use crate::numbers;
use crate::runner::{Given, Question, Runner};
use crate::sessions::Sessions;
use crate::worker::Job;

/// How far an answer beside others may lie from the one alone: `|a - b| / (1 + |b|)`. What rounding
/// in another order does to `FP32` is less, what a neighbour's numbers do is more.
pub const INVARIANT_WITHIN: f64 = 1e-5;
/// How many probes are compared.
const SUBJECTS: usize = 16;
/// How much louder the loud neighbour is.
const LOUD: f32 = 64.0;

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub struct Together {
    /// Why requests must not share a run; `None` when they may.
    pub objection: Option<Objection>,
    /// The largest difference that was seen, as [`INVARIANT_WITHIN`] counts.
    pub worst_difference: f64,
    /// Items of a run, and how long it took.
    pub runs: Vec<(u32, Duration)>,
}

/// Why requests must not share a run.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Objection {
    /// The model takes one request at a time.
    #[error("the first dimension of its tensors does not count items, or it keeps state")]
    NoItems,
    /// Nothing to compare.
    #[error("no probe has a neighbour to be compared with")]
    NoProbes,
    /// A mate changes the answer.
    #[error("in a batch of {items} an answer lies {difference:e} from the one alone")]
    Changes {
        /// Of the batch.
        items: u32,
        /// How far.
        difference: f64,
    },
    /// It does not answer at all.
    #[error("a batch of {items} fails: {source}")]
    Fails {
        /// Of the batch.
        items: u32,
        /// How.
        #[source]
        source: RunError,
    },
}

/// A probe, and what is answered to it alone.
struct Subject {
    question: Question,
    alone: Given,
}

impl Sessions {
    /// Finds out whether requests may share a run of up to `items_max` items. Sizes that take longer
    /// than `run_max` are not tried, and so not proven. Blocks.
    ///
    /// # Errors
    /// [`ProbeError`] for a probe that is not answered alone.
    pub fn try_together(
        &self,
        runner: &mut Runner,
        items_max: u32,
        run_max: Duration,
    ) -> Result<Together, ProbeError> {
        let mut found = Together { objection: None, worst_difference: 0.0, runs: Vec::new() };
        let subjects = self.subjects(runner, &mut found.runs)?;
        let loud = subjects.first().and_then(|subject| self.loud(&subject.question));
        found.objection = if !self.counts_items() {
            Some(Objection::NoItems)
        } else if subjects.is_empty() || (subjects.len() == 1 && loud.is_none()) {
            Some(Objection::NoProbes)
        } else {
            None
        };
        for items in sizes(items_max) {
            if found.objection.is_some() {
                break;
            }
            let tried = try_size(runner, &subjects, loud.as_ref(), items);
            match tried {
                Ok((apart, took)) => {
                    found.runs.push((items, took));
                    found.worst_difference = found.worst_difference.max(apart);
                    if apart > INVARIANT_WITHIN {
                        found.objection = Some(Objection::Changes { items, difference: apart });
                    } else if took > run_max {
                        break;
                    }
                }
                Err(source) => found.objection = Some(Objection::Fails { items, source }),
            }
        }
        Ok(found)
    }

    /// Probes of one item that are mates, each answered alone.
    fn subjects(
        &self,
        runner: &mut Runner,
        runs: &mut Vec<(u32, Duration)>,
    ) -> Result<Vec<Subject>, ProbeError> {
        let mut subjects: Vec<Subject> = Vec::new();
        for (probe, case) in self.probes()?.into_iter().take(SUBJECTS).enumerate() {
            let failed = |source| ProbeError::Run { probe, source };
            let job = Job { inputs: case.inputs, ..Job::default() };
            let question = self.question(job).map_err(failed)?;
            let asked = runner.ask(&[&question]).map_err(failed)?;
            let items = question.mates().map_or(1, |mates| mates.items);
            runs.extend(asked.ran.map(|ran| (items, ran)));
            let fits = question.mates().filter(|mates| mates.items == 1);
            let first = subjects.first().map(|first| first.question.mates());
            if fits.is_some() && first.is_none_or(|first| first == fits) {
                let alone = asked.given.into_iter().next().unwrap_or(Err(RunError::Stopped));
                subjects.push(Subject { question, alone: alone.map_err(failed)? });
            }
        }
        Ok(subjects)
    }

    /// The same question with larger numbers; `None` where it has none that could be.
    fn loud(&self, question: &Question) -> Option<Question> {
        let louder = |input: &Tensor| {
            let values: Vec<f32> = input.to_f32()?.iter().map(|value| value * LOUD).collect();
            Tensor::from_f32(input.name(), input.shape().to_vec(), &values).ok()
        };
        let inputs: Vec<Tensor> =
            question.inputs().iter().map(|i| louder(i).unwrap_or_else(|| i.clone())).collect();
        if inputs == question.inputs() {
            return None;
        }
        let loud = self.question(Job { inputs, ..question.job().clone() }).ok()?;
        (loud.mates() == question.mates()).then_some(loud)
    }
}

/// 2, 4, 8 and so on, and the largest.
fn sizes(items_max: u32) -> impl Iterator<Item = u32> {
    let powers = (1..32).map(|power| 1_u32 << power).take_while(move |size| *size < items_max);
    powers.chain((items_max > 1).then_some(items_max))
}

/// How far answers of a batch of that size lie from those alone at most, and how long it takes.
fn try_size(
    runner: &mut Runner,
    subjects: &[Subject],
    loud: Option<&Question>,
    items: u32,
) -> Result<(f64, Duration), RunError> {
    let members = || subjects.iter().cycle().take(items as usize);
    let quiet: Vec<&Question> = members().map(|subject| &subject.question).collect();
    let mut beside_loud = quiet.clone();
    if let (Some(last), Some(loud)) = (beside_loud.last_mut(), loud) {
        *last = loud;
    }
    let (mut worst, mut shortest) = (0.0, Duration::MAX);
    for (questions, compared) in
        [(&quiet, items), (&beside_loud, items - u32::from(loud.is_some())), (&quiet, 0)]
    {
        let asked = runner.ask(questions)?;
        let Some(ran) = asked.ran else {
            return Err(asked.given.into_iter().find_map(Result::err).unwrap_or_else(|| {
                RunError::Failed("a run of several items, but not each alone".to_owned())
            }));
        };
        shortest = shortest.min(ran);
        for (given, subject) in asked.given.iter().zip(members()).take(compared as usize) {
            let given = given.as_ref().map_err(Clone::clone)?;
            worst = apart(&subject.alone, given).max(worst);
        }
    }
    Ok((worst, shortest))
}

fn apart(alone: &Given, beside: &Given) -> f64 {
    let pair = |(alone, beside): (&Tensor, &Tensor)| {
        let (Some(wanted), Some(got)) = (numbers::to_f64(alone), numbers::to_f64(beside)) else {
            return f64::MAX;
        };
        if alone.meta() != beside.meta() {
            return f64::MAX;
        }
        wanted.iter().zip(&got).map(|(a, b)| difference(*a, *b)).fold(0.0, f64::max)
    };
    alone.tensors().iter().zip(beside.tensors()).map(pair).fold(0.0, f64::max)
}
