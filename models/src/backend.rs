//! What runs a model: a [`Backend`] loads an ONNX file into a [`Session`], and a session answers
//! one request at a time. ONNX Runtime is one backend ([`crate::ort_backend`]), the deterministic
//! stand-in for tests is the other ([`crate::fake`]).

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use protocol::manifest::TensorSpec;
use protocol::tensor::{DataType, Tensor};
use serde::{Deserialize, Serialize};

use crate::error::{InvalidRequest, RunError};
use crate::ort_backend::OpenError;
use crate::providers::{NodeCount, Provider, Reason};

/// Loads models.
pub trait Backend: Send + Sync {
    /// Brings what all models share, so that the memory which a load takes is its model's own.
    ///
    /// # Errors
    /// When the runtime does not start.
    fn start(&self) -> Result<(), LoadError> {
        Ok(())
    }

    /// Loads one model into one session.
    ///
    /// # Errors
    /// [`LoadError`] for a file that is absent, unreadable or no usable model.
    fn load(&self, onnx: &Path, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError>;

    /// Whether it is worth trying to open a session on a provider: it is compiled in, and nothing of
    /// its own is plainly absent. That it works is not said.
    ///
    /// # Errors
    /// Why it is not.
    fn offers(&self, provider: Provider) -> Result<(), Reason>;

    /// What is loaded, in one line: another line is another program, for which nothing is known yet.
    fn identity(&self) -> String;

    /// Memory that all sessions of a model take, in bytes, where that is known by itself.
    fn memory_bytes(&self, onnx: &Path) -> Option<u64> {
        let _ = onnx;
        None
    }
}

/// A loaded model that answers one request at a time.
pub trait Session: Send {
    /// What it takes.
    fn inputs(&self) -> &[TensorSpec];

    /// What it gives.
    fn outputs(&self) -> &[TensorSpec];

    /// How many of the model's nodes its provider computes; `None` where that cannot be known, and
    /// for the CPU, which computes all.
    fn nodes(&self) -> Option<NodeCount>;

    /// Answers one request: every input once, in any order. `outputs` names the wanted ones, and
    /// they come back in that order; empty means all, in the model's order.
    ///
    /// # Errors
    /// [`RunError::Request`] for inputs that the model does not take, which is found before the
    /// model is called; [`RunError::Failed`] when the model itself fails; [`RunError::Lost`] when
    /// the session ended under the request, which may be put to it once more.
    fn run(&mut self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, RunError>;

    /// The same for a request whose answer is of no use after `deadline`. A session in another process
    /// is not waited for much longer than that; one in this process cannot be interrupted.
    ///
    /// # Errors
    /// As [`Session::run`], and [`RunError::Expired`].
    fn run_until(
        &mut self,
        inputs: &[Tensor],
        outputs: &[String],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, RunError> {
        let _ = deadline;
        self.run(inputs, outputs)
    }

    /// The same without holding the thread until the answer is there, where the run is made in another
    /// process. `None` where a thread has to be held: [`Session::run_until`] does.
    fn run_elsewhere<'s>(
        &'s mut self,
        inputs: &'s [Tensor],
        outputs: &'s [String],
        deadline: Option<Instant>,
    ) -> Option<Coming<'s>> {
        let _ = (inputs, outputs, deadline);
        None
    }

    /// From now on whatever else runs on its processor is preferred to its runs, for as long as it lives,
    /// where the system can tell them apart.
    fn give_way(&mut self) {}

    /// Whether a run would begin at once; false for a session that waits for its successor first.
    fn is_ready(&self) -> bool {
        true
    }

    /// Whether runs of the usual size are made elsewhere.
    fn runs_elsewhere(&self) -> bool {
        false
    }
}

/// An answer on its way from another process, and how long the run took there: the task that waits for
/// it may be late itself.
pub type Coming<'s> =
    Pin<Box<dyn Future<Output = Result<(Vec<Tensor>, Duration), RunError>> + Send + 's>>;

/// How a session uses the machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionOptions {
    /// Threads that share one operator's work. Two sessions of one thread serve more than one
    /// session of two.
    pub threads: usize,
    /// Whether idle threads spin. Spinning halves the throughput of whatever shares the core.
    pub spinning: bool,
    /// Whether the memory plan of one run is kept for the next of the same shape: faster, and it
    /// holds the peak's memory.
    pub memory_pattern: bool,
    /// Whether memory is kept in an arena between runs: faster, and it holds the peak's memory.
    pub arena: bool,
    /// The most that a provider with a limit of its own takes on its device: CUDA's arena, TensorRT's
    /// workspace. ONNX Runtime has no limit for the CPU's memory.
    pub device_memory_bytes: Option<u64>,
    /// Who computes the nodes; those that it does not take are left to the CPU.
    pub provider: Provider,
    /// Which of several devices of that kind, from 0: of CUDA and TensorRT.
    pub device: u32,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            spinning: false,
            memory_pattern: true,
            arena: true,
            device_memory_bytes: None,
            provider: Provider::Cpu,
            device: 0,
        }
    }
}

/// Why a model could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The runtime itself does not start.
    #[error(transparent)]
    Runtime(#[from] OpenError),
    /// The file cannot be read.
    #[error("cannot read the model {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is no model that this backend can run.
    #[error("cannot load the model {path}: {message}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the backend said.
        message: String,
    },
    /// No session opens on the provider.
    #[error("cannot open a session on {provider}: {message}")]
    Provider {
        /// The provider.
        provider: Provider,
        /// What the backend said.
        message: String,
    },
    /// The process that was to run it ended, or took too long.
    #[error("the worker of the model {path} {message}")]
    Worker {
        /// The file.
        path: PathBuf,
        /// What became of it.
        message: String,
    },
    /// It is known beforehand that it does not fit.
    #[error(
        "the model {path} needs {needs_mb} MB at least, and the memory for models is {has_mb} MB"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its weights, for every session.
        needs_mb: u64,
        /// The budget.
        has_mb: u64,
    },
    /// An input or output that the protocol has no datatype for.
    #[error(
        "tensor {tensor:?} of {path} is a {datatype}, which the Open Inference Protocol does not \
         carry; cast it inside the model"
    )]
    DataType {
        /// The file.
        path: PathBuf,
        /// The input or output.
        tensor: String,
        /// What it is.
        datatype: String,
    },
}

/// Checks a request against what a model takes and gives, before the model is called.
///
/// # Errors
/// [`InvalidRequest`], whose message lists what the model takes.
pub fn check_request(
    specs: (&[TensorSpec], &[TensorSpec]),
    inputs: &[Tensor],
    outputs: &[String],
) -> Result<(), InvalidRequest> {
    let (takes, gives) = specs;
    for (index, input) in inputs.iter().enumerate() {
        let spec = takes.iter().find(|s| s.name == input.name());
        let spec = spec.ok_or_else(|| InvalidRequest::unknown_input(input.name(), takes))?;
        if inputs[..index].iter().any(|earlier| earlier.name() == input.name()) {
            return Err(InvalidRequest::Repeated(input.name().to_owned()));
        }
        if !spec.accepts(input.datatype(), input.shape()) {
            return Err(InvalidRequest::wrong_input(input, spec));
        }
    }
    if let Some(absent) = takes.iter().find(|s| inputs.iter().all(|i| i.name() != s.name)) {
        return Err(InvalidRequest::missing_input(&absent.name, takes));
    }
    check_outputs(gives, outputs)
}

fn check_outputs(gives: &[TensorSpec], outputs: &[String]) -> Result<(), InvalidRequest> {
    for (index, name) in outputs.iter().enumerate() {
        if gives.iter().all(|spec| spec.name != *name) {
            return Err(InvalidRequest::unknown_output(name, gives));
        }
        if outputs[..index].contains(name) {
            return Err(InvalidRequest::Repeated(name.clone()));
        }
    }
    Ok(())
}

/// A specification as people read it, for example `image FP32 [-1,1,28,28]`.
pub(crate) fn describe(spec: &TensorSpec) -> String {
    format!("{} {}", spec.name, describe_type(spec.datatype, &spec.shape))
}

/// Datatype and shape as people read them, for example `FP32 [1,10]`.
pub(crate) fn describe_type(datatype: DataType, shape: &[i64]) -> String {
    let dimensions: Vec<String> = shape.iter().map(i64::to_string).collect();
    format!("{datatype} [{}]", dimensions.join(","))
}
