//! Why an ONNX file cannot be read, edited or written.

use std::path::PathBuf;

use super::limits::{DEPTH_MAX, EXTERNAL_MAX_BYTES, EXTERNAL_MAX_FILES, FILE_MAX_BYTES};

/// Why an ONNX file cannot be read, edited or written.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// The system failed to read or write.
    #[error("cannot access {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is too long for protobuf.
    #[error(
        "{size_bytes} bytes are more than one ONNX file can hold ({FILE_MAX_BYTES}); save the model \
         with its weights as external data"
    )]
    TooLong {
        /// Its length.
        size_bytes: u64,
    },
    /// The bytes are no ONNX model.
    #[error("this is no ONNX model, or a truncated one: {reason}")]
    Malformed {
        /// Where.
        reason: String,
    },
    /// Messages lie too deep in each other.
    #[error("subgraphs or types lie more than {DEPTH_MAX} messages deep in each other")]
    TooDeep,
    /// More parts than are believed.
    #[error("more than {most} {what} in one ONNX file")]
    TooMany {
        /// Which.
        what: &'static str,
        /// The limit.
        most: usize,
    },
    /// A part that a newer ONNX must have added.
    #[error(
        "a {message} has the field {number}, which ONNX's IR version 13 does not know; writing the \
         model would lose it: save it with an older ONNX, or use a newer Outrigger"
    )]
    UnknownField {
        /// The message.
        message: &'static str,
        /// The field's number.
        number: u64,
    },
    /// A model without a graph.
    #[error("the model has no graph")]
    NoGraph,
    /// Two nodes, inputs or weights make the same value.
    #[error("the value {0:?} is made twice; each value needs a name of its own")]
    MadeTwice(String),
    /// A node's inputs depend on its own outputs.
    #[error("the nodes form a cycle through {0:?}; an ONNX graph must not")]
    Cycle(String),
    /// Weights outside the model's folder.
    #[error(
        "the weights {tensor:?} are said to be in {location:?}, which is not a plain file inside the \
         model's folder; copy it there"
    )]
    Outside {
        /// The tensor.
        tensor: String,
        /// Where the file says they are.
        location: String,
    },
    /// Weights that the external file does not hold.
    #[error("the weights {tensor:?} in {location:?}: {reason}")]
    External {
        /// The tensor.
        tensor: String,
        /// Where the file says they are.
        location: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// More external weights than are believed.
    #[error(
        "more than {EXTERNAL_MAX_BYTES} bytes or {EXTERNAL_MAX_FILES} files of weights beside the model"
    )]
    ExternalTooMuch,
    /// A tensor whose data do not fill its shape, or of another type than was asked for.
    #[error("the tensor {tensor:?} {reason}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
    /// A model in memory, where a folder would be needed.
    #[error("the model's weights are external, and there is no folder to look for them")]
    NoFolder,
    /// An operator set that cannot be raised.
    #[error("cannot raise the model from opset {from} to {to}: {reason}")]
    Opset {
        /// The model's.
        from: i64,
        /// The wanted one.
        to: i64,
        /// What stands in the way.
        reason: String,
    },
}
