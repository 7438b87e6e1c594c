//! Runs a float model on data and looks at the values inside it.

use std::collections::BTreeMap;

use models::backend::Backend;
use models::onnx::Model;
use protocol::tensor::Tensor;

use crate::error::CompressError;
use crate::histogram::Histogram;
use crate::scratch::Scratch;

/// What was seen of each value.
pub type Seen = BTreeMap<String, Histogram>;

/// Runs a model on items, one after the other, and counts the numbers of some of its values. Values that are no
/// floats are left out. Memory does not grow with the number of items.
///
/// # Errors
/// [`CompressError`]; [`CompressError::NotANumber`] names a value that overflowed.
pub fn calibrate(
    model: &Model,
    values: &[String],
    items: impl Iterator<Item = Result<Vec<Tensor>, CompressError>>,
    backend: &dyn Backend,
) -> Result<Seen, CompressError> {
    let mut watched = model.clone();
    let inputs: Vec<&String> = values.iter().filter(|v| model.graph().is_input(v)).collect();
    let inner: Vec<&String> = values.iter().filter(|v| !model.graph().is_input(v)).collect();
    inner.iter().for_each(|value| watched.graph_mut().add_output(value));
    let mut session = Scratch::new()?.load(&watched, backend)?;
    let wanted: Vec<String> = inner.into_iter().cloned().collect();
    let mut seen = Seen::new();
    for (item, tensors) in items.enumerate() {
        let tensors = tensors?;
        let given = tensors.iter().filter(|tensor| inputs.iter().any(|v| *v == tensor.name()));
        given.for_each(|tensor| count(&mut seen, tensor));
        if wanted.is_empty() {
            continue;
        }
        let outputs = session.run(&tensors, &wanted);
        let outputs = outputs.map_err(|source| CompressError::Run { item, source })?;
        outputs.iter().for_each(|tensor| count(&mut seen, tensor));
    }
    match seen.iter().find(|(_, histogram)| !histogram.is_finite()) {
        Some((name, _)) => Err(CompressError::NotANumber(name.clone())),
        None => Ok(seen),
    }
}

fn count(seen: &mut Seen, tensor: &Tensor) {
    if let Some(values) = tensor.to_f32() {
        match seen.get_mut(tensor.name()) {
            Some(histogram) => histogram.add(&values),
            None => seen.entry(tensor.name().to_owned()).or_default().add(&values),
        }
    }
}
