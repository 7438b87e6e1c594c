//! What is kept between the frames of a request and the pieces of a stream: the model's own state
//! ([`protocol::manifest::StateLoop`]) and the samples that filled no frame yet.
//!
//! A [`StreamState`] is a plain value that the caller keeps for each stream. It goes in with a
//! piece and comes back with the answer; a piece that fails leaves the caller's copy as it was.

use bytes::Bytes;
use protocol::manifest::{Constant, Manifest, StateLoop, TensorSpec};
use protocol::tensor::{InvalidTensor, Tensor, TensorMeta};

use crate::error::{InvalidRequest, RunError};
use crate::numbers;

/// Where a stream stands. The default is its beginning. Clones share their bytes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StreamState {
    /// Under the names of the model's inputs; none at the beginning.
    pub(crate) tensors: Vec<Tensor>,
    /// The last samples: context, and what filled no frame.
    pub(crate) tail: Vec<f32>,
}

impl StreamState {
    /// How much memory it holds.
    pub fn size_bytes(&self) -> usize {
        self.tail.len() * 4 + self.tensors.iter().map(|t| t.data().len()).sum::<usize>()
    }
}

/// A piece of a stream: where the stream stands, and whether this is the end of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Piece {
    /// What came back with the piece before this one; the default at the beginning.
    pub state: StreamState,
    /// Nothing follows: what fills no frame yet is padded with silence and answered as well, so that
    /// all pieces together give what the whole would have given.
    pub last: bool,
}

impl From<StreamState> for Piece {
    fn from(state: StreamState) -> Self {
        Self { state, last: false }
    }
}

/// The model's constants and what it feeds back, checked.
#[derive(Debug, Clone, Default)]
pub struct Feedback {
    constants: Vec<Tensor>,
    loops: Vec<StateLoop>,
    zeros: Vec<Tensor>,
}

impl Feedback {
    /// Reads a checked manifest.
    ///
    /// # Errors
    /// A constant or state that is no tensor of the model.
    pub fn new(manifest: &Manifest) -> Result<Self, InvalidTensor> {
        let constants = manifest.constants.iter().map(|c| constant(c, &manifest.inputs));
        let zeros = manifest.state.iter().map(|state| zeros(state, &manifest.inputs));
        Ok(Self {
            constants: constants.collect::<Result<_, _>>()?,
            loops: manifest.state.clone(),
            zeros: zeros.collect::<Result<_, _>>()?,
        })
    }

    /// Whether the model feeds anything back.
    pub fn has_state(&self) -> bool {
        !self.loops.is_empty()
    }

    /// The outputs that are fed back.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.loops.iter().map(|state| state.output.as_str())
    }

    /// Adds the constants that the request does not give itself.
    pub fn add_constants(&self, tensors: &mut Vec<Tensor>) {
        for constant in &self.constants {
            if tensors.iter().all(|t| t.name() != constant.name()) {
                tensors.push(constant.clone());
            }
        }
    }

    /// The state to begin with: that of the stream, or zeros.
    ///
    /// # Errors
    /// [`InvalidRequest::ForeignState`].
    pub fn begin(&self, stream: Option<&StreamState>) -> Result<Vec<Tensor>, InvalidRequest> {
        let kept = stream.map_or(&[][..], |stream| &stream.tensors);
        if kept.is_empty() {
            return Ok(self.zeros.clone());
        }
        let same = kept.len() == self.zeros.len()
            && kept.iter().zip(&self.zeros).all(|(kept, zero)| kept.meta() == zero.meta());
        same.then(|| kept.to_vec()).ok_or(InvalidRequest::ForeignState)
    }

    /// The next run's state, from one run's outputs.
    ///
    /// # Errors
    /// [`RunError::Failed`] when the model gave another shape.
    pub fn next(&self, outputs: &[Tensor]) -> Result<Vec<Tensor>, RunError> {
        let next = |(state, zero): (&StateLoop, &Tensor)| {
            let given = outputs.iter().find(|output| output.name() == state.output);
            let fits = |t: &&Tensor| (t.datatype(), t.shape()) == (zero.datatype(), zero.shape());
            let failed = || RunError::Failed(format!("the state {:?} changed", state.output));
            let data = given.filter(fits).ok_or_else(failed)?.data().clone();
            Tensor::new(zero.meta().clone(), data).map_err(|e| RunError::Failed(e.to_string()))
        };
        self.loops.iter().zip(&self.zeros).map(next).collect()
    }
}

fn datatype_of(
    name: &str,
    inputs: &[TensorSpec],
) -> Result<protocol::tensor::DataType, InvalidTensor> {
    let spec = inputs.iter().find(|spec| spec.name == name);
    spec.map(|spec| spec.datatype).ok_or(InvalidTensor::Name)
}

/// A constant as one of a model's inputs.
pub(crate) fn constant(
    constant: &Constant,
    inputs: &[TensorSpec],
) -> Result<Tensor, InvalidTensor> {
    let datatype = datatype_of(&constant.input, inputs)?;
    let meta = TensorMeta::new(&constant.input, datatype, constant.shape.clone())?;
    numbers::from_f64(meta, &constant.values)
}

fn zeros(state: &StateLoop, inputs: &[TensorSpec]) -> Result<Tensor, InvalidTensor> {
    let datatype = datatype_of(&state.input, inputs)?;
    let meta = TensorMeta::new(&state.input, datatype, state.shape.clone())?;
    let len = meta.size_bytes().and_then(|size| usize::try_from(size).ok()).unwrap_or(0);
    Tensor::new(meta, Bytes::from(vec![0; len]))
}
