//! Does a request's answer depend on who else is in the batch?
//!
//! It should not, and sometimes does: dynamic quantization takes its scale from the whole batch, a
//! normalisation may run over the wrong axis, and a graph that names its first dimension `n` may
//! still reshape to one. So some probes are answered alone and then among others, and the rows are
//! compared with the same measure and tolerance as the probes themselves.

use bytes::BytesMut;
use protocol::manifest::TensorSpec;
use protocol::oip::ModelDescription;
use protocol::tensor::{Tensor, TensorMeta};
use serde::{Deserialize, Serialize};

use crate::bundle::ProbeCase;
use crate::model::{LoadedModel, ProbeError, difference};
use crate::numbers;

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

impl LoadedModel {
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
