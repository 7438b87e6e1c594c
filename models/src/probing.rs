//! What the probes say of a model beside yes and no: how near its answers come to what was measured,
//! and whether they depend on who else is in the batch.
//!
//! The latter should not be, and sometimes is: dynamic quantization takes its scale from the whole
//! batch, a normalisation may run over the wrong axis, and a graph that names its first dimension
//! `n` may still reshape to one. So some probes are answered alone and then among others, and the
//! rows are compared with the same measure and tolerance as the probes themselves.

use bytes::BytesMut;
use protocol::manifest::TensorSpec;
use protocol::oip::ModelDescription;
use protocol::tensor::{Tensor, TensorMeta};
use serde::{Deserialize, Serialize};

use crate::bundle::ProbeCase;
use crate::model::{LoadedModel, ProbeError};
use crate::numbers;
use crate::worker::{Answer, Job};

mod together;

pub use together::{INVARIANT_WITHIN, Objection, Together};

/// How many probes are compared.
const SUBJECTS: usize = 4;
/// How many probes one batch holds.
const BATCH: usize = 4;

/// What was found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Batching {
    /// How many probes were answered alone and among others.
    pub compared: usize,
    /// Whether every answer was the same within the tolerance of the probes.
    pub invariant: bool,
    /// The largest `|a - b| / (1 + |b|)` between the answer among others and the one alone.
    pub worst_difference: f64,
    /// What went wrong, where a batch was not answered at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// How near a model's answers to its probes came to what was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compared {
    /// How many probes there were.
    pub probes: usize,
    /// The largest `|a - b| / (1 + |b|)`.
    pub worst_difference: f64,
    /// Mean time of an answer, in microseconds.
    pub mean_run_us: u64,
}

impl LoadedModel {
    /// As [`check_probes`](Self::check_probes), and says how near the answers came.
    ///
    /// # Errors
    /// [`ProbeError`] with the first difference that is not tolerated.
    pub fn compare_probes(&self) -> Result<Compared, ProbeError> {
        let cases = self.probes()?;
        let mut compared = Compared { probes: cases.len(), worst_difference: 0.0, mean_run_us: 0 };
        for (probe, case) in cases.iter().enumerate() {
            let answer = self.check_probe(probe, case)?;
            let apart = case.outputs.iter().filter_map(|expected| {
                let actual = answer.outputs.iter().find(|output| output.name() == expected.name());
                let (wanted, got) = (numbers::to_f64(expected)?, numbers::to_f64(actual?)?);
                wanted.iter().zip(&got).map(|(a, b)| difference(*a, *b)).reduce(f64::max)
            });
            compared.worst_difference = apart.fold(compared.worst_difference, f64::max);
            compared.mean_run_us += answer.infer_us;
        }
        compared.mean_run_us /= (cases.len() as u64).max(1);
        Ok(compared)
    }

    /// One request, waited for.
    fn answer_probe(
        &self,
        probe: usize,
        inputs: Vec<Tensor>,
        outputs: Vec<String>,
    ) -> Result<Answer, ProbeError> {
        let ticket = self.submit(Job { inputs, outputs, ..Job::default() });
        let ticket = ticket.map_err(|source| ProbeError::Refused { probe, source })?;
        ticket.wait().map_err(|source| ProbeError::Run { probe, source })
    }

    /// Compares answers alone with answers in a batch. `None` for a model that takes no batches, or
    /// whose probes cannot stand in one batch. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`ProbeError`] for a probe that is not answered alone. A batch that is not answered is a
    /// finding, [`Batching::failure`].
    pub fn check_batching(&self) -> Result<Option<Batching>, ProbeError> {
        let description = ModelDescription::new(self.manifest(), self.labels(), self.instances());
        if description.max_batch_size() == 0 || !self.manifest().state.is_empty() {
            return Ok(None);
        }
        let probes = self.probes()?;
        let tolerance = f64::from(self.manifest().probes.tolerance);
        let mut found =
            Batching { compared: 0, invariant: true, worst_difference: 0.0, failure: None };
        for subject in 0..probes.len().min(SUBJECTS) {
            match self.compare_in_batch(&probes, subject, &description.outputs)? {
                None => continue,
                Some(Ok(apart)) => found.worst_difference = found.worst_difference.max(apart),
                Some(Err(error)) => found.failure = Some(protocol::problem::chain(&error)),
            }
            found.compared += 1;
        }
        found.invariant = found.failure.is_none() && found.worst_difference <= tolerance;
        Ok((found.compared > 0).then_some(found))
    }

    /// How far one answer among others lies from the one alone; why there was none among others;
    /// `None` where there is nothing to compare.
    fn compare_in_batch(
        &self,
        probes: &[ProbeCase],
        subject: usize,
        served: &[TensorSpec],
    ) -> Result<Option<Result<f64, ProbeError>>, ProbeError> {
        let outputs = numeric_outputs(&probes[subject]);
        let Some(members) = members(probes, subject).filter(|_| !outputs.is_empty()) else {
            return Ok(None);
        };
        let alone = self.answer_probe(subject, probes[subject].inputs.clone(), outputs.clone())?;
        if alone.outputs.iter().any(|output| output.shape().first() != Some(&1)) {
            return Ok(None); // its rows are not items
        }
        // Not always in the first row: that one may be the only right one.
        let (size, place) = (members.len(), subject % members.len());
        let mut order = members;
        order[..=place].rotate_left(1);
        let inputs = (0..order[0].inputs.len()).map(|index| joined(&order, index)).collect();
        Ok(match self.answer_probe(subject, inputs, outputs) {
            Ok(batch) => distance(&alone.outputs, &batch.outputs, (place, size), served).map(Ok),
            Err(error) => Some(Err(error)),
        })
    }
}

/// The probe and others that can stand in one batch with it; `None` where there are none.
fn members(probes: &[ProbeCase], subject: usize) -> Option<Vec<&ProbeCase>> {
    let first = &probes[subject];
    let one = |tensor: &Tensor| tensor.shape().first() == Some(&1);
    if !first.inputs.iter().all(one) {
        return None;
    }
    let fits = |other: &&ProbeCase| {
        let metas = |case: &ProbeCase| -> Vec<TensorMeta> {
            case.inputs.iter().map(|input| input.meta().clone()).collect()
        };
        metas(other) == metas(first)
    };
    let others = probes.iter().cycle().skip(subject + 1).take(probes.len() - 1).filter(fits);
    let members: Vec<&ProbeCase> = [first].into_iter().chain(others.take(BATCH - 1)).collect();
    (members.len() > 1).then_some(members)
}

fn numeric_outputs(case: &ProbeCase) -> Vec<String> {
    let numeric = case.outputs.iter().filter(|output| output.datatype().size_bytes().is_some());
    numeric.map(|output| output.name().to_owned()).collect()
}

/// One input of all members, along the first axis. The bytes of one item follow those of the other
/// in every datatype.
fn joined(members: &[&ProbeCase], index: usize) -> Tensor {
    let first = &members[0].inputs[index];
    let mut data = BytesMut::with_capacity(first.data().len() * members.len());
    members.iter().for_each(|member| data.extend_from_slice(member.inputs[index].data()));
    let shape = [&[members.len() as i64], &first.shape()[1..]].concat();
    let meta = TensorMeta { shape, ..first.meta().clone() };
    Tensor::new(meta, data.freeze()).expect("as many bytes as its items have together")
}

/// How far the rows at `place` of a batch lie from the outputs alone; `None` where nothing can be
/// compared. An output that is as long as the longest of its batch, such as one row for each token,
/// is longer among others, and is left out.
fn distance(
    alone: &[Tensor],
    batch: &[Tensor],
    (place, size): (usize, usize),
    served: &[TensorSpec],
) -> Option<f64> {
    let grows = |alone: &Tensor, batch: &Tensor| {
        let spec = served.iter().find(|spec| spec.name == alone.name());
        let free = spec.is_some_and(|spec| spec.shape.iter().skip(1).any(|d| *d < 0));
        free && batch.shape().get(1..) != alone.shape().get(1..)
    };
    let pairs = alone.iter().zip(batch).filter(|(alone, batch)| !grows(alone, batch));
    pairs.map(|(alone, batch)| row_distance(alone, batch, place, size)).reduce(f64::max)
}

fn row_distance(alone: &Tensor, batch: &Tensor, place: usize, size: usize) -> f64 {
    let whole = batch.shape().first() == i64::try_from(size).ok().as_ref()
        && batch.shape().get(1..) == alone.shape().get(1..);
    let (Some(wanted), Some(got)) = (numbers::to_f64(alone), numbers::to_f64(batch)) else {
        return f64::MAX;
    };
    if !whole || got.len() != wanted.len() * size {
        return f64::MAX; // not one row for each item
    }
    let row = got.iter().skip(place * wanted.len());
    wanted.iter().zip(row).map(|(a, b)| difference(*a, *b)).fold(0.0, f64::max)
}

/// How far a number lies from the expected one, relative to `1 + |expected|`. A NaN equals a NaN
/// only, and an infinity itself; what is not comparable is `f64::MAX` away.
fn difference(expected: f64, actual: f64) -> f64 {
    if expected == actual || (expected.is_nan() && actual.is_nan()) {
        return 0.0;
    }
    let apart = (actual - expected).abs() / (1.0 + expected.abs());
    if expected.is_finite() && apart.is_finite() { apart } else { f64::MAX }
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn differences_are_relative_and_finite() {
        assert_eq!(difference(1.0, 1.0), 0.0);
        assert_eq!(difference(1.0, 2.0), 0.5);
        assert_eq!(difference(f64::NAN, f64::NAN), 0.0);
        assert_eq!(difference(f64::INFINITY, f64::INFINITY), 0.0);
        for (a, b) in [(f64::NAN, 1.0), (1.0, f64::NAN), (1.0, f64::INFINITY), (f64::INFINITY, 1.0)]
        {
            assert_eq!(difference(a, b), f64::MAX, "{a} {b}");
        }
    }
}
