//! Models run in child processes, so that what crashes, hangs or eats memory takes no more than its
//! own model with it, and an unloaded model gives all of its memory back.
//!
//! A worker is this same program with a hidden subcommand (`child`), confined as far as the system
//! can, with ONNX Runtime and one model in it; the server itself never loads ONNX Runtime. Each of its
//! sessions answers in a lane of memory that both see (`shared_memory`, `lane`, `frame`), and rings (`bell`).
//! `process` is one such process from its start to its end, `worker` a model's worker over all of
//! its lives, `session` what the rest of the server asks. When it is started again is decided by
//! `fleet::restarts`.
//!
//! [`Workers`] is a [`Backend`] like any other: who loads and asks models need not know.

mod bell;
mod child;
mod events;
mod frame;
mod job;
mod lane;
mod process;
mod session;
mod shared_memory;
mod worker;

pub use child::run;
pub use events::WorkerCounters;
pub use process::SUBCOMMAND;

use confine::Accelerator;
use fleet::restarts::{End, Next, Restarts};
use models::backend::{Backend, LoadError, Session, SessionOptions};
use models::ort_backend::{library_identity, provider_library};
use models::providers::{Processor, Provider, Reason, nvidia_driver};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use events::Events;
use job::Job;
use process::Launch;
use session::RemoteSession;
use worker::{NotOpened, Standing, Worker};

/// Models whose failed loads are remembered.
const REMEMBERED_MAX: usize = 256;
const MB: u64 = 1_000_000;

/// What workers may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory of all models together, and so of each of them at most, in bytes.
    pub memory_bytes: u64,
    /// How long a model may take to be loaded.
    pub load: Duration,
    /// How long a run without a deadline may take.
    pub run: Duration,
}

/// How one worker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerStatus {
    /// The first letters of its bundle's hash.
    pub label: String,
    /// The model's file.
    pub model: PathBuf,
    /// The GPU that it runs on; `None` on the CPU.
    pub gpu: Option<u32>,
    /// Its process, while it runs.
    pub process: Option<u32>,
    /// Why it does not run; `None` while it does, and before it first did.
    pub why_not: Option<String>,
    /// How many sessions it has.
    pub sessions: usize,
    /// What it takes, in bytes; shared pages by its share.
    pub memory_bytes: Option<u64>,
}

/// The workers of all loaded models.
pub struct Workers {
    library: PathBuf,
    limits: Limits,
    identity: String,
    events: Arc<Events>,
    known: Mutex<Known>,
}

/// A model, and how it is run: on each device by a worker of its own.
type Key = (PathBuf, SessionOptions);

#[derive(Default)]
struct Known {
    workers: HashMap<Key, Weak<Worker>>,
    /// Models that did not load.
    failed: HashMap<Key, FailedLoads>,
}

#[derive(Default)]
struct FailedLoads {
    restarts: Restarts,
    held_back: Option<(Instant, String)>,
}

impl Workers {
    /// Workers with this ONNX Runtime. None is started before a model is loaded.
    ///
    /// # Errors
    /// The library cannot be read.
    pub fn new(library: &Path, limits: Limits) -> io::Result<Self> {
        let library = library.canonicalize()?;
        let identity = library_identity(&library)?;
        let (events, known) = (Arc::default(), Mutex::default());
        Ok(Self { library, limits, identity, events, known })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self) -> Vec<Arc<Worker>> {
        self.known().workers.values().filter_map(Weak::upgrade).collect()
    }

    /// Whether every loaded model has a worker that answers.
    pub fn are_ready(&self) -> bool {
        self.living()
            .iter()
            .all(|worker| matches!(worker.standing(), Standing::Running(_) | Standing::Starting))
    }

    /// How each worker stands. Measuring their memory takes the kernel about a millisecond each.
    pub fn statuses(&self) -> Vec<WorkerStatus> {
        self.living().iter().map(|worker| status(worker)).collect()
    }

    /// What happened to workers so far.
    pub fn counters(&self) -> WorkerCounters {
        self.events.counters()
    }

    /// What all models may take together, in bytes.
    pub fn budget_bytes(&self) -> u64 {
        self.limits.memory_bytes
    }

    fn worker(&self, key: &Key) -> Result<Arc<Worker>, LoadError> {
        let (model, options) = key;
        let mut known = self.known();
        known.workers.retain(|_, worker| worker.strong_count() > 0);
        if let Some(worker) = known.workers.get(key).and_then(Weak::upgrade) {
            self.check_size(model, worker.sessions() + 1)?;
            return Ok(worker);
        }
        known.check_held_back(key)?;
        self.check_size(model, 1)?;
        let worker = Worker::start(self.launch(model, options)?, self.events.clone());
        let worker = worker.map_err(|source| unstarted(model, &source))?;
        let worker = Arc::new(worker);
        known.workers.insert(key.clone(), Arc::downgrade(&worker));
        Ok(worker)
    }

    fn launch(&self, model: &Path, options: &SessionOptions) -> Result<Launch, LoadError> {
        let folder = model.parent().unwrap_or(Path::new("/")).to_owned();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        let label = name.chars().take(12).collect();
        let is_gpu = options.provider.processor() == Processor::Gpu;
        let gpu = is_gpu.then_some(options.device);
        let (accelerator, environment, options) = match gpu {
            Some(_) => on_gpu(options)?,
            None => (None, Vec::new(), options.clone()),
        };
        let limits = confine::Limits { memory_bytes: self.limits.memory_bytes, cpu_s: None };
        let job = Job {
            parent: std::process::id(),
            library: self.library.clone(),
            folder,
            model: model.to_owned(),
            options,
            accelerator,
            limits,
        };
        Ok(Launch { job, label, gpu, load_limit: self.limits.load, environment })
    }

    /// Every session holds the weights.
    fn check_size(&self, model: &Path, sessions: usize) -> Result<(), LoadError> {
        let weights = std::fs::metadata(model).map_err(|source| unread(model, source))?.len();
        let needs = weights.saturating_mul(sessions as u64);
        if needs <= self.limits.memory_bytes {
            return Ok(());
        }
        let (needs_mb, has_mb) = (needs.div_ceil(MB), self.limits.memory_bytes / MB);
        Err(LoadError::TooLarge { path: model.to_owned(), needs_mb, has_mb })
    }
}

impl Known {
    fn check_held_back(&self, key: &Key) -> Result<(), LoadError> {
        let failed = self.failed.get(key).and_then(|failed| failed.held_back.as_ref());
        let Some((until, why)) = failed else { return Ok(()) };
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            return Ok(());
        }
        let message = format!("{why}; it is not tried again for {} s", rest.as_secs());
        Err(LoadError::Worker { path: key.0.clone(), message })
    }

    /// Remembers a load that ended its worker.
    fn failed(&mut self, key: &Key, why: &str, lived: Duration) {
        if self.failed.len() >= REMEMBERED_MAX && !self.failed.contains_key(key) {
            self.failed.clear(); // no more than a chance to be tried again
        }
        let failed = self.failed.entry(key.clone()).or_default();
        let now = Instant::now();
        let wait = match failed.restarts.handle_end(End::Own, lived, now) {
            Next::Restart(wait) | Next::HoldBack(wait) => wait,
        };
        failed.held_back = Some((now + wait, why.to_owned()));
    }
}

impl Backend for Workers {
    fn load(&self, model: &Path, options: &SessionOptions) -> Result<Box<dyn Session>, LoadError> {
        let model = model.canonicalize().map_err(|source| unread(model, source))?;
        let key = (model, options.clone());
        let began = Instant::now();
        let worker = self.worker(&key)?;
        match worker.open() {
            Ok((index, opened)) => {
                self.known().failed.remove(&key);
                Ok(Box::new(RemoteSession::new(worker, index, opened, self.limits.run)))
            }
            Err(NotOpened::Said(failure)) => Err(failure.into_error(&key.0, options)),
            Err(NotOpened::Ended(why)) => {
                self.known().failed(&key, &why, began.elapsed());
                Err(LoadError::Worker { path: key.0, message: why })
            }
            Err(NotOpened::Full) => {
                let message = "has as many sessions as it can have".into();
                Err(LoadError::Worker { path: key.0, message })
            }
        }
    }

    /// What the library has is known where it is loaded, in a worker. Here only what is plain to see:
    /// providers are libraries of their own beside it, and NVIDIA's want a driver.
    fn offers(&self, provider: Provider) -> Result<(), Reason> {
        if provider == Provider::Cpu {
            return Ok(());
        }
        provider_library(&self.library, provider).ok_or(Reason::NotBuiltIn)?;
        match provider.processor() {
            Processor::Gpu => Ok(nvidia_driver()?),
            Processor::Cpu | Processor::Auto => Ok(()),
        }
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    /// Of all its workers: there is one on each device.
    fn memory_bytes(&self, model: &Path) -> Option<u64> {
        let model = model.canonicalize().ok()?;
        let of_model = |worker: &Arc<Worker>| worker.launch().job.model == model;
        let workers: Vec<_> = self.living().into_iter().filter(of_model).collect();
        workers.iter().filter_map(|worker| status(worker).memory_bytes).reduce(|a, b| a + b)
    }
}

/// A worker on a GPU sees that one alone, as the first.
fn on_gpu(options: &SessionOptions) -> Result<OnGpu, LoadError> {
    let index = options.device;
    let mut accelerator =
        Accelerator::nvidia(index as usize).ok_or_else(|| LoadError::Provider {
            provider: options.provider,
            message: format!("there is no GPU {index}"),
        })?;
    let libraries = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default(); // CUDA's, and cuDNN's
    accelerator
        .readable
        .extend(std::env::split_paths(&libraries).filter(|path| path.is_absolute()));
    let set = |name: &str, value: String| (OsString::from(name), OsString::from(value));
    let environment = vec![
        set("CUDA_DEVICE_ORDER", "PCI_BUS_ID".into()),
        set("CUDA_VISIBLE_DEVICES", index.to_string()),
        set("CUDA_CACHE_DISABLE", "1".into()), // it could not be written
    ];
    Ok((Some(accelerator), environment, SessionOptions { device: 0, ..options.clone() }))
}

/// The device, what CUDA is told by the environment, and what the session is opened with.
type OnGpu = (Option<Accelerator>, Vec<(OsString, OsString)>, SessionOptions);

fn unread(model: &Path, source: io::Error) -> LoadError {
    LoadError::Read { path: model.to_owned(), source }
}

fn unstarted(model: &Path, source: &io::Error) -> LoadError {
    LoadError::Worker { path: model.to_owned(), message: format!("cannot be started: {source}") }
}

fn status(worker: &Worker) -> WorkerStatus {
    let (process, why_not) = match worker.standing() {
        Standing::Running(process) => (Some(process), None),
        Standing::Starting => (None, None),
        Standing::Restarting { why } | Standing::HeldBack { why, .. } | Standing::Ended { why } => {
            (None, Some(why))
        }
    };
    WorkerStatus {
        label: worker.launch().label.clone(),
        model: worker.launch().job.model.clone(),
        gpu: worker.launch().gpu,
        memory_bytes: process.as_ref().and_then(|process| process.memory_bytes()),
        process: process.map(|process| process.id),
        why_not,
        sessions: worker.sessions(),
    }
}
