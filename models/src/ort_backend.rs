//! ONNX Runtime as a [`Backend`], loaded at run time from a shared library.
//!
//! ONNX Runtime has one environment per process, for ever: [`OrtBackend::open`] makes it on the
//! first call and hands out the same one afterwards. A session runs on the provider that its options
//! name, and on the CPU where that takes nothing: the CPU's provider ONNX Runtime adds by itself
//! (registering it by name only switches its memory arena on or off).

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::ExecutionProvider;
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, SessionInputValue};
use protocol::manifest::TensorSpec;
use protocol::tensor::Tensor;

use crate::backend::{Backend, LoadError, Session, SessionOptions, check_request};
use crate::error::RunError;
use crate::providers::{NodeCount, Provider, Reason};

mod first_model;
mod library;
mod on_demand;
mod providers;
mod toolchain;
mod value;

pub use library::{LIBRARY_ENV, LibraryNotFound, find_library, library_identity, provider_library};
pub use on_demand::OnDemand;

/// What this process has loaded. The library is kept even if its environment could not be made,
/// because it cannot be exchanged any more.
#[derive(Default)]
struct Loaded {
    library: Option<PathBuf>,
    environment: Option<Environment>,
}

static LOADED: Mutex<Loaded> = Mutex::new(Loaded { library: None, environment: None });

/// Why ONNX Runtime could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file is no library of that kind, or cannot be read.
    #[error(
        "cannot load ONNX Runtime from {path}: {reason}; install it with `cargo xtask setup` or \
         set {LIBRARY_ENV}"
    )]
    Library {
        /// The file.
        path: PathBuf,
        /// What the system's loader said.
        reason: String,
    },
    /// This process already runs on another library.
    #[error(
        "this process already runs on {loaded}; ONNX Runtime cannot be exchanged for {asked} \
         without a restart"
    )]
    Other {
        /// The library in use.
        loaded: PathBuf,
        /// The library that was asked for.
        asked: PathBuf,
    },
    /// The library is there, but does not start.
    #[error("ONNX Runtime does not start: {0}")]
    Environment(String),
}

/// ONNX Runtime on this machine.
#[derive(Debug, Clone)]
pub struct OrtBackend {
    environment: Environment,
    library: PathBuf,
}

impl OrtBackend {
    /// Opens ONNX Runtime from its library, for example one that [`find_library`] found. Opening
    /// the same library again gives the same environment.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(library: &Path) -> Result<Self, OpenError> {
        let asked = library
            .canonicalize()
            .map_err(|e| OpenError::Library { path: library.to_owned(), reason: e.to_string() })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = loaded.library.as_ref().filter(|loaded| **loaded != asked) {
            return Err(OpenError::Other { loaded: other.clone(), asked });
        }
        let environment = match &loaded.environment {
            Some(environment) => environment.clone(),
            None => loaded.start(&asked)?,
        };
        Ok(Self { environment, library: asked })
    }

    /// How the library in use was built, in its own words: branch, commit, build type.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }

    fn builder(&self, options: &SessionOptions) -> Result<SessionBuilder, ort::Error> {
        // DirectML refuses memory patterns.
        let pattern = options.memory_pattern && options.provider != Provider::DirectMl;
        let mut builder = ort::session::Session::builder(&self.environment)?
            .with_intra_threads(options.threads.max(1))?
            .with_inter_threads(1)?
            .with_parallel_execution(false)?
            .with_intra_op_spinning(options.spinning)?
            .with_inter_op_spinning(options.spinning)?
            .with_memory_pattern(pattern)?;
        if !options.arena {
            ort::ep::CPU::default().with_arena_allocator(false).register(&mut builder)?;
        }
        if options.provider != Provider::Cpu {
            builder = builder.with_config_entry(providers::RECORD_ASSIGNMENT, "1")?;
            providers::register(&mut builder, options)?;
        }
        Ok(builder)
    }
}

impl Loaded {
    fn start(&mut self, library: &Path) -> Result<Environment, OpenError> {
        let builder = ort::init_from(library).map_err(|e| OpenError::Library {
            path: library.to_owned(),
            reason: loader_reason(&e),
        })?;
        self.library = Some(library.to_owned());
        let environment = builder.with_name("outrigger").with_telemetry(false).build();
        let environment = environment.map_err(|e| OpenError::Environment(e.to_string()))?;
        environment.set_log_level(LogLevel::Warning);
        first_model::run(&environment).map_err(|e| OpenError::Environment(e.to_string()))?;
        tracing::info!(library = %library.display(), "ONNX Runtime started");
        Ok(self.environment.insert(environment).clone())
    }
}

/// The loader's own words, which the error's text leaves out.
fn loader_reason(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => {
            let source = std::error::Error::source(error);
            source.map_or_else(|| error.to_string(), ToString::to_string)
        }
        other => other.to_string(),
    }
}

impl Backend for OrtBackend {
    fn load(&self, onnx: &Path, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let path = || onnx.to_owned();
        std::fs::File::open(onnx).map_err(|source| LoadError::Read { path: path(), source })?;
        let session = self.builder(options).and_then(|mut b| b.commit_from_file(onnx));
        let session = session.map_err(|e| match options.provider {
            Provider::Cpu => LoadError::Malformed { path: path(), message: e.to_string() },
            provider => LoadError::Provider { provider, message: e.to_string() },
        })?;
        let nodes = match options.provider {
            Provider::Cpu => None,
            provider => providers::nodes(&session, provider),
        };
        let specs = |outlets: &[ort::value::Outlet]| {
            outlets.iter().map(|outlet| value::spec(outlet, onnx)).collect::<Result<Vec<_>, _>>()
        };
        let (inputs, outputs) = (specs(session.inputs())?, specs(session.outputs())?);
        Ok(Box::new(OrtSession { session, inputs, outputs, nodes, usual: None }))
    }

    fn offers(&self, provider: Provider) -> Result<(), Reason> {
        providers::offers(provider)
    }

    fn identity(&self) -> String {
        library_identity(&self.library).unwrap_or_else(|_| self.build_info().to_owned())
    }
}

struct OrtSession {
    session: ort::session::Session,
    inputs: Vec<TensorSpec>,
    outputs: Vec<TensorSpec>,
    nodes: Option<NodeCount>,
    /// Those of the last run: most runs want the same.
    usual: Option<Wanted>,
}

/// Which outputs a run is to give, and what tells ONNX Runtime so.
struct Wanted {
    asked: Vec<String>,
    names: Vec<String>,
    options: RunOptions<HasSelectedOutputs>,
}

impl Wanted {
    /// All outputs of the model where none are asked for.
    fn new(asked: &[String], all: &[TensorSpec]) -> Result<Self, RunError> {
        let asked = asked.to_vec();
        let names = match asked.as_slice() {
            [] => all.iter().map(|output| output.name.clone()).collect(),
            some => some.to_vec(),
        };
        let select = OutputSelector::no_default();
        let select = names.iter().fold(select, OutputSelector::with);
        let options = RunOptions::new().map_err(|e| failed(&e))?.with_outputs(select);
        Ok(Self { asked, names, options })
    }
}

impl Session for OrtSession {
    fn inputs(&self) -> &[TensorSpec] {
        &self.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.outputs
    }

    fn nodes(&self) -> Option<NodeCount> {
        self.nodes
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, RunError> {
        check_request((&self.inputs, &self.outputs), inputs, outputs)?;
        if self.usual.as_ref().is_some_and(|usual| usual.asked != outputs) {
            self.usual = None;
        }
        let Wanted { names, options, .. } = match &self.usual {
            Some(usual) => usual,
            None => self.usual.insert(Wanted::new(outputs, &self.outputs)?),
        };
        let buffers: Vec<_> = inputs.iter().map(value::align).collect();
        let mut values: Vec<(Cow<'_, str>, SessionInputValue<'_>)> = Vec::new();
        for (input, buffer) in inputs.iter().zip(&buffers) {
            values.push((input.name().into(), value::to_ort(input, buffer.as_deref())?));
        }
        let answer = self.session.run_with_options(values, options).map_err(|e| failed(&e))?;
        names.iter().map(|name| value::from_ort(name, &answer[name.as_str()])).collect()
    }
}

fn failed(error: &ort::Error) -> RunError {
    RunError::Failed(error.to_string())
}
