//! Why a request was not answered, told apart by who can do something about it: the caller
//! ([`InvalidRequest`], [`ImageError`], [`AudioError`], [`TextError`]), nobody but the model's author
//! (`Failed`, `NotANumber`, `Panicked`), time (`Expired`, `Stopped`), or asking again (`Lost`).

use protocol::manifest::TensorSpec;
use protocol::problem::{Problem, ProblemCode};
use protocol::tensor::Tensor;

use crate::backend::{describe, describe_type};

pub mod audio;
pub mod image;
pub mod text;

pub use audio::AudioError;
pub use image::ImageError;
pub use text::TextError;

/// A request that the model cannot take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRequest {
    /// An input that the model does not have.
    #[error("the model has no input {name:?}; it takes {takes}")]
    UnknownInput {
        /// The input's name.
        name: String,
        /// All inputs with datatype and shape.
        takes: String,
    },
    /// An input that the request does not have.
    #[error("the input {name:?} is missing; the model takes {takes}")]
    MissingInput {
        /// The input's name.
        name: String,
        /// All inputs with datatype and shape.
        takes: String,
    },
    /// An input or wanted output that is named twice.
    #[error("the tensor {0:?} is named twice")]
    Repeated(String),
    /// An input of another datatype or shape.
    #[error("the input {name:?} is {actual}; the model takes {takes}, where -1 is any size")]
    WrongInput {
        /// The input's name.
        name: String,
        /// Datatype and shape that came.
        actual: String,
        /// Datatype and shape that would do.
        takes: String,
    },
    /// An element that the datatype does not allow: a BOOL beside 0 and 1, text that is not UTF-8.
    #[error("element {index} of the input {name:?} is not {expected}")]
    Element {
        /// The input's name.
        name: String,
        /// Which element, in row-major order.
        index: usize,
        /// What it must be.
        expected: &'static str,
    },
    /// NaN or infinity, which left a classifier without an answer.
    #[error(
        "element {index} of the input {name:?} is NaN or infinity, and so the answer has no \
         confidence"
    )]
    NotFinite {
        /// The input's name.
        name: String,
        /// Which element, in row-major order.
        index: usize,
    },
    /// A wanted output that the model does not have.
    #[error("the model has no output {name:?}; it gives {gives}")]
    UnknownOutput {
        /// The output's name.
        name: String,
        /// All outputs with datatype and shape.
        gives: String,
    },
    /// The state of a stream of another model.
    #[error("the stream's state is not this model's; begin the stream anew")]
    ForeignState,
}

fn list(specs: &[TensorSpec]) -> String {
    specs.iter().map(describe).collect::<Vec<_>>().join(", ")
}

impl InvalidRequest {
    pub(crate) fn unknown_input(name: &str, takes: &[TensorSpec]) -> Self {
        Self::UnknownInput { name: name.to_owned(), takes: list(takes) }
    }

    pub(crate) fn missing_input(name: &str, takes: &[TensorSpec]) -> Self {
        Self::MissingInput { name: name.to_owned(), takes: list(takes) }
    }

    pub(crate) fn unknown_output(name: &str, gives: &[TensorSpec]) -> Self {
        Self::UnknownOutput { name: name.to_owned(), gives: list(gives) }
    }

    pub(crate) fn wrong_input(input: &Tensor, spec: &TensorSpec) -> Self {
        Self::WrongInput {
            name: input.name().to_owned(),
            actual: describe_type(input.datatype(), input.shape()),
            takes: describe_type(spec.datatype, &spec.shape),
        }
    }
}

/// Why a request was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// The request does not fit the model.
    #[error(transparent)]
    Request(#[from] InvalidRequest),
    /// An image in the request cannot be used.
    #[error("item {item} of the input {input:?}: {source}")]
    Image {
        /// The input's name.
        input: String,
        /// Which item of the batch.
        item: usize,
        /// What is wrong with it.
        #[source]
        source: ImageError,
    },
    /// A sound in the request cannot be used.
    #[error("item {item} of the input {input:?}: {source}")]
    Audio {
        /// The input's name.
        input: String,
        /// Which item of the batch.
        item: usize,
        /// What is wrong with it.
        #[source]
        source: AudioError,
    },
    /// A text in the request cannot be used.
    #[error("item {item} of the input {input:?}: {source}")]
    Text {
        /// The input's name.
        input: String,
        /// Which item of the batch.
        item: usize,
        /// What is wrong with it.
        #[source]
        source: TextError,
    },
    /// The model failed on inputs that it should take.
    #[error("the model failed: {0}")]
    Failed(String),
    /// The model answered with logits that have no softmax: NaN or infinity.
    #[error("the model's output {0:?} holds NaN or infinity, so it has no confidence")]
    NotANumber(String),
    /// The model panicked; its worker goes on.
    #[error("the model panicked: {0}")]
    Panicked(String),
    /// The deadline passed before the model could start, or between two frames.
    #[error("the deadline passed before the model had answered")]
    Expired,
    /// The model was unloaded before it answered.
    #[error("the model was unloaded before it answered")]
    Stopped,
    /// The session ended under the request, for example with the process that it lived in. It says
    /// nothing about the request, which may be put to the same session once more: that session waits
    /// for its successor, or says that there is none.
    #[error("the model was lost before it answered: {0}")]
    Lost(String),
}

impl RunError {
    /// Whether the same request may be answered if it is asked again.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    fn code(&self) -> ProblemCode {
        match self {
            Self::Request(_) => ProblemCode::InvalidRequest,
            Self::Image { source, .. } if source.is_too_large() => ProblemCode::TooLarge,
            Self::Audio { source, .. } if source.is_too_large() => ProblemCode::TooLarge,
            Self::Text { source, .. } if source.is_too_large() => ProblemCode::TooLarge,
            Self::Image { .. } | Self::Audio { .. } | Self::Text { .. } => {
                ProblemCode::InvalidRequest
            }
            Self::Failed(_) | Self::NotANumber(_) | Self::Panicked(_) => {
                ProblemCode::InferenceFailed
            }
            Self::Expired => ProblemCode::DeadlineExceeded,
            Self::Stopped | Self::Lost(_) => ProblemCode::GoingAway,
        }
    }

    fn hint(&self) -> &'static str {
        let too_large = self.code() == ProblemCode::TooLarge;
        match self {
            Self::Request(InvalidRequest::NotFinite { .. }) => return "send finite numbers",
            Self::Request(InvalidRequest::ForeignState) => return "set sequence_start",
            Self::Request(_) => return "the model's metadata tells what it takes and gives",
            Self::Image { .. } if too_large => return "send smaller images, or fewer at once",
            Self::Image { .. } => return "send whole JPEG or PNG files, or pixels as UINT8",
            Self::Audio { .. } if too_large => return "send it as a sequence, in pieces",
            Self::Audio { .. } => return "send whole WAV files, or samples as FP32 or INT16",
            Self::Text { .. } if too_large => return "send shorter texts, or fewer at once",
            Self::Text { .. } => return "send UTF-8 text",
            _ => {}
        }
        match self.code() {
            ProblemCode::DeadlineExceeded => "allow more time, or send fewer requests at once",
            ProblemCode::GoingAway => "send the request again",
            ProblemCode::InferenceFailed => "the model's logs on this machine may say more",
            _ => "",
        }
    }
}

impl From<RunError> for Problem {
    fn from(error: RunError) -> Self {
        Problem::new(error.code(), error.to_string()).hint(error.hint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_learns_what_the_model_takes() {
        let spec = TensorSpec {
            name: "image".into(),
            datatype: protocol::tensor::DataType::Fp32,
            shape: vec![-1, 1, 28, 28],
        };
        let problem = Problem::from(RunError::from(InvalidRequest::unknown_input("x", &[spec])));
        assert_eq!(problem.code, ProblemCode::InvalidRequest);
        let expected = "the model has no input \"x\"; it takes image FP32 [-1,1,28,28]";
        assert_eq!(problem.message, expected);
    }
}
