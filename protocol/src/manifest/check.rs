//! Refuses manifests that contradict themselves. What a step's numbers may be is checked where the
//! step is carried out.

use super::{
    Calibration, FORMAT, InvalidManifest, LABEL_OUTPUT, MODEL_FILE, Manifest, PROBABILITY_OUTPUT,
    Pipeline, PostStep, Step, TensorSpec,
};
use crate::id::ModelName;
use crate::limits::{
    BUNDLE_FILE_MAX_BYTES, BUNDLE_MAX_FILES, NAME_MAX_BYTES, TENSOR_MAX_RANK, TENSORS_MAX_COUNT,
};
use crate::tensor::{DataType, TensorMeta};

type Checked = Result<(), InvalidManifest>;

fn contradiction(text: impl Into<String>) -> Checked {
    Err(InvalidManifest::Contradiction(text.into()))
}

/// The first name that stands twice.
fn repeated<'n>(names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let mut seen = std::collections::BTreeSet::new();
    names.into_iter().find(|name| !seen.insert(*name))
}

impl Manifest {
    /// Refuses what contradicts itself.
    ///
    /// # Errors
    /// [`InvalidManifest`].
    pub fn check(&self) -> Checked {
        if self.format != FORMAT {
            return Err(InvalidManifest::Format(self.format));
        }
        self.check_files()?;
        self.check_parts()
    }

    /// Refuses what contradicts itself, but for the files: for a manifest that is being made.
    ///
    /// # Errors
    /// [`InvalidManifest::Contradiction`].
    pub fn check_parts(&self) -> Checked {
        self.check_tensors()?;
        self.check_feeds()?;
        self.check_constants()?;
        self.check_state()?;
        self.check_postprocess()?;
        self.check_classes()?;
        self.check_default_outputs()?;
        self.check_thrift()?;
        self.check_numbers()
    }

    fn check_files(&self) -> Checked {
        for (index, (name, file)) in self.files.iter().enumerate() {
            let plain = name.parse::<ModelName>().is_ok(); // the same safe characters
            if !plain || file.size_bytes > BUNDLE_FILE_MAX_BYTES || index >= BUNDLE_MAX_FILES {
                return Err(InvalidManifest::File(name.clone()));
            }
        }
        let labels = self.classes.as_ref().and_then(|c| c.labels.as_deref());
        let own = [Some(MODEL_FILE), Some(self.probes.file.as_str()), labels];
        let steps = self.preprocess.iter().flat_map(|p| &p.steps).filter_map(Step::file);
        for used in own.into_iter().flatten().chain(steps) {
            if !self.files.contains_key(used) {
                return Err(InvalidManifest::Missing(used.to_owned()));
            }
        }
        Ok(())
    }

    fn check_tensors(&self) -> Checked {
        if self.inputs.is_empty() || self.outputs.is_empty() {
            return contradiction("a model has at least one input and one output");
        }
        for spec in self.inputs.iter().chain(&self.outputs) {
            if spec.shape.len() > TENSOR_MAX_RANK {
                return contradiction(format!("tensor {:?} has too many dimensions", spec.name));
            }
        }
        Ok(())
    }

    /// Every input of the model has at most one source, and applications' names are clear.
    fn check_feeds(&self) -> Checked {
        for pipeline in &self.preprocess {
            let name = &pipeline.input;
            if name.is_empty() || name.len() > NAME_MAX_BYTES {
                return contradiction("a pipeline's input needs a name of 1 to 128 bytes");
            }
            if let Some((_, target)) = pipeline.feeds().find(|(_, t)| self.input(t).is_none()) {
                return contradiction(format!("a pipeline feeds {target:?}, which is no input"));
            }
            if self.input(name).is_some() && pipeline.feeds().all(|(_, target)| target != name) {
                return contradiction(format!(
                    "the pipeline of {name:?} feeds others, but the model has an input of that name"
                ));
            }
        }
        if let Some(name) = repeated(self.preprocess.iter().map(|p| p.input.as_str())) {
            return contradiction(format!("two pipelines take {name:?}"));
        }
        let fed = self.preprocess.iter().flat_map(Pipeline::feeds).map(|(_, input)| input);
        let constants = self.constants.iter().map(|c| c.input.as_str());
        let state = self.state.iter().map(|s| s.input.as_str());
        match repeated(fed.chain(constants).chain(state)) {
            Some(input) => contradiction(format!("the input {input:?} is fed twice")),
            None => Ok(()),
        }
    }

    fn check_constants(&self) -> Checked {
        for constant in &self.constants {
            let name = &constant.input;
            let Some(spec) = self.input(name).filter(|s| s.datatype != DataType::Bytes) else {
                return contradiction(format!("the constant {name:?} is no input of numbers"));
            };
            let meta = TensorMeta::new(name, spec.datatype, constant.shape.clone());
            let elements = meta.ok().map(|meta| meta.elements());
            let fits = spec.accepts(spec.datatype, &constant.shape)
                && elements == Some(constant.values.len() as u64);
            if !fits {
                return contradiction(format!(
                    "the constant {name:?} has not the shape of its input, or not as many values"
                ));
            }
        }
        Ok(())
    }

    fn check_state(&self) -> Checked {
        for state in &self.state {
            let (Some(input), Some(output)) =
                (self.input(&state.input), self.output(&state.output))
            else {
                return contradiction(format!(
                    "state leads from {:?} to {:?}, which are no output and input",
                    state.output, state.input
                ));
            };
            let meta = TensorMeta::new(&state.input, input.datatype, state.shape.clone());
            let both = |spec: &TensorSpec| spec.accepts(input.datatype, &state.shape);
            let numbers = input.datatype != DataType::Bytes && meta.is_ok_and(|m| m.elements() > 0);
            if !(numbers && both(input) && both(output)) {
                return contradiction(format!(
                    "the state {:?} has not the datatype and shape of its input and output",
                    state.input
                ));
            }
        }
        match repeated(self.state.iter().map(|s| s.output.as_str())) {
            Some(output) => contradiction(format!("the state {output:?} is fed back twice")),
            None => Ok(()),
        }
    }

    fn check_postprocess(&self) -> Checked {
        if self.postprocess.len() > TENSORS_MAX_COUNT {
            return contradiction("too many outputs of post-processing");
        }
        for step in &self.postprocess {
            let name = &step.output;
            if name.is_empty() || name.len() > NAME_MAX_BYTES {
                return contradiction(
                    "an output of post-processing needs a name of 1 to 128 bytes",
                );
            }
            if [LABEL_OUTPUT, PROBABILITY_OUTPUT].contains(&name.as_str()) {
                return contradiction(format!("{name:?} is an output of classifiers"));
            }
            let numbers = self.output(&step.from).is_some_and(|o| o.datatype != DataType::Bytes);
            if !numbers {
                return contradiction(format!("{name:?} is made from no output of numbers"));
            }
            for step in &step.steps {
                if let PostStep::MeanPool { mask: Some(mask) } = step
                    && self.input(mask).is_none()
                {
                    return contradiction(format!("the mask {mask:?} is no input"));
                }
            }
        }
        let own = self.outputs.iter().map(|o| o.name.as_str());
        match repeated(own.chain(self.postprocess.iter().map(|p| p.output.as_str()))) {
            Some(name) => contradiction(format!("two outputs are called {name:?}")),
            None => Ok(()),
        }
    }

    fn check_classes(&self) -> Checked {
        match &self.classes {
            Some(classes) if self.output(&classes.logits).is_none() => {
                contradiction(format!("the logits {:?} are no output", classes.logits))
            }
            Some(classes) if classes.top_k == Some(0) => contradiction("top_k is at least 1"),
            None if self.calibration.is_some() => {
                contradiction("a threshold needs classes to read a confidence from")
            }
            _ => Ok(()),
        }
    }

    fn check_default_outputs(&self) -> Checked {
        let served = self.served_outputs();
        let unknown =
            self.default_outputs.iter().find(|name| served.iter().all(|spec| spec.name != **name));
        if let Some(name) = unknown {
            return contradiction(format!("the default output {name:?} is none that is served"));
        }
        match repeated(self.default_outputs.iter().map(String::as_str)) {
            Some(name) => contradiction(format!("the default output {name:?} stands twice")),
            None => Ok(()),
        }
    }

    fn check_numbers(&self) -> Checked {
        let tolerance = self.probes.tolerance;
        // A comparison written so that NaN fails it.
        if !(tolerance >= 0.0 && tolerance.is_finite()) {
            return contradiction("the probes' tolerance must be >= 0");
        }
        self.calibration.as_ref().map_or(Ok(()), Calibration::check)
    }
}
