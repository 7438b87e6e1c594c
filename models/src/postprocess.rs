//! From what a model gives to what an application wants: which outputs are asked of the model, and
//! those that are computed from them.
//!
//! The outputs that an application may name are the model's own, those of the manifest's
//! `postprocess`, and of a classifier [`LABEL_OUTPUT`] and [`PROBABILITY_OUTPUT`]. An output of the
//! model wins against another of the same name.

use std::sync::Arc;

use protocol::manifest::{
    LABEL_OUTPUT, Manifest, PROBABILITY_OUTPUT, PostStep, Postprocess as Derived, TensorSpec,
};
use protocol::tensor::Tensor;

use crate::confidence::{ClassReader, Reading};
use crate::error::{InvalidRequest, RunError};

mod vectors;

/// How a model's outputs are read, checked.
#[derive(Debug, Clone, Default)]
pub struct Postprocess {
    derived: Vec<Derived>,
    classes: Option<ClassReader>,
    /// What the model itself gives.
    outputs: Vec<TensorSpec>,
    /// What is fed back.
    state: Vec<String>,
    /// For messages.
    served: Vec<TensorSpec>,
    /// What a request gets that names nothing.
    default: Arc<Plan>,
}

/// What one request wants, and what the model is asked for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Outputs of the model; all when empty.
    pub ask: Vec<String>,
    wanted: Vec<Wanted>,
}

#[derive(Debug, Clone, PartialEq)]
enum Wanted {
    /// An output of the model.
    Own(String),
    /// Of post-processing, by its place.
    Derived(usize),
    Label,
    Probability,
}

/// A post-processing step that cannot be carried out on its output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the output {output:?} cannot be made: {step} needs {needs}")]
pub struct InvalidPostprocess {
    /// The output.
    pub output: String,
    /// The step.
    pub step: &'static str,
    /// What it needs.
    pub needs: &'static str,
}

impl Postprocess {
    /// Checks the post-processing of a checked manifest; `labels` are in class order.
    ///
    /// # Errors
    /// [`InvalidPostprocess`].
    pub fn new(manifest: &Manifest, labels: &[String]) -> Result<Self, InvalidPostprocess> {
        for derived in &manifest.postprocess {
            check_ranks(derived, &manifest.outputs)?;
        }
        let rule = manifest.calibration.as_ref().and_then(|c| c.rule.clone());
        let reader = |c| ClassReader::new(c, labels.to_vec(), rule);
        let classes = manifest.classes.as_ref().map(reader);
        let mut new = Self {
            derived: manifest.postprocess.clone(),
            classes,
            outputs: manifest.outputs.clone(),
            state: manifest.state.iter().map(|state| state.output.clone()).collect(),
            served: manifest.served_outputs(),
            default: Arc::default(),
        };
        let all = || {
            let named = |spec: &TensorSpec| spec.name.clone();
            let own = new.outputs.iter().map(named).filter(|name| !new.state.contains(name));
            own.chain(new.derived.iter().map(|d| d.output.clone())).collect()
        };
        let default = if manifest.default_outputs.is_empty() {
            all()
        } else {
            manifest.default_outputs.clone()
        };
        new.default = Arc::new(new.resolve(&default).unwrap_or_default()); // its names were checked
        Ok(new)
    }

    /// What to ask of the model for these outputs; the manifest's defaults for none.
    ///
    /// # Errors
    /// An output that is not served, or named twice.
    pub fn plan(&self, outputs: &[String]) -> Result<Arc<Plan>, InvalidRequest> {
        match outputs {
            [] => Ok(Arc::clone(&self.default)),
            _ if self.outputs.is_empty() => Ok(Arc::default()), // a model without a manifest
            _ => self.resolve(outputs).map(Arc::new),
        }
    }

    fn resolve(&self, outputs: &[String]) -> Result<Plan, InvalidRequest> {
        let mut plan = Plan::default();
        for (index, name) in outputs.iter().enumerate() {
            if outputs[..index].contains(name) {
                return Err(InvalidRequest::Repeated(name.clone()));
            }
            let wanted = self.wanted(name);
            let unknown = || InvalidRequest::unknown_output(name, &self.served);
            plan.wanted.push(wanted.ok_or_else(unknown)?);
        }
        let from = plan.wanted.iter().map(|wanted| match wanted {
            Wanted::Own(name) => Some(name),
            Wanted::Derived(at) => Some(&self.derived[*at].from),
            Wanted::Label | Wanted::Probability => None, // the logits, below
        });
        let logits = self.classes.iter().map(|classes| &classes.logits);
        for name in from.flatten().chain(logits).chain(&self.state) {
            if !plan.ask.contains(name) {
                plan.ask.push(name.clone());
            }
        }
        Ok(plan)
    }

    fn wanted(&self, name: &str) -> Option<Wanted> {
        if self.outputs.iter().any(|spec| spec.name == name) {
            return Some(Wanted::Own(name.to_owned()));
        }
        let derived = self.derived.iter().position(|derived| derived.output == name);
        match name {
            _ if derived.is_some() => derived.map(Wanted::Derived),
            LABEL_OUTPUT if self.classes.is_some() => Some(Wanted::Label),
            PROBABILITY_OUTPUT if self.classes.is_some() => Some(Wanted::Probability),
            _ => None,
        }
    }

    /// Makes the wanted outputs, in their order, and reads the confidence. `inputs` are what the
    /// model was given, `outputs` what it gave for the plan.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn apply(
        &self,
        plan: &Plan,
        inputs: &[Tensor],
        outputs: Vec<Tensor>,
    ) -> Result<(Vec<Tensor>, Reading), RunError> {
        if plan.wanted.is_empty() {
            return Ok((outputs, Reading::default())); // a model without a manifest
        }
        let given = |name: &str| {
            let found = outputs.iter().find(|output| output.name() == name);
            found.ok_or_else(|| RunError::Failed(format!("the model gave no {name:?}")))
        };
        let scores = match &self.classes {
            Some(classes) => Some((classes, given(&classes.logits)?)),
            None => None,
        };
        let reading = scores.map(|(classes, logits)| classes.read(logits)).transpose()?;
        let make = |wanted: &Wanted| match (wanted, scores) {
            (Wanted::Own(name), _) => given(name).cloned(),
            (Wanted::Derived(at), _) => {
                let derived = &self.derived[*at];
                vectors::derive(derived, given(&derived.from)?, inputs)
            }
            (Wanted::Label, Some((classes, logits))) => classes.label_tensor(logits),
            (Wanted::Probability, Some((classes, logits))) => classes.probability_tensor(logits),
            (_, None) => Err(RunError::Failed("no classes".to_owned())),
        };
        let wanted = plan.wanted.iter().map(make).collect::<Result<_, _>>()?;
        Ok((wanted, reading.unwrap_or_default()))
    }

    /// The wanted outputs of a request that has no items to run the model on, all `[0, ...]`; open
    /// dimensions are 0.
    ///
    /// # Errors
    /// As [`Postprocess::apply`].
    pub fn of_nothing(&self, plan: &Plan) -> Result<Vec<Tensor>, RunError> {
        let named = |name: &String| self.outputs.iter().find(|spec| spec.name == *name);
        plan.ask.iter().filter_map(named).map(nothing).collect()
    }
}

/// `[0, ...]` of an output.
fn nothing(spec: &TensorSpec) -> Result<Tensor, RunError> {
    let mut shape: Vec<i64> = spec.shape.iter().map(|d| (*d).max(0)).collect();
    match shape.first_mut() {
        Some(first) => *first = 0,
        None => shape.push(0),
    }
    let meta = protocol::tensor::TensorMeta::new(&spec.name, spec.datatype, shape);
    let build = || Tensor::new(meta?, bytes::Bytes::new());
    build().map_err(|e| RunError::Failed(e.to_string()))
}

fn check_ranks(derived: &Derived, outputs: &[TensorSpec]) -> Result<(), InvalidPostprocess> {
    let from = outputs.iter().find(|spec| spec.name == derived.from);
    let mut rank = from.map_or(0, |spec| spec.shape.len());
    for step in &derived.steps {
        let (name, fits, needs) = match step {
            PostStep::MeanPool { .. } => ("mean-pool", rank == 3, "[n,tokens,d]"),
            PostStep::L2Normalize => ("l2-normalize", rank >= 1, "at least one axis"),
            PostStep::Softmax => ("softmax", rank >= 1, "at least one axis"),
        };
        if !fits {
            let output = derived.output.clone();
            return Err(InvalidPostprocess { output, step: name, needs });
        }
        if matches!(step, PostStep::MeanPool { .. }) {
            rank -= 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
