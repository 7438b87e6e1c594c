//! One request from arrival to answer: carries out what `edge::offload` decides.

use crate::counters::Counters;
use crate::engine::{ActiveModel, EdgeAnswer, Engine};
use crate::sequences::{Place, SequenceStates};
use crate::uplink::Uplink;
use crate::uplink::deferral::CloudAnswer;
use edge::breaker::Breaker;
use edge::offload::{Action, Event, Path, Request, ask_budget, route, route_sequence};
use models::stream::Piece;
use protocol::infer::{InferRequest, InferResponse, Placement, Reason, Timing, Verdict};
use protocol::problem::{Problem, ProblemCode};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

/// All that answering needs.
pub(crate) struct Requests {
    engine: Arc<Engine>,
    uplink: Uplink,
    counters: Arc<Counters>,
    breaker: Mutex<Breaker>,
    policy: RwLock<crate::config::Offload>,
    sequences: Arc<SequenceStates>,
}

/// What a request has gathered so far.
#[derive(Default)]
struct Hand {
    /// What a piece of a sequence goes on from.
    piece: Option<Piece>,
    edge: Option<EdgeAnswer>,
    edge_failure: Option<Problem>,
    cloud: Option<CloudAnswer>,
    cloud_failure: Option<Problem>,
}

impl Requests {
    pub(crate) fn new(
        engine: Arc<Engine>,
        uplink: Uplink,
        counters: Arc<Counters>,
        policy: crate::config::Offload,
        sequences: Arc<SequenceStates>,
    ) -> Self {
        let breaker = Mutex::new(Breaker::new(policy.breaker()));
        Self { engine, uplink, counters, breaker, policy: RwLock::new(policy), sequences }
    }

    /// From now on these rules; requests under way keep theirs.
    pub(crate) fn set_policy(&self, policy: &crate::config::Offload) {
        self.breaker().set_policy(policy.breaker());
        *self.policy.write().unwrap_or_else(PoisonError::into_inner) = policy.clone();
    }

    fn policy(&self) -> RwLockReadGuard<'_, crate::config::Offload> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner)
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
    pub(crate) async fn answer(&self, request: InferRequest) -> Result<InferResponse, Problem> {
        let start = Instant::now();
        let model = self.engine.get(&request.model, request.version);
        let model = model.inspect_err(|problem| self.counters.refused(problem))?;
        let items = model.items(&request);
        let result = self.drive(&model, request, start).await;
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
        result
    }

    async fn drive(
        &self,
        model: &ActiveModel,
        request: InferRequest,
        start: Instant,
    ) -> Result<InferResponse, Problem> {
        let allowed_ms = request.deadline_ms.unwrap_or(self.policy().default_deadline_ms);
        let deadline = start + Duration::from_millis(allowed_ms.into());
        let (mut machine, place) = match &request.sequence {
            None => (route(&model.profile(), request.hint)?, None),
            Some(sequence) => {
                let machine = route_sequence(request.hint)?;
                let place = self.sequences.enter(model, &request.model, sequence, deadline);
                (machine, Some(place.await?))
            }
        };
        let mut hand = Hand { piece: place.as_ref().map(Place::piece), ..Hand::default() };
        let mut action = machine.start();
        loop {
            let event = match action {
                Action::RunEdge => self.run_edge(model, &request, deadline, &mut hand).await,
                Action::AskCloud => {
                    self.ask_cloud(model, &request, &machine, deadline, &mut hand).await
                }
                Action::AnswerEdge(placement, reason) => {
                    if let Some(place) = place {
                        place.answered(hand.edge.as_mut().and_then(|edge| edge.stream.take()));
                    }
                    return hand.answer_edge(model, request, placement, reason);
                }
                Action::AnswerCloud(reason) => return hand.answer_cloud(request, reason),
                Action::FailEdge => return Err(taken(hand.edge_failure)),
                Action::FailCloud => return Err(taken(hand.cloud_failure)),
            };
            action = machine.handle(event).map_err(|e| internal(&e))?;
        }
    }

    async fn run_edge(
        &self,
        model: &ActiveModel,
        request: &InferRequest,
        deadline: Instant,
        hand: &mut Hand,
    ) -> Event {
        match model.run(request, hand.piece.take(), deadline).await {
            Ok(answer) => {
                model.statistics().ran(answer.queue_us, answer.infer_us);
                let accepted = model.profile().accepts(answer.confidence);
                hand.edge = Some(answer);
                if accepted { Event::EdgeAccepted } else { Event::EdgeDoubtful }
            }
            Err(problem) => {
                hand.edge_failure = Some(problem);
                Event::EdgeFailed
            }
        }
    }

    async fn ask_cloud(
        &self,
        model: &ActiveModel,
        request: &InferRequest,
        machine: &Request,
        deadline: Instant,
        hand: &mut Hand,
    ) -> Event {
        if hand.edge_failure.as_ref().is_some_and(is_the_askers_fault) {
            return Event::CloudAbsent(Reason::CloudFailed); // the cloud would refuse it as well
        }
        match self.try_cloud(model, request, machine, deadline).await {
            Ok(answer) => {
                hand.cloud = Some(answer);
                Event::CloudAnswered
            }
            Err((reason, problem)) => {
                hand.cloud_failure = Some(problem);
                Event::CloudAbsent(reason)
            }
        }
    }

    async fn try_cloud(
        &self,
        model: &ActiveModel,
        request: &InferRequest,
        machine: &Request,
        deadline: Instant,
    ) -> Result<CloudAnswer, (Reason, Problem)> {
        let edge_run =
            if machine.keeps_time_for_edge() { model.usual_run() } else { Duration::ZERO };
        let keep = self.policy().margin() + edge_run;
        let connected = self.uplink.can_ask();
        let breaker_allows = connected && self.breaker().allow(Instant::now());
        let remaining = deadline.saturating_duration_since(Instant::now());
        let budget = ask_budget(Path { connected, breaker_allows }, remaining, keep);
        let budget = budget.map_err(|reason| (reason, absent(reason)))?;
        self.counters.sent(request.inputs.iter().map(|t| t.data().len() as u64).sum());
        self.judge(self.uplink.ask(request, model.target().version, budget).await)
    }

    /// Tells the breaker how a deferral ended, and gives the failure its reason.
    fn judge(
        &self,
        result: Result<CloudAnswer, Problem>,
    ) -> Result<CloudAnswer, (Reason, Problem)> {
        match result {
            Ok(answer) => {
                self.breaker().succeeded();
                self.counters.received(answer.received_bytes);
                Ok(answer)
            }
            Err(problem) => {
                if is_the_askers_fault(&problem) {
                    self.breaker().succeeded(); // the cloud works
                } else {
                    self.breaker().failed(Instant::now());
                }
                let reason = match problem.code {
                    ProblemCode::DeadlineExceeded => Reason::CloudLate,
                    ProblemCode::Unreachable | ProblemCode::GoingAway => Reason::CloudUnreachable,
                    _ => Reason::CloudFailed,
                };
                Err((reason, problem))
            }
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether deferral is suspended.
    pub(crate) fn breaker_is_open(&self) -> bool {
        self.breaker().is_open()
    }
}

impl Hand {
    fn answer_edge(
        self,
        model: &ActiveModel,
        request: InferRequest,
        placement: Placement,
        reason: Reason,
    ) -> Result<InferResponse, Problem> {
        let answer = self.edge.ok_or_else(|| taken(None))?;
        let timing = Timing { queue_us: answer.queue_us, infer_us: answer.infer_us, network_us: 0 };
        let verdict = Verdict {
            placement,
            reason,
            version: model.target().version,
            confidence: answer.confidence,
            risk: model.profile().promise(placement, reason),
            label: answer.label,
            timing,
            attempts: 0,
        };
        Ok(InferResponse { model: request.model, id: request.id, outputs: answer.outputs, verdict })
    }

    fn answer_cloud(self, request: InferRequest, reason: Reason) -> Result<InferResponse, Problem> {
        let answer = self.cloud.ok_or_else(|| taken(None))?;
        let verdict = Verdict {
            placement: Placement::Cloud,
            reason,
            version: answer.version,
            confidence: answer.confidence,
            risk: None,
            label: answer.label,
            timing: answer.timing,
            attempts: answer.attempts,
        };
        Ok(InferResponse { model: request.model, id: request.id, outputs: answer.outputs, verdict })
    }
}

/// Whether the request itself is wrong, so that nobody could answer it.
fn is_the_askers_fault(problem: &Problem) -> bool {
    matches!(problem.code, ProblemCode::InvalidRequest | ProblemCode::TooLarge)
}

fn absent(reason: Reason) -> Problem {
    match reason {
        Reason::CloudLate => Problem::new(
            ProblemCode::DeadlineExceeded,
            "the cloud cannot answer before the deadline",
        )
        .hint("allow more time with the parameter \"timeout\" (microseconds)"),
        _ => Problem::new(ProblemCode::Unreachable, "the cloud cannot be reached now")
            .hint("outrigger-agent status tells why"),
    }
}

fn taken(problem: Option<Problem>) -> Problem {
    problem.unwrap_or_else(|| internal(&"an answer without its data"))
}

fn internal(error: &dyn std::fmt::Display) -> Problem {
    Problem::new(ProblemCode::Internal, format!("a fault in the agent: {error}"))
}
