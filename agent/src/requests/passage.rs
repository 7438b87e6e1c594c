//! The way to the cloud: asked for, paid for, judged. `edge::offload::Passage` decides.

use super::{Requests, is_the_askers_fault, size_bytes};
use crate::clock::Clock;
use crate::config::Offload;
use crate::engine::ActiveModel;
use crate::state::State;
use crate::uplink::Question;
use crate::uplink::deferral::CloudAnswer;
use ::link::durable::aside;
use ::link::traces::Trace;
use edge::breaker::Breaker;
use edge::budget::{Budget, SavedBudget};
use edge::offload::{Ask, Grant, Passage, Standing};
use edge::paths::LinkState;
use protocol::infer::{InferRequest, Reason};
use protocol::problem::{Problem, ProblemCode, chain};
use protocol::transport::{PACKED_AT_ONCE_BYTES, Parcel, packed_bytes};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The passage as it was left. What cannot be read of the budget counts as spent.
pub(super) fn open(policy: &Offload, state: &Arc<State>, clock: &Clock) -> Passage {
    let (now, now_s) = (Instant::now(), clock.now_s());
    let saved = aside(|| state.budget()).unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "the budget cannot be read; it begins empty");
        let bucket = edge::budget::SavedBucket { level: 0.0, lease: 0.0 };
        Some(SavedBudget { calls: bucket, bytes: bucket, at_s: now_s })
    });
    let budget = Budget::new(policy.budget(), saved, now, now_s);
    let mut passage = Passage::new(Breaker::new(policy.breaker()), budget);
    if let Some(saved) = passage.budget.save(now, now_s) {
        passage.budget.saved(keep(state, &saved));
    }
    passage
}

/// Whether a budget could be written down. Blocks.
fn keep(state: &State, saved: &SavedBudget) -> bool {
    let kept = aside(|| state.keep_budget(saved));
    if let Err(error) = &kept {
        tracing::warn!(error = chain(error), "the budget is not kept, so it is not spent");
    }
    kept.is_ok()
}

impl Requests {
    /// How the way to the cloud is now.
    pub(super) fn standing(&self, now: Instant) -> Standing {
        let (link, connected) = (self.uplink.link(), self.uplink.can_ask());
        let mut passage = self.passage();
        link.map(|link| passage.link.read(link));
        passage.standing(connected, now)
    }

    /// How many bytes this request would send on this link.
    pub(super) fn sent_bytes(
        &self,
        model: &ActiveModel,
        request: &InferRequest,
        link: LinkState,
    ) -> u64 {
        let (raw, policy) = (size_bytes(request), self.policy());
        let packed = packed_bytes(&request.inputs, &model.transports());
        match policy.thrift.pays(raw, packed, link, policy.bytes_per_day > 0) {
            true => packed,
            false => raw,
        }
    }

    /// The inputs of this request as they are to travel now.
    pub(super) fn pack(&self, model: &ActiveModel, request: &InferRequest) -> Parcel {
        let (raw, allowed) = (size_bytes(request), model.transports());
        let link = || self.standing(Instant::now()).link;
        if allowed.is_empty() || self.sent_bytes(model, request, link()) == raw {
            return Parcel::raw(&request.inputs);
        }
        let pack = || Parcel::packed(&request.inputs, &allowed);
        if raw > PACKED_AT_ONCE_BYTES { aside(pack) } else { pack() }
    }

    /// A call for an answer to a request of so many bytes.
    pub(super) fn ask_for(
        &self,
        model: &ActiveModel,
        (request, parcel): (&InferRequest, &Parcel),
        remaining: Duration,
        keep: Duration,
        doubt: f64,
    ) -> Ask {
        Ask {
            connected: self.uplink.can_ask(),
            busy: model.outlook().is_busy(Instant::now()),
            bytes: parcel.sent_bytes(),
            priority: request.priority,
            doubt,
            check: false,
            remaining,
            keep,
        }
    }

    /// Asks the cloud, if it may be asked; the reason why there is no answer goes with the failure.
    pub(super) async fn ask_cloud(
        &self,
        model: &ActiveModel,
        (request, parcel): (&InferRequest, &Parcel),
        trace: &Trace,
        ask: Ask,
    ) -> Result<CloudAnswer, (Reason, Problem)> {
        let grant = self.granted(ask).map_err(|reason| (reason, absent(reason)))?;
        self.counters.sent(ask.bytes, parcel.saved_bytes());
        let began = Instant::now();
        let (version, check) = (model.target().version, ask.check);
        let question = Question { request, parcel, version, check, trace };
        let result = self.uplink.ask(&question, grant).await;
        self.judge(model, &ask, began, result)
    }

    fn granted(&self, ask: Ask) -> Result<Grant, Reason> {
        let now = Instant::now();
        let link = self.uplink.link();
        let mut passage = self.passage();
        link.map(|link| passage.link.read(link));
        let grant = passage.ask(&ask, now);
        let saved = passage.budget.save(now, self.clock.now_s());
        drop(passage);
        if let Some(saved) = saved {
            self.keep_budget(&saved);
        }
        grant
    }

    /// Writes the budget down: once in an eighth of the bucket.
    fn keep_budget(&self, saved: &SavedBudget) {
        let kept = keep(&self.state, saved);
        self.passage().budget.saved(kept);
    }

    /// Learns from how a call ended, and gives a failure its reason.
    fn judge(
        &self,
        model: &ActiveModel,
        ask: &Ask,
        began: Instant,
        result: Result<CloudAnswer, Problem>,
    ) -> Result<CloudAnswer, (Reason, Problem)> {
        let now = Instant::now();
        let failure = result.as_ref().err();
        let reason = failure.map(reason_of);
        let retry_after = failure.and_then(retry_after);
        let mut passage = self.passage();
        // Nobody waits for a check, so that a busy cloud leaves it aside: its end says nothing.
        if !ask.check {
            let works = failure.is_none_or(|p| is_the_askers_fault(p) || retry_after.is_some());
            passage.ended(works, began, now);
        }
        let link = passage.link.state();
        drop(passage);
        // One that is late would have taken longer still.
        if !ask.check && matches!(reason, None | Some(Reason::CloudLate)) {
            model.outlook().cloud.took(ask.bytes, link, now - began, now);
        }
        if let Some(wait) = retry_after.filter(|_| !ask.check) {
            model.outlook().refused(wait, now);
        }
        match result {
            Ok(answer) => {
                self.counters.received(answer.received_bytes);
                Ok(answer)
            }
            Err(problem) => Err((reason.unwrap_or(Reason::CloudFailed), problem)),
        }
    }
}

fn reason_of(problem: &Problem) -> Reason {
    match problem.code {
        ProblemCode::DeadlineExceeded => Reason::CloudLate,
        ProblemCode::Unreachable | ProblemCode::GoingAway => Reason::CloudUnreachable,
        ProblemCode::Overloaded if problem.retry_after_ms > 0 => Reason::CloudBusy,
        _ => Reason::CloudFailed,
    }
}

/// When a cloud that has too much to do wants to be asked again.
fn retry_after(problem: &Problem) -> Option<Duration> {
    let wait = Duration::from_millis(problem.retry_after_ms.into());
    (problem.code == ProblemCode::Overloaded && !wait.is_zero()).then_some(wait)
}

fn absent(reason: Reason) -> Problem {
    match reason {
        Reason::CloudLate => Problem::new(
            ProblemCode::DeadlineExceeded,
            "the cloud cannot answer before the deadline",
        )
        .hint("allow more time with the parameter \"timeout\" (microseconds)"),
        Reason::Budget => Problem::new(
            ProblemCode::Overloaded,
            "the day's budget for the cloud is spent for now",
        )
        .hint(
            "[offload] calls_per_day and bytes_per_day in agent.toml; higher priorities go first",
        ),
        Reason::CloudBusy => Problem::new(
            ProblemCode::Overloaded,
            "the cloud has too much to do, and is not asked now",
        )
        .hint("ask again soon; the operator can give the model more sessions, or add a node"),
        _ => Problem::new(ProblemCode::Unreachable, "the cloud cannot be reached now")
            .hint("outrigger-agent status tells why"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_names_a_time_is_no_failure() {
        let busy = Problem::new(ProblemCode::Overloaded, "").retry_after_ms(30);
        let lost = Problem::new(ProblemCode::Overloaded, "");
        let late = Problem::new(ProblemCode::DeadlineExceeded, "").retry_after_ms(30);
        for (problem, reason, wait) in [
            (busy, Reason::CloudBusy, Some(Duration::from_millis(30))),
            (lost, Reason::CloudFailed, None),
            (late, Reason::CloudLate, None),
        ] {
            assert_eq!((reason_of(&problem), retry_after(&problem)), (reason, wait));
        }
    }
}
