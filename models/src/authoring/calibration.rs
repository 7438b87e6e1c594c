//! What both variants say to labelled items, and the rule that is made of it.
//!
//! `outrigger model calibrate` keeps its record beside `model.toml`, with the hashes of the ONNX files
//! that it was measured with; a bundle of other files must not carry it.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use protocol::id::{ContentHash, Hasher, Variant, Version};
use protocol::manifest::{Calibration, Truth};
use protocol::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::dataset::Dataset;
use super::recipe::Goal;
use super::{Author, BuildError, Model, RECIPE_FILE, io_error};
use crate::backend::Backend;
use crate::bundle::file_ref;
use crate::calibrate::empirical::{Item, choose};
use crate::calibrate::{Example, Options, Sequence, calibrate};
use crate::confidence::{Said, said};
use crate::error::RunError;
use crate::runner::Call;

/// The record in an authoring folder.
pub const CALIBRATION_FILE: &str = "calibration.json";

/// A calibration with what it was measured with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    edge: ContentHash,
    cloud: ContentHash,
    calibration: Calibration,
}

impl Author {
    /// The edge variant's calibration: the record, if there is one, else what the recipe's
    /// `[calibration]` leads to; `None` where it has none.
    pub(super) fn calibration(
        &self,
        version: Version,
        backend: &dyn Backend,
    ) -> Result<Option<Calibration>, BuildError> {
        if let Some(calibration) = self.recorded()? {
            return Ok(Some(calibration));
        }
        let Some(recipe) = &self.recipe.calibration else { return Ok(None) };
        let goal = recipe.goal().ok_or(BuildError::TwoGoals)?;
        let data = Dataset::open(&self.folder.join(RECIPE_FILE))?;
        let (examples, truth) = self.examples(&data, version, backend, &mut |_| {})?;
        match goal {
            Goal::MaxDrop(max_drop) => Ok(Some(choose(&items(&examples), max_drop)?)),
            Goal::Bound { risk, confidence } => {
                Ok(Some(bounded(&examples, truth, (risk, confidence))?))
            }
        }
    }

    /// A rule with a bound, from these data, as `outrigger model calibrate` makes it. `progress` is
    /// told after each item how many are done.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn calibrate(
        &self,
        data: &Dataset,
        (risk, confidence): (f64, f64),
        backend: &dyn Backend,
        progress: &mut dyn FnMut(usize),
    ) -> Result<Calibration, BuildError> {
        let (examples, truth) = self.examples(data, Version::FIRST, backend, progress)?;
        Ok(bounded(&examples, truth, (risk, confidence))?)
    }

    /// What both variants say to each item, asked one by one as in use, and what is right: the labels,
    /// or the cloud's own classes where the data have none.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn examples(
        &self,
        data: &Dataset,
        version: Version,
        backend: &dyn Backend,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(Vec<Example>, Truth), BuildError> {
        let mut edge = self.load((Variant::Edge, version), backend)?;
        let mut cloud = self.load((Variant::Cloud, version), backend)?;
        let mut examples = Vec::with_capacity(data.len());
        let mut numbers = Numbers::default();
        for item in 0..data.len() {
            let inputs = data.item(item)?;
            let run = |source| BuildError::Run { item, source };
            let edge = self.ask(&mut edge, &inputs)?.map_err(run)?;
            let cloud = numbers.of(&self.ask(&mut cloud, &inputs)?.map_err(run)?);
            if edge.is_sequence && data.labels().is_some() {
                return Err(BuildError::LabelledSequences);
            }
            let spells = numbers.of(&edge);
            let sequence = edge.is_sequence.then_some(Sequence { classes: edge.classes, spells });
            let truth = data.labels().map_or(cloud, |labels| labels[item]);
            examples.push(Example { logits: edge.logits, sequence, truth, cloud });
            progress(item + 1);
        }
        let truth = if data.labels().is_some() { Truth::Labels } else { Truth::Cloud };
        Ok((examples, truth))
    }

    /// What a variant says to one item, asked alone: batching may change the numbers.
    fn ask(
        &self,
        model: &mut Model,
        inputs: &[Tensor],
    ) -> Result<Result<Said, RunError>, BuildError> {
        let classes = self.recipe.classes.as_ref().ok_or(BuildError::NoClasses)?;
        let outputs = std::slice::from_ref(&classes.logits);
        let mut ask = || {
            let reply = model.runner.answer(Call { inputs, outputs, ..Call::default() })?;
            let items = match reply.outputs.first() {
                Some(logits) => said(logits, classes.blank)?,
                None => Vec::new(),
            };
            let none = || RunError::Failed(format!("{:?} is empty", classes.logits));
            items.into_iter().next().ok_or_else(none)
        };
        Ok(ask())
    }

    /// Keeps a calibration for the bundles of these ONNX files; where.
    ///
    /// # Errors
    /// [`BuildError`].
    pub fn record(&self, calibration: &Calibration) -> Result<PathBuf, BuildError> {
        let path = self.folder.join(CALIBRATION_FILE);
        let (edge, cloud) = (self.hash(Variant::Edge)?, self.hash(Variant::Cloud)?);
        let record = Record { edge, cloud, calibration: calibration.clone() };
        let unreadable = |reason: serde_json::Error| BuildError::Record {
            path: path.clone(),
            reason: reason.to_string(),
        };
        let text = serde_json::to_string_pretty(&record).map_err(unreadable)? + "\n";
        fs::write(&path, text).map_err(io_error(&path))?;
        Ok(path)
    }

    fn recorded(&self) -> Result<Option<Calibration>, BuildError> {
        let path = self.folder.join(CALIBRATION_FILE);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).map_err(io_error(&path))?;
        let record: Record = serde_json::from_str(&text).map_err(|reason| BuildError::Record {
            path: path.clone(),
            reason: reason.to_string(),
        })?;
        let same = record.edge == self.hash(Variant::Edge)?
            && record.cloud == self.hash(Variant::Cloud)?;
        if same { Ok(Some(record.calibration)) } else { Err(BuildError::OtherModels(path)) }
    }

    fn hash(&self, variant: Variant) -> Result<ContentHash, BuildError> {
        let onnx = self.recipe.variants.onnx(variant).ok_or(BuildError::NoVariant(variant))?;
        let path = self.folder.join(onnx);
        Ok(file_ref(&path).map_err(io_error(&path))?.sha256)
    }
}

/// A number for each answer: the class, or for what is spelled the next one that is free.
#[derive(Debug, Default)]
struct Numbers(BTreeMap<Vec<usize>, usize>);

impl Numbers {
    fn of(&mut self, said: &Said) -> usize {
        if !said.is_sequence {
            return said.answer.first().copied().unwrap_or(0);
        }
        let next = self.0.len();
        *self.0.entry(said.answer.clone()).or_insert(next)
    }
}

fn bounded(
    examples: &[Example],
    truth: Truth,
    (risk, confidence): (f64, f64),
) -> Result<Calibration, crate::calibrate::CalibrateError> {
    let seed = seed_of(examples);
    let references: Vec<&Example> = examples.iter().collect();
    calibrate(&references, &Options { risk, confidence, truth, seed })
}

/// The seed is the data's, so that nobody can try another until the rule pleases.
fn seed_of(examples: &[Example]) -> u64 {
    let mut hasher = Hasher::default();
    for example in examples {
        example.logits.iter().for_each(|z| hasher.update(&z.to_le_bytes()));
        [example.truth, example.cloud].iter().for_each(|c| hasher.update(&c.to_le_bytes()));
    }
    let hash = hasher.finish().to_string();
    u64::from_str_radix(hash.get(..13).unwrap_or_default(), 16).unwrap_or(0) // exact in JSON
}

fn items(examples: &[Example]) -> Vec<Item> {
    let item = |e: &Example| Item {
        confidence: e.plain_confidence(),
        edge_correct: e.is_right(),
        cloud_correct: e.cloud == e.truth,
    };
    examples.iter().map(item).collect()
}
