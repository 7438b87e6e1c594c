//! Runs a float model on data and looks at the values inside it.
//!
//! Values that a run hands out are in memory together, all at once: so they are watched some at a time, each time by the part
//! of the model that makes them.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc;
use std::thread;

use models::backend::{Backend, Session};
use models::numbers;
use models::onnx::Model;
use models::onnx::attribute::node;
use protocol::tensor::Tensor;

use crate::error::CompressError;
use crate::histogram::Histogram;
use crate::measure::Items;
use crate::scratch::Scratch;

/// Values that are watched together are at most so long, but for a single one that is longer.
const TOGETHER_MAX_BYTES: usize = 64 << 20;

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
    (items, chosen): (&Items<'_>, &[usize]),
    backend: &dyn Backend,
) -> Result<Seen, CompressError> {
    let (inputs, inner): (Vec<String>, Vec<String>) =
        values.iter().cloned().partition(|value| model.graph().is_input(value));
    let mut seen = Seen::new();
    let first = chosen.first().copied().unwrap_or(0);
    let mut groups = together(model, &inner, &items(first)?, backend)?;
    if groups.is_empty() {
        groups.push(Vec::new()); // what reads the model's inputs needs no run
    }
    let mut given = &inputs[..];
    for some in groups {
        let mut session = match some.is_empty() {
            true => None,
            false => Some(watch(model, &some, backend)?),
        };
        seen.extend(watched(session.as_deref_mut(), given, (items, chosen))?);
        given = &[];
    }
    match seen.iter().find(|(_, histogram)| !histogram.is_finite()) {
        Some((name, _)) => Err(CompressError::NotANumber(name.clone())),
        None => Ok(seen),
    }
}

/// Counts some of what a model is given, and all that it gives. Counting takes as long as running, so the next item runs
/// meanwhile.
fn watched(
    mut session: Option<&mut (dyn Session + 'static)>,
    given: &[String],
    (items, chosen): (&Items<'_>, &[usize]),
) -> Result<Seen, CompressError> {
    thread::scope(|scope| {
        // Without room for any: only what is being counted is in memory beside what is being made.
        let (sender, receiver) = mpsc::sync_channel::<Vec<Tensor>>(0);
        let counting = scope.spawn(move || {
            let mut seen = Seen::new();
            receiver.iter().flatten().for_each(|tensor| count(&mut seen, &tensor));
            seen
        });
        for &item in chosen {
            let mut values = items(item)?;
            let outputs = session.as_deref_mut().map(|session| session.run(&values, &[]));
            let outputs = outputs.transpose();
            let outputs = outputs.map_err(|source| CompressError::Run { item, source })?;
            values.retain(|tensor| given.iter().any(|value| value == tensor.name()));
            values.extend(outputs.unwrap_or_default());
            if sender.send(values).is_err() {
                break; // it panicked, as is seen below
            }
        }
        drop(sender);
        Ok(counting.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

fn count(seen: &mut Seen, tensor: &Tensor) {
    if let Some(values) = numbers::floats(tensor) {
        match seen.get_mut(tensor.name()) {
            Some(histogram) => histogram.add(&values),
            None => seen.entry(tensor.name().to_owned()).or_default().add(&values),
        }
    }
}

/// The part of a model that makes some values, which are all that it gives, loaded.
///
/// # Errors
/// [`CompressError`].
pub(crate) fn watch(
    model: &Model,
    values: &[String],
    backend: &dyn Backend,
) -> Result<Box<dyn Session>, CompressError> {
    Scratch::new()?.load(&until(model, values), backend)
}

/// The part of a model that makes some values, which are all that it gives.
pub(crate) fn until(model: &Model, values: &[String]) -> Model {
    let mut part = model.clone();
    let graph = part.graph_mut();
    graph.head_mut().output.clear();
    values.iter().for_each(|value| graph.add_output(value));
    graph.remove_dead();
    part
}

/// Values in the order in which they are made, in groups that may be in memory at once.
pub(crate) fn together(
    model: &Model,
    values: &[String],
    inputs: &[Tensor],
    backend: &dyn Backend,
) -> Result<Vec<Vec<String>>, CompressError> {
    let graph = model.graph();
    let order: HashMap<_, _> = graph.order()?.into_iter().zip(0..).collect::<HashMap<_, usize>>();
    let mut values = values.to_vec();
    values.sort_by_key(|value| graph.maker(value).and_then(|id| order.get(&id).copied()));
    values.dedup();
    let lengths = lengths(model, &values, inputs, backend)?;
    let (mut groups, mut size_bytes) = (Vec::<Vec<String>>::new(), 0);
    for value in values {
        let own = lengths.get(&value).copied().unwrap_or(0).saturating_mul(size_of::<f32>());
        size_bytes += own;
        match groups.last_mut().filter(|_| size_bytes <= TOGETHER_MAX_BYTES) {
            Some(group) => group.push(value),
            None => {
                groups.push(vec![value]);
                size_bytes = own;
            }
        }
    }
    Ok(groups)
}

/// How many numbers each value has for an item: asked of an operator that tells shapes, so that no value is kept for it.
fn lengths(
    model: &Model,
    values: &[String],
    inputs: &[Tensor],
    backend: &dyn Backend,
) -> Result<HashMap<String, usize>, CompressError> {
    if values.is_empty() {
        return Ok(HashMap::new());
    }
    let mut asked = model.clone();
    let graph = asked.graph_mut();
    let mut names = HashMap::new();
    for value in values {
        let name = graph.fresh(&format!("{value}_size"));
        graph.insert(node("Size", &[value], &[&name]))?;
        names.insert(name, value.clone());
    }
    let wanted: Vec<String> = names.keys().cloned().collect();
    let mut session = watch(&asked, &wanted, backend)?;
    let sizes = session.run(inputs, &[]);
    let sizes = sizes.map_err(|source| CompressError::Run { item: 0, source })?;
    let size = |tensor: &Tensor| {
        let size = numbers::to_f64(tensor)?.first().copied()?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a count
        Some((names.get(tensor.name())?.clone(), size as usize))
    };
    Ok(sizes.iter().filter_map(size).collect())
}
