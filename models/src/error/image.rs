//! What can be wrong with an image, and how much of one is taken.

/// The largest encoded image: 32 MB.
pub const ENCODED_MAX_BYTES: usize = 32 << 20;
/// The most pixels of one image: 64 Mi.
pub const PIXELS_MAX: u64 = 64 << 20;
/// The longest side of an image, in pixels.
pub const SIDE_MAX: u32 = 16_384;

/// Why an image cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Neither JPEG nor PNG.
    #[error("neither a JPEG nor a PNG file")]
    Format,
    /// The file is larger than [`ENCODED_MAX_BYTES`].
    #[error("the file has {size_bytes} bytes; at most {ENCODED_MAX_BYTES} are decoded")]
    Encoded {
        /// Its length.
        size_bytes: usize,
    },
    /// More pixels than [`PIXELS_MAX`], or a side longer than [`SIDE_MAX`], at some step.
    #[error(
        "{width}x{height} pixels are too many; at most {PIXELS_MAX}, and {SIDE_MAX} along a side, \
         are processed"
    )]
    Pixels {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// The file ends before the image does.
    #[error("the file is truncated")]
    Truncated,
    /// The file is damaged.
    #[error("the file is damaged: {0}")]
    Damaged(String),
    /// Pixels with another number of channels than the model's.
    #[error("the pixels have {actual} channels; the model takes {expected}")]
    Channels {
        /// What the model takes.
        expected: usize,
        /// What came.
        actual: usize,
    },
    /// The middle that is to be cut out is larger than the image.
    #[error("the image has {width}x{height} pixels, less than the model cuts out of it")]
    Crop {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
    },
    /// Items of one batch that differ in height, width or channels after the pipeline.
    #[error("a batch needs images of one size; this one is {this:?}, the first {first:?}")]
    Sizes {
        /// Height, width and channels of the first.
        first: [u32; 3],
        /// Height, width and channels of this one.
        this: [u32; 3],
    },
    /// The batch would be larger than a tensor may be.
    #[error("the batch would take {size_bytes} bytes; send fewer or smaller images")]
    Batch {
        /// Its length up to this item.
        size_bytes: u64,
    },
}

impl ImageError {
    /// Whether less of the same would have been taken.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Encoded { .. } | Self::Pixels { .. } | Self::Batch { .. })
    }
}
