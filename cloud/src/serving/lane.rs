//! One loaded model: its sessions, and the requests that wait for them.
//!
//! What runs when, together with what, is decided by `fleet::batch`, and how many sessions there are
//! by `fleet::scaling` (`book`). A session has no thread of its own. A run is begun by the very task
//! that found the session idle (`drive`), which waits for the worker as a task; only what would hold
//! its thread, as large tensors and models in this process do, is done on the runtime's threads for
//! work that blocks. Either way the next batch begins where the last one ended, and `keeper` only looks
//! after what happens without an event: deadlines and the number of sessions.

use fleet::batch::{DropReason, FlowId, NotTaken, RequestId};
use models::bundle::Bundle;
use models::error::RunError;
use models::probing::Together;
use models::runner::{Given, Question, Reply};
use models::sessions::Sessions;
use models::worker::Job;
use protocol::problem::{Problem, ProblemCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, oneshot};

use super::ServeError;
use super::accelerators::Accelerators;
use super::door::Door;
use super::settings::ModelSettings;
use crate::blobs::LaidOut;
use crate::memory;
use fleet::admission::ModelSlot;
use models::backend::{Backend, SessionOptions};
use models::providers::{Choice, Processor, Provider};

mod book;
mod drive;
mod keeper;

use book::{Book, Ticket};

/// An answer of so many bytes is read on a thread for work that blocks.
const LONG_ANSWER_BYTES: usize = 256 << 10;

/// A loaded model. Dropping it gives its memory back, without stopping an async thread.
#[derive(Debug)]
pub struct Lane {
    sessions: Arc<Sessions>,
    choice: Choice,
    together: Together,
    book: Mutex<Book>,
    door: Arc<Door>,
    slot: ModelSlot,
    changed: Arc<Notify>,
    /// What sessions are opened from.
    files: Option<LaidOut>,
    /// One for each core: pre-processing of more requests at a time would only take their memory.
    preparing: Semaphore,
    runtime: Handle,
}

/// What a lane needs beside its bundle.
pub(super) struct Needs {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) settings: ModelSettings,
    pub(super) door: Arc<Door>,
    pub(super) slot: ModelSlot,
    pub(super) accelerators: Accelerators,
    /// Who computes it, where that was found out before.
    pub(super) choice: Option<Choice>,
    /// The bundle's files.
    pub(super) files: LaidOut,
}

/// What the permit of a request says of it.
#[derive(Debug, Clone, Copy)]
pub struct Standing {
    /// Whose share it takes.
    pub flow: FlowId,
    /// How large that share is.
    pub weight: u32,
    /// How urgent it is.
    pub priority: u8,
    /// Nobody waits for the answer.
    pub background: bool,
    /// When the answer is of no use any more.
    pub deadline: Instant,
}

/// An answered request.
#[derive(Debug)]
pub struct Answered {
    /// What was wanted.
    pub reply: Reply,
    /// How long it waited for a session.
    pub queue: Duration,
    /// How long the run took that it was part of.
    pub infer: Duration,
    /// Its part of that, by items.
    pub own: Duration,
    /// When that run began.
    pub began: Instant,
    /// How many requests it was of.
    pub requests: u32,
}

/// Why a request was not answered.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// It cannot be used, or the model failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Too many wait.
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
    /// It ended before it ran.
    #[error("the request was dropped before it ran: {}", .0.as_str())]
    Dropped(DropReason),
}

/// The end of a run, for one of its requests.
struct Ran {
    question: Question,
    given: Given,
    queue: Duration,
    infer: Duration,
    own: Duration,
    began: Instant,
    requests: u32,
}

impl Lane {
    /// Opens the first sessions, checks the probes, and finds out what requests may share a run.
    /// Blocks.
    ///
    /// # Errors
    /// [`ServeError`]; nothing is left behind.
    pub(super) fn open(needs: Needs, bundle: Bundle) -> Result<Arc<Self>, ServeError> {
        let Needs { backend, settings, door, slot, accelerators, choice, files } = needs;
        let threads = settings.threads.max(1) as usize;
        let options = SessionOptions { threads, ..SessionOptions::default() };
        let choice = match choice {
            Some(known) => known,
            None => accelerators.choose(&*backend, &bundle, &options)?,
        };
        let provider = choice.provider;
        let devices = accelerators.devices(provider);
        let options = SessionOptions { provider, ..options };
        let sessions = Sessions::new(backend, bundle, options, devices.to_vec())?;
        let mut first = sessions.open()?;
        sessions.check_probes(&mut first)?;
        let sizes = if settings.batching { settings.max_batch_size } else { 1 };
        let together = sessions.try_together(&mut first, sizes, settings.max_batch_run())?;
        let model = &sessions.manifest().model;
        match &together.objection {
            None => tracing::debug!(%model, runs = ?together.runs, "requests may share a run"),
            Some(why) => tracing::info!(%model, %why, "requests do not share a run"),
        }
        let mut book = Book::new(&settings, own(provider, devices), &together, Instant::now());
        book.seat(first);
        while book.wants_sessions() {
            book.seat(sessions.open()?);
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let lane = Arc::new(Self {
            sessions: Arc::new(sessions),
            choice,
            together,
            book: Mutex::new(book),
            door,
            slot,
            changed: Arc::default(),
            files: Some(files),
            preparing: Semaphore::new(cores),
            runtime: Handle::current(),
        });
        keeper::start(&lane);
        Ok(lane)
    }

    /// What the bundle says, and its sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Who computes it, and why nobody else does.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// Whether requests may share a run, and what was measured.
    pub fn together(&self) -> &Together {
        &self.together
    }

    /// How many sessions there are.
    pub fn instances(&self) -> usize {
        self.book().seats()
    }

    /// How many requests wait for a session.
    pub fn waiting(&self) -> usize {
        self.book().waiting()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a request. Dropping the future cancels it: what has not begun does not run.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub async fn answer(
        self: &Arc<Self>,
        job: Job,
        standing: Standing,
    ) -> Result<Answered, Unanswered> {
        let question = self.prepare(job).await?;
        let (end, ended) = oneshot::channel();
        let id = self.submit(question, standing, end)?;
        let mut waiting = Cancel { lane: self, id: Some(id) };
        let ran = ended.await.unwrap_or(Err(Unanswered::Run(RunError::Stopped)));
        waiting.id = None;
        let Ran { question, given, queue, infer, own, began, requests } = ran?;
        let reply = self.read(question, given).await?;
        Ok(Answered { reply, queue, infer, own, began, requests })
    }

    /// Pre-processing; aside where there is any.
    async fn prepare(&self, job: Job) -> Result<Question, RunError> {
        if self.sessions.takes_as_it_is(&job) {
            return self.sessions.question(job);
        }
        let _turn = self.preparing.acquire().await; // never closed
        if job.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(RunError::Expired);
        }
        let sessions = self.sessions.clone();
        aside(move || sessions.question(job)).await
    }

    async fn read(&self, question: Question, given: Given) -> Result<Reply, RunError> {
        if given.size_bytes() <= LONG_ANSWER_BYTES {
            return self.sessions.reply(&question, given);
        }
        let sessions = self.sessions.clone();
        aside(move || sessions.reply(&question, given)).await
    }

    fn submit(
        self: &Arc<Self>,
        question: Question,
        standing: Standing,
        end: oneshot::Sender<Result<Ran, Unanswered>>,
    ) -> Result<RequestId, NotTaken> {
        let now = Instant::now();
        let mut book = self.book();
        let ticket = Ticket { question, since: now, background: standing.background, end };
        let id = book.enter(ticket, standing, now)?;
        let drive = book.begins_drive(now);
        let earlier = !drive && book.wakes_earlier();
        drop(book);
        if drive {
            drop(self.runtime.spawn(drive::drive(self.clone(), None)));
        } else if earlier {
            self.changed.notify_one();
        }
        Ok(id)
    }
}

/// How many devices a model has for itself: sessions are not counted by cores then.
fn own(provider: Provider, devices: &[u32]) -> Option<u32> {
    let is_gpu = provider.processor() == Processor::Gpu;
    is_gpu.then(|| u32::try_from(devices.len()).unwrap_or(u32::MAX))
}

/// Work that would hold up others, on another thread.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<T, RunError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(RunError::Panicked(error.to_string())))
}

/// A request whose caller waits.
struct Cancel<'l> {
    lane: &'l Lane,
    id: Option<RequestId>,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.lane.book().cancel(id);
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.changed.notify_one();
        let runners = self.book().close();
        let files = self.files.take();
        let end = move || {
            drop((runners, files));
            memory::give_back();
        };
        match Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn_blocking(end)),
            Err(_) => end(),
        }
    }
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Self {
        let text = unanswered.to_string();
        match unanswered {
            Unanswered::Run(error) => error.into(),
            Unanswered::NotTaken(_) | Unanswered::Dropped(DropReason::QueuedTooLong) => {
                Problem::new(ProblemCode::Overloaded, text)
                    .hint("try again after retry_after_ms")
                    .retry_after_ms(100)
            }
            Unanswered::Dropped(DropReason::SessionLost) => {
                Problem::new(ProblemCode::InferenceFailed, text)
                    .hint("its session ended under it twice; the server's log may say more")
            }
            Unanswered::Dropped(_) => {
                let text = "the deadline would have passed before the model could answer";
                Problem::new(ProblemCode::DeadlineExceeded, text)
                    .hint("allow more time, or send fewer requests at once")
            }
        }
    }
}
