//! Log-mel spectrograms, with the conventions that librosa and torchaudio share: power of the
//! windowed Fourier transform, triangular bands between points that are equally far apart on a mel
//! scale, logarithm of what lies above a floor.

use std::fmt;
use std::sync::Arc;

use protocol::manifest::{Log, LogMel, MelOrder, MelScale};
use realfft::{RealFftPlanner, RealToComplex};

use super::super::steps::InvalidPipeline;
use crate::error::AudioError;

const FFT_MAX: u32 = 16_384;
const MELS_MAX: u32 = 512;
const LIMITS: &str = "2 <= fft_size <= 16384, 1 <= window <= fft_size, hop >= 1, 1 <= mels <= 512, \
                      0 <= min_hz < max_hz <= half the rate, floor > 0";

/// A spectrogram's recipe, worked out.
#[derive(Clone)]
pub struct Mel {
    step: LogMel,
    fft: Arc<dyn RealToComplex<f32>>,
    /// `fft_size` weights.
    window: Vec<f32>,
    bands: Vec<Band>,
}

/// One triangle: the first bin under it, and the weights from there on.
#[derive(Debug, Clone, PartialEq)]
struct Band {
    first: usize,
    weights: Vec<f32>,
}

impl fmt::Debug for Mel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.step.fmt(f)
    }
}

impl Mel {
    /// Works a step out for sounds of that rate.
    ///
    /// # Errors
    /// [`InvalidPipeline::Size`].
    pub fn new(step: &LogMel, rate_hz: u32) -> Result<Self, InvalidPipeline> {
        let half_rate = f64::from(rate_hz) / 2.0;
        // Comparisons written so that NaN fails them.
        let good = (2..=FFT_MAX).contains(&step.fft_size)
            && (1..=step.fft_size).contains(&step.window)
            && step.hop >= 1
            && (1..=MELS_MAX).contains(&step.mels)
            && step.min_hz >= 0.0
            && step.min_hz < step.max_hz
            && f64::from(step.max_hz) <= half_rate
            && step.floor > 0.0
            && step.floor.is_finite();
        if !good {
            return Err(InvalidPipeline::Size { step: "log-mel", limits: LIMITS });
        }
        Ok(Self {
            step: step.clone(),
            fft: RealFftPlanner::new().plan_fft_forward(step.fft_size as usize),
            window: hann(step.window as usize, step.fft_size as usize),
            bands: bands(step, rate_hz),
        })
    }

    /// How many bands there are.
    pub fn mels(&self) -> usize {
        self.bands.len()
    }

    /// The dimensions of a spectrogram of so many spectra.
    pub fn shape(&self, frames: usize) -> Vec<usize> {
        match self.step.order {
            MelOrder::MelTime => vec![self.mels(), frames],
            MelOrder::TimeMel => vec![frames, self.mels()],
        }
    }

    /// How many spectra a sound of that many samples makes.
    ///
    /// # Errors
    /// [`AudioError::Short`] if it makes none.
    pub fn frames(&self, samples: usize) -> Result<usize, AudioError> {
        let fft = self.step.fft_size as usize;
        let needed = if self.step.center { fft / 2 + 1 } else { fft };
        if samples < needed {
            return Err(AudioError::Short { actual: samples, needed });
        }
        let len = if self.step.center { samples + fft / 2 * 2 } else { samples };
        Ok(1 + (len - fft) / self.step.hop as usize)
    }

    /// The spectrogram `[mels, frames]` or `[frames, mels]`, each number given its band and put out
    /// as `finish(value, band)`.
    ///
    /// # Errors
    /// [`AudioError::Short`].
    pub fn apply(
        &self,
        samples: &[f32],
        finish: impl Fn(f32, usize) -> f32,
    ) -> Result<Vec<f32>, AudioError> {
        let (frames, mels) = (self.frames(samples.len())?, self.mels());
        let (hop, fft) = (self.step.hop as usize, self.step.fft_size as usize);
        let before = if self.step.center { fft / 2 } else { 0 };
        let mut out = vec![0.0; frames * mels];
        let (mut cut, mut spectrum) = (self.fft.make_input_vec(), self.fft.make_output_vec());
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = vec![0.0f32; spectrum.len()];
        for frame in 0..frames {
            for (i, (to, weight)) in cut.iter_mut().zip(&self.window).enumerate() {
                *to = samples[mirrored(frame * hop + i, before, samples.len())] * weight;
            }
            // Fails for buffers of wrong lengths only, and these are its own.
            let _ = self.fft.process_with_scratch(&mut cut, &mut spectrum, &mut scratch);
            for (to, bin) in power.iter_mut().zip(&spectrum) {
                *to = bin.norm_sqr();
            }
            for (band, triangle) in self.bands.iter().enumerate() {
                let at = match self.step.order {
                    MelOrder::MelTime => band * frames + frame,
                    MelOrder::TimeMel => frame * mels + band,
                };
                out[at] = finish(self.log(triangle.sum(&power)), band);
            }
        }
        Ok(out)
    }

    fn log(&self, power: f32) -> f32 {
        let power = power.max(self.step.floor);
        match self.step.log {
            Log::Ln => power.ln(),
            Log::Log10 => power.log10(),
            Log::Db => 10.0 * power.log10(),
        }
    }
}

/// Which sample stands at `index` when `before` mirrored ones stand before the first (the first
/// itself is not repeated), and as many after the last.
fn mirrored(index: usize, before: usize, len: usize) -> usize {
    let from_first = index.abs_diff(before);
    if from_first < len { from_first } else { 2 * (len - 1) - from_first }
}

/// A periodic Hann window in the middle of `size` weights.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // small counts, weights
fn hann(len: usize, size: usize) -> Vec<f32> {
    let mut weights = vec![0.0; size];
    for i in 0..len {
        let turn = std::f64::consts::TAU * i as f64 / len as f64;
        weights[(size - len) / 2 + i] = (0.5 - 0.5 * turn.cos()) as f32;
    }
    weights
}

impl Band {
    fn sum(&self, power: &[f32]) -> f32 {
        self.weights.iter().zip(&power[self.first..]).map(|(weight, power)| weight * power).sum()
    }
}

/// The triangles, worked out in `f64` as librosa does.
#[allow(clippy::cast_possible_truncation)] // weights lie between 0 and 1
fn bands(step: &LogMel, rate_hz: u32) -> Vec<Band> {
    let scale = step.scale;
    let (low, high) = (to_mel(scale, step.min_hz.into()), to_mel(scale, step.max_hz.into()));
    let width = (high - low) / f64::from(step.mels + 1);
    let edge = |i: u32| to_hz(scale, low + width * f64::from(i));
    let bin_hz = f64::from(rate_hz) / f64::from(step.fft_size);
    let band = |i: u32| {
        let (left, top, right) = (edge(i), edge(i + 1), edge(i + 2));
        let height = if step.equal_area { 2.0 / (right - left) } else { 1.0 };
        let weight = |bin: u32| {
            let hz = bin_hz * f64::from(bin);
            height * ((hz - left) / (top - left)).min((right - hz) / (right - top)).max(0.0)
        };
        let weights: Vec<f32> = (0..=step.fft_size / 2).map(|bin| weight(bin) as f32).collect();
        let first = weights.iter().position(|w| *w > 0.0).unwrap_or(0);
        let last = weights.iter().rposition(|w| *w > 0.0).map_or(first, |last| last + 1);
        Band { first, weights: weights[first..last].to_vec() }
    };
    (0..step.mels).map(band).collect()
}

/// Slaney's scale: 15 mel at 1 kHz, and 27 for each factor of 6.4 above.
const SLANEY_BREAK_HZ: f64 = 1000.0;
const SLANEY_BREAK_MEL: f64 = 15.0;

fn slaney_step() -> f64 {
    6.4f64.ln() / 27.0
}

fn to_mel(scale: MelScale, hz: f64) -> f64 {
    match scale {
        MelScale::Htk => 2595.0 * (1.0 + hz / 700.0).log10(),
        MelScale::Slaney if hz < SLANEY_BREAK_HZ => 3.0 * hz / 200.0,
        MelScale::Slaney => SLANEY_BREAK_MEL + (hz / SLANEY_BREAK_HZ).ln() / slaney_step(),
    }
}

fn to_hz(scale: MelScale, mel: f64) -> f64 {
    match scale {
        MelScale::Htk => 700.0 * (10f64.powf(mel / 2595.0) - 1.0),
        MelScale::Slaney if mel < SLANEY_BREAK_MEL => 200.0 * mel / 3.0,
        MelScale::Slaney => SLANEY_BREAK_HZ * ((mel - SLANEY_BREAK_MEL) * slaney_step()).exp(),
    }
}

#[cfg(test)]
mod tests;
