//! Inside a worker: confine, load, and answer in as many lanes as the server asks for, each with a
//! thread and a session of its own. It ends with the server: by the kernel's word, or because its
//! stdin ends.

use confine::{Standing, confine, detach, only_thread, with_its_libraries};
use models::backend::{Backend, Session};
use models::error::RunError;
use models::memory;
use models::ort_backend::OrtBackend;
use rustix::process::{Signal, getpid, getppid, kill_process, setpriority_process};
use std::fs::File;
use std::io::{self, BufReader};
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tracing_subscriber::filter::LevelFilter;

use super::bell::Bell;
use super::frame::{self, Specs};
use super::job::{Failure, Job, Opened, Order, Report, hear, say};
use super::lane::{LANES_MAX, Lane, SHARED_BYTES};
use super::shared_memory::SharedMemory;

/// Memory that runs out ends a worker first, not the server; its answers are not less urgent.
const STANDING: Standing = Standing { oom_score: 500, niceness: 0 };

/// What a session's thread is worth beside one of the express session, of which it is 0: a tenth of the
/// core that both want.
const WAY_NICENESS: i32 = 10;

/// Is a worker until the server ends.
///
/// # Errors
/// It was started by something else than a server.
pub fn run() -> io::Result<()> {
    detach(STANDING);
    ignore_signals();
    let control = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let memory = io::stdout().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdout(io::stderr())?; // what a library prints must not become a tensor
    let memory = Arc::new(SharedMemory::map(memory, SHARED_BYTES)?);
    let bell = Arc::new(Bell::receive(&control)?);
    let (mut reader, mut writer) = (BufReader::new(control.try_clone()?), control);
    let Some(job) = hear::<Job>(&mut reader)? else { return Ok(()) };
    if getppid().is_none_or(|parent| parent.as_raw_pid().cast_unsigned() != job.parent) {
        return Err(io::Error::other("the server that started this worker has ended"));
    }
    only_thread()?;
    let confinement = confine(&readable(&job), job.accelerator.as_ref(), job.limits);
    log_plainly();
    let backend = match OrtBackend::open(&job.library) {
        Ok(backend) => backend,
        Err(error) => {
            let why = protocol::problem::chain(&error);
            return say(&mut writer, &Report::Failed(Failure::Runtime(why)));
        }
    };
    say(&mut writer, &Report::Ready(confinement))?;
    let mut sessions = Sessions { job, backend, memory, bell, threads: Default::default() };
    while let Ok(Some(Order::Open(lane))) = hear(&mut reader) {
        say(&mut writer, &sessions.open(lane))?;
    }
    // Sessions may be running; nothing of theirs is of use to anybody.
    Ok(kill_process(getpid(), Signal::KILL)?)
}

/// A service manager and a terminal send these to all processes of a service. The server ends its
/// workers itself, when they have answered.
#[allow(unsafe_code)]
fn ignore_signals() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        // SAFETY: no handler is installed, and no other thread exists.
        unsafe {
            libc::signal(signal, libc::SIG_IGN);
        }
    }
}

fn readable(job: &Job) -> Vec<PathBuf> {
    std::iter::once(job.folder.clone()).chain(with_its_libraries(&job.library)).collect()
}

/// Lines for the server, which logs them as it logs its own.
fn log_plainly() {
    let log = tracing_subscriber::fmt().with_max_level(LevelFilter::ERROR).with_ansi(false);
    log.without_time().with_level(false).with_target(false).with_writer(io::stderr).init();
}

struct Sessions {
    job: Job,
    backend: OrtBackend,
    memory: Arc<SharedMemory>,
    bell: Arc<Bell>,
    threads: [Option<JoinHandle<()>>; LANES_MAX],
}

impl Sessions {
    fn open(&mut self, index: usize) -> Report {
        match self.start(index) {
            Ok(opened) => Report::Opened(opened),
            Err(failure) => Report::Failed(failure),
        }
    }

    fn start(&mut self, index: usize) -> Result<Opened, Failure> {
        let absent = || Failure::Runtime("there is no such lane".into());
        let thread = self.threads.get_mut(index).ok_or_else(absent)?;
        if let Some(former) = thread.take() {
            let _ = former.join(); // the server closed its lane; a panic in it was caught
        }
        let lane = Lane::new(self.memory.clone(), index);
        let session = self.backend.load(&self.job.model, &self.job.options);
        let session = session.map_err(Failure::new)?;
        memory::give_back(); // what reading the file took
        let opened = Opened {
            inputs: session.inputs().to_vec(),
            outputs: session.outputs().to_vec(),
            nodes: session.nodes(),
        };
        lane.reset();
        let (inputs, outputs) = (opened.inputs.clone(), opened.outputs.clone());
        let bell = self.bell.clone();
        let serve = move || {
            let specs = Specs { inputs: &inputs, outputs: &outputs };
            serve((&lane, &bell), specs, session);
        };
        let started = thread::Builder::new().name(format!("session-{index}")).spawn(serve);
        *thread = Some(started.map_err(|error| Failure::Runtime(error.to_string()))?);
        Ok(opened)
    }
}

fn serve((lane, bell): (&Lane, &Bell), specs: Specs<'_>, mut session: Box<dyn Session>) {
    let mut gives_way = false;
    while let Some(heard) = lane.wait_for_request() {
        let began = Instant::now();
        if lane.gives_way() && !gives_way {
            gives_way = true;
            let _ = setpriority_process(None, WAY_NICENESS); // where it may not, both are as urgent
        }
        let answer = match frame::read_request(lane, specs) {
            Ok((inputs, outputs)) => run_caught(&mut *session, &inputs, &outputs),
            Err(garbled) => Err(RunError::Failed(garbled.to_string())),
        };
        frame::write_answer(lane, specs, answer);
        lane.answer(began.elapsed(), heard, bell);
    }
}

/// A panic of the bindings fails one request; what crashes in the runtime ends the process.
fn run_caught(
    session: &mut dyn Session,
    inputs: &[protocol::tensor::Tensor],
    outputs: &[String],
) -> Result<Vec<protocol::tensor::Tensor>, RunError> {
    let run = AssertUnwindSafe(|| session.run(inputs, outputs));
    catch_unwind(run).unwrap_or_else(|_| Err(RunError::Panicked("see the server's log".into())))
}
