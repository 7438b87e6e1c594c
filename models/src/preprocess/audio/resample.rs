//! To another sample rate, by a synchronous Fourier resampler whose delay is taken off again.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler, WindowFunction};

use crate::error::AudioError;
use crate::error::audio::SAMPLES_MAX;

/// Samples that are transformed at once, at least: enough for a steep filter, and the delay does not
/// matter for a sound that is there as a whole.
const CHUNK: usize = 2048;

/// A sound of `n` samples at `from` hertz, as `ceil(n * to / from)` samples at `to` hertz.
///
/// # Errors
/// [`AudioError::Long`] or [`AudioError::Resampler`].
pub fn resample(samples: Vec<f32>, from: u32, to: u32) -> Result<Vec<f32>, AudioError> {
    if from == to || samples.is_empty() {
        return Ok(samples);
    }
    let len = (samples.len() as u64 * u64::from(to)).div_ceil(u64::from(from).max(1));
    if len > SAMPLES_MAX as u64 {
        return Err(AudioError::Long(len));
    }
    let failed = |e: &dyn std::fmt::Display| AudioError::Resampler(e.to_string());
    let window = WindowFunction::BlackmanHarris2;
    let (from, to) = (from as usize, to as usize);
    let chunk = even_chunk(from, to);
    let mut resampler = Fft::<f32>::new_custom(from, to, chunk, 1, 1, window, FixedSync::Both)
        .map_err(|e| failed(&e))?;
    let input = InterleavedSlice::new(&samples, 1, samples.len()).map_err(|e| failed(&e))?;
    let output = resampler.process_all(&input, samples.len(), None).map_err(|e| failed(&e))?;
    Ok(output.take_data())
}

/// A chunk of an even number of the shortest blocks in which both rates are whole: its half, the
/// delay that is taken off, is then whole at both rates too, and the sound does not move.
fn even_chunk(from: usize, to: usize) -> usize {
    let (mut a, mut b) = (from, to);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    let block = from / a;
    block * CHUNK.div_ceil(block).next_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f32, rate: u32, samples: usize) -> Vec<f32> {
        let step = std::f32::consts::TAU * hz / rate as f32;
        (0..samples).map(|i| (step * i as f32).sin()).collect()
    }

    fn rms(samples: &[f32]) -> f32 {
        (samples.iter().map(|s| s * s).sum::<f32>() / samples.len() as f32).sqrt()
    }

    #[test]
    fn a_tone_stays_what_it_is_and_where_it_is() {
        for (from, to) in [(44_100, 16_000), (48_000, 16_000), (8_000, 16_000), (22_050, 16_000)] {
            let seconds = tone(440.0, from, from as usize);
            let resampled = resample(seconds, from, to).unwrap();
            let expected = tone(440.0, to, to as usize);
            assert_eq!(resampled.len(), expected.len());
            let inner = 2_000..to as usize - 2_000; // the ends ring
            let apart: Vec<f32> = inner.map(|i| resampled[i] - expected[i]).collect();
            assert!(rms(&apart) < 1e-3, "{from} to {to}: {}", rms(&apart));
        }
    }

    #[test]
    fn what_the_new_rate_cannot_hold_is_gone() {
        let resampled = resample(tone(12_000.0, 48_000, 48_000), 48_000, 16_000).unwrap();
        assert!(rms(&resampled[2_000..14_000]) < 1e-3);
    }

    #[test]
    fn odd_rates_and_lengths() {
        for (from, len) in [(15_999, 7), (16_001, 1), (1_000, 3), (192_000, 100_001)] {
            let expected = (len as u64 * 16_000).div_ceil(u64::from(from));
            let resampled = resample(vec![0.1; len], from, 16_000).unwrap();
            assert_eq!(resampled.len() as u64, expected, "{from}");
            assert!(resampled.iter().all(|s| s.is_finite()));
        }
        let long = resample(vec![0.0; 2 << 20], 1_000, 16_000);
        assert_eq!(long, Err(AudioError::Long(32 << 20)));
    }
}
