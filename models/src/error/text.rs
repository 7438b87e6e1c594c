//! What can be wrong with a text, and how much of one is taken.

/// The longest text: 256 KiB.
pub const TEXT_MAX_BYTES: usize = 256 << 10;
/// The most texts of one request.
pub const TEXTS_MAX: i64 = 1024;
/// The most tokens that a text is truncated to.
pub const TOKENS_MAX: u32 = 32_768;

/// Why a text cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Not UTF-8.
    #[error("not UTF-8 from byte {0} on")]
    Utf8(usize),
    /// Longer than [`TEXT_MAX_BYTES`].
    #[error("{size_bytes} bytes of text are too many; at most {TEXT_MAX_BYTES} are taken")]
    Long {
        /// Its length.
        size_bytes: usize,
    },
    /// More texts than [`TEXTS_MAX`].
    #[error("{0} texts are too many for one request; at most {TEXTS_MAX} are taken")]
    Many(i64),
    /// The batch would be larger than a tensor may be.
    #[error("the batch would take {0} bytes; send fewer or shorter texts")]
    Batch(u64),
    /// The tokenizer failed.
    #[error("the tokenizer failed: {0}")]
    Tokenizer(String),
}

impl TextError {
    /// Whether less of the same would have been taken.
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::Long { .. } | Self::Many(_) | Self::Batch(_))
    }
}
