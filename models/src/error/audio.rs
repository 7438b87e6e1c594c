//! What can be wrong with a sound, and how much of one is taken.

/// The most samples of one sound, of each channel in the file and again after resampling: 16 Mi,
/// 17 minutes at 16 kHz.
pub const SAMPLES_MAX: usize = 16 << 20;
/// The most channels of a file.
pub const CHANNELS_MAX: u16 = 8;
/// The lowest sample rate of a file.
pub const RATE_MIN_HZ: u32 = 1_000;
/// The highest sample rate of a file.
pub const RATE_MAX_HZ: u32 = 192_000;
/// The most frames of one request.
pub const FRAMES_MAX: usize = 32_768;

/// Why a sound cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudioError {
    /// Not a RIFF file of WAVE data.
    #[error("not a WAV file")]
    NotWav,
    /// The file ends before what its header promises.
    #[error(
        "the file is truncated: its {chunk} chunk promises {promised} bytes, {actual} are there"
    )]
    Truncated {
        /// Which part of the file.
        chunk: &'static str,
        /// What the header says.
        promised: u64,
        /// What is there.
        actual: u64,
    },
    /// No `fmt ` chunk before the data, or no data.
    #[error("the file has no {0} chunk")]
    NoChunk(&'static str),
    /// Another encoding than PCM of 16, 24 or 32 bits and float of 32 bits.
    #[error(
        "WAV format {tag} with {bits} bits is not read; use PCM (1) of 16, 24 or 32 bits, or float \
         (3) of 32 bits"
    )]
    Encoding {
        /// The format tag; of an extensible format, the one inside.
        tag: u16,
        /// Bits per sample.
        bits: u16,
    },
    /// No channel, or more than [`CHANNELS_MAX`].
    #[error("{0} channels; 1 to {CHANNELS_MAX} are read")]
    Channels(u16),
    /// A rate outside [`RATE_MIN_HZ`] to [`RATE_MAX_HZ`].
    #[error("{0} samples per second; {RATE_MIN_HZ} to {RATE_MAX_HZ} are read")]
    Rate(u32),
    /// Blocks that are not as long as channels and bits say, or data of no whole blocks.
    #[error("the header contradicts itself: {data} bytes of data in blocks of {block}")]
    Blocks {
        /// Bytes of a block.
        block: u16,
        /// Bytes of data.
        data: u64,
    },
    /// No samples.
    #[error("the sound is empty")]
    Empty,
    /// More samples than [`SAMPLES_MAX`].
    #[error("{0} samples are too many; at most {SAMPLES_MAX} are processed")]
    Long(u64),
    /// Fewer samples than one spectrum needs.
    #[error("{actual} samples are too few; the model needs at least {needed}")]
    Short {
        /// What came, at the model's rate.
        actual: usize,
        /// The least.
        needed: usize,
    },
    /// NaN or infinity.
    #[error("sample {0} is NaN or infinite")]
    NotFinite(usize),
    /// Items of one batch that differ in length.
    #[error("a batch needs sounds of one length; this one makes {this} numbers, the first {first}")]
    Lengths {
        /// Of the first.
        first: usize,
        /// Of this one.
        this: usize,
    },
    /// The batch would be larger than a tensor may be.
    #[error("the batch would take {0} bytes; send fewer or shorter sounds")]
    Batch(u64),
    /// Several sounds for a model that takes frames of one.
    #[error("{0} sounds at once; this model takes the frames of one sound, so send one")]
    Several(i64),
    /// More frames than [`FRAMES_MAX`].
    #[error("{0} frames are too many for one request; at most {FRAMES_MAX} are run")]
    Frames(usize),
    /// A file at another rate than the model's in a stream.
    #[error(
        "a stream's pieces are not resampled: send {expected} samples per second, not {actual}"
    )]
    StreamRate {
        /// The model's.
        expected: u32,
        /// The file's.
        actual: u32,
    },
    /// The resampler failed.
    #[error("the sound cannot be resampled: {0}")]
    Resampler(String),
}

impl AudioError {
    /// Whether less of the same would have been taken.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Long(_) | Self::Batch(_) | Self::Frames(_))
    }
}
