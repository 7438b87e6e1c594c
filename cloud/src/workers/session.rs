//! A session whose model lives in a worker.
//!
//! A run that was handed over and lost with its process is told so ([`RunError::Lost`]) and may be
//! asked again, here: the next run waits for the successor. That nobody answers is not taken for work
//! for ever: long after the deadline, and after a multiple of the longest run so far, the worker is
//! killed.

use models::backend::{Coming, Session, check_request};
use models::error::RunError;
use models::providers::NodeCount;
use protocol::manifest::TensorSpec;
use protocol::tensor::Tensor;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::frame::{self, Specs};
use super::job::Opened;
use super::lane::{Heard, Lane, Waited, Way};
use super::process::Process;
use super::worker::{Absent, Worker};

/// How long after its deadline a run may go on.
const GRACE: Duration = Duration::from_secs(2);
/// How many times the longest run so far a run may take.
const LONGEST_TIMES: u32 = 10;
/// How long a run without a deadline waits for a worker's successor.
const SUCCESSOR_WAIT: Duration = Duration::from_secs(10);

/// How long a thread that moves bytes for others may be held.
const HELD_MAX: Duration = Duration::from_millis(2);
/// What such a thread copies at a time: more is work for another.
const COPIED_MAX_BYTES: usize = 1 << 20;

/// Waits for an answer. Short runs are waited for by whoever began them, which may be a thread of the
/// runtime: one that is not short after all, as when a model hangs, must not hold up everybody there.
fn wait(lane: &Lane, began: Instant, end: Instant) -> Waited {
    let soon = began + HELD_MAX;
    match lane.wait_for_answer(soon.min(end)) {
        Waited::Late if soon < end => link::durable::aside(|| lane.wait_for_answer(end)),
        waited => waited,
    }
}

/// One session of a worker. Dropping it closes it; the last one ends the worker.
pub(super) struct RemoteSession {
    worker: Arc<Worker>,
    index: usize,
    opened: Opened,
    /// How long a run without a deadline may take.
    run_limit: Duration,
    longest: Duration,
    /// Bytes of the largest answer so far; the probes have been answered before anybody asks.
    answer_bytes: usize,
    gives_way: bool,
}

impl RemoteSession {
    pub(super) fn new(
        worker: Arc<Worker>,
        index: usize,
        opened: Opened,
        run_limit: Duration,
    ) -> Self {
        let longest = Duration::ZERO;
        let (answer_bytes, gives_way) = (0, false);
        Self { worker, index, opened, run_limit, longest, answer_bytes, gives_way }
    }

    fn specs(&self) -> Specs<'_> {
        Specs { inputs: &self.opened.inputs, outputs: &self.opened.outputs }
    }

    fn process(&self, deadline: Option<Instant>) -> Result<Arc<Process>, RunError> {
        let end = deadline.unwrap_or_else(|| Instant::now() + SUCCESSOR_WAIT);
        self.worker.process_by(Some(end)).map_err(|absent| match absent {
            Absent::Late(_) if deadline.is_some() => RunError::Expired,
            Absent::Late(why) => RunError::Lost(format!("its worker {why}")),
            Absent::Refused(why) => RunError::Failed(format!("its worker {why}")),
        })
    }

    /// This session's part of a process, which may be another than that of the run before.
    fn lane(&self, process: &Process) -> Lane {
        let lane = process.lane(self.index);
        if self.gives_way {
            lane.give_way();
        }
        lane
    }

    /// The end of a run that took `sent` bytes to the lane.
    fn conclude(
        &mut self,
        (process, lane): (&Process, &Lane),
        (sent, began, waited): (usize, Instant, Waited),
        outputs: &[String],
    ) -> Result<Vec<Tensor>, RunError> {
        match waited {
            Waited::Answered => {}
            Waited::Gone => {
                self.worker.events().lost_run();
                return Err(RunError::Lost("its worker ended".into()));
            }
            Waited::Late => {
                let ms = began.elapsed().as_millis();
                process.kill(&format!("the model gave no answer for {ms} ms"));
                return Err(RunError::Failed(format!("no answer for {ms} ms")));
            }
        }
        self.longest = self.longest.max(began.elapsed());
        let answer = frame::read_answer(lane, self.specs(), outputs);
        lane.trim(Way::Request, sent);
        match answer {
            Ok(answer) => {
                let answer = answer?;
                let bytes = frame::size_bytes(&answer);
                self.answer_bytes = self.answer_bytes.max(bytes);
                lane.trim(Way::Answer, bytes);
                Ok(answer)
            }
            Err(garbled) => {
                process.kill("the worker's answer is none");
                Err(RunError::Failed(garbled.to_string()))
            }
        }
    }

    /// When a run that began now is held to be lost.
    fn patience(&self, began: Instant, deadline: Option<Instant>) -> Instant {
        let longest = self.longest * LONGEST_TIMES;
        match deadline {
            Some(deadline) => (deadline + GRACE).max(began + longest),
            None => began + longest.max(self.run_limit),
        }
    }
}

impl Session for RemoteSession {
    fn inputs(&self) -> &[TensorSpec] {
        &self.opened.inputs
    }

    fn outputs(&self) -> &[TensorSpec] {
        &self.opened.outputs
    }

    fn nodes(&self) -> Option<NodeCount> {
        self.opened.nodes
    }

    fn run(&mut self, inputs: &[Tensor], outputs: &[String]) -> Result<Vec<Tensor>, RunError> {
        self.run_until(inputs, outputs, None)
    }

    fn run_until(
        &mut self,
        inputs: &[Tensor],
        outputs: &[String],
        deadline: Option<Instant>,
    ) -> Result<Vec<Tensor>, RunError> {
        check_request((&self.opened.inputs, &self.opened.outputs), inputs, outputs)?;
        let (process, lane, sent) = loop {
            let process = self.process(deadline)?;
            let lane = self.lane(&process);
            let sent = frame::write_request(&lane, self.specs(), inputs, outputs)?;
            if lane.hand_over(Heard::Asleep) {
                break (process, lane, sent);
            } // else it has just ended: nobody has seen the request
        };
        let began = Instant::now();
        let waited = wait(&lane, began, self.patience(began, deadline));
        self.conclude((&process, &lane), (sent, began, waited), outputs)
    }

    fn run_elsewhere<'s>(
        &'s mut self,
        inputs: &'s [Tensor],
        outputs: &'s [String],
        deadline: Option<Instant>,
    ) -> Option<Coming<'s>> {
        let bytes = inputs.iter().map(|input| input.data().len()).sum::<usize>();
        if bytes.max(self.answer_bytes) > COPIED_MAX_BYTES {
            return None;
        }
        // What goes wrong before a worker sees the request is told, or waited for, by a thread.
        check_request((&self.opened.inputs, &self.opened.outputs), inputs, outputs).ok()?;
        let process = self.worker.running().filter(|process| process.listeners().hear())?;
        let lane = self.lane(&process);
        let sent = frame::write_request(&lane, self.specs(), inputs, outputs).ok()?;
        lane.hand_over(Heard::Bell).then_some(())?;
        let began = Instant::now();
        let patience = self.patience(began, deadline);
        Some(Box::pin(async move {
            let waited = tokio::time::timeout_at(patience.into(), process.listeners().wait(&lane));
            let waited = waited.await.unwrap_or(Waited::Late);
            let outputs = self.conclude((&process, &lane), (sent, began, waited), outputs)?;
            Ok((outputs, lane.ran(began.elapsed())))
        }))
    }

    fn give_way(&mut self) {
        self.gives_way = true;
    }

    fn is_ready(&self) -> bool {
        self.worker.running().is_some()
    }

    fn runs_elsewhere(&self) -> bool {
        self.answer_bytes <= COPIED_MAX_BYTES
    }
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        self.worker.close(self.index);
    }
}
