//! A loaded model: a checked bundle and one or more workers that answer for it.

use std::path::PathBuf;

use protocol::manifest::{Manifest, TensorSpec};
use protocol::tensor::Tensor;

use crate::backend::{Backend, LoadError, SessionOptions};
use crate::bundle::{Bundle, BundleError, ProbeCase};
use crate::error::RunError;
use crate::numbers;
use crate::runner::{InvalidPipelines, Pipelines, Runner};
use crate::stream::Piece;
use crate::worker::{Answer, Counters, Job, QUEUE_CAPACITY, Refused, Ticket, Worker};

/// How much of the machine a model gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelOptions {
    /// Sessions, each with a thread of its own.
    pub sessions: usize,
    /// How each session runs.
    pub session: SessionOptions,
    /// How many requests wait for each session at most.
    pub queue_capacity: usize,
}

impl Default for ModelOptions {
    fn default() -> Self {
        let session = SessionOptions::default();
        Self { sessions: 1, session, queue_capacity: QUEUE_CAPACITY }
    }
}

/// Why a bundle could not be made ready to answer.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The backend refused the ONNX file.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A pipeline that cannot run.
    #[error(transparent)]
    Pipeline(#[from] InvalidPipelines),
    /// A file that a step reads cannot be read any more.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The ONNX file takes or gives something else than the manifest says.
    #[error("the model {path} does not take and give what its manifest says")]
    Contradiction {
        /// The file.
        path: PathBuf,
    },
    /// The system gave no thread.
    #[error("cannot start a thread for the model")]
    Thread(#[source] std::io::Error),
}

/// Why a model's answers to its probes do not do.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The probes cannot be read.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The queue was full or the model unloaded meanwhile.
    #[error("probe {probe} was refused: {source}")]
    Refused {
        /// Which probe, from 0.
        probe: usize,
        /// Why.
        #[source]
        source: Refused,
    },
    /// The model failed.
    #[error("probe {probe}: {source}")]
    Run {
        /// Which probe, from 0.
        probe: usize,
        /// How.
        #[source]
        source: RunError,
    },
    /// The model gave another tensor.
    #[error("probe {probe}: the output {output:?} is absent or of another datatype or shape")]
    Shape {
        /// Which probe, from 0.
        probe: usize,
        /// The output.
        output: String,
    },
    /// The model gave another value.
    #[error(
        "probe {probe}: element {element} of {output:?} is {actual}, not {expected}: this machine \
         computes the model differently"
    )]
    Value {
        /// Which probe, from 0.
        probe: usize,
        /// The output.
        output: String,
        /// Which element, in row-major order.
        element: usize,
        /// What was measured when the bundle was made.
        expected: f64,
        /// What came here.
        actual: f64,
    },
}

/// A model that answers. Dropping it ends its threads.
#[derive(Debug)]
pub struct LoadedModel {
    bundle: Bundle,
    workers: Vec<Worker>,
}

impl LoadedModel {
    /// Loads a bundle into as many sessions as the options say.
    ///
    /// # Errors
    /// [`ModelError`].
    pub fn load(
        backend: &dyn Backend,
        bundle: Bundle,
        options: &ModelOptions,
    ) -> Result<Self, ModelError> {
        let manifest = bundle.manifest();
        let pipelines = Pipelines::new(manifest, &bundle.step_files()?, bundle.labels())?;
        let mut workers = Vec::new();
        for _ in 0..options.sessions.max(1) {
            let path = bundle.model_path();
            let session = backend.load(&path, &options.session)?;
            if session.inputs() != manifest.inputs || session.outputs() != manifest.outputs {
                return Err(ModelError::Contradiction { path });
            }
            let runner = Runner::new(session, pipelines.clone());
            let name = manifest.model.as_str();
            let worker = Worker::start(name, runner, options.queue_capacity);
            workers.push(worker.map_err(ModelError::Thread)?);
        }
        Ok(Self { bundle, workers })
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        self.bundle.manifest()
    }

    /// The probes of its bundle, read anew.
    ///
    /// # Errors
    /// [`BundleError`].
    pub fn probes(&self) -> Result<Vec<ProbeCase>, BundleError> {
        self.bundle.probes()
    }

    /// The labels of its classes, in their order; none for a model without.
    pub fn labels(&self) -> &[String] {
        self.bundle.labels()
    }

    /// How many requests it answers at the same time.
    pub fn instances(&self) -> usize {
        self.workers.len()
    }

    /// What the model itself takes; what applications send is [`Manifest::served_inputs`].
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.manifest().inputs
    }

    /// What the model itself gives; what applications get is [`Manifest::served_outputs`].
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.manifest().outputs
    }

    /// Queues a request with the worker that has the least to do. The ticket is a future of the
    /// answer; dropping it cancels.
    ///
    /// # Errors
    /// [`Refused`], at once.
    pub fn submit(&self, job: Job) -> Result<Ticket, Refused> {
        self.least_busy()?.submit(job)
    }

    /// Queues the next piece of a stream. It holds where the stream stands: the default at the
    /// beginning, then what came back as [`Answer::stream`](crate::worker::Answer::stream). Pieces of one
    /// stream follow each other: submit the next when this one is answered. Without this, every
    /// request is a whole and begins anew.
    ///
    /// # Errors
    /// [`Refused`], at once.
    pub fn submit_stream(&self, job: Job, piece: Piece) -> Result<Ticket, Refused> {
        self.least_busy()?.submit_stream(job, piece)
    }

    fn least_busy(&self) -> Result<&Worker, Refused> {
        let least = self.workers.iter().min_by_key(|worker| worker.counters().waiting);
        least.ok_or(Refused::Stopped)
    }

    /// What became of the requests so far, over all workers.
    pub fn counters(&self) -> Counters {
        self.workers.iter().map(Worker::counters).fold(Counters::default(), |sum, c| sum + c)
    }

    /// Answers every probe of the bundle and compares, `|a - b| <= tolerance * (1 + |b|)` for each
    /// number. Blocks for as long as that takes. Returns how many probes there were.
    ///
    /// # Errors
    /// [`ProbeError`] with the first difference.
    pub fn check_probes(&self) -> Result<usize, ProbeError> {
        let cases = self.bundle.probes()?;
        for (probe, case) in cases.iter().enumerate() {
            self.check_probe(probe, case)?;
        }
        Ok(cases.len())
    }

    /// Answers one probe and compares; the answer.
    pub(crate) fn check_probe(&self, probe: usize, case: &ProbeCase) -> Result<Answer, ProbeError> {
        let outputs = case.outputs.iter().map(|output| output.name().to_owned()).collect();
        let job = Job { inputs: case.inputs.clone(), outputs, ..Job::default() };
        let ticket = self.submit(job).map_err(|source| ProbeError::Refused { probe, source })?;
        let answer = ticket.wait().map_err(|source| ProbeError::Run { probe, source })?;
        let tolerance = f64::from(self.manifest().probes.tolerance);
        for expected in &case.outputs {
            let actual = answer.outputs.iter().find(|output| output.meta() == expected.meta());
            let absent = || ProbeError::Shape { probe, output: expected.name().to_owned() };
            compare(probe, expected, actual.ok_or_else(absent)?, tolerance)?;
        }
        Ok(answer)
    }
}

/// Compares two tensors of one datatype and shape. Texts must be equal; a NaN equals a NaN only.
fn compare(
    probe: usize,
    expected: &Tensor,
    actual: &Tensor,
    tolerance: f64,
) -> Result<(), ProbeError> {
    let output = || expected.name().to_owned();
    let (Some(wanted), Some(got)) = (numbers::to_f64(expected), numbers::to_f64(actual)) else {
        let equal = expected.data() == actual.data();
        return equal.then_some(()).ok_or_else(|| ProbeError::Shape { probe, output: output() });
    };
    for (element, (expected, actual)) in wanted.into_iter().zip(got).enumerate() {
        let near =
            expected.is_finite() && (actual - expected).abs() <= tolerance * (1.0 + expected.abs());
        let same = expected == actual || (expected.is_nan() && actual.is_nan());
        if !(near || same) {
            return Err(ProbeError::Value { probe, output: output(), element, expected, actual });
        }
    }
    Ok(())
}
