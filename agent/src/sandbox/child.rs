//! Inside the child: confine, then read, load, run and compare a model, or time several ([`course`]),
//! then say what came of it.
//!
//! Its last words are lines on stdout: every [`Stage`] as it begins, so that the parent knows at
//! what a crash happened, and the [`Verdict`] at the end.

mod course;

use super::verdict::{
    Job, Message, Outcome, Proof, Refusal, RefusalKind, Stage, Timing, Trial, Verdict, Work,
};
use confine::{Standing, confine, detach, only_thread, with_its_libraries};
use models::backend::SessionOptions;
use models::bundle::{Bundle, BundleError};
use models::model::{LoadedModel, ModelError, ModelOptions, ProbeError};
use models::ort_backend::OrtBackend;
use models::worker::Job as Request;
use protocol::problem::chain;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Model and probes run in a thread with a little less stack than the agent's own threads have
/// (2 MiB), so that what is deep enough to overflow does so here.
const STACK_BYTES: usize = 1792 << 10;
/// A job holds a manifest, of at most 256 KiB, and a few paths.
const JOB_MAX_BYTES: u64 = 1 << 20;
/// Memory that runs out ends the child first, not the agent; answers of the active version go before.
const STANDING: Standing = Standing { oom_score: 1000, niceness: 10 };

/// Reads a job from stdin, does it, and writes to stdout what came of it.
///
/// # Errors
/// No job, or nobody who listens.
pub(crate) fn run() -> io::Result<()> {
    detach(STANDING);
    let mut text = Vec::new();
    io::stdin().take(JOB_MAX_BYTES).read_to_end(&mut text)?;
    let job: Job = serde_json::from_slice(&text)?;
    say(&Message::Stage(Stage::Starting))?;
    only_thread()?;
    let memory = File::open("/proc/self/status").ok(); // not to be opened any more afterwards
    let confinement = confine(&readable(&job), None, job.limits);
    let outcome = if job.require_full && !confinement.is_full() {
        refused(RefusalKind::Confinement, format!("this system cannot confine it: {confinement}"))
    } else {
        match job.work {
            Work::Confine => Outcome::Confined,
            Work::Prove(trial) => with_small_stack(move || {
                let proof = prove(&job.library, *trial)?;
                Ok(Outcome::Proven(Proof { peak_memory_bytes: memory.and_then(peak), ..proof }))
            }),
            Work::Measure(course) => with_small_stack(move || {
                let models = course::run(&job.library, &course)?;
                let peak_memory_bytes = memory.and_then(peak);
                Ok(Outcome::Timed(Timing { models, peak_memory_bytes }))
            }),
        }
    };
    say(&Message::Verdict(Box::new(Verdict { confinement, outcome })))
}

/// One line to the parent.
fn say(message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

/// The models, and the runtime.
fn readable(job: &Job) -> Vec<PathBuf> {
    let Some(folder) = job.work.folder() else { return Vec::new() };
    let runtime = with_its_libraries(&job.library);
    std::iter::once(folder.to_owned()).chain(runtime).collect()
}

fn refused(kind: RefusalKind, why: String) -> Outcome {
    Outcome::Refused(Refusal { kind, why })
}

fn with_small_stack(work: impl FnOnce() -> Result<Outcome, Failure> + Send + 'static) -> Outcome {
    let builder = std::thread::Builder::new().name("trial".into()).stack_size(STACK_BYTES);
    let result = match builder.spawn(work).map(std::thread::JoinHandle::join) {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => std::panic::resume_unwind(panic), // a crash, and to be seen as one
        Err(error) => Err(Failure::Environment(chain(&error))),
    };
    result.unwrap_or_else(Failure::into_outcome)
}

/// Why a trial ended early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Environment(String),
    #[error("the bundle is not what was signed")]
    Bundle(#[from] BundleError),
    #[error("the model does not load")]
    Model(#[from] ModelError),
    #[error("the model does not answer its probes as it should")]
    Probes(#[from] ProbeError),
    #[error("there is nothing to measure by: {0}")]
    Course(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Failure {
    fn into_outcome(self) -> Outcome {
        let why = chain(&self);
        let kind = match self {
            Self::Environment(_) | Self::Io(_) | Self::Model(ModelError::Thread(_)) => {
                RefusalKind::Environment
            }
            Self::Bundle(_) | Self::Model(ModelError::Bundle(_)) => RefusalKind::Bundle,
            Self::Model(_) | Self::Probes(_) | Self::Course(_) if super::is_out_of_memory(&why) => {
                RefusalKind::Memory
            }
            Self::Model(_) => RefusalKind::Model,
            Self::Probes(_) => RefusalKind::Probes,
            Self::Course(_) => RefusalKind::Course,
        };
        refused(kind, why)
    }
}

fn prove(library: &Path, trial: Trial) -> Result<Proof, Failure> {
    let backend = OrtBackend::open(library).map_err(|e| Failure::Environment(chain(&e)))?;
    let started = Instant::now();
    say(&Message::Stage(Stage::Reading))?;
    let bundle = Bundle::open(&trial.folder, trial.manifest)?;
    let first = bundle.probes()?.into_iter().next().map(|probe| probe.inputs);
    say(&Message::Stage(Stage::Loading))?;
    let session = SessionOptions { threads: trial.threads, ..SessionOptions::default() };
    let options = ModelOptions { sessions: trial.sessions, session, ..ModelOptions::default() };
    let model = LoadedModel::load(&backend, bundle, &options)?;
    let load_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    say(&Message::Stage(Stage::WarmingUp))?;
    let warm = warm_up(&model, first.unwrap_or_default())?;
    say(&Message::Stage(Stage::Probing))?;
    let compared = model.compare_probes()?;
    say(&Message::Stage(Stage::Batching))?;
    let batching = model.check_batching()?;
    say(&Message::Stage(Stage::Unloading))?;
    drop(model);
    Ok(Proof {
        provider: trial.provider,
        load_ms,
        warm_up_ms: in_ms(warm),
        run_ms: in_ms(compared.mean_run_us),
        probes: compared.probes,
        worst_difference: compared.worst_difference,
        batching,
        peak_memory_bytes: None, // at the end
    })
}

/// The first run, which fills caches and arenas; in microseconds.
fn warm_up(model: &LoadedModel, inputs: Vec<protocol::tensor::Tensor>) -> Result<u64, ProbeError> {
    let ticket = model.submit(Request { inputs, ..Request::default() });
    let ticket = ticket.map_err(|source| ProbeError::Refused { probe: 0, source })?;
    Ok(ticket.wait().map_err(|source| ProbeError::Run { probe: 0, source })?.infer_us)
}

#[allow(clippy::cast_precision_loss)] // a time of a run
fn in_ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// The most that was resident, as the kernel keeps it (`VmHWM`).
fn peak(mut status: File) -> Option<u64> {
    let mut text = String::new();
    status.rewind().ok()?;
    status.read_to_string(&mut text).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}
