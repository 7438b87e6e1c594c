//! What a build is worth, on data that no choice has seen: its answers beside the float model's, and what it reads where
//! it is known what is written.

use compress::measure::{Items, Quality, Reference};
use models::authoring::dataset::{Dataset, ModelData};
use models::backend::{Backend, Session, SessionOptions};
use models::confidence::spelled;
use models::numbers;
use models::onnx::Model;
use models::ort_backend::OrtBackend;
use protocol::tensor::Tensor;
use serde::{Deserialize, Serialize};
use std::path::Path;

use super::subjects::{Lines, Subject};

/// The float model's answers, and how others are compared with them.
pub(super) struct Judge<'j> {
    backend: &'j OrtBackend,
    data: ModelData<'j>,
    reference: Reference,
    items: Vec<usize>,
    reading: Option<Reading<'j>>,
}

/// What a build is worth.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Worth {
    pub(super) quality: Quality,
    /// The share of lines that are read right, for a model that reads.
    pub(super) lines: Option<f64>,
}

struct Reading<'j> {
    letters: Vec<String>,
    lines: &'j Lines,
}

impl<'j> Judge<'j> {
    pub(super) fn new(
        subject: &'j Subject,
        dataset: &'j Dataset,
        backend: &'j OrtBackend,
    ) -> anyhow::Result<Self> {
        let mut session = backend.load(&subject.onnx, &SessionOptions::default())?;
        let data = dataset.for_model(session.inputs())?;
        let items: Vec<usize> = (0..dataset.len()).collect();
        let get = |item: usize| Ok(data.inputs(item)?);
        let known = (dataset.labels(), subject.blank());
        let reference = Reference::reading(&mut *session, &get, &items, known)?;
        drop(session);
        let reading = subject.lines.as_ref().map(|lines| {
            Ok::<_, anyhow::Error>(Reading { letters: letters(&subject.onnx)?, lines })
        });
        let reading = reading.transpose()?;
        Ok(Self { backend, data, reference, items, reading })
    }

    /// How much an answer is worth less than the float model's, by the compressor's own measure.
    pub(super) fn drop(&self, worth: &Worth) -> f64 {
        worth.quality.drop_from(&self.reference.own())
    }

    pub(super) fn own(&self, onnx: &Path) -> anyhow::Result<Worth> {
        let mut session = self.load(onnx)?;
        Ok(Worth { quality: self.reference.own(), lines: self.read(&mut *session)? })
    }

    pub(super) fn judge(&self, onnx: &Path) -> anyhow::Result<Worth> {
        let mut session = self.load(onnx)?;
        let get: &Items<'_> = &|item| Ok(self.data.inputs(item)?);
        let quality = self.reference.compare(&mut *session, get, &self.items)?;
        Ok(Worth { quality, lines: self.read(&mut *session)? })
    }

    fn load(&self, onnx: &Path) -> anyhow::Result<Box<dyn Session>> {
        Ok(self.backend.load(onnx, &SessionOptions::default())?)
    }

    fn read(&self, session: &mut dyn Session) -> anyhow::Result<Option<f64>> {
        let Some(reading) = &self.reading else { return Ok(None) };
        let mut right = 0;
        for (item, truth) in reading.lines.truth.iter().enumerate() {
            let outputs = session.run(&self.data.inputs(item)?, &[])?;
            right += usize::from(reading.line(&outputs[0]) == *truth);
        }
        Ok(Some(right as f64 / reading.lines.truth.len().max(1) as f64))
    }
}

impl Reading<'_> {
    fn line(&self, output: &Tensor) -> String {
        let classes = usize::try_from(output.shape().last().copied().unwrap_or(1)).unwrap_or(1);
        let values = numbers::to_f64(output).unwrap_or_default();
        let spelled = spelled(&values, classes.max(1), Some(self.lines.blank)).unwrap_or_default();
        let letter = |class: usize| {
            class
                .checked_sub(1)
                .and_then(|place| self.letters.get(place))
                .map_or(" ", String::as_str)
        };
        spelled.into_iter().map(letter).collect()
    }
}

/// The letters of a model that carries them in its metadata; the last class is a space.
fn letters(onnx: &Path) -> anyhow::Result<Vec<String>> {
    let model = Model::read(onnx)?;
    let entry = model.head().metadata_props.iter().find(|entry| entry.key() == "character");
    let text = entry.map(|entry| entry.value().to_owned()).unwrap_or_default();
    Ok(text.lines().map(str::to_owned).collect())
}
