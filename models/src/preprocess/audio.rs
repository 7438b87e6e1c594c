//! Sounds: `BYTES` `[n]` is WAV files, `FP32` (-1 to 1) or `INT16` `[n,samples]` or `[samples]` is
//! mono samples at the model's rate. The result is one `FP32` tensor: samples `[n,samples]`, a
//! spectrogram `[n,mels,time]` or `[n,time,mels]`, or frames `[frames,context+size]`; where the
//! model has one dimension more, a channel of 1 stands behind the first.
//!
//! A sound that is cut into frames comes alone. As a whole it is padded with silence to full
//! frames, and so is the last piece of a stream; any other piece goes on where the piece before it
//! ended, and leaves over what fills no frame.

use bytes::Bytes;
use protocol::limits::TENSORS_MAX_BYTES;
use protocol::manifest::{Pipeline, Step, TensorSpec};
use protocol::tensor::{DataType, Tensor, TensorMeta};

use super::steps::{InvalidPipeline, check_normalize, values_target};
use super::{Frames, Moment, Prepared};
use crate::backend::describe_type;
use crate::error::audio::{FRAMES_MAX, RATE_MAX_HZ, RATE_MIN_HZ, SAMPLES_MAX};
use crate::error::{AudioError, InvalidRequest, RunError};

pub mod mel;
pub mod resample;
pub mod wav;

use mel::Mel;

/// A pipeline over sounds.
#[derive(Debug, Clone)]
pub struct AudioFeed {
    input: String,
    spec: TensorSpec,
    decode: bool,
    /// The model's rate, where the steps say it.
    rate_hz: u32,
    fit: Option<usize>,
    shape: Shape,
    mean: Vec<f32>,
    std: Vec<f32>,
}

/// What a sound becomes.
#[derive(Debug, Clone)]
enum Shape {
    Samples,
    Frames { size: usize, context: usize },
    Mel(Mel),
}

/// A size of the pipeline in samples, at least `least`.
fn size(step: &'static str, value: u32, least: u32) -> Result<usize, InvalidPipeline> {
    let size = value as usize;
    let good = value >= least && size <= SAMPLES_MAX;
    good.then_some(size).ok_or(InvalidPipeline::Size { step, limits: "1 to 16777216 samples" })
}

impl AudioFeed {
    /// Checks the pipeline, whose steps stand in order, of a model with these inputs.
    ///
    /// # Errors
    /// [`InvalidPipeline`].
    pub fn new(pipeline: &Pipeline, inputs: &[TensorSpec]) -> Result<Self, InvalidPipeline> {
        let mel = pipeline.steps.iter().any(|step| matches!(step, Step::LogMel(_)));
        let (ranks, makes): (&[usize], _) = match mel {
            true => (&[3, 4], "a spectrogram as FP32 of 3 or 4 dimensions"),
            false => (&[2, 3], "samples as FP32 of 2 or 3 dimensions"),
        };
        let mut feed = Self {
            input: pipeline.input.clone(),
            spec: values_target(pipeline, inputs, ranks, makes)?.clone(),
            decode: false,
            rate_hz: 0,
            fit: None,
            shape: Shape::Samples,
            mean: vec![0.0],
            std: vec![1.0],
        };
        for step in &pipeline.steps {
            feed.take(step)?;
        }
        if feed.decode && feed.rate_hz == 0 {
            return Err(InvalidPipeline::Needs { step: "decode-wav", needs: "resample" });
        }
        let bands = match &feed.shape {
            Shape::Mel(mel) => mel.mels(),
            _ => 1,
        };
        check_normalize(&feed.mean, &feed.std, &[bands])?;
        Ok(feed)
    }

    fn take(&mut self, step: &Step) -> Result<(), InvalidPipeline> {
        match step {
            Step::DecodeWav => self.decode = true,
            Step::Resample { rate_hz } => {
                let limits = "1000 to 192000 hertz";
                let good = (RATE_MIN_HZ..=RATE_MAX_HZ).contains(rate_hz);
                good.then_some(()).ok_or(InvalidPipeline::Size { step: "resample", limits })?;
                self.rate_hz = *rate_hz;
            }
            Step::Fit { samples } => self.fit = Some(size("fit", *samples, 1)?),
            Step::Frame { size: new, context } => {
                let (size, context) = (size("frame", *new, 1)?, size("frame", *context, 0)?);
                self.shape = Shape::Frames { size, context };
            }
            Step::LogMel(_) if self.rate_hz == 0 => {
                return Err(InvalidPipeline::Needs { step: "log-mel", needs: "resample" });
            }
            Step::LogMel(step) => self.shape = Shape::Mel(Mel::new(step, self.rate_hz)?),
            Step::Normalize { mean, std } => {
                (self.mean, self.std) = (mean.clone(), std.clone());
            }
            _ => {} // of another kind, and so refused before
        }
        Ok(())
    }

    pub(super) fn cuts_frames(&self) -> bool {
        matches!(self.shape, Shape::Frames { .. })
    }

    /// Turns WAV files or samples into the model's input. A piece of a stream goes on where
    /// the one before it ended.
    ///
    /// # Errors
    /// [`RunError::Request`] or [`RunError::Audio`].
    pub(super) fn apply(
        &self,
        input: &Tensor,
        moment: &Moment<'_>,
        prepared: &mut Prepared,
    ) -> Result<(), RunError> {
        if let Shape::Frames { size, context } = self.shape {
            if prepared.frames.is_some() {
                return Err(InvalidRequest::Repeated(self.input.clone()).into());
            }
            let (data, rest) = self.frames(input, moment, (size, context))?;
            let count = data.len() / (size + context);
            let tensor = self.tensor(&data, &[count, size + context])?;
            prepared.frames = Some(Frames { tensor, tail: rest });
        } else {
            prepared.tensors.push(self.batch(input, moment)?);
        }
        Ok(())
    }

    /// Each item's samples, at the model's rate.
    fn sounds<'i>(
        &'i self,
        input: &'i Tensor,
        streamed: bool,
    ) -> Result<Vec<Box<Samples<'i>>>, RunError> {
        match (input.datatype(), input.shape()) {
            (DataType::Bytes, &[1..=i64::MAX]) if self.decode => {
                let items = input.byte_elements();
                Ok(items.map(|f| lazy(move || self.decode(&f, streamed))).collect())
            }
            (DataType::Fp32 | DataType::Int16, &[_] | &[1..=i64::MAX, _]) => {
                let len = input.shape().last().and_then(|len| usize::try_from(*len).ok());
                let unit = input.datatype().size_bytes().unwrap_or(1);
                let bytes = len.unwrap_or(0) * unit;
                if bytes == 0 {
                    return Ok(vec![lazy(|| Ok(Vec::new()))]);
                }
                let int = input.datatype() == DataType::Int16;
                let items = (0..input.data().len() / bytes)
                    .map(|item| input.data().slice(item * bytes..(item + 1) * bytes));
                Ok(items.map(|data| lazy(move || numbers(&data, int))).collect())
            }
            _ => Err(self.refuse(input)),
        }
    }

    fn refuse(&self, input: &Tensor) -> RunError {
        let files = if self.decode { ", or WAV files as BYTES [n]" } else { "" };
        let own = match input.name() == self.spec.name {
            true => format!("{}, or ", describe_type(self.spec.datatype, &self.spec.shape)),
            false => String::new(),
        };
        RunError::Request(InvalidRequest::WrongInput {
            name: input.name().to_owned(),
            actual: describe_type(input.datatype(), input.shape()),
            takes: format!("{own}samples as FP32 or INT16 [n,samples]{files}"),
        })
    }

    fn fail(&self, item: usize, source: AudioError) -> RunError {
        RunError::Audio { input: self.input.clone(), item, source }
    }

    fn decode(&self, file: &[u8], streamed: bool) -> Result<Vec<f32>, AudioError> {
        let sound = wav::read(file)?;
        if streamed && sound.rate_hz != self.rate_hz {
            let (expected, actual) = (self.rate_hz, sound.rate_hz);
            return Err(AudioError::StreamRate { expected, actual });
        }
        finite(resample::resample(sound.samples, sound.rate_hz, self.rate_hz)?)
    }

    fn batch(&self, input: &Tensor, moment: &Moment<'_>) -> Result<Tensor, RunError> {
        let mut numbers: Vec<f32> = Vec::new();
        let mut first = (0, Vec::new());
        for (item, sound) in self.sounds(input, false)?.into_iter().enumerate() {
            let made = sound().and_then(|samples| self.shape_up(samples));
            let (made, shape) = made.map_err(|source| self.fail(item, source))?;
            if item == 0 {
                first = (made.len(), shape);
            } else if made.len() != first.0 {
                let source = AudioError::Lengths { first: first.0, this: made.len() };
                return Err(self.fail(item, source));
            }
            let size_bytes = (numbers.len() + made.len()) as u64 * 4;
            if size_bytes > TENSORS_MAX_BYTES {
                return Err(self.fail(item, AudioError::Batch(size_bytes)));
            }
            numbers.extend(made);
            moment.check()?;
        }
        let items = numbers.len() / first.0.max(1);
        self.tensor(&numbers, &[&[items], first.1.as_slice()].concat())
    }

    /// One item's numbers and its dimensions.
    fn shape_up(&self, mut samples: Vec<f32>) -> Result<(Vec<f32>, Vec<usize>), AudioError> {
        if samples.is_empty() {
            return Err(AudioError::Empty);
        }
        if let Some(len) = self.fit {
            samples.resize(len, 0.0);
        }
        let Shape::Mel(mel) = &self.shape else {
            self.normalize(&mut samples);
            let len = samples.len();
            return Ok((samples, vec![len]));
        };
        let frames = mel.frames(samples.len())?;
        let size_bytes = frames as u64 * mel.mels() as u64 * 4;
        if size_bytes > TENSORS_MAX_BYTES {
            return Err(AudioError::Batch(size_bytes));
        }
        let which = |band: usize| band.min(self.mean.len() - 1);
        let finish = |value, band| (value - self.mean[which(band)]) / self.std[which(band)];
        Ok((mel.apply(&samples, finish)?, mel.shape(frames)))
    }

    fn normalize(&self, samples: &mut [f32]) {
        for sample in samples {
            *sample = (*sample - self.mean[0]) / self.std[0];
        }
    }

    /// The frames' samples one after the other, and what is left over.
    fn frames(
        &self,
        input: &Tensor,
        moment: &Moment<'_>,
        (size, context): (usize, usize),
    ) -> Result<(Vec<f32>, Vec<f32>), RunError> {
        let tail = moment.tail;
        let mut sounds = self.sounds(input, tail.is_some())?;
        if sounds.len() != 1 {
            return Err(self.fail(0, AudioError::Several(input.shape()[0])));
        }
        let made = sounds.remove(0)().and_then(|s| self.piece(s, tail.is_some()));
        let samples = made.map_err(|source| self.fail(0, source))?;
        let before = match tail {
            None | Some([]) => vec![0.0; context],
            Some(tail) if (context..context + size).contains(&tail.len()) => tail.to_vec(),
            Some(_) => return Err(InvalidRequest::ForeignState.into()),
        };
        let mut all = [before, samples].concat();
        if tail.is_none() || moment.last {
            let new = (all.len() - context).next_multiple_of(size);
            all.resize(context + new, 0.0);
        }
        let count = (all.len() - context) / size;
        if count > FRAMES_MAX {
            return Err(self.fail(0, AudioError::Frames(count)));
        }
        let size_bytes = count as u64 * (size + context) as u64 * 4;
        if size_bytes > TENSORS_MAX_BYTES {
            return Err(self.fail(0, AudioError::Batch(size_bytes)));
        }
        let frame = |i: usize| &all[i * size..(i + 1) * size + context];
        let data = (0..count).flat_map(frame).copied().collect();
        Ok((data, all.split_off(count * size)))
    }

    /// The samples that are framed; a piece of a stream may be empty.
    fn piece(&self, mut samples: Vec<f32>, streamed: bool) -> Result<Vec<f32>, AudioError> {
        if let Some(len) = self.fit.filter(|_| !streamed) {
            samples.resize(len, 0.0);
        }
        self.normalize(&mut samples);
        if samples.is_empty() && !streamed { Err(AudioError::Empty) } else { Ok(samples) }
    }

    fn tensor(&self, numbers: &[f32], dimensions: &[usize]) -> Result<Tensor, RunError> {
        let mut shape: Vec<i64> =
            dimensions.iter().map(|d| i64::try_from(*d).unwrap_or(i64::MAX)).collect();
        if self.spec.shape.len() > shape.len() {
            shape.insert(1, 1);
        }
        let data: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        let build = || {
            Tensor::new(TensorMeta::new(&self.spec.name, DataType::Fp32, shape)?, Bytes::from(data))
        };
        build().map_err(|e| RunError::Failed(e.to_string()))
    }
}

/// One item's samples, read when it is their turn, so that a batch holds one at a time.
type Samples<'i> = dyn FnOnce() -> Result<Vec<f32>, AudioError> + 'i;

fn lazy<'i>(
    read: impl FnOnce() -> Result<Vec<f32>, AudioError> + 'i,
) -> Box<dyn FnOnce() -> Result<Vec<f32>, AudioError> + 'i> {
    Box::new(read)
}

fn numbers(data: &[u8], int: bool) -> Result<Vec<f32>, AudioError> {
    if int {
        let values = data.as_chunks::<2>().0.iter();
        return Ok(values.map(|v| f32::from(i16::from_le_bytes(*v)) / 32_768.0).collect());
    }
    finite(data.as_chunks::<4>().0.iter().map(|v| f32::from_le_bytes(*v)).collect())
}

fn finite(samples: Vec<f32>) -> Result<Vec<f32>, AudioError> {
    match samples.iter().position(|s| !s.is_finite()) {
        Some(index) => Err(AudioError::NotFinite(index)),
        None => Ok(samples),
    }
}

#[cfg(test)]
mod tests;
