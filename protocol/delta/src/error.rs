//! Why a delta cannot be applied. Its bytes come from whoever the link leads to, unsigned: each of these is an
//! answer, none a crash.

use std::io;

/// Why a delta cannot be made or applied.
#[derive(Debug, thiserror::Error)]
pub enum DeltaError {
    /// Not the first bytes of a delta, or of a form that this build does not know.
    #[error("this is no delta, or one of a later form")]
    Unknown,
    /// It does not make what was signed.
    #[error("the delta makes {actual} bytes, the signed manifest says {expected}")]
    WrongLength {
        /// What the manifest says.
        expected: u64,
        /// What the delta says.
        actual: u64,
    },
    /// It is from another file.
    #[error("the delta is from a file of {expected} bytes, the one that is here has {actual}")]
    WrongBase {
        /// What the delta says.
        expected: u64,
        /// What is here.
        actual: u64,
    },
    /// More of something than is believed.
    #[error("the delta has {count} {what}; at most {most} are taken")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
        /// The limit.
        most: u64,
    },
    /// Its parts contradict each other.
    #[error("the delta is damaged: {0}")]
    Damaged(&'static str),
    /// Its bytes end too early.
    #[error("the delta ends too early")]
    Truncated,
    /// The disk, or zstd's decoder.
    #[error("the delta cannot be read, or what it makes be written")]
    Io(#[from] io::Error),
}
