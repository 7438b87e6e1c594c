//! From what an application has to what the model takes: one [`Pipeline`] of typed [`Step`]s for
//! each thing that an application sends.
//!
//! The steps decide the kind: `tokenize` makes it text; `decode-wav`, `resample`, `fit`, `frame`
//! and `log-mel` make it audio; anything else is images. Which order makes sense, and which numbers
//! do, is checked where the steps are carried out.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The steps that turn an application's input into one or several of the model's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// What the application's input is called.
    pub input: String,
    /// Which input of the model takes which part of the result. When empty, the input of the same
    /// name as the application's takes the [`Part::Values`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub targets: BTreeMap<Part, String>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

impl Pipeline {
    /// The parts with the model's inputs that take them.
    pub fn feeds(&self) -> impl Iterator<Item = (Part, &str)> {
        let own = self.targets.is_empty().then_some((Part::Values, self.input.as_str()));
        self.targets.iter().map(|(part, input)| (*part, input.as_str())).chain(own)
    }
}

/// A part of a pipeline's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The numbers of an image or a sound, `FP32`.
    Values,
    /// A text's token numbers, `INT64` or `INT32` `[n,tokens]`.
    Ids,
    /// 1 where there is a token and 0 where there is padding, like [`Part::Ids`].
    Mask,
    /// The segment of each token, 0 for one text alone, like [`Part::Ids`].
    Types,
}

/// One step of a pipeline.
///
/// *Images*: a `BYTES` tensor holds encoded images; a `UINT8` tensor `[n,h,w]` or `[n,h,w,c]` holds
/// pixels and skips `decode`. *Audio*: a `BYTES` tensor holds WAV files; an `FP32` (-1 to 1) or
/// `INT16` tensor `[n,samples]` holds mono samples at the model's rate and skips `decode-wav` and
/// `resample`. *Text*: a `BYTES` tensor holds UTF-8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// JPEG or PNG bytes to pixels, in these colours.
    Decode {
        /// Grey or RGB.
        color: Color,
    },
    /// Scale so that the shorter side has this many pixels.
    ResizeShorter {
        /// Pixels.
        size: u32,
        /// How pixels are weighed.
        #[serde(default, skip_serializing_if = "Filter::is_default")]
        filter: Filter,
    },
    /// Scale to exactly this size.
    Resize {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// How pixels are weighed.
        #[serde(default, skip_serializing_if = "Filter::is_default")]
        filter: Filter,
    },
    /// Cut the middle out.
    CenterCrop {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Each number to `(x - mean) / std`: of pixels (0 to 255) one pair for all channels or one per
    /// channel, of a spectrum one pair for all bands or one per band, of samples one pair.
    Normalize {
        /// Subtracted.
        mean: Vec<f32>,
        /// Divided by.
        std: Vec<f32>,
    },
    /// The order of an image model's axes.
    Layout {
        /// `nchw` or `nhwc`.
        order: Layout,
    },
    /// WAV bytes to samples between -1 and 1; channels are averaged.
    DecodeWav,
    /// To the model's sample rate.
    Resample {
        /// Samples per second.
        rate_hz: u32,
    },
    /// Cut off or pad with silence at the end, to exactly this length.
    Fit {
        /// Samples.
        samples: u32,
    },
    /// Cut into frames that do not overlap; the model sees each behind the last samples before it
    /// (silence before the first). The frames are the model's batch, or with state they run one
    /// after the other. A last frame that is not full is padded with silence, but in a stream it
    /// waits for the next piece.
    Frame {
        /// New samples in each frame.
        size: u32,
        /// Samples before them that are repeated.
        #[serde(default)]
        context: u32,
    },
    /// Samples to a log-mel spectrogram.
    LogMel(LogMel),
    /// Text to tokens.
    Tokenize {
        /// The bundle's `tokenizer.json`.
        file: String,
        /// Longer texts are truncated to this many tokens, those that mark beginning and end
        /// included.
        max_tokens: u32,
    },
}

impl Step {
    /// The file of the bundle that the step reads.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Tokenize { file, .. } => Some(file),
            _ => None,
        }
    }
}

/// The colours of a decoded image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// One channel.
    Gray,
    /// Three channels.
    Rgb,
}

/// How pixels are weighed in a change of size; shrinking widens the filter (as Pillow does).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// By a triangle.
    #[default]
    Bilinear,
    /// By the Catmull-Rom cubic (a = -0.5).
    Bicubic,
}

impl Filter {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The order of a batch of images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// Batch, channel, height, width.
    Nchw,
    /// Batch, height, width, channel.
    Nhwc,
}

/// How a log-mel spectrogram is made: windowed Fourier transform, squared magnitude, triangular
/// bands on a mel scale, logarithm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogMel {
    /// Points of the Fourier transform.
    pub fft_size: u32,
    /// Samples under the (periodic) Hann window, at most `fft_size`; the window stands in the
    /// middle of the transform.
    pub window: u32,
    /// Samples from one spectrum to the next.
    pub hop: u32,
    /// Bands.
    pub mels: u32,
    /// The lowest band's lower edge.
    #[serde(default)]
    pub min_hz: f32,
    /// The highest band's upper edge.
    pub max_hz: f32,
    /// The scale on which the bands are equally wide.
    pub scale: MelScale,
    /// Whether each band is divided by half its width in hertz (Slaney), so that all have one area.
    #[serde(default)]
    pub equal_area: bool,
    /// Which logarithm of the power.
    pub log: Log,
    /// Power below this counts as this; above 0.
    pub floor: f32,
    /// Whether the first spectrum is centred on the first sample, the sound being mirrored at both
    /// ends; else it begins there.
    #[serde(default)]
    pub center: bool,
    /// The order of the result's last two axes.
    #[serde(default)]
    pub order: MelOrder,
}

/// A mel scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MelScale {
    /// `2595 log10(1 + f/700)` (O'Shaughnessy; HTK).
    Htk,
    /// `3f/200` below 1 kHz, then 27 steps for each factor of 6.4 (Slaney's Auditory Toolbox).
    Slaney,
}

/// A logarithm of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Log {
    /// Natural.
    Ln,
    /// Decimal.
    Log10,
    /// Ten times the decimal one: decibels.
    Db,
}

/// The order of a spectrogram's axes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MelOrder {
    /// Bands, then time.
    #[default]
    MelTime,
    /// Time, then bands.
    TimeMel,
}
