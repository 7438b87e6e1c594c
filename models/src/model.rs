//! A loaded model: a checked bundle and one or more workers that answer for it.

use std::path::PathBuf;

use protocol::manifest::{Manifest, TensorSpec};
use protocol::tensor::Tensor;

use crate::backend::{Backend, LoadError, Session, SessionOptions};
use crate::bundle::{Bundle, BundleError, ProbeCase};
use crate::compare::{self, Difference, Tolerance};
use crate::error::RunError;
use crate::providers::{NodeCount, Provider};
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
    provider: Provider,
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
        let pipelines = pipelines(&bundle)?;
        let mut workers = Vec::new();
        for _ in 0..options.sessions.max(1) {
            let session = open_session(backend, &bundle, &options.session)?;
            let runner = Runner::new(session, pipelines.clone());
            let name = manifest.model.as_str();
            let worker = Worker::start(name, runner, options.queue_capacity);
            workers.push(worker.map_err(ModelError::Thread)?);
        }
        Ok(Self { bundle, workers, provider: options.session.provider })
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
    /// number; on an accelerator, within what may lie between it and the CPU. Blocks for as long as
    /// that takes. Returns how many probes there were.
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
        compare_probe(probe, case, &answer.outputs, |expected| {
            tolerance(self.provider, self.manifest(), expected)
        })?;
        Ok(answer)
    }

    /// Answers one probe, and does not look at the answer: a model that was proven before is only
    /// made ready. Blocks.
    ///
    /// # Errors
    /// [`ProbeError`] where it does not answer at all.
    pub fn warm_up(&self) -> Result<(), ProbeError> {
        let Some(case) = self.bundle.probes()?.into_iter().next() else { return Ok(()) };
        for worker in &self.workers {
            let job = Job { inputs: case.inputs.clone(), ..Job::default() };
            let refused = |source| ProbeError::Refused { probe: 0, source };
            let ticket = worker.submit(job).map_err(refused)?;
            ticket.wait().map_err(|source| ProbeError::Run { probe: 0, source })?;
        }
        Ok(())
    }
}

pub(crate) fn pipelines(bundle: &Bundle) -> Result<Pipelines, ModelError> {
    Ok(Pipelines::new(bundle.manifest(), &bundle.step_files()?, bundle.labels())?)
}

/// A session whose tensors are what the manifest says.
pub(crate) fn open_session(
    backend: &dyn Backend,
    bundle: &Bundle,
    options: &SessionOptions,
) -> Result<Box<dyn Session>, ModelError> {
    let (path, manifest) = (bundle.model_path(), bundle.manifest());
    let session = backend.load(&path, options)?;
    if session.inputs() != manifest.inputs || session.outputs() != manifest.outputs {
        return Err(ModelError::Contradiction { path });
    }
    Ok(session)
}

/// One session in this thread, and how many nodes its provider took.
pub(crate) fn open_runner(
    backend: &dyn Backend,
    bundle: &Bundle,
    options: &SessionOptions,
) -> Result<(Runner, Option<NodeCount>), ModelError> {
    let session = open_session(backend, bundle, options)?;
    let nodes = session.nodes();
    Ok((Runner::new(session, pipelines(bundle)?), nodes))
}

/// How far an answer may lie from the measured one where this provider computes it.
pub(crate) fn tolerance(provider: Provider, manifest: &Manifest, expected: &Tensor) -> Tolerance {
    let stated = Tolerance::of_manifest(manifest.probes.tolerance);
    match provider {
        Provider::Cpu => stated,
        _ => Tolerance::between_providers(expected.datatype()).or(stated),
    }
}

/// Compares what a probe was answered with what was measured.
pub(crate) fn compare_probe(
    probe: usize,
    case: &ProbeCase,
    answers: &[Tensor],
    tolerance: impl Fn(&Tensor) -> Tolerance,
) -> Result<(), ProbeError> {
    for expected in &case.outputs {
        let output = || expected.name().to_owned();
        let actual = answers.iter().find(|answer| answer.meta() == expected.meta());
        let actual = actual.ok_or_else(|| ProbeError::Shape { probe, output: output() })?;
        compare::check(expected, actual, tolerance(expected)).map_err(|e| match e {
            Difference::Kind => ProbeError::Shape { probe, output: output() },
            Difference::Value { element, expected, actual } => {
                ProbeError::Value { probe, output: output(), element, expected, actual }
            }
        })?;
    }
    Ok(())
}
