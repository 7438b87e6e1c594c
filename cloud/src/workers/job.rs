//! What server and worker say to each other beside tensors: one line of JSON each, over a socket that
//! is the worker's stdin. Both ends are one program, so the shape may change freely; but the worker
//! runs a model that nobody trusts, so what it says is bounded and typed.

use confine::{Accelerator, Confinement, Limits};
use models::backend::{LoadError, SessionOptions};
use models::providers::NodeCount;
use protocol::manifest::TensorSpec;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};
use std::path::{Path, PathBuf};

/// A line holds the inputs and outputs of a model at most.
const LINE_MAX_BYTES: u64 = 256 << 10;

/// What a worker is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Job {
    /// Who started it: a worker whose parent is another one has no server any more.
    pub(super) parent: u32,
    /// ONNX Runtime.
    pub(super) library: PathBuf,
    /// What it may read: the model's folder.
    pub(super) folder: PathBuf,
    pub(super) model: PathBuf,
    pub(super) options: SessionOptions,
    /// The device that it may use.
    pub(super) accelerator: Option<Accelerator>,
    pub(super) limits: Limits,
}

/// What the server asks for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// One more session, which answers in this lane.
    Open(usize),
}

/// What the worker says.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// It is confined, and has its runtime.
    Ready(Confinement),
    /// The session is there.
    Opened(Opened),
    /// It is not.
    Failed(Failure),
}

/// A session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Opened {
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    pub(super) nodes: Option<NodeCount>,
}

/// Why there is no session.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Failure {
    /// The runtime does not start.
    Runtime(String),
    /// The runtime refuses the file.
    Malformed(String),
    /// No session opens on the provider.
    Provider(String),
    /// A tensor that the protocol has no datatype for.
    DataType { tensor: String, datatype: String },
}

impl Failure {
    pub(super) fn new(error: LoadError) -> Self {
        match error {
            LoadError::Malformed { message, .. } => Self::Malformed(message),
            LoadError::Provider { message, .. } => Self::Provider(message),
            LoadError::DataType { tensor, datatype, .. } => Self::DataType { tensor, datatype },
            LoadError::Read { .. } => Self::Malformed(protocol::problem::chain(&error)),
            other => Self::Runtime(protocol::problem::chain(&other)),
        }
    }

    pub(super) fn into_error(self, model: &Path, options: &SessionOptions) -> LoadError {
        let path = model.to_owned();
        match self {
            Self::Malformed(message) => LoadError::Malformed { path, message },
            Self::Provider(message) => LoadError::Provider { provider: options.provider, message },
            Self::DataType { tensor, datatype } => LoadError::DataType { path, tensor, datatype },
            Self::Runtime(why) => LoadError::Worker { path, message: format!("says: {why}") },
        }
    }
}

/// Says something.
///
/// # Errors
/// Nobody listens.
pub(super) fn say(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Hears something; `None` when the other side has ended.
///
/// # Errors
/// The other side says what it should not, or nothing for too long.
pub(super) fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    from.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(serde_json::from_slice(&line)?)),
        Some(_) => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
