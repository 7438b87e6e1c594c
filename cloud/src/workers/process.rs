//! One worker process, from its start to its end, as the server sees it.

use confine::Confinement;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use super::bell::Listeners;
use super::job::{Failure, Job, Opened, Order, Report, hear, say};
use super::lane::{LANES_MAX, Lane, SHARED_BYTES};
use super::shared_memory::SharedMemory;

/// The hidden subcommand that is a worker.
pub const SUBCOMMAND: &str = "run-model";
/// What is kept of a line that a worker prints.
const LINE_MAX_BYTES: u64 = 1000;
/// The thread that reads what a worker prints needs no more stack.
const READER_STACK_BYTES: usize = 128 << 10;
/// What workers inherit of the server's environment: where libraries are.
const INHERITED: [&str; 2] = ["LD_LIBRARY_PATH", "OUTRIGGER_ORT_LIB"];
/// Fewer heaps, which threads share: a worker has few threads, and each heap keeps what was freed.
const HEAPS: (&str, &str) = ("MALLOC_ARENA_MAX", "2");

/// What a worker is started with.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) job: Job,
    /// A name for people who look at the list of processes.
    pub(super) label: String,
    /// The GPU that it runs on; `None` on the CPU.
    pub(super) gpu: Option<u32>,
    /// How long it may take to load its model.
    pub(super) load_limit: Duration,
    /// Beside what every worker gets.
    pub(super) environment: Vec<(OsString, OsString)>,
}

/// Why a worker did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwilling {
    /// It said why.
    #[error("{0:?}")]
    Said(Failure),
    /// It ended, or said nothing for too long and was killed for it.
    #[error("it ended")]
    Ended,
}

/// A running worker.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) id: u32,
    handle: OwnedFd,
    memory: Arc<SharedMemory>,
    control: Mutex<BufReader<UnixStream>>,
    listeners: Arc<Listeners>,
    load_limit: Duration,
    /// Why the server killed it.
    sentence: OnceLock<String>,
}

/// What is left to its supervisor.
pub(super) struct Leash {
    child: Child,
    words: Option<thread::JoinHandle<String>>,
}

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.child.kill(); // an error means that it ended already
        let _ = self.child.wait();
    }
}

/// How a worker ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) status: ExitStatus,
    /// Why the server killed it, if it did.
    pub(super) sentence: Option<String>,
    /// The last line that it printed.
    pub(super) words: String,
}

impl Process {
    /// Starts a worker. It ends with the calling thread.
    ///
    /// # Errors
    /// The system cannot.
    pub(super) fn start(launch: &Launch) -> io::Result<(Arc<Self>, Leash)> {
        let memory = Arc::new(SharedMemory::create(SHARED_BYTES)?);
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(launch.load_limit))?;
        ours.set_write_timeout(Some(launch.load_limit))?;
        let inherited = INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        let mut child = Command::new("/proc/self/exe")
            .arg0("outrigger-cloud")
            .args([SUBCOMMAND, &launch.label])
            .env_clear()
            .envs(inherited)
            .envs([HEAPS])
            .envs(launch.environment.iter().cloned())
            .current_dir("/")
            .process_group(0) // what a terminal sends is for the server
            .stdin(OwnedFd::from(theirs))
            .stdout(memory.file().try_clone_to_owned()?)
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take();
        let mut leash = Leash { child, words: None };
        let id = leash.child.id();
        let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        if let Some(stderr) = stderr {
            let label = launch.label.clone();
            let reader = thread::Builder::new().name("worker-log".into());
            let reader = reader.stack_size(READER_STACK_BYTES);
            leash.words = Some(reader.spawn(move || relay(&label, stderr))?);
        }
        let listeners = Arc::new(Listeners::new()?);
        listeners.bell().send(&ours)?;
        let control = Mutex::new(BufReader::new(ours));
        let process = Self {
            id,
            handle,
            memory,
            control,
            listeners,
            load_limit: launch.load_limit,
            sentence: OnceLock::new(),
        };
        Ok((Arc::new(process), leash))
    }

    /// Gives it its job, and waits until it is ready.
    ///
    /// # Errors
    /// [`Unwilling`].
    pub(super) fn employ(&self, job: &Job) -> Result<Confinement, Unwilling> {
        match self.exchange(job)? {
            Report::Ready(confinement) => Ok(confinement),
            Report::Failed(failure) => Err(Unwilling::Said(failure)),
            Report::Opened(_) => Err(self.is_confused()),
        }
    }

    /// Has it open one more session.
    ///
    /// # Errors
    /// [`Unwilling`].
    pub(super) fn open(&self, index: usize) -> Result<Opened, Unwilling> {
        self.lane(index).close(); // the one before, if there was one
        match self.exchange(&Order::Open(index))? {
            Report::Opened(opened) => Ok(opened),
            Report::Failed(failure) => Err(Unwilling::Said(failure)),
            Report::Ready(_) => Err(self.is_confused()),
        }
    }

    fn exchange(&self, order: &impl serde::Serialize) -> Result<Report, Unwilling> {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = say(control.get_mut(), order).and_then(|()| hear(&mut *control));
        match heard {
            Ok(Some(report)) => Ok(report),
            Ok(None) => Err(Unwilling::Ended),
            Err(error) if is_late(&error) => {
                let limit_s = self.load_limit.as_secs();
                self.kill(&format!("the model was not loaded after {limit_s} s"));
                Err(Unwilling::Ended)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(self.is_confused()),
            Err(_) => Err(Unwilling::Ended),
        }
    }

    fn is_confused(&self) -> Unwilling {
        self.kill("the worker said what it should not");
        Unwilling::Ended
    }

    /// Who waits for its answers without a thread.
    pub(super) fn listeners(&self) -> &Arc<Listeners> {
        &self.listeners
    }

    pub(super) fn lane(&self, index: usize) -> Lane {
        Lane::new(self.memory.clone(), index)
    }

    /// Kills it, for a reason that is kept.
    pub(super) fn kill(&self, why: &str) {
        let _ = self.sentence.set(why.to_owned()); // the first reason counts
        let _ = pidfd_send_signal(&self.handle, Signal::KILL); // or it has ended
    }

    /// Waits until it has ended. Then `before` is done, and everybody told who waits for an answer.
    ///
    /// # Errors
    /// The system does not say.
    pub(super) fn wait(&self, mut leash: Leash, before: impl FnOnce()) -> io::Result<Ending> {
        let status = leash.child.wait();
        before();
        (0..LANES_MAX).for_each(|index| self.lane(index).gone());
        self.listeners.bell().ring();
        let status = status?;
        let words = leash.words.take().and_then(|reader| reader.join().ok());
        let sentence = self.sentence.get().cloned();
        Ok(Ending { status, sentence, words: words.unwrap_or_default() })
    }

    /// Memory that it takes, in bytes: shared pages by its share (`Pss`).
    pub(super) fn memory_bytes(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.id)).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Logs what a worker prints, until it has ended; its last line.
fn relay(label: &str, stderr: ChildStderr) -> String {
    let mut stderr = BufReader::with_capacity(4096, stderr);
    let mut last = String::new();
    let mut line = Vec::new();
    while matches!(stderr.by_ref().take(LINE_MAX_BYTES).read_until(b'\n', &mut line), Ok(1..)) {
        let text = plain(&line);
        line.clear();
        if !text.is_empty() {
            tracing::warn!(worker = label, "{text}");
            last = text;
        }
    }
    last
}

/// One line without control characters.
fn plain(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.trim().chars().filter(|c| !c.is_control()).collect()
}

impl Ending {
    /// Whether somebody else than the model or the server ended it.
    pub(super) fn is_from_outside(&self) -> bool {
        let sent = [libc::SIGKILL, libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT];
        self.sentence.is_none() && self.status.signal().is_some_and(|s| sent.contains(&s))
    }

    /// How it ended, as in "it ...".
    pub(super) fn describe(&self) -> String {
        if let Some(why) = &self.sentence {
            return format!("was killed by the server: {why}");
        }
        let words = if self.words.is_empty() { String::new() } else { format!(": {}", self.words) };
        match self.status.signal() {
            Some(libc::SIGKILL) => "was killed (SIGKILL); is the machine out of memory?".into(),
            Some(libc::SIGSEGV) => format!("crashed (SIGSEGV){words}"),
            Some(libc::SIGABRT) => format!("crashed (SIGABRT){words}"),
            Some(libc::SIGSYS) => "asked for a forbidden system call (SIGSYS)".into(),
            Some(signal) => format!("ended by signal {signal}{words}"),
            None => format!("ended by itself ({}){words}", self.status),
        }
    }
}
