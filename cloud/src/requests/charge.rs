//! One request's account: opened on its header, closed when it is dropped, whatever became of it.
//! There it is metered, timed, traced and logged, in one place, so that the four cannot disagree.

use link::traces::Trace;
use protocol::id::{ModelName, Version};
use protocol::infer::{Timing, Verdict};
use protocol::problem::{Problem, ProblemCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::access::Identity;
use crate::state::Cloud;
use crate::store::usage::{BACKGROUND, Usage};

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer.
    Answered,
    /// Its asker was told why there is none.
    Failed(ProblemCode),
    /// Its asker went away.
    Cancelled,
}

impl Outcome {
    /// A word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Failed(code) => code.as_str(),
            Self::Cancelled => "cancelled",
        }
    }
}

/// What became of a request.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Who asked; in the background it is a caller of its own, `background device ID`.
    pub identity: Identity,
    /// Nobody waited for the answer.
    pub background: bool,
    /// What was asked; `None` for a model that is not known here.
    pub model: Option<ModelName>,
    /// Which version answered.
    pub version: Option<Version>,
    /// How it ended.
    pub outcome: Outcome,
    /// Bytes of the tensors that came.
    pub bytes_in: u64,
    /// Bytes of the tensors that went.
    pub bytes_out: u64,
    /// From its header to the last byte of its tensors; `None` when they did not come.
    pub receive: Option<Duration>,
    /// In the model's queue.
    pub queue_us: u64,
    /// From the first step of pre-processing to the last of post-processing.
    pub infer_us: u64,
    /// Its share of the time that a session worked.
    pub compute_us: u64,
    /// From its header to its end.
    pub took: Duration,
}

/// A request that has not ended.
pub(super) struct Charge {
    cloud: Arc<Cloud>,
    opened: Instant,
    so_far: Ended,
    trace: Trace,
}

impl Charge {
    /// A request without an answer yet; `model` when it is known here.
    pub(super) fn new(
        cloud: &Arc<Cloud>,
        identity: &Identity,
        model: Option<ModelName>,
        trace: Trace,
    ) -> Self {
        let so_far = Ended {
            identity: identity.clone(),
            background: false,
            model,
            version: None,
            outcome: Outcome::Cancelled,
            bytes_in: 0,
            bytes_out: 0,
            receive: None,
            queue_us: 0,
            infer_us: 0,
            compute_us: 0,
            took: Duration::ZERO,
        };
        Self { cloud: cloud.clone(), opened: Instant::now(), so_far, trace }
    }

    /// Nobody waits for the answer: it is nothing that the device's applications asked for.
    pub(super) fn count_apart(&mut self) {
        let ended = &mut self.so_far;
        ended.background = true;
        ended.identity.caller = format!("{BACKGROUND}{}", ended.identity.caller).into();
    }

    /// Who asks.
    pub(super) fn caller(&self) -> &Arc<str> {
        &self.so_far.identity.caller
    }

    /// Its tensors are here.
    pub(super) fn arrived(&mut self, bytes_in: u64) {
        self.so_far.bytes_in = bytes_in;
        let receive = self.opened.elapsed();
        self.so_far.receive = Some(receive);
        drop(self.trace.part("receive", self.opened, receive));
    }

    /// It ran, after its time in the queue, together with others.
    pub(super) fn ran(&self, timing: &Timing, began: Instant, requests: u32) {
        let (queue, infer) =
            (Duration::from_micros(timing.queue_us), Duration::from_micros(timing.infer_us));
        drop(self.trace.part("queue", began.checked_sub(queue).unwrap_or(began), queue));
        let run = self.trace.part("inference", began, infer);
        drop(run.with("outrigger.batch.requests", requests));
    }

    /// It was answered.
    pub(super) fn answered(&mut self, verdict: &Verdict, compute_us: u64, bytes_out: u64) {
        self.trace.answered(verdict);
        let ended = &mut self.so_far;
        ended.outcome = Outcome::Answered;
        ended.version = Some(verdict.version);
        ended.queue_us = verdict.timing.queue_us;
        ended.infer_us = verdict.timing.infer_us;
        ended.compute_us = compute_us;
        ended.bytes_out = bytes_out;
    }

    /// Its asker is told why there is no answer.
    pub(super) fn failed(&mut self, problem: &Problem) {
        self.trace.failed(problem);
        self.so_far.outcome = Outcome::Failed(problem.code);
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.so_far.took = self.opened.elapsed();
        let (cloud, ended) = (&self.cloud, &self.so_far);
        let usage = Usage {
            requests: 1,
            refused: u64::from(ended.outcome != Outcome::Answered),
            compute_us: ended.compute_us,
            bytes_in: ended.bytes_in,
            bytes_out: ended.bytes_out,
        };
        if !cloud.meter.add(&ended.identity, ended.model.clone(), &usage) {
            cloud.events.usage_lost();
        }
        cloud.observed.record(ended);
        cloud.access_log.write(ended);
    }
}
