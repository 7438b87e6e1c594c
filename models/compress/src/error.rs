//! Why a model could not be compressed.

use std::path::PathBuf;

use models::authoring::BuildError;
use models::backend::LoadError;
use models::error::RunError;
use models::onnx::OnnxError;

/// Why a model could not be compressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressError {
    /// The ONNX file cannot be read, edited or written.
    #[error(transparent)]
    Onnx(#[from] OnnxError),
    /// ONNX Runtime refuses a model.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The data cannot be used.
    #[error(transparent)]
    Data(#[from] BuildError),
    /// The model fails on an item of the data.
    #[error("item {item} of the data: {source}")]
    Run {
        /// Which item, from 0.
        item: usize,
        /// How.
        #[source]
        source: RunError,
    },
    /// The system failed to read or write.
    #[error("cannot access {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A value is not a number in the model as it is given.
    #[error(
        "the value {0:?} is NaN or infinite before any compression; mend the model or the data first"
    )]
    NotANumber(String),
    /// No recogniser.
    #[error(
        "the output {0:?} spells nothing: it is not [1, tokens, classes], as a model that reads lines answers; \
         leave out the blank"
    )]
    NoLines(String),
    /// Weights that are not numbers.
    #[error("the weights {0:?} hold NaN or infinity; the model was saved broken")]
    NotANumberWeights(String),
    /// Too few items.
    #[error("{have} items are too few: {purpose} needs at least {needed}")]
    TooFew {
        /// How many there are.
        have: usize,
        /// How many are needed.
        needed: usize,
        /// For what.
        purpose: &'static str,
    },
    /// A model that cannot end earlier.
    #[error(
        "the model cannot be cut: {0}; it must be a classifier of one item, with blocks one behind the other"
    )]
    NoPlace(&'static str),
    /// Folding changed what the model computes.
    #[error(
        "folding moved the output {output:?} by {difference:.2e} of its range, over {tolerance:.0e}; \
         this is a fault in Outrigger: nothing was written"
    )]
    Folding {
        /// The output.
        output: String,
        /// The largest difference, as a share of the largest value.
        difference: f64,
        /// What is allowed.
        tolerance: f64,
    },
    /// Builds were not timed where they should be.
    #[error("the builds were not timed on the device: {0}")]
    Elsewhere(String),
    /// The journal is of another search.
    #[error(
        "the journal {path} belongs to a search with another model, data or settings; give another \
         output folder, or remove it"
    )]
    OtherJournal {
        /// The file.
        path: PathBuf,
    },
    /// A line of the journal that cannot be read.
    #[error("line {line} of the journal {path}: {reason}; remove that line or the file")]
    Journal {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
}

pub(crate) fn io_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> CompressError {
    let path = path.to_owned();
    move |source| CompressError::Io { path, source }
}
