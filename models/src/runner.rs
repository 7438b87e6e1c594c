//! One session with all that stands around it: pre-processing before, state in between,
//! post-processing and reading the confidence after. It runs in a worker's thread and keeps nothing
//! from one request to the next.

use std::time::Instant;

use bytes::{Bytes, BytesMut};
use protocol::manifest::Manifest;
use protocol::tensor::{InvalidTensor, Tensor, TensorMeta};

use crate::backend::Session;
use crate::confidence::Reading;
use crate::error::{InvalidRequest, RunError};
use crate::numbers;
use crate::postprocess::{InvalidPostprocess, Plan, Postprocess};
use crate::preprocess::{Frames, InvalidPipeline, Moment, Preprocess, StepFiles};
use crate::stream::{Feedback, Piece, StreamState};

mod question;

pub use question::{Asked, Given, Mates, Question};

/// All that stands around a session, checked against what it takes and gives. The default is
/// nothing: tensors in, tensors out.
#[derive(Debug, Clone, Default)]
pub struct Pipelines {
    preprocess: Preprocess,
    feedback: Feedback,
    postprocess: Postprocess,
}

/// Why what stands around a model cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPipelines {
    /// A pipeline that cannot run.
    #[error(transparent)]
    Preprocess(#[from] InvalidPipeline),
    /// Post-processing that cannot run.
    #[error(transparent)]
    Postprocess(#[from] InvalidPostprocess),
    /// A constant or state that is no tensor.
    #[error(transparent)]
    Tensor(#[from] InvalidTensor),
}

impl Pipelines {
    /// Reads a checked manifest, the files that its steps name, and the labels in class order.
    ///
    /// # Errors
    /// [`InvalidPipelines`].
    pub fn new(
        manifest: &Manifest,
        files: &StepFiles,
        labels: &[String],
    ) -> Result<Self, InvalidPipelines> {
        Ok(Self {
            preprocess: Preprocess::new(manifest, files)?,
            feedback: Feedback::new(manifest)?,
            postprocess: Postprocess::new(manifest, labels)?,
        })
    }
}

/// A whole model: session and pipelines.
pub struct Runner {
    session: Box<dyn Session>,
    pipelines: Pipelines,
}

/// One request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Call<'c> {
    /// The inputs, as an application has them.
    pub inputs: &'c [Tensor],
    /// The wanted outputs; the manifest's defaults when empty.
    pub outputs: &'c [String],
    /// When the answer stops being of use; looked at between two items, and
    /// two frames.
    pub deadline: Option<Instant>,
    /// The piece of a stream that this is; without it the request is a whole.
    pub stream: Option<&'c Piece>,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub struct Reply {
    /// The wanted outputs, in their order.
    pub outputs: Vec<Tensor>,
    /// The confidence, which is read even if the logits are not wanted.
    pub reading: Reading,
    /// Where the stream stands now; for a piece of a stream.
    pub stream: Option<StreamState>,
}

impl Runner {
    /// From now on whatever else runs on its processor is preferred, as [`Session::give_way`] says.
    pub fn give_way(&mut self) {
        self.session.give_way();
    }

    /// Puts a model together.
    pub fn new(session: Box<dyn Session>, pipelines: Pipelines) -> Self {
        Self { session, pipelines }
    }

    /// Whether a run would begin at once.
    pub fn is_ready(&self) -> bool {
        self.session.is_ready()
    }

    /// Whether a run usually needs no thread of this process.
    pub fn runs_elsewhere(&self) -> bool {
        self.session.runs_elsewhere()
    }

    /// Answers one request.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn answer(&mut self, call: Call<'_>) -> Result<Reply, RunError> {
        let plan = self.pipelines.postprocess.plan(call.outputs)?;
        let prepared = self.pipelines.preprocess.apply(call.inputs, &call.moment())?;
        let mut inputs = prepared.tensors;
        self.pipelines.feedback.add_constants(&mut inputs);
        let left_over = prepared.frames.as_ref().map(|frames| frames.tail.clone());
        let (outputs, tensors) = match (prepared.frames, self.pipelines.feedback.has_state()) {
            (None, false) => {
                (self.session.run_until(&inputs, call.ask(&plan), call.deadline)?, Vec::new())
            }
            (None, true) => self.run_once(&mut inputs, &plan, call.state())?,
            (Some(frames), false) => (self.run_batch(&mut inputs, frames, &plan)?, Vec::new()),
            (Some(frames), true) => self.run_frames(&inputs, &frames, &plan, &call)?,
        };
        let applied = self.pipelines.postprocess.apply(&plan, &inputs, outputs);
        let (outputs, reading) = applied.map_err(|error| blame(error, call.inputs))?;
        let tail = left_over.unwrap_or_default();
        let stream = call.stream.map(|_| StreamState { tensors, tail });
        Ok(Reply { outputs, reading, stream })
    }

    /// One run with state. A request that gives the state itself keeps it itself.
    fn run_once(
        &mut self,
        inputs: &mut Vec<Tensor>,
        plan: &Plan,
        stream: Option<&StreamState>,
    ) -> Result<(Vec<Tensor>, Vec<Tensor>), RunError> {
        for state in self.pipelines.feedback.begin(stream)? {
            if inputs.iter().all(|input| input.name() != state.name()) {
                inputs.push(state);
            }
        }
        let outputs = self.session.run(inputs, &plan.ask)?;
        let next = match stream {
            Some(_) => self.pipelines.feedback.next(&outputs)?,
            None => Vec::new(),
        };
        Ok((outputs, next))
    }

    /// All frames as one batch.
    fn run_batch(
        &mut self,
        inputs: &mut Vec<Tensor>,
        frames: Frames,
        plan: &Plan,
    ) -> Result<Vec<Tensor>, RunError> {
        if frames.tensor.shape()[0] == 0 {
            return self.pipelines.postprocess.of_nothing(plan);
        }
        inputs.push(frames.tensor);
        self.session.run(inputs, &plan.ask)
    }

    /// One frame after the other, each with the state that the one before left. The outputs are
    /// joined along their first axis; of the state, the last remains.
    fn run_frames(
        &mut self,
        inputs: &[Tensor],
        frames: &Frames,
        plan: &Plan,
        call: &Call<'_>,
    ) -> Result<(Vec<Tensor>, Vec<Tensor>), RunError> {
        let feedback = &self.pipelines.feedback;
        let mut state = feedback.begin(call.state())?;
        let mut joined: Vec<Joined> = Vec::new();
        for frame in cut(&frames.tensor)? {
            if call.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Err(RunError::Expired);
            }
            let given = inputs.iter().chain(&state).cloned().chain([frame]);
            let given = given.collect::<Vec<_>>();
            let outputs = self.session.run_until(&given, &plan.ask, call.deadline)?;
            state = feedback.next(&outputs)?;
            if joined.is_empty() {
                joined = outputs.iter().map(Joined::new).collect();
            }
            for (joined, output) in joined.iter_mut().zip(outputs) {
                let last = feedback.outputs().any(|name| name == output.name());
                joined.add(output, last)?;
            }
        }
        if joined.is_empty() {
            return Ok((self.pipelines.postprocess.of_nothing(plan)?, state));
        }
        Ok((joined.into_iter().map(Joined::finish).collect::<Result<_, _>>()?, state))
    }
}

/// Logits without a softmax are the caller's doing where the inputs were no numbers already.
fn blame(error: RunError, inputs: &[Tensor]) -> RunError {
    if !matches!(error, RunError::NotANumber(_)) {
        return error;
    }
    let not_finite = |input: &Tensor| {
        let index = numbers::to_f64(input)?.iter().position(|value| !value.is_finite())?;
        Some(InvalidRequest::NotFinite { name: input.name().to_owned(), index })
    };
    inputs.iter().find_map(not_finite).map_or(error, RunError::Request)
}

impl<'c> Call<'c> {
    fn state(&self) -> Option<&'c StreamState> {
        self.stream.map(|piece| &piece.state)
    }

    fn moment(&self) -> Moment<'c> {
        Moment {
            tail: self.stream.map(|piece| piece.state.tail.as_slice()),
            last: self.stream.is_some_and(|piece| piece.last),
            deadline: self.deadline,
        }
    }

    /// A model without a manifest is asked as the request asks.
    fn ask(&self, plan: &'c Plan) -> &'c [String] {
        if plan.ask.is_empty() { self.outputs } else { &plan.ask }
    }
}

fn failed(error: &InvalidTensor) -> RunError {
    RunError::Failed(error.to_string())
}

/// The items of a batch, each as a batch of one, at an address of its own: how a sum is rounded may
/// depend on where its numbers are aligned, and must not on the place of a frame in its request.
fn cut(batch: &Tensor) -> Result<Vec<Tensor>, RunError> {
    let items = usize::try_from(batch.shape()[0]).unwrap_or(0);
    let size = batch.data().len() / items.max(1);
    let shape = [&[1], &batch.shape()[1..]].concat();
    let meta = TensorMeta::new(batch.name(), batch.datatype(), shape).map_err(|e| failed(&e))?;
    let item = |i: usize| {
        let data = Bytes::copy_from_slice(&batch.data()[i * size..(i + 1) * size]);
        Tensor::new(meta.clone(), data).map_err(|e| failed(&e))
    };
    (0..items).map(item).collect()
}

/// One output over all frames.
struct Joined {
    first: TensorMeta,
    rows: i64,
    data: BytesMut,
    last: Option<Tensor>,
}

impl Joined {
    fn new(first: &Tensor) -> Self {
        Self { first: first.meta().clone(), rows: 0, data: BytesMut::new(), last: None }
    }

    fn add(&mut self, output: Tensor, only_the_last: bool) -> Result<(), RunError> {
        if only_the_last {
            self.last = Some(output);
            return Ok(());
        }
        let rest = |shape: &[i64]| shape.get(1..).map(<[i64]>::to_vec);
        if output.name() != self.first.name || rest(output.shape()) != rest(&self.first.shape) {
            let text = format!("the output {:?} changes its shape between frames", output.name());
            return Err(RunError::Failed(text));
        }
        self.rows += output.shape().first().copied().unwrap_or(1);
        self.data.extend_from_slice(output.data());
        Ok(())
    }

    fn finish(self) -> Result<Tensor, RunError> {
        if let Some(last) = self.last {
            return Ok(last);
        }
        let rest = self.first.shape.get(1..).unwrap_or_default();
        let shape = [&[self.rows], rest].concat();
        let build = || {
            let meta = TensorMeta::new(&self.first.name, self.first.datatype, shape)?;
            Tensor::new(meta, Bytes::from(self.data))
        };
        build().map_err(|e| failed(&e))
    }
}
