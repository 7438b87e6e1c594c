//! Reads WAV files: RIFF chunks (Microsoft and IBM, Multimedia Programming Interface 1.0), PCM of
//! 16, 24 and 32 bits and float of 32 bits, plain or as `WAVE_FORMAT_EXTENSIBLE`.
//!
//! The samples are taken from the bytes that are there; a length that the header claims is only
//! ever compared with them, never allocated.

use crate::error::AudioError;
use crate::error::audio::{CHANNELS_MAX, RATE_MAX_HZ, RATE_MIN_HZ, SAMPLES_MAX};

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xFFFE;
/// What follows the format tag in the GUID of an extensible format.
const GUID_TAIL: [u8; 14] = [0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71];

/// A sound with one channel.
#[derive(Debug, Clone, PartialEq)]
pub struct Sound {
    /// Samples per second.
    pub rate_hz: u32,
    /// The samples, -1 to 1; the mean over the file's channels.
    pub samples: Vec<f32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    Pcm16,
    Pcm24,
    Pcm32,
    Float32,
}

struct Format {
    encoding: Encoding,
    channels: u16,
    rate_hz: u32,
    block_bytes: u16,
}

/// Reads a whole file.
///
/// # Errors
/// [`AudioError`].
pub fn read(file: &[u8]) -> Result<Sound, AudioError> {
    let riff = file.get(..4) == Some(b"RIFF") && file.get(8..12) == Some(b"WAVE");
    let mut rest = if riff { &file[12..] } else { return Err(AudioError::NotWav) };
    let mut format = None;
    while let Some((id, size, body)) = chunk(rest) {
        match id {
            b"fmt " => format = Some(Format::read(whole("fmt", size, body)?)?),
            b"data" => {
                let format = format.ok_or(AudioError::NoChunk("fmt"))?;
                return format.samples(whole("data", size, body)?);
            }
            _ => {}
        }
        // Chunks begin at even offsets. What lies beyond the end is no chunk.
        let next = usize::try_from(u64::from(size) + u64::from(size & 1)).unwrap_or(usize::MAX);
        rest = body.get(next..).unwrap_or_default();
    }
    Err(AudioError::NoChunk(if format.is_some() { "data" } else { "fmt" }))
}

/// A chunk's name, the length that it claims, and everything behind its header.
fn chunk(rest: &[u8]) -> Option<(&[u8; 4], u32, &[u8])> {
    let (id, rest) = rest.split_first_chunk()?;
    let (size, body) = rest.split_first_chunk()?;
    Some((id, u32::from_le_bytes(*size), body))
}

/// The chunk's bytes, if as many are there as it claims.
fn whole<'f>(chunk: &'static str, size: u32, body: &'f [u8]) -> Result<&'f [u8], AudioError> {
    let actual = body.len() as u64;
    let truncated = || AudioError::Truncated { chunk, promised: u64::from(size), actual };
    body.get(..size as usize).ok_or_else(truncated)
}

impl Format {
    fn read(chunk: &[u8]) -> Result<Self, AudioError> {
        let short =
            || AudioError::Truncated { chunk: "fmt", promised: 16, actual: chunk.len() as u64 };
        let fixed: &[u8; 16] = chunk.first_chunk().ok_or_else(short)?;
        let u16_at = |at: usize| u16::from_le_bytes([fixed[at], fixed[at + 1]]);
        let (channels, block_bytes, bits) = (u16_at(2), u16_at(12), u16_at(14));
        let rate_hz = u32::from_le_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]);
        let tag = match u16_at(0) {
            EXTENSIBLE => inner_tag(chunk).unwrap_or(EXTENSIBLE),
            tag => tag,
        };
        let encoding = match (tag, bits) {
            (PCM, 16) => Encoding::Pcm16,
            (PCM, 24) => Encoding::Pcm24,
            (PCM, 32) => Encoding::Pcm32,
            (FLOAT, 32) => Encoding::Float32,
            _ => return Err(AudioError::Encoding { tag, bits }),
        };
        if !(1..=CHANNELS_MAX).contains(&channels) {
            return Err(AudioError::Channels(channels));
        }
        if !(RATE_MIN_HZ..=RATE_MAX_HZ).contains(&rate_hz) {
            return Err(AudioError::Rate(rate_hz));
        }
        if block_bytes != channels * (bits / 8) {
            return Err(AudioError::Blocks { block: block_bytes, data: 0 });
        }
        Ok(Self { encoding, channels, rate_hz, block_bytes })
    }

    fn samples(&self, data: &[u8]) -> Result<Sound, AudioError> {
        let block = usize::from(self.block_bytes);
        if !data.len().is_multiple_of(block) {
            return Err(AudioError::Blocks { block: self.block_bytes, data: data.len() as u64 });
        }
        if data.len() / block > SAMPLES_MAX {
            return Err(AudioError::Long((data.len() / block) as u64));
        }
        let unit = block / usize::from(self.channels);
        let mean = |block: &[u8]| {
            let sum: f32 = block.chunks_exact(unit).map(|s| self.encoding.sample(s)).sum();
            sum / f32::from(self.channels)
        };
        let samples = data.chunks_exact(block).map(mean).collect();
        Ok(Sound { rate_hz: self.rate_hz, samples })
    }
}

/// The format tag inside an extensible format's GUID.
fn inner_tag(chunk: &[u8]) -> Option<u16> {
    let (tag, tail) = chunk.get(24..40)?.split_first_chunk()?;
    (tail == GUID_TAIL).then(|| u16::from_le_bytes(*tag))
}

impl Encoding {
    /// One sample between -1 and 1: integers are divided by `2^(bits-1)`.
    #[allow(clippy::cast_precision_loss)] // 32 bits are rounded to the 24 of an f32
    fn sample(self, bytes: &[u8]) -> f32 {
        match (self, bytes) {
            (Self::Pcm16, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            (Self::Pcm24, &[a, b, c]) => i32::from_le_bytes([0, a, b, c]) as f32 / 2_147_483_648.0,
            (Self::Pcm32, &[a, b, c, d]) => {
                i32::from_le_bytes([a, b, c, d]) as f32 / 2_147_483_648.0
            }
            (Self::Float32, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            _ => 0.0, // a block is as long as its samples
        }
    }
}

#[cfg(test)]
mod tests;
