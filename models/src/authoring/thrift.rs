//! What it costs a cloud variant that inputs travel packed: each item is asked as it is and as it would
//! arrive, and the answers are compared. A bundle that would lose more than its recipe allows is refused.

use protocol::manifest::{Classes, Manifest, Thrift, ThriftEffect, ThriftTolerance};
use protocol::tensor::{DataType, Tensor};
use protocol::transport::{Allowance, Allowances, Parcel, Transport};

use super::dataset::{Dataset, ModelData};
use super::recipe::ThriftRecipe;
use super::{Author, BuildError, Model, RECIPE_FILE, probed_outputs};
use crate::calibrate::binomial::{clopper_pearson_upper, fewest_without_error};
use crate::confidence::says;
use crate::error::RunError;
use crate::numbers;
use crate::runner::Call;

/// With which probability the true share of changed answers is no larger than stated.
const CONFIDENCE: f64 = 0.95;

/// Why inputs must not travel packed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ThriftError {
    /// An input that cannot be packed.
    #[error(
        "[thrift] {input:?}: the data have no finite FP32 for it; name an input of the model that is FP32"
    )]
    Input {
        /// The input.
        input: String,
    },
    /// More answers may change than is allowed.
    #[error(
        "[thrift] changes the class of {changed} of {items} answers, which may be {:.2} % of all (95 % confidence); \
         max_changed allows {:.2} %: use float16, allow more, or give more data in [calibration] ({needed} items if \
         none changes)", .at_most * 100.0, .allowed * 100.0
    )]
    Changed {
        /// Answers that changed.
        changed: u64,
        /// Answers.
        items: u64,
        /// The largest share of all that is compatible with it.
        at_most: f64,
        /// What the recipe allows.
        allowed: f64,
        /// So many items would do if no answer changed.
        needed: u64,
    },
    /// A number lies too far away.
    #[error(
        "[thrift] moves a number of an output by {difference:.4} (|a - b| / (1 + |b|)); max_difference allows \
         {allowed:.4}: use float16, or allow more"
    )]
    Difference {
        /// The largest.
        difference: f64,
        /// What the recipe allows.
        allowed: f64,
    },
}

impl Author {
    /// What the recipe allows to travel packed, measured.
    pub(super) fn thrift(&self, model: &mut Model) -> Result<Option<Thrift>, BuildError> {
        let Some(recipe) = &self.recipe.thrift else { return Ok(None) };
        let data = Dataset::open(&self.folder.join(RECIPE_FILE))?;
        let data = Items { given: data.for_model(&model.draft.inputs)?, count: data.len() };
        let allowances = allowances(recipe, &data)?;
        let measured = measure(model, &data, &allowances)?;
        let tolerance = ThriftTolerance {
            max_changed: recipe.max_changed,
            max_difference: recipe.max_difference,
        };
        judge(&tolerance, &measured)?;
        Ok(Some(Thrift { inputs: allowances, tolerance, measured }))
    }
}

/// The items of a dataset, as the model takes them.
struct Items<'d> {
    given: ModelData<'d>,
    count: usize,
}

/// Each form with the largest extent of its input.
fn allowances(recipe: &ThriftRecipe, data: &Items<'_>) -> Result<Allowances, BuildError> {
    let none = |(input, form): (&String, &Transport)| {
        (input.clone(), Allowance { transport: *form, extent_max: 0.0 })
    };
    let mut allowances: Allowances = recipe.inputs.iter().map(none).collect();
    for item in 0..data.count {
        let inputs = data.given.inputs(item)?;
        for (name, allowance) in &mut allowances {
            let tensor = inputs.iter().find(|t| t.name() == name && t.datatype() == DataType::Fp32);
            let extent = tensor.and_then(|tensor| allowance.transport.extent(tensor));
            let extent = extent.ok_or_else(|| ThriftError::Input { input: name.clone() })?;
            allowance.extent_max = allowance.extent_max.max(extent);
        }
    }
    Ok(allowances)
}

fn measure(
    model: &mut Model,
    data: &Items<'_>,
    allowances: &Allowances,
) -> Result<ThriftEffect, BuildError> {
    let wanted = compared(&model.draft);
    let classes = model.draft.classes.clone();
    let mut effect = ThriftEffect {
        items: data.count as u64,
        changed: classes.as_ref().map(|_| 0),
        changed_at_most: None,
        difference: 0.0,
        raw_bytes: 0,
        sent_bytes: 0,
    };
    for item in 0..data.count {
        let inputs = data.given.inputs(item)?;
        let parcel = Parcel::packed(&inputs, allowances);
        effect.sent_bytes += parcel.sent_bytes();
        effect.raw_bytes += parcel.sent_bytes() + parcel.saved_bytes();
        let run = |source| BuildError::Run { item, source };
        let arrived = arrived(&inputs, &parcel).map_err(run)?;
        let mut ask = |inputs: &[Tensor]| {
            let call = Call { inputs, outputs: &wanted, ..Call::default() };
            Ok::<_, BuildError>(model.runner.answer(call).map_err(run)?.outputs)
        };
        let (expected, actual) = (ask(&inputs)?, ask(&arrived)?);
        effect.difference = effect.difference.max(difference(&expected, &actual));
        if let (Some(classes), Some(changed)) = (&classes, &mut effect.changed) {
            let same =
                said(&expected, classes).map_err(run)? == said(&actual, classes).map_err(run)?;
            *changed += u64::from(!same);
        }
    }
    effect.changed_at_most =
        effect.changed.map(|changed| clopper_pearson_upper(changed, effect.items, CONFIDENCE));
    Ok(effect)
}

/// What is compared: what probes compare, and the logits of a classifier.
fn compared(manifest: &Manifest) -> Vec<String> {
    let mut wanted = probed_outputs(manifest);
    if let Some(classes) = &manifest.classes
        && !wanted.is_empty()
        && !wanted.contains(&classes.logits)
    {
        wanted.push(classes.logits.clone());
    }
    wanted
}

/// The inputs as the cloud would have them.
fn arrived(inputs: &[Tensor], parcel: &Parcel) -> Result<Vec<Tensor>, RunError> {
    let forms = parcel.transports().zip(parcel.pieces());
    let unpack = |(input, (form, sent)): (&Tensor, (Transport, bytes::Bytes))| {
        let data = form.unpack(input.meta(), &sent).map_err(|e| RunError::Failed(e.to_string()))?;
        Tensor::new(input.meta().clone(), data).map_err(|e| RunError::Failed(e.to_string()))
    };
    inputs.iter().zip(forms).map(unpack).collect()
}

/// What each item says: its class, or what its tokens spell.
fn said(outputs: &[Tensor], classes: &Classes) -> Result<Vec<Option<Vec<usize>>>, RunError> {
    let found = outputs.iter().find(|output| output.name() == classes.logits);
    found.map_or(Ok(Vec::new()), |logits| says(logits, classes.blank))
}

/// The largest distance of two numbers; infinite where the two are no answers of the same form.
fn difference(expected: &[Tensor], actual: &[Tensor]) -> f64 {
    let of_pair = |(expected, actual): (&Tensor, &Tensor)| {
        if expected.meta() != actual.meta() {
            return f64::INFINITY;
        }
        let (Some(wanted), Some(got)) = (numbers::to_f64(expected), numbers::to_f64(actual)) else {
            return if expected.data() == actual.data() { 0.0 } else { f64::INFINITY };
        };
        let distance = |(wanted, got): (f64, f64)| match (wanted - got).abs() / (1.0 + wanted.abs())
        {
            _ if wanted == got => 0.0,
            distance if distance.is_nan() => f64::INFINITY,
            distance => distance,
        };
        wanted.into_iter().zip(got).map(distance).fold(0.0, f64::max)
    };
    expected.iter().zip(actual).map(of_pair).fold(0.0, f64::max)
}

/// Refuses what costs more than is allowed.
fn judge(tolerance: &ThriftTolerance, effect: &ThriftEffect) -> Result<(), ThriftError> {
    if let (Some(allowed), Some(at_most)) = (tolerance.max_changed, effect.changed_at_most)
        && at_most > allowed
    {
        let needed = fewest_without_error(allowed, CONFIDENCE);
        let (changed, items) = (effect.changed.unwrap_or(0), effect.items);
        return Err(ThriftError::Changed { changed, items, at_most, allowed, needed });
    }
    let allowed = tolerance.max_difference.map_or(f64::MAX, f64::from); // infinity is always too much
    if effect.difference > allowed {
        return Err(ThriftError::Difference { difference: effect.difference, allowed });
    }
    Ok(())
}
