//! One thread owns one model and answers one request at a time from a bounded queue.
//!
//! Whoever submits a [`Job`] is refused at once when the queue is full, and gets a [`Ticket`]
//! otherwise: a future of the [`Answer`] for any executor. Dropping the ticket cancels the job; a
//! job that is cancelled or past its deadline is skipped before it costs anything. A panic of the
//! model fails that one job, and the thread lives on.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use protocol::tensor::Tensor;

use crate::error::RunError;
use crate::runner::{Call, Reply, Runner};
use crate::stream::{Piece, StreamState};

mod counters;
pub use counters::Counters;
use counters::Tally;

/// How many jobs wait for one worker at most, unless the options say otherwise.
pub const QUEUE_CAPACITY: usize = 64;

/// A request to a model.
#[derive(Debug, Clone, Default)]
pub struct Job {
    /// The inputs, as an application has them.
    pub inputs: Vec<Tensor>,
    /// The wanted outputs; the manifest's defaults when empty.
    pub outputs: Vec<String>,
    /// When the answer stops being of use: the job is dropped if it has not started by then, or
    /// stands between two frames.
    pub deadline: Option<Instant>,
}

/// What a model answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The wanted outputs, in the order in which they were asked for.
    pub outputs: Vec<Tensor>,
    /// Softmax of the most probable class, lowest over the items; `None` unless a classifier.
    pub confidence: Option<f32>,
    /// The most probable class's label, for one item and a labelled model.
    pub label: Option<String>,
    /// Where the stream stands now, for a piece of one.
    pub stream: Option<StreamState>,
    /// Microseconds in the queue.
    pub queue_us: u64,
    /// Microseconds of pre-processing, running the model and post-processing.
    pub infer_us: u64,
}

/// Why a job was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The queue is full.
    #[error("the model's queue of {capacity} requests is full")]
    Full {
        /// How many jobs wait at most.
        capacity: usize,
    },
    /// The worker has ended.
    #[error("the model was unloaded")]
    Stopped,
}

/// The future of an answer. Dropping it cancels the job, unless it already runs.
#[derive(Debug)]
#[must_use = "dropping a ticket cancels its job"]
pub struct Ticket(oneshot::Receiver<Result<Answer, RunError>>);

impl Future for Ticket {
    type Output = Result<Answer, RunError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.0).poll(context);
        answer.map(|sent| sent.unwrap_or(Err(RunError::Stopped)))
    }
}

impl Ticket {
    /// Blocks this thread until the answer is there; not for use inside an async runtime.
    ///
    /// # Errors
    /// As the future.
    pub fn wait(self) -> Result<Answer, RunError> {
        struct Unpark(Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut ticket = pin!(self);
        loop {
            match ticket.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(answer) => return answer,
                Poll::Pending => thread::park(),
            }
        }
    }
}

struct Waiting {
    job: Job,
    stream: Option<Piece>,
    since: Instant,
    reply: oneshot::Sender<Result<Answer, RunError>>,
}

/// A thread with one model. Dropping it fails the waiting jobs with [`RunError::Stopped`] and
/// waits for the running one.
#[derive(Debug)]
pub struct Worker {
    queue: Option<SyncSender<Waiting>>,
    capacity: usize,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread of that name for the model.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(name: &str, runner: Runner, capacity: usize) -> std::io::Result<Self> {
        let capacity = capacity.max(1);
        let (queue, jobs) = sync_channel(capacity);
        let tally = Arc::new(Tally::default());
        let own = Arc::clone(&tally);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(runner, &jobs, &own))?;
        Ok(Self { queue: Some(queue), capacity, tally, thread: Some(thread) })
    }

    /// Queues a job.
    ///
    /// # Errors
    /// [`Refused`], at once.
    pub fn submit(&self, job: Job) -> Result<Ticket, Refused> {
        self.queue(job, None)
    }

    /// Queues the next piece of a stream.
    ///
    /// # Errors
    /// [`Refused`], at once.
    pub fn submit_stream(&self, job: Job, piece: Piece) -> Result<Ticket, Refused> {
        self.queue(job, Some(piece))
    }

    fn queue(&self, job: Job, stream: Option<Piece>) -> Result<Ticket, Refused> {
        let (reply, ticket) = oneshot::channel();
        let waiting = Waiting { job, stream, since: Instant::now(), reply };
        let queue = self.queue.as_ref().ok_or(Refused::Stopped)?;
        self.tally.enter();
        queue.try_send(waiting).map_err(|refused| {
            self.tally.refuse();
            match refused {
                TrySendError::Full(_) => Refused::Full { capacity: self.capacity },
                TrySendError::Disconnected(_) => Refused::Stopped,
            }
        })?;
        Ok(Ticket(ticket))
    }

    /// What became of the jobs so far.
    pub fn counters(&self) -> Counters {
        self.tally.snapshot()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tally.stop();
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // An error would be a panic outside the model, which the thread has already reported.
            let _ = thread.join();
        }
    }
}

fn serve(mut runner: Runner, jobs: &Receiver<Waiting>, tally: &Tally) {
    for waiting in jobs {
        if tally.is_stopped() {
            tally.cancel();
        } else {
            serve_one(&mut runner, waiting, tally);
        }
    }
}

fn serve_one(runner: &mut Runner, waiting: Waiting, tally: &Tally) {
    let Waiting { job, stream, since, reply } = waiting;
    if reply.is_canceled() {
        return tally.cancel();
    }
    let start = Instant::now();
    // A send fails only when the ticket was dropped meanwhile: nobody is left to tell.
    if job.deadline.is_some_and(|deadline| deadline <= start) {
        tally.expire();
        let _ = reply.send(Err(RunError::Expired));
        return;
    }
    let mut result = run_caught(runner, &job, stream.as_ref());
    if result.as_ref().is_err_and(RunError::is_lost) {
        result = run_caught(runner, &job, stream.as_ref()); // once: it may be the cause itself
    }
    let result = result.map(|reply| Answer {
        outputs: reply.outputs,
        confidence: reply.reading.confidence,
        label: reply.reading.label,
        stream: reply.stream,
        queue_us: micros(start.duration_since(since)),
        infer_us: micros(start.elapsed()),
    });
    tally.finish(result.is_ok());
    let _ = reply.send(result);
}

/// A panicking model leaves nothing of ours half-changed: a runner keeps no state between jobs.
fn run_caught(runner: &mut Runner, job: &Job, stream: Option<&Piece>) -> Result<Reply, RunError> {
    let call = Call { inputs: &job.inputs, outputs: &job.outputs, deadline: job.deadline, stream };
    let run = AssertUnwindSafe(|| runner.answer(call));
    catch_unwind(run).unwrap_or_else(|panic| Err(RunError::Panicked(panic_text(&*panic))))
}

pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref().cloned()).unwrap_or_else(|| "no message".to_owned())
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
