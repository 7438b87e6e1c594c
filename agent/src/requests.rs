//! One request from arrival to answer: carries out what `edge::offload` decides.
//!
//! [`journey`] goes from one action to the next, [`passage`] asks the cloud, [`check`] compares
//! accepted answers with the cloud's afterwards.

mod check;
mod journey;
mod passage;

use check::Check;
pub(crate) use check::Checker;

use crate::audits::{Audits, Watch};
use crate::clock::Clock;
use crate::config::Offload;
use crate::counters::Counters;
use crate::engine::{ActiveModel, Engine};
use crate::sequences::{Place, SequenceStates};
use crate::state::State;
use crate::telemetry::Recorder;
use crate::telemetry::recorder::{self, Ended, Sampled};
use crate::uplink::Uplink;
use ::link::traces::Trace;
use edge::offload::{Passage, Profile, Situation, choose, sequence};
use edge::spool::sampling::Kind;
use journey::Journey;
use protocol::infer::{InferRequest, InferResponse, Placement, Plan, Reason};
use protocol::problem::{Problem, ProblemCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// What answering works with.
pub(crate) struct Parts {
    pub(crate) engine: Arc<Engine>,
    pub(crate) uplink: Uplink,
    pub(crate) counters: Arc<Counters>,
    pub(crate) policy: Offload,
    pub(crate) sequences: Arc<SequenceStates>,
    pub(crate) state: Arc<State>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) audits: Arc<Audits>,
    /// Nothing where the owner wants no telemetry.
    pub(crate) recorder: Option<Arc<Recorder>>,
}

/// All that answering needs.
pub(crate) struct Requests {
    engine: Arc<Engine>,
    uplink: Uplink,
    counters: Arc<Counters>,
    passage: Mutex<Passage>,
    policy: RwLock<Offload>,
    sequences: Arc<SequenceStates>,
    state: Arc<State>,
    clock: Arc<Clock>,
    audits: Arc<Audits>,
    checks: mpsc::Sender<Check>,
    recorder: Option<Arc<Recorder>>,
}

/// What holds for one request.
struct Terms {
    /// How its edge answer is judged, alarms included.
    profile: Profile,
    plan: Plan,
    /// When its answer must be on its way to the application.
    cutoff: Instant,
    watch: Option<Watch>,
}

impl Requests {
    /// With the queue of checks that a [`Checker`] carries out.
    pub(crate) fn new(parts: Parts) -> (Arc<Self>, mpsc::Receiver<Check>) {
        let (checks, queue) = mpsc::channel(check::WAITING_MAX);
        let passage = passage::open(&parts.policy, &parts.state, &parts.clock);
        let Parts { engine, uplink, counters, policy, sequences, state, clock, audits, recorder } =
            parts;
        let requests = Self {
            engine,
            uplink,
            counters,
            passage: Mutex::new(passage),
            policy: RwLock::new(policy),
            sequences,
            state,
            clock,
            audits,
            checks,
            recorder,
        };
        (Arc::new(requests), queue)
    }

    /// From now on these rules; requests under way keep theirs.
    pub(crate) fn set_policy(&self, policy: &Offload) {
        let mut passage = self.passage();
        passage.breaker.set_policy(policy.breaker());
        passage.budget.set_policy(policy.budget(), Instant::now());
        drop(passage);
        self.audits.set_policy(policy.audit());
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy.clone();
    }

    fn policy(&self) -> RwLockReadGuard<'_, Offload> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn passage(&self) -> MutexGuard<'_, Passage> {
        self.passage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The streams with state.
    pub(crate) fn sequences(&self) -> &SequenceStates {
        &self.sequences
    }

    /// The models that answer here.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Answers a request inside its deadline, or says why there is no answer.
    pub(crate) async fn answer(
        &self,
        request: InferRequest,
        trace: &Trace,
    ) -> Result<InferResponse, Problem> {
        let start = Instant::now();
        let model = self.engine.get(&request.model, request.version);
        let model = model.inspect_err(|problem| self.counters.refused(problem))?;
        let items = model.items(&request);
        let request_bytes = size_bytes(&request);
        let kept = self.recorder.as_ref().filter(|recorder| recorder.may_sample(&model));
        let kept = kept.map(|_| request.clone());
        let result = self.drive(&model, request, trace, start).await;
        match &result {
            Ok(response) => {
                self.counters.answered(&response.model, &response.verdict, start.elapsed());
                model.statistics().answered(items, start.elapsed());
            }
            Err(problem) => {
                self.counters.refused(problem);
                model.statistics().failed(start.elapsed());
            }
        }
        model.served().ended(&result);
        if let Some(recorder) = &self.recorder {
            let took = start.elapsed();
            recorder.ended(&Ended { model: &model, request_bytes, result: &result, took });
            self.sample(recorder, &model, kept.as_ref(), &result);
        }
        result
    }

    /// Keeps the input of an answer that is worth learning from, if it is drawn.
    fn sample(
        &self,
        recorder: &Recorder,
        model: &ActiveModel,
        request: Option<&InferRequest>,
        result: &Result<InferResponse, Problem>,
    ) {
        let (Some(request), Ok(response)) = (request, result) else { return };
        let verdict = &response.verdict;
        let alarms = self.audits.status(&response.model).map_or(0, |status| status.alarms);
        let kind = if alarms > 0 { Kind::Drifting } else { recorder::kind_of(verdict.placement) };
        let label = verdict.label.as_deref();
        let is_cloud = verdict.placement == Placement::Cloud;
        recorder.sample(&Sampled {
            model,
            request,
            kind,
            confidence: verdict.confidence,
            label: label.filter(|_| !is_cloud),
            cloud_label: label.filter(|_| is_cloud),
        });
    }

    async fn drive(
        &self,
        model: &Arc<ActiveModel>,
        request: InferRequest,
        trace: &Trace,
        start: Instant,
    ) -> Result<InferResponse, Problem> {
        let (allowed, margin) = self.policy().allows(request.deadline_ms);
        let cutoff = start + (allowed - margin);
        let terms = self.terms(model, &request, cutoff)?;
        let place = match &request.sequence {
            None => None,
            Some(sequence) => {
                Some(self.sequences.enter(model, &request.model, sequence, cutoff).await?)
            }
        };
        let piece = place.as_ref().map(Place::piece);
        let journey = Journey { requests: self, model, request: &request, terms: &terms, trace };
        let mut arrival = journey.travel(piece).await?;
        if let Some(place) = place {
            place.answered(arrival.stream.take());
        }
        Ok(arrival.respond(request, terms.plan))
    }

    /// What is decided before anything runs.
    fn terms(
        &self,
        model: &ActiveModel,
        request: &InferRequest,
        cutoff: Instant,
    ) -> Result<Terms, Problem> {
        let profile = model.profile();
        if request.sequence.is_some() {
            let plan = sequence(request.hint)?;
            return Ok(Terms { profile, plan, cutoff, watch: None });
        }
        let watch = profile.can_defer().then(|| self.audits.call(model));
        let profile = profile.raised(watch.and_then(|watch| watch.raised));
        let situation = self.situation(model, request, &profile, cutoff);
        let plan = choose(&profile, &self.policy().rules(), request.hint, &situation)?;
        Ok(Terms { profile, plan, cutoff, watch })
    }

    fn situation(
        &self,
        model: &ActiveModel,
        request: &InferRequest,
        profile: &Profile,
        cutoff: Instant,
    ) -> Situation {
        let now = Instant::now();
        let mut outlook = model.outlook();
        let (cloud, fill) = if profile.can_defer() {
            let standing = self.standing(now);
            let bytes = self.sent_bytes(model, request, standing.link);
            let estimate = outlook.cloud.estimate(bytes, standing.link);
            let busy = outlook.is_busy(now).then_some(Reason::CloudBusy);
            (standing.closed.or(busy).map_or(Ok(estimate), Err), standing.fill)
        } else {
            (Err(Reason::EdgeOnlyModel), 0.0) // nobody looks
        };
        Situation {
            remaining: cutoff.saturating_duration_since(now),
            edge: outlook.edge.estimate(model.sessions()),
            cloud,
            fill,
            deferred: outlook.deferred(),
            explores: outlook.explores(),
        }
    }

    /// Whether deferral is suspended.
    pub(crate) fn breaker_is_open(&self) -> bool {
        self.passage().breaker.is_open()
    }

    /// How full the day's budget is, 0 to 1.
    pub(crate) fn budget_fill(&self) -> f64 {
        self.passage().budget.fill(Instant::now())
    }
}

fn size_bytes(request: &InferRequest) -> u64 {
    request.inputs.iter().map(|tensor| tensor.data().len() as u64).sum()
}

fn remaining(cutoff: Instant) -> Duration {
    cutoff.saturating_duration_since(Instant::now())
}

/// Whether the request itself is wrong, so that nobody could answer it.
fn is_the_askers_fault(problem: &Problem) -> bool {
    matches!(problem.code, ProblemCode::InvalidRequest | ProblemCode::TooLarge)
}

fn internal(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(ProblemCode::Internal, format!("a fault in the agent: {error}"))
}
